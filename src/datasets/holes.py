"""Holes to train the inpainter on, with the fills that are too slow to be computed in each step."""

import numpy as np

from src.fills.costly import COSTLY, costly_fills

CROP = 256  # side of an example in pixels
SEEN = 192  # side of the random part of it that a training step sees: smaller parts, more of them
CHANNELS = 2 + COSTLY  # of an example


def hole_example(gray: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """A photo's grey with a hole that is filled, cropped around the hole.

    Args:
        gray: (H, W) uint8, undamaged.
        lost: (H, W) bool with some True.

    Returns: (CHANNELS, CROP, CROP) uint8, or smaller where the photo is: grey, 255 where lost,
    costly fills.
    """
    fills = costly_fills(gray.astype(np.float32) / 255, ~lost)
    box = crop_around(lost)
    maps = [gray[box], lost[box] * np.uint8(255), *(fills[:, *box] * 255).round().astype(np.uint8)]
    return np.stack(maps)


def random_part(example: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(CHANNELS, SEEN, SEEN) of an example, or less where it is smaller, mirrored or not."""
    top, left = (int(rng.integers(max(0, side - SEEN) + 1)) for side in example.shape[1:])
    part = example[:, top : top + SEEN, left : left + SEEN]
    return part[..., ::-1] if rng.random() < 0.5 else part


def crop_around(lost: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a crop of `CROP` px with the lost pixels (H, W) in its middle."""
    box = []
    for axis, size in ((1, lost.shape[0]), (0, lost.shape[1])):
        where = np.flatnonzero(lost.any(axis=axis))
        start = (int(where[0]) + int(where[-1])) // 2 - CROP // 2
        start = min(max(0, start), max(0, size - CROP))
        box.append(slice(start, start + CROP))
    return tuple(box)
