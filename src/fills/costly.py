"""The fills that take tenths of a second, as channels for the inpainter."""

import numpy as np

from src.fills.exemplar import complete
from src.fills.frequency import extrapolate
from src.fills.regions import deep, parts

COSTLY = 4  # channels of `costly_fills`
MOST_DOUBT = 0.25  # of the luma's range; what is above is as useless


def costly_fills(
    gray: np.ndarray, known: np.ndarray, wanted: np.ndarray | None = None
) -> np.ndarray:
    """The frequency-selective and the exemplar fill of what is deep, each followed by its doubt.

    Args:
        gray: (H, W) float32 in [0, 1], any values where unknown.
        known: (H, W) bool.
        wanted: (H, W) bool, the unknown pixels to fill; all of them if None.

    Returns: (COSTLY, H, W) float32 in [0, 1]; the doubts are in units of `MOST_DOUBT`, and 1 where
    a lost pixel was not filled.
    """
    lost = ~known
    maps = np.stack([gray, lost, gray, lost]).astype(np.float32)
    for box, part in parts(deep(lost if wanted is None else lost & wanted)):
        fills = (extrapolate(gray[box], known[box], part), complete(gray[box], known[box], part))
        for channel, fill in zip((0, 2), fills, strict=True):
            maps[channel, *box][part] = fill.luma[part]
            maps[channel + 1, *box][part] = (fill.doubt[part] / MOST_DOUBT).clip(max=1)
    return maps
