"""Finders of damage: `find(gray) -> Finding` of luma (H, W) uint8."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_holes, remove_small_objects
from torch import Tensor
from torch.nn import functional as F

from src.damage.hole import REFERENCE_SIDE, find_hole, is_drawn

MAX_PIXELS = 1_500_000  # larger photos are reduced to this before the network sees them
SURE, POSSIBLE = 0.95, 0.35  # least probability in the core of a region, and of its other pixels
MAX_SHARE = 0.3  # a network that flags more has mistaken the photo itself for damage
CUT_OUT = 0.5  # a photo with a larger transparent share is a cut-out
MIN_REGION = 6  # px of a 512x512 photo; smaller regions are more often texture than damage


class Finding(NamedTuple):
    """The damage found in a photo."""

    mask: np.ndarray  # (H, W) bool, True where lost
    share: float  # share of the photo that was flagged, even where the mask ignores it

    def __str__(self) -> str:
        if not self.share:
            return "no damage found"
        line = f"{max(self.share, 0.001):.1%} was flagged as damage"
        if self.share > MAX_SHARE:
            line += f"; that is more than {MAX_SHARE:.0%}, so it is ignored"
        return line


Finder = Callable[[np.ndarray], Finding]


def look_for_hole(gray: np.ndarray) -> Finding:
    """The hole of the competition: one region of one constant value."""
    mask = find_hole(gray)
    return Finding(mask, float(mask.mean()))


def look_for_nothing(gray: np.ndarray) -> Finding:
    """No damage: the photo is only coloured."""
    return Finding(np.zeros(gray.shape, bool), 0.0)


class Detector:
    """Finds the hole of the competition or, if there is none, scratches, cracks, stains and tears.

    `network` maps luma (1, 1, h, w) float32 in [0, 1] to the probability of each pixel being lost.
    """

    def __init__(self, network: Callable[[Tensor], Tensor]):
        self.network = network

    def __call__(self, gray: np.ndarray) -> Finding:
        """The damage of (H, W) uint8."""
        mask = find_hole(gray)
        if not (mask.any() and is_drawn(gray, mask)):
            mask = clean_mask(self.probability(gray))
        share = float(mask.mean())
        return Finding(mask if share <= MAX_SHARE else np.zeros_like(mask), share)

    @torch.inference_mode()
    def probability(self, gray: np.ndarray) -> np.ndarray:
        """The network's probability (H, W) float32 that each pixel of (H, W) uint8 is lost."""
        luma = torch.from_numpy(gray.astype(np.float32) / 255)[None, None]
        scale = min(1.0, (MAX_PIXELS / gray.size) ** 0.5)
        if scale < 1:
            size = [max(1, round(side * scale)) for side in gray.shape]
            luma = F.interpolate(luma, size, mode="bilinear", align_corners=False, antialias=True)
        found = self.network(luma)
        if scale < 1:
            found = F.interpolate(found, gray.shape, mode="bilinear", align_corners=False)
        return found[0, 0].cpu().numpy()


def report_damage(
    find: Finder, gray: np.ndarray, clear: np.ndarray | None
) -> tuple[np.ndarray, str]:
    """The damage of a photo (H, W) uint8, (H, W) bool, and a line that reports it.

    Where the photo is transparent (`clear`, (H, W) bool) it is lost as well, unless the finder
    looks for nothing or most of the photo is transparent: then it is a cut-out.
    """
    found = find(gray)
    if clear is None or find is look_for_nothing:
        return found.mask, str(found)
    line = f"{found}; {clear.mean():.1%} is transparent and"
    if clear.mean() > CUT_OUT:
        return found.mask, f"{line} stays white"
    return found.mask | clear, f"{line} counts as lost"


def clean_mask(probability: np.ndarray) -> np.ndarray:
    """(H, W) bool from (H, W) probabilities, with a rim of 1 px where damage and photo mix."""
    mask = apply_hysteresis_threshold(probability, POSSIBLE, SURE)
    smallest = max(1, round(MIN_REGION * (min(mask.shape) / REFERENCE_SIDE) ** 2))
    mask = remove_small_objects(mask, max_size=smallest - 1, connectivity=2)
    mask = remove_small_holes(mask, max_size=smallest)
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
