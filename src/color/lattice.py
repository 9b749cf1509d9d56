"""Colour on the 8-bit lattice: OpenCV's hue, chroma and PIL's luma of whole RGB values.

Hue is OpenCV's 8-bit hue (180 bins of 2 degrees), chroma is max(R, G, B) - min(R, G, B) and luma is
PIL's ``convert("L")``. Adding one number to R, G and B keeps hue and chroma and adds the same
number to the luma, exactly, because PIL's weights add up to one. So a colour is a luma and an
*offset*: a colour of the same hue and chroma with a zero among its channels.

No torch here: processes that only draw, find or score damage do without it.
"""

from functools import cache

import cv2
import numpy as np
from PIL import Image

HUES = 180
LEVELS = 256


def luma(rgb: np.ndarray) -> np.ndarray:
    """PIL's ``convert("L")`` of (H, W, 3) uint8 RGB, (H, W) uint8."""
    return np.asarray(Image.fromarray(rgb).convert("L"))


@cache
def _offsets() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The offset of each hue and chroma: (180, 256, 3) uint8, its luma, and whether there is one.

    If there are several, it is the one whose unrounded hue is nearest to the bin's. Dull colours
    have few hues: a chroma of 1 only 0, 30, 60, 90, 120 and 150.
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
    """(180, 256, 256) uint8: for a hue, luma and wanted chroma, the nearest that RGB can show
    (of two, the smaller); 0 where RGB has no colour of this hue and luma."""
    _, offset_luma, exists = _offsets()
    levels = np.arange(LEVELS)
    gray = levels[None, :, None]
    brightest = LEVELS - 1 - levels + offset_luma  # the offset's own luma plus the headroom
    shown = exists[:, None] & (gray >= offset_luma[:, None]) & (gray <= brightest[:, None])
    below = np.maximum.accumulate(np.where(shown, levels, -LEVELS).astype(np.int16), axis=2)
    above = np.where(shown, levels, 3 * LEVELS).astype(np.int16)[..., ::-1]
    above = np.minimum.accumulate(above, axis=2)[..., ::-1]
    nearest = np.where(levels - below <= above - levels, below, above)
    return np.where(shown.any(axis=2, keepdims=True), nearest, 0).astype(np.uint8)


def shown_hues() -> np.ndarray:
    """(256, 180) bool: whether RGB has a colour of this luma and hue; a hue of 0 always counts,
    since grey has it."""
    shown = _nearest_chroma().any(axis=2).T
    shown[:, 0] = True
    return shown


def min_chroma() -> np.ndarray:
    """(180,) float32: the smallest chroma at which each hue exists, 0 (also grey's hue) to 21."""
    return _offsets()[2].argmax(axis=1).astype(np.float32)


def compose(gray: np.ndarray, hue: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) uint8 with exactly this luma and hue, and the nearest possible chroma.

    A pixel too dark or too bright for any colour of its hue becomes grey; the luma is exact. All
    are (H, W): `gray` uint8, `hue` integers from 0 to 179 and `chroma` from 0 to 255.
    """
    offsets, offset_luma, _ = _offsets()
    chroma = _nearest_chroma()[hue, gray, chroma]
    hue = np.where(chroma > 0, hue, 0)
    base = gray - offset_luma[hue, chroma]
    return offsets[hue, chroma] + base[..., None]
