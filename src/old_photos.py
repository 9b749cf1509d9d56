"""Damage of real old photographs: one flat found by rule, the rest by a network; or given as a file."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_holes, remove_small_objects
from torch.nn import functional as F

from src.checkpoints import SHIPPED, load_weights
from src.damage import REFERENCE_SIDE, detect
from src.files import InputError, file_hash, list_images, open_image, require_file, upright
from src.inference import Find, Job, by_rule
from src.models.detector import DamageDetector

Damage = Literal["auto", "flat", "none"]

DETECTOR = SHIPPED / "detector.safetensors"
MAX_PIXELS = 1_500_000  # that the network sees; of larger photos it sees a reduced copy
SURE, POSSIBLE = 0.85, 0.35  # probability of a piece's core, and of the pixels that belong to it
MIN_PIECE = 6  # px of a 512x512 photo; smaller pieces are texture more often than damage


@cache
def load_detector(path: Path = DETECTOR) -> DamageDetector:
    """The trained detector in evaluation mode; raises `InputError` for a missing or broken file."""
    if not path.is_file():
        raise InputError(f"{path}: no such detector; train_detector.py trains one, or fetch weights/ again")
    detector = DamageDetector()
    load_weights(detector, path)
    return detector.eval()


@torch.inference_mode()
def probability(detector: DamageDetector, gray: np.ndarray) -> np.ndarray:
    """(H, W) float32: of each pixel of (H, W) uint8 luma, how probably it is lost."""
    height, width = gray.shape
    luma = torch.from_numpy(gray.astype(np.float32) / 255)[None, None]
    scale = min(1.0, (MAX_PIXELS / gray.size) ** 0.5)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in gray.shape]
        luma = F.interpolate(luma, size, mode="bilinear", align_corners=False, antialias=True)
    multiple = detector.size_multiple
    pad = (0, -luma.shape[-1] % multiple, 0, -luma.shape[-2] % multiple)
    found = detector(F.pad(luma, pad, mode="replicate")).sigmoid()
    found = found[..., : luma.shape[-2], : luma.shape[-1]]
    if scale < 1:
        found = F.interpolate(found, (height, width), mode="bilinear", align_corners=False)
    return found[0, 0].numpy()


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


def find_damage(detector: Path, _: Path, gray: np.ndarray) -> np.ndarray:
    """(H, W) bool of lost pixels: one flat by rule if there is one, else what the network finds."""
    mask = detect(gray)
    return mask if mask.any() else clean_mask(probability(load_detector(detector), gray))


def find_nothing(_: Path, gray: np.ndarray) -> np.ndarray:
    """(H, W) bool without any True: the photo is only coloured."""
    return np.zeros(gray.shape, bool)


def find_in_files(masks: dict[Path, Path], path: Path, gray: np.ndarray) -> np.ndarray:
    """The mask that was drawn for a photo, see `read_mask`; nothing is lost in a photo without one."""
    return read_mask(masks[path], gray.shape) if path in masks else find_nothing(path, gray)


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A mask file as (H, W) bool: what is brighter than middle grey is lost.

    Raises `InputError` when it is unreadable or not of the photo's `shape` (H, W).
    """
    mask = np.asarray(upright(open_image(path)).convert("L")) > 127
    if mask.shape != shape:
        found, wanted = (f"{size[1]}x{size[0]}" for size in (mask.shape, shape))
        raise InputError(f"{path}: size is {found}, the photo's is {wanted}; draw it on the photo itself")
    return mask


FINDERS: dict[Damage, Find] = {
    "auto": partial(find_damage, DETECTOR),
    "flat": by_rule,
    "none": find_nothing,
}


def make_finder(damage: Damage, mask: Path | None, photos: Path, jobs: Sequence[Job]) -> tuple[Find, dict]:
    """What tells the lost pixels of each photo, and what it depends on.

    Args:
        damage: what is looked for, a key of `FINDERS`, where no mask is given.
        mask: a mask file, or a folder of masks named and placed like the photos; a photo without one has no
            damage.
        photos: the photo, or the folder of photos.
        jobs: (photo, PNG to write) pairs.

    Raises `InputError` for a missing mask or detector.
    """
    if mask is None:
        if damage == "auto":
            load_detector(DETECTOR)
        return FINDERS[damage], {"damage": damage}
    if mask.is_dir():
        root = photos if photos.is_dir() else photos.parent
        drawn = {path.relative_to(mask).with_suffix(""): path for path in list_images(mask)}
        named = {photo: drawn.get(photo.relative_to(root).with_suffix("")) for photo, _ in jobs}
        masks = {photo: path.absolute() for photo, path in named.items() if path}
    else:
        masks = {photo: mask.absolute() for photo, _ in jobs}
    if not masks:
        raise InputError(f"{mask}: holds no mask of any photo; name each like its photo")
    for path in masks.values():
        if not path.exists():
            raise InputError(f"{path}: no such mask; draw one in white on black, as large as the photo")
        require_file(path)
    return partial(find_in_files, masks), {"masks": {str(path): file_hash(path) for path in masks.values()}}
