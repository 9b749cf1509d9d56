"""Finding damage: callables from luma (H, W) uint8 to a mask (H, W) bool, True where lost.

`src.damage.hole.find_hole` finds the hole of the competition; the others are here.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_holes, remove_small_objects
from torch import Tensor
from torch.nn import functional as F

from src.damage.hole import REFERENCE_SIDE, find_hole
from src.runtime.errors import InputError
from src.runtime.files import require_file
from src.runtime.images import list_images, open_image
from src.runtime.pixels import upright

Finder = Callable[[np.ndarray], np.ndarray]

DETECTED_PIXELS = 1_500_000  # that the network sees; of larger photos it sees a reduced copy
SURE, POSSIBLE = 0.85, 0.35  # probability of a piece's core, and of the pixels that belong to it
MIN_PIECE = 6  # px of a 512x512 photo; smaller pieces are texture more often than damage


def find_nothing(gray: np.ndarray) -> np.ndarray:
    """A mask without any True: the photo is only coloured."""
    return np.zeros(gray.shape, bool)


class DamageFinder:
    """The hole of the competition if there is one, else scratches, creases, stains and tears.

    Args:
        probability: maps luma (1, 1, h, w) float32 in [0, 1] of any size to the probability of each pixel
            being lost, (1, 1, h, w), as `src.models.detector.DamageDetector.probability`.
    """

    def __init__(self, probability: Callable[[Tensor], Tensor]):
        self._probability = probability

    def __call__(self, gray: np.ndarray) -> np.ndarray:
        """The mask of a photo."""
        mask = find_hole(gray)
        return mask if mask.any() else clean_mask(self.probability(gray))

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


class MaskFile:
    """The mask that somebody drew: what is brighter than middle grey in an image file is lost."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, gray: np.ndarray) -> np.ndarray:
        """The mask of a photo; raises `InputError` when it is unreadable or not of the photo's size."""
        mask = np.asarray(upright(open_image(self.path)).convert("L")) > 127
        if mask.shape != gray.shape:
            found, wanted = (f"{size[1]}x{size[0]}" for size in (mask.shape, gray.shape))
            reason = f"size is {found}, the photo's is {wanted}; draw it on the photo itself"
            raise InputError(f"{self.path}: {reason}")
        return mask


def match_masks(mask: Path, root: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """The mask file of each of `photos` below `root`; a photo without one is left out.

    Args:
        mask: a mask file for all, or a folder of masks named and placed like the photos.

    Raises `InputError` for a missing file or folder, and where no photo has a mask.
    """
    if mask.is_dir():
        drawn = {path.relative_to(mask).with_suffix(""): path for path in list_images(mask)}
        named = {photo: drawn.get(photo.relative_to(root).with_suffix("")) for photo in photos}
        masks = {photo: path for photo, path in named.items() if path}
    elif not os.path.lexists(mask):
        raise InputError(f"{mask}: no such mask; draw one in white on black, as large as the photo")
    else:
        masks = dict.fromkeys(photos, mask)
    if not masks:
        raise InputError(f"{mask}: holds no mask of any photo; name each like its photo")
    for path in set(masks.values()):
        require_file(path)
    return {photo: path.absolute() for photo, path in masks.items()}
