"""Damage that is worth a costly fill, in parts: time and memory follow it, and not the photo."""

from collections.abc import Iterator

import cv2
import numpy as np

# px from the nearest known one; what is no deeper, such as scratches, does without costly fills
THIN = 6
APART = 8  # px; what is nearer is one part
REACH = 3  # of the depth of a part: the surroundings that its fill sees
LEAST_REACH = 128  # px of surroundings, at least


def deep(lost: np.ndarray, radius: int = THIN) -> np.ndarray:
    """(H, W) bool, the lost pixels in or next to a disk of that radius that is lost as a whole."""
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide = cv2.morphologyEx(lost.view(np.uint8), cv2.MORPH_OPEN, disk)
    return lost & (cv2.dilate(wide, disk) > 0)


def parts(
    lost: np.ndarray, least_reach: int = LEAST_REACH
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Rows and columns of each part with its surroundings, and its pixels there, (h, w) bool.

    Args:
        lost: (H, W) bool.
        least_reach: pixels of surroundings on each side, at least.
    """
    near = cv2.dilate(lost.view(np.uint8), np.ones((APART, APART), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(near)
    deepest = depths(lost, labels, count)
    for number in range(1, count):
        left, top, width, height = (int(value) for value in boxes[number, :4])
        reach = max(least_reach, round(REACH * float(deepest[number])))
        rows, columns = (
            slice(max(0, top - reach), top + height + reach),
            slice(max(0, left - reach), left + width + reach),
        )
        part = lost[rows, columns] & (labels[rows, columns] == number)
        if part.any():
            yield (rows, columns), part


def depths(lost: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """(count,) float32, the pixels from the nearest known one to the innermost lost one of each
    label.

    Args:
        lost: (H, W) bool.
        labels: (H, W) integers from 0 to `count` - 1.
    """
    depth = cv2.distanceTransform(lost.view(np.uint8), cv2.DIST_L2, 3)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, labels[lost], depth[lost])
    return deepest
