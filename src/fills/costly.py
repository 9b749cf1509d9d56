"""The fills that take tenths of a second, as channels for the inpainter."""

import cv2
import numpy as np

from src.fills.exemplar import complete
from src.fills.frequency import extrapolate

COSTLY = 4  # channels of `costly_fills`
THIN = 6  # px from the nearest known one; what is thinner does without costly fills
MOST_DOUBT = 0.25  # of the luma's range; what is above is as useless


def costly_fills(gray: np.ndarray, known: np.ndarray, wanted: np.ndarray | None = None) -> np.ndarray:
    """The frequency-selective and the exemplar fill, each followed by its doubt.

    Args:
        gray: (H, W) float32 in [0, 1], any values where unknown.
        known: (H, W) bool.
        wanted: (H, W) bool, the unknown pixels to fill; all of them if None. Nothing is computed, and the
            doubts are 1, if none of them lies deeper than `THIN`.

    Returns: (COSTLY, H, W) float32 in [0, 1]; the doubts in units of `MOST_DOUBT`.
    """
    wanted = ~known if wanted is None else wanted
    if cv2.distanceTransform(wanted.view(np.uint8), cv2.DIST_L2, 3).max() <= THIN:
        return np.stack([gray, wanted, gray, wanted]).astype(np.float32)
    maps = [*extrapolate(gray, known, wanted), *complete(gray, known)]
    for doubt in (1, 3):
        maps[doubt] = (maps[doubt] / MOST_DOUBT).clip(max=1)
    return np.stack(maps)
