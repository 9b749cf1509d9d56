"""Luma in the hole, at full resolution, from the grey around it."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.fills.all import DOUBTS, FILLS, all_fills
from src.fills.costly import costly_fills
from src.fills.reduce import reduced
from src.fills.regions import depths
from src.models.base import on_padded
from src.models.tta import mean_over_views

Box = tuple[slice, slice]  # rows and columns

STRIDE = 4  # sides of the finest feature cells, in pixels
MULTIPLE = 4 * STRIDE  # sides of the network's input are multiples of this many pixels
WIDTHS = (24, 48, 64)  # channels at strides 4, 8 and 16
DILATIONS = (1, 2, 4, 8)  # of the blocks at stride 16; together they see 300 px in each direction
FIRST_MIX = (
    *(-1.0,) * (FILLS - 2),
    2.0,
    2.0,
)  # logits of the fills; the last ones are the costly fills
MARGIN = 48  # pixels of surroundings that the network sees on each side of a hole
SEARCH = 128  # pixels of surroundings that the fills see
MAX_CROP = 512  # root of the number of pixels that are inpainted at once
TILE = 304  # side of the tiles that thin damage is filled in
WIDE = 24  # pixels from the nearest known one; nothing of a thin part is as far
LEAST_KNOWN = 0.5  # share of a reduced pixel that must be known for it to count as known


def conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalization, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


class Block(nn.Module):
    """Residual block of two convolutions, the first one dilated."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.body = nn.Sequential(conv(width, width, dilation=dilation), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        return x + self.body(x)


class CellUNet(nn.Module):
    """U-Net of three levels over cells of `stride` × `stride` pixels; the heads are the user's.

    Args:
        inputs: channels of the image.
        stride: side of a cell in pixels; the levels lie at this stride, twice and four times it.
        widths: channels of the three levels, from fine to coarse.
        middle_dilation: of the block of the middle level.
        coarse_dilations: of the blocks of the coarse level.
    """

    def __init__(
        self,
        inputs: int,
        stride: int,
        widths: tuple[int, int, int],
        middle_dilation: int,
        coarse_dilations: Sequence[int],
    ):
        super().__init__()
        fine, middle, coarse = widths
        self.stride = stride
        self.fine = nn.Sequential(conv(inputs * stride**2, fine), Block(fine))
        self.middle = nn.Sequential(conv(fine, middle, stride=2), Block(middle, middle_dilation))
        self.coarse = nn.Sequential(
            conv(middle, coarse, stride=2),
            *(Block(coarse, dilation) for dilation in coarse_dilations),
        )
        self.up_middle = nn.Sequential(conv(coarse + middle, middle), Block(middle))
        self.up_fine = nn.Sequential(conv(middle + fine, fine), Block(fine))

    def features(self, image: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, widths[0], H / stride, W / stride); sides are multiples of 4 ·
        stride."""
        fine = self.fine(F.pixel_unshuffle(image, self.stride))
        middle = self.middle(fine)
        x = self.coarse(middle)
        x = self.up_middle(torch.cat([F.interpolate(x, scale_factor=2.0), middle], dim=1))
        return self.up_fine(torch.cat([F.interpolate(x, scale_factor=2.0), fine], dim=1))


class Inpainter(CellUNet):
    """U-Net over cells of 4×4 pixels that mixes fills of the hole and corrects them pixel by pixel.

    It sees what each fill makes of the hole, and the doubts of those that have some. At first the
    mix is a fixed one and the correction is zero.
    """

    def __init__(self):
        super().__init__(FILLS + DOUBTS + 2, STRIDE, WIDTHS, 2, DILATIONS)
        self.mix = nn.Conv2d(WIDTHS[0], FILLS, 3, 1, 1)
        self.correction = nn.Conv2d(WIDTHS[0], STRIDE**2, 3, 1, 1)
        for head, bias in (
            (self.mix, torch.tensor(FIRST_MIX)),
            (self.correction, torch.zeros(STRIDE**2)),
        ):
            nn.init.zeros_(head.weight)
            head.bias.data.copy_(bias)

    def forward(self, gray: Tensor, mask: Tensor, fills: Tensor) -> Tensor:
        """Luma (B, 1, H, W), about [0, 1]; equal to `gray` outside the hole.

        Args:
            gray: (B, 1, H, W) in [0, 1], any values in the hole; sides are multiples of `MULTIPLE`.
            mask: (B, 1, H, W), 1 where lost.
            fills: `all_fills` of both, which an ensemble computes once.
        """
        fills, doubts = fills.split([FILLS, DOUBTS], dim=1)
        mean = fills.mean(dim=1, keepdim=True)
        x = self.features(torch.cat([mean * 2 - 1, (fills - mean) * 4, doubts, mask], dim=1))
        weights = F.interpolate(self.mix(x), scale_factor=float(STRIDE), mode="bilinear").softmax(
            dim=1
        )
        filled = (fills * weights).sum(dim=1, keepdim=True) + F.pixel_shuffle(
            self.correction(x), STRIDE
        )
        return torch.where(mask > 0.5, filled, gray)


def inpaint(inpainters: Sequence[Inpainter], damaged: Tensor, mask: Tensor, tta: int) -> Tensor:
    """`damaged` (1, 1, H, W) with the holes filled by an ensemble, in [0, 1]; see `pieces`."""
    lost = (mask[0, 0] > 0.5).cpu().numpy()
    if not lost.any():
        return damaged
    gray = damaged[0, 0].cpu().numpy().copy()
    for box, piece in pieces(lost):
        filled = _fill(inpainters, gray[box], lost[box], piece, tta, mask.device)
        gray[box][piece] = filled[piece]
        lost[box] &= ~piece  # the next piece sees it as known
    return torch.from_numpy(gray)[None, None].to(damaged.device)


def _fill(
    inpainters: Sequence[Inpainter],
    gray: np.ndarray,
    lost: np.ndarray,
    piece: np.ndarray,
    tta: int,
    device: torch.device,
) -> np.ndarray:
    """The ensemble's fill (h, w) of a piece; that of a reduced copy if it has over `MAX_CROP`²
    pixels."""
    factor = math.ceil(math.sqrt(gray.size) / MAX_CROP)
    if factor > 1:
        small, share = reduced(gray, ~lost, factor)
        missing = share < LEAST_KNOWN
        filled = _fill(inpainters, small, missing, missing, tta, device)
        large = cv2.resize(filled, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        return large[: gray.shape[0], : gray.shape[1]]
    costly = costly_fills(gray, ~lost, piece)
    box = surroundings(piece, MARGIN)
    maps = (gray[None], lost[None], costly)
    maps = (
        torch.from_numpy(np.ascontiguousarray(m[:, *box], np.float32))[None].to(device)
        for m in maps
    )

    def mean_fill(gray: Tensor, mask: Tensor, costly: Tensor) -> list[Tensor]:
        fills = all_fills(gray, mask, costly)
        return [sum(inpainter(gray, mask, fills) for inpainter in inpainters) / len(inpainters)]

    (mean,) = on_padded(partial(mean_over_views, mean_fill, tta), MULTIPLE, *maps)
    filled = gray.copy()
    filled[box] = mean[0, 0].nan_to_num(0.5).clamp(0, 1).cpu().numpy()
    return filled


def pieces(lost: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Split a hole into what is filled at once, so that time and memory are bounded.

    What fits into `MAX_CROP`² pixels with its surroundings is one piece. Else each wide part is
    one, which is filled at a lower resolution where it is too large and so has no seams; and thin
    damage, which may run all
    over the photo, is filled in tiles at full resolution: all that it needs to see is near.

    Args:
        lost: (H, W) bool with some True.

    Yields: rows and columns with the surroundings, and what of them is to be filled, (h, w) bool.
    """
    box = surroundings(lost, SEARCH)
    if math.prod(line.stop - line.start for line in box) <= MAX_CROP**2:
        yield box, lost[box]
        return
    count, labels = cv2.connectedComponents(lost.view(np.uint8))
    wide = lost & (depths(lost, labels, count) > WIDE)[labels]
    near = cv2.dilate(wide.view(np.uint8), np.ones((MARGIN, MARGIN), np.uint8))
    _, groups = cv2.connectedComponents(near)
    for number in range(1, groups.max() + 1):
        part = wide & (groups == number)
        box = surroundings(part, SEARCH)
        yield box, part[box]
    thin, side = lost & ~wide, TILE
    for top in range(0, lost.shape[0], side):
        for left in range(0, lost.shape[1], side):
            corner = max(0, top - MARGIN), max(0, left - MARGIN)
            part = thin[corner[0] : top + side + MARGIN, corner[1] : left + side + MARGIN].copy()
            inside = np.zeros_like(part)
            inside[top - corner[0] :, left - corner[1] :][:side, :side] = True
            part &= inside
            if part.any():
                box = surroundings(part, MARGIN)
                place = zip(box, corner, strict=True)
                yield tuple(slice(line.start + n, line.stop + n) for line, n in place), part[box]


def surroundings(lost: np.ndarray, margin: int) -> Box:
    """Rows and columns of (H, W) bool from the first to the last True, with `margin` more on each
    side."""
    rows, columns = (np.flatnonzero(lost.any(axis=axis)) for axis in (1, 0))
    ends = zip((rows, columns), lost.shape, strict=True)
    return tuple(
        slice(max(0, int(n[0]) - margin), min(size, int(n[-1]) + 1 + margin)) for n, size in ends
    )
