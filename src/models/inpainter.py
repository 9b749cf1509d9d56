"""Luma in the hole, at full resolution, from the grey around it."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from src.fills.lines import bounds
from src.fills.simple import COUNT, simple_fills
from src.models.base import on_padded
from src.models.tta import mean_over_views
from src.models.unet import CellUNet

Box = tuple[slice, slice]  # rows and columns

STRIDE = 4  # sides of the finest feature cells, in pixels
MULTIPLE = 4 * STRIDE  # sides of the network's input are multiples of this many pixels
WIDTHS = (48, 96, 128)  # channels at strides 4, 8 and 16
DILATIONS = (1, 2, 4, 8)  # of the blocks at stride 16; together they see 300 px in each direction
# logits of the fills; the first one is that along rows
FIRST_MIX = (3.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0)
CROP = 256  # side of the crops that the inpainter is trained on, in pixels
MARGIN = 48  # pixels of surroundings that it sees on each side of a hole
MAX_CROP = 400  # root of the number of pixels that are inpainted at once
WIDE = 24  # pixels from the nearest known one; nothing of a thin part is as far
LEAST_KNOWN = 0.5  # share of a reduced pixel that must be known for it to count as known


class Inpainter(CellUNet):
    """U-Net over cells of 4×4 pixels that mixes simple fills of the hole and corrects them pixel by pixel.

    The fills continue straight lines in eight directions, or are smooth; the network sees them all. At
    first the mix is a fixed one and the correction is zero.
    """

    def __init__(self):
        super().__init__(COUNT + 2, STRIDE, WIDTHS, 2, DILATIONS)
        self.mix = nn.Conv2d(WIDTHS[0], COUNT, 3, 1, 1)
        self.correction = nn.Conv2d(WIDTHS[0], STRIDE**2, 3, 1, 1)
        for head, bias in ((self.mix, torch.tensor(FIRST_MIX)), (self.correction, torch.zeros(STRIDE**2))):
            nn.init.zeros_(head.weight)
            head.bias.data.copy_(bias)

    def forward(self, gray: Tensor, mask: Tensor, fills: Tensor) -> Tensor:
        """Luma (B, 1, H, W), about [0, 1]; equal to `gray` outside the hole.

        Args:
            gray: (B, 1, H, W) in [0, 1], any values in the hole; sides are multiples of `MULTIPLE`.
            mask: (B, 1, H, W), 1 where lost.
            fills: `simple_fills` of both, which an ensemble computes once.
        """
        mean = fills.mean(dim=1, keepdim=True)
        x = self.features(torch.cat([mean * 2 - 1, (fills - mean) * 4, mask], dim=1))
        weights = F.interpolate(self.mix(x), scale_factor=float(STRIDE), mode="bilinear").softmax(dim=1)
        filled = (fills * weights).sum(dim=1, keepdim=True) + F.pixel_shuffle(self.correction(x), STRIDE)
        return torch.where(mask > 0.5, filled, gray)


def inpaint(inpainters: Sequence[Inpainter], damaged: Tensor, mask: Tensor, tta: int) -> Tensor:
    """`damaged` (B, 1, H, W) with the holes filled by an ensemble, in [0, 1]; see `pieces`."""
    if not mask.any():
        return damaged
    luma, hole = damaged.clone(), mask.clone()
    for box, piece in pieces((mask.amax(dim=(0, 1)) > 0.5).cpu().numpy()):
        wanted = torch.from_numpy(piece).to(mask.device) & (hole[..., *box] > 0.5)
        filled = _fill(inpainters, luma[..., *box], hole[..., *box], tta)
        luma[..., *box] = torch.where(wanted, filled.nan_to_num(0.5).clamp(0, 1), luma[..., *box])
        hole[..., *box] = hole[..., *box] * ~wanted  # the next piece sees it as known
    return luma


def _fill(inpainters: Sequence[Inpainter], crop: Tensor, hole: Tensor, tta: int) -> Tensor:
    """The ensemble's fill of a crop (B, 1, h, w), of a reduced copy if it has over `MAX_CROP`² pixels."""
    size = crop.shape[-2:]
    scale = MAX_CROP / math.sqrt(size[0] * size[1])
    if scale < 1:
        small = [max(1, round(side * scale)) for side in size]
        known = F.interpolate(1 - hole, small, mode="area")
        crop = F.interpolate(crop * (1 - hole), small, mode="area") / known.clamp(min=LEAST_KNOWN)
        hole = (known < LEAST_KNOWN).float()

    def mean_fill(crop: Tensor, hole: Tensor) -> list[Tensor]:
        fills = simple_fills(crop, hole)
        return [sum(inpainter(crop, hole, fills) for inpainter in inpainters) / len(inpainters)]

    (filled,) = on_padded(partial(mean_over_views, mean_fill, tta), MULTIPLE, crop, hole)
    return F.interpolate(filled, size, mode="bilinear", align_corners=False) if scale < 1 else filled


def pieces(lost: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Split a hole into what is filled at once, so that time and memory are bounded.

    What fits into `MAX_CROP`² pixels with its surroundings is one piece. Else each wide part is one, which
    is filled at a lower resolution where it is too large and so has no seams; and thin damage, which may
    run all over the photo, is filled in tiles at full resolution: all that it needs to see is near.

    Args:
        lost: (H, W) bool with some True.

    Yields: rows and columns with the surroundings, and what of them is to be filled, (h, w) bool.
    """
    box = surroundings(lost)
    if math.prod(line.stop - line.start for line in box) <= MAX_CROP**2:
        yield box, lost[box]
        return
    _, labels = cv2.connectedComponents(lost.view(np.uint8))
    depth = cv2.distanceTransform(lost.view(np.uint8), cv2.DIST_L2, 3)
    deepest = ndimage.maximum(depth, labels, np.arange(labels.max() + 1))
    wide = lost & (deepest > WIDE)[labels]
    near = cv2.dilate(wide.view(np.uint8), np.ones((MARGIN, MARGIN), np.uint8))
    _, groups = cv2.connectedComponents(near)
    for number in range(1, groups.max() + 1):
        part = wide & (groups == number)
        box = surroundings(part)
        yield box, part[box]
    thin, side = lost & ~wide, MAX_CROP - 2 * MARGIN
    for top in range(0, lost.shape[0], side):
        for left in range(0, lost.shape[1], side):
            corner = max(0, top - MARGIN), max(0, left - MARGIN)
            part = thin[corner[0] : top + side + MARGIN, corner[1] : left + side + MARGIN].copy()
            inside = np.zeros_like(part)
            inside[top - corner[0] :, left - corner[1] :][:side, :side] = True
            part &= inside
            if part.any():
                box = surroundings(part)
                place = zip(box, corner, strict=True)
                yield tuple(slice(line.start + n, line.stop + n) for line, n in place), part[box]


def surroundings(lost: np.ndarray) -> Box:
    """Rows and columns of (H, W) bool from the first to the last True, with `MARGIN` more on each side."""
    rows, columns = (np.flatnonzero(lost.any(axis=axis)) for axis in (1, 0))
    ends = zip((rows, columns), lost.shape, strict=True)
    return tuple(slice(max(0, int(n[0]) - MARGIN), min(size, int(n[-1]) + 1 + MARGIN)) for n, size in ends)


def crops_around(masks: Tensor) -> list[Box]:
    """Rows and columns of a crop of `CROP` px with the hole of each of `masks` (B, H, W) in its middle."""
    crops = []
    for axis in (2, 1):
        size = masks.shape[3 - axis]
        starts = [(first + last) // 2 - CROP // 2 for first, last in bounds((masks > 0.5).any(dim=axis))]
        starts = [min(max(0, start), max(0, size - CROP)) for start in starts]
        crops.append([slice(start, start + CROP) for start in starts])
    return list(zip(*crops, strict=True))
