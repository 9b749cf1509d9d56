"""Images at a lower resolution."""

import cv2
import numpy as np


def reduced(gray: np.ndarray, known: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of what is known of factor×factor pixels, and the share that is; the last ones may be
    cut off.

    Args:
        gray: (H, W) float32, any values where unknown.
        known: (H, W) bool.

    Returns: two of (ceil(H / factor), ceil(W / factor)) float32; the mean is 0 where nothing is
    known.
    """
    pad = [(0, -side % factor) for side in gray.shape]
    weight = np.pad(known, pad, mode="edge").astype(np.float32)
    value = np.pad(gray, pad, mode="edge") * weight
    size = weight.shape[1] // factor, weight.shape[0] // factor
    weight, value = (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (weight, value)
    )
    return value / weight.clip(1e-6), weight
