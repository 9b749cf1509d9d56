"""Colour on the 8-bit lattice: OpenCV's hue, chroma and PIL's luma of whole RGB values.

Hue is OpenCV's 8-bit hue (180 bins of 2 degrees), chroma is max(R, G, B) - min(R, G, B) and luma is
PIL's ``convert("L")``. Adding one number to R, G and B keeps hue and chroma and adds the same
number to the luma, exactly, because PIL's weights add up to one. So a colour is a luma and an
*offset*: a colour of the same hue and chroma with a zero among its channels.
"""

from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor

from src.color.luma import luma

HUES = 180
LEVELS = 256


def hue_chroma(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """OpenCV's 8-bit hue (0 to 179; 0 for grey) and the chroma (0 to 255), in OpenCV's own integer
    steps.

    `rgb` is (B, 3, H, W) of whole numbers from 0 to 255 in any dtype; both results are (B, H, W)
    int32.
    """
    rgb = rgb.int()
    red, green, blue = rgb.unbind(dim=1)
    high = rgb.amax(dim=1)
    chroma = high - rgb.amin(dim=1)
    sector = torch.where(high == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sector = torch.where(high == red, green - blue, sector)
    steps = (sector * _divisors(rgb.device)[chroma] + (1 << 11)) >> 12
    return torch.where(steps < 0, steps + HUES, steps), chroma


@cache
def _divisors(device: torch.device) -> Tensor:
    """(256,) int32: 30 / chroma in steps of 1/4096, as OpenCV tabulates it."""
    levels = torch.arange(LEVELS, dtype=torch.float64)
    table = (HUES / 6 * 4096 / levels.clamp(min=1)).round()
    table[0] = 0
    return table.int().to(device)


@cache
def _offsets() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The offset of each hue and chroma: (180, 256, 3) uint8, its luma, and whether there is one.

    Of several offsets the one whose unrounded hue is nearest to the bin's is taken. Dull colours
    have
    few hues: a chroma of 1 only 0, 30, 60, 90, 120 and 150.
    """
    high, mid = np.meshgrid(np.arange(LEVELS), np.arange(LEVELS), indexing="ij")
    high, mid = high[mid <= high], mid[mid <= high]
    low = np.zeros_like(high)
    orders = [(high, mid, low), (mid, high, low), (low, high, mid)]
    orders += [(low, mid, high), (mid, low, high), (high, low, mid)]
    rgb = np.concatenate([np.stack(order, axis=-1) for order in orders]).astype(np.uint8)[None]
    hue = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[0, :, 0].astype(np.intp)
    chroma = rgb[0].max(axis=-1).astype(np.intp)
    exact = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[0, :, 0] / 2
    distance = np.abs((exact - hue + HUES / 2) % HUES - HUES / 2)
    worst_first = np.argsort(-distance, kind="stable")
    chosen = np.zeros((HUES, LEVELS, 3), np.uint8)
    exists = np.zeros((HUES, LEVELS), bool)
    chosen[hue[worst_first], chroma[worst_first]] = rgb[0, worst_first]
    exists[hue, chroma] = True
    return chosen, luma(chosen), exists


@cache
def _nearest_chroma() -> np.ndarray:
    """(180, 256, 256) uint8: of hue, luma and wanted chroma, the nearest chroma that RGB can show.

    Ties go to the smaller one. Where RGB has no colour of this hue and luma it is 0.
    """
    _, offset_luma, exists = _offsets()
    levels = np.arange(LEVELS)
    gray = levels[None, :, None]
    room = (
        LEVELS - 1 - levels + offset_luma
    )  # the brightest luma: the offset's own plus what is left
    shown = exists[:, None] & (gray >= offset_luma[:, None]) & (gray <= room[:, None])
    below = np.maximum.accumulate(np.where(shown, levels, -LEVELS).astype(np.int16), axis=2)
    above = np.where(shown, levels, 3 * LEVELS).astype(np.int16)[..., ::-1]
    above = np.minimum.accumulate(above, axis=2)[..., ::-1]
    nearest = np.where(levels - below <= above - levels, below, above)
    return np.where(shown.any(axis=2, keepdims=True), nearest, 0).astype(np.uint8)


@cache
def least_chroma(device: torch.device) -> Tensor:
    """(180,) float32: the smallest chroma at which each hue exists, from 0 (hue 0 is also grey) to
    21."""
    exists = _offsets()[2]
    return torch.from_numpy(exists.argmax(axis=1)).float().to(device)


def compose(gray: np.ndarray, hue: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """RGB whose luma is exactly `gray` and whose hue is exactly `hue`, of the nearest possible
    chroma.

    Args:
        gray: (H, W) uint8.
        hue: (H, W) integers from 0 to 179, OpenCV's.
        chroma: (H, W) integers from 0 to 255, max(R, G, B) - min(R, G, B) as wanted.

    Returns: (H, W, 3) uint8. A pixel too dark or too bright for any colour of its hue becomes grey.
    The luma is exact for every input.
    """
    offsets, offset_luma, _ = _offsets()
    chroma = _nearest_chroma()[hue, gray, chroma]
    hue = np.where(chroma > 0, hue, 0)
    base = gray - offset_luma[hue, chroma]
    return offsets[hue, chroma] + base[..., None]
