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
SURE, POSSIBLE = 0.95, 0.35  # probability of a piece's core, and of the pixels that belong to it
MOST = 0.3  # share of a photo; a finder that marks more has mistaken the photo itself for damage
CUT_OUT = 0.5  # share of a photo; what is more transparent was cut out of something
MIN_PIECE = 6  # px of a 512x512 photo; smaller pieces are texture more often than damage


def find_nothing(gray: np.ndarray) -> np.ndarray:
    """A mask without any True: the photo is only coloured."""
    return np.zeros(gray.shape, bool)


class Finding(NamedTuple):
    """What was found in a photo."""

    mask: np.ndarray  # (H, W) bool, what counts as lost
    share: float  # of the photo that looks damaged, believed or not
    clear: float = 0.0  # share of the photo that is transparent

    def __str__(self) -> str:
        if self.share > MOST:
            found = (
                f"{self.share:.0%} looks damaged, which is too much to believe, so it is not marked"
            )
        elif self.share >= 0.001:
            found = f"{self.share:.1%} taken for damage"
        else:
            found = "less than 0.1% taken for damage" if self.share else "no damage found"
        if not self.clear:
            return found
        fate = "stays white" if self.clear > CUT_OUT else "counts as lost"
        return f"{found}; {self.clear:.1%} is transparent and {fate}"


def find_damage(find: Finder, gray: np.ndarray, clear: np.ndarray | None = None) -> Finding:
    """What a finder marks in a photo (H, W) uint8.

    Args:
        clear: (H, W) bool, where the photo is transparent; lost too, unless nothing is looked for,
            or it is most of the photo, which is then a cut-out.
    """
    found = find.examine(gray) if isinstance(find, DamageFinder) else None
    mask = find(gray) if found is None else found.mask
    share = float(mask.mean()) if found is None else found.share
    if clear is None or find is find_nothing:
        return Finding(mask, share)
    transparent = float(clear.mean())
    return Finding(mask if transparent > CUT_OUT else mask | clear, share, transparent)


class DamageFinder:
    """The hole of the competition if there is one, else scratches, cracks, stains and tears.

    Args:
        probability: maps luma (1, 1, h, w) float32 in [0, 1] of any size to the probability of each
            pixel being lost, (1, 1, h, w), as `src.models.detector.DamageDetector.probability`.
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
        """(H, W) float32: how probably each pixel of (H, W) uint8 luma is lost, the hole not
        considered."""
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

    A piece counts if some pixel of it is sure; then all its possible pixels belong to it. Specks
    go, pinholes are closed, and a rim of one pixel is added, where the damage's edge has mixed with
    the photo.
    """
    mask = apply_hysteresis_threshold(probability, POSSIBLE, SURE)
    least = max(1, round(MIN_PIECE * (min(mask.shape) / REFERENCE_SIDE) ** 2))
    mask = remove_small_objects(mask, max_size=least - 1, connectivity=2)
    mask = remove_small_holes(mask, max_size=least)
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
