"""Fills the hole's luma at full resolution, from the grey around it."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.fills.exemplar import COSTLY, MIN_KNOWN, costly_fills
from src.fills.regions import MARGIN, MAX_CROP, box_with_margin, reduced, split_mask, thick_regions
from src.fills.simple import ERRORS, FILLS, all_fills
from src.models.base import mean_view, padded, views
from src.utils.processes import progress

STRIDE = 4  # px, sides of the finest feature cells
MULTIPLE = 4 * STRIDE  # sides of the network's input are multiples of this many pixels
THIN_RADIUS = 1  # px around a pixel that fill it in thin damage
WIDTHS = (24, 48, 64)  # channels at strides 4, 8 and 16
DILATIONS = (1, 2, 4, 8)  # the blocks at stride 16 see 300 px in each direction


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
        return x + self.body(x)


class Inpainter(nn.Module):
    """U-Net over cells of 4×4 pixels that mixes fills of the hole and corrects them pixel by pixel.

    Its inputs are every fill and the errors that the costly ones expect. At initialization the mix
    is fixed and the correction is zero.
    """

    def __init__(self):
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.fine = nn.Sequential(conv((FILLS + ERRORS + 2) * STRIDE**2, fine), Block(fine))
        self.middle = nn.Sequential(conv(fine, middle, stride=2), Block(middle, dilation=2))
        blocks = (Block(coarse, dilation) for dilation in DILATIONS)
        self.coarse = nn.Sequential(conv(middle, coarse, stride=2), *blocks)
        self.up_middle = nn.Sequential(conv(coarse + middle, middle), Block(middle))
        self.up_fine = nn.Sequential(conv(middle + fine, fine), Block(fine))
        self.mix = nn.Conv2d(fine, FILLS, 3, 1, 1)
        self.correction = nn.Conv2d(fine, STRIDE**2, 3, 1, 1)
        for head in (self.mix, self.correction):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        # the costly fills come last and are the best
        self.mix.bias.data += torch.tensor((-1.0,) * (FILLS - 2) + (2.0,) * 2)

    def forward(self, gray: Tensor, mask: Tensor, fills: Tensor, cells: Tensor) -> Tensor:
        """Luma (B, 1, H, W), about [0, 1]; equal to `gray` outside the hole.

        `gray` is (B, 1, H, W) in [0, 1], its sides multiples of `MULTIPLE`; `mask` is 1 where lost.
        `fills` are `all_fills` of both and `cells` those of `to_cells`, which an ensemble computes
        once.
        """
        fine = self.fine(cells)
        middle = self.middle(fine)
        x = self.coarse(middle)
        x = self.up_middle(torch.cat([F.interpolate(x, scale_factor=2.0), middle], dim=1))
        x = self.up_fine(torch.cat([F.interpolate(x, scale_factor=2.0), fine], dim=1))
        weights = F.interpolate(self.mix(x), scale_factor=float(STRIDE), mode="bilinear")
        mixed = (fills[:, :FILLS] * weights.softmax(dim=1)).sum(dim=1, keepdim=True)
        filled = mixed + F.pixel_shuffle(self.correction(x), STRIDE)
        return torch.where(mask > 0.5, filled, gray)


def to_cells(fills: Tensor, mask: Tensor) -> Tensor:
    """An inpainter's input, (B, K, H/4, W/4), from `all_fills` and the mask (B, 1, H, W)."""
    fills, errors = fills.split([FILLS, ERRORS], dim=1)
    mean = fills.mean(dim=1, keepdim=True)
    seen = torch.cat([mean * 2 - 1, (fills - mean) * 4, errors, mask], dim=1)
    return F.pixel_unshuffle(seen, STRIDE)


def inpaint(
    inpainters: Sequence[Inpainter],
    luma: np.ndarray,
    mask: np.ndarray,
    tta: int = 1,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """A photo with its holes filled by an ensemble, one region after another; (H, W) float32.

    `luma` is (H, W) float32 in [0, 1], with any values where `mask` (H, W) bool is True (lost);
    `tta` is the number of `src.models.base.views`.
    """
    luma, lost = luma.copy(), mask.copy()
    thick, factor = thick_regions(mask)
    for box, region, is_deep in progress(list(split_mask(thick)), "painting in"):
        members = inpainters if is_deep else inpainters[:1]  # on shallow damage, one is as good
        filled = _fill(members, luma[box], lost[box], region, tta, device, factor)
        luma[box][region] = filled[region]
        lost[box] &= ~region  # known from here on
    if not lost.any():
        return luma
    # on thin damage, better than the networks; NaN in some photos one pixel high
    filled = cv2.inpaint(luma, lost.view(np.uint8), THIN_RADIUS, cv2.INPAINT_NS)
    return np.nan_to_num(filled, copy=False, nan=0.5)


def _fill(
    inpainters: Sequence[Inpainter],
    gray: np.ndarray,
    mask: np.ndarray,
    region: np.ndarray,
    tta: int,
    device: torch.device | str,
    factor: int = 1,
) -> np.ndarray:
    """`gray` (h, w) with a region filled, in a copy reduced at least by `factor`, and to at most
    `MAX_CROP`² pixels."""
    factor = max(factor, math.ceil(math.sqrt(gray.size) / MAX_CROP))
    if factor > 1:
        small, known = reduced(gray, mask, factor)
        lost = known < max(MIN_KNOWN, known.min() + 1e-3)  # never empty
        filled = _fill(inpainters, small, lost, lost, tta, device)
        large = cv2.resize(filled, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        return large[: gray.shape[0], : gray.shape[1]]
    maps = np.concatenate([[gray, mask], costly_fills(gray, mask, region)], dtype=np.float32)
    box = box_with_margin(region, MARGIN)
    crop = np.ascontiguousarray(maps[:, *box])
    maps = views(padded(torch.from_numpy(crop)[None].to(device), MULTIPLE), tta)
    gray_views, mask_views, costly = maps.split([1, 1, COSTLY], dim=1)
    fills = all_fills(gray_views, mask_views, costly)
    images = gray_views, mask_views, fills, to_cells(fills, mask_views)
    mean = sum(inpainter(*images) for inpainter in inpainters)
    mean = mean_view(mean / len(inpainters))[0, 0].nan_to_num(0.5).clamp(0, 1).cpu().numpy()
    filled = gray.copy()
    filled[box] = mean[: crop.shape[1], : crop.shape[2]]
    return filled
