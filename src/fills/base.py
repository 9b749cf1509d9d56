"""What every fill returns."""

from typing import NamedTuple

import numpy as np


class Fill(NamedTuple):
    """A hole filled in one way.

    luma: (H, W) float32 in [0, 1]; known pixels as they were.
    doubt: (H, W) float32 from 0, an error that the method expects of itself, in units of the luma;
        0 where known.
    """

    luma: np.ndarray
    doubt: np.ndarray
