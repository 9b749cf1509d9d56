"""Damage in parts that lie apart, so that time and memory follow the damage and not the photo."""

from collections.abc import Iterator

import cv2
import numpy as np

SURROUNDINGS = 128  # px around a part that a fill sees, or as many as the part is wide
APART = 8  # px; what is nearer is one part


def parts(lost: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Rows and columns of each part with its surroundings, and its pixels there, (h, w) bool.

    `lost` is (H, W) bool.
    """
    near = cv2.dilate(lost.view(np.uint8), np.ones((APART, APART), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(near)
    for number in range(1, count):
        left, top, width, height = (int(value) for value in boxes[number, :4])
        margin = max(SURROUNDINGS, width, height)
        box = (
            slice(max(0, top - margin), top + height + margin),
            slice(max(0, left - margin), left + width + margin),
        )
        part = lost[box] & (labels[box] == number)
        if part.any():
            yield box, part
