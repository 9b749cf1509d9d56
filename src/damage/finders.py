"""Finding damage: callables from luma (H, W) uint8 to a mask (H, W) bool, True where lost.

`src.damage.hole.find_hole` finds the hole of the competition; the others are here.
"""

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

Finder = Callable[[np.ndarray], np.ndarray]

DETECTED_PIXELS = 1_500_000  # that the network sees; of larger photos it sees a reduced copy
SURE, POSSIBLE = 0.85, 0.35  # probability of a piece's core, and of the pixels that belong to it
MOST = 0.3  # share of a photo; who finds more has mistaken the photo itself for damage
MIN_PIECE = 6  # px of a 512x512 photo; smaller pieces are texture more often than damage


def find_nothing(gray: np.ndarray) -> np.ndarray:
    """A mask without any True: the photo is only coloured."""
    return np.zeros(gray.shape, bool)


class Finding(NamedTuple):
    """What was found in a photo."""

    mask: np.ndarray  # (H, W) bool, empty where what was found is not believed
    share: float  # of the photo that was found

    def __str__(self) -> str:
        if not self.share:
            return "no damage found"
        if not self.mask.any():
            return f"{self.share:.0%} looks damaged, too much to be believed, so nothing is repaired"
        return f"{self.share:.1%} taken for damage"


def find_damage(find: Finder, gray: np.ndarray, clear: np.ndarray | None = None) -> Finding:
    """What is damaged in a photo (H, W) uint8; `clear`, where it is transparent, is lost as well."""
    found = find.examine(gray) if isinstance(find, DamageFinder) else None
    mask = find(gray) if found is None else found.mask
    if clear is not None and find is not find_nothing and clear.mean() <= MOST:
        mask = mask | clear  # more is a cut-out, which stays on white
    if found is None or mask is not found.mask:
        found = Finding(mask, float(mask.mean()))
    return found


class DamageFinder:
    """The hole of the competition if there is one, else scratches, cracks, stains and tears.

    Args:
        probability: maps luma (1, 1, h, w) float32 in [0, 1] of any size to the probability of each pixel
            being lost, (1, 1, h, w), as `src.models.detector.DamageDetector.probability`.
    """

    def __init__(self, probability: Callable[[Tensor], Tensor]):
        self._probability = probability

    def __call__(self, gray: np.ndarray) -> np.ndarray:
        """The mask of a photo."""
        return self.examine(gray).mask

    def examine(self, gray: np.ndarray) -> Finding:
        """What is found in (H, W) uint8, and whether to believe it."""
        mask = find_hole(gray)
        if not (mask.any() and is_drawn(gray, mask)):
            mask = clean_mask(self.probability(gray))
        share = float(mask.mean())
        return Finding(mask if share <= MOST else find_nothing(gray), share)

    @torch.inference_mode()
    def probability(self, gray: np.ndarray) -> np.ndarray:
        """(H, W) float32: how probably each pixel of (H, W) uint8 luma is lost, the hole not considered."""
        luma = torch.from_numpy(gray.astype(np.float32) / 255)[None, None]
        scale = min(1.0, (DETECTED_PIXELS / gray.size) ** 0.5)
        if scale < 1:
            size = [max(1, round(side * scale)) for side in gray.shape]
            luma = F.interpolate(luma, size, mode="bilinear", align_corners=False, antialias=True)
        found = self._probability(luma)
        if scale < 1:
            found = F.interpolate(found, gray.shape, mode="bilinear", align_corners=False)
        return found[0, 0].cpu().numpy()


def clean_mask(probability: np.ndarray) -> np.ndarray:
    """From (H, W) probabilities to an (H, W) bool mask with fewer false pieces and fewer gaps.

    A piece counts if some pixel of it is sure; then all its possible pixels belong to it. Specks go,
    pinholes are closed, and a rim of one pixel is added, where the damage's edge has mixed with the photo.
    """
    mask = apply_hysteresis_threshold(probability, POSSIBLE, SURE)
    least = max(1, round(MIN_PIECE * (min(mask.shape) / REFERENCE_SIDE) ** 2))
    mask = remove_small_objects(mask, max_size=least - 1, connectivity=2)
    mask = remove_small_holes(mask, max_size=least)
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
