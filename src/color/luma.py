"""PIL's luma, apart from the rest: processes that only draw, find or score damage need no torch."""

import numpy as np
from PIL import Image


def luma(rgb: np.ndarray) -> np.ndarray:
    """PIL's ``convert("L")`` of (H, W, 3) uint8 RGB as (H, W) uint8."""
    return np.asarray(Image.fromarray(rgb).convert("L"))
