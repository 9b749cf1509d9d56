"""How much of the damage of old photos is found, and how much of what is found is damage."""

import cv2
import numpy as np
import pandas as pd

WITHIN = 2  # px; a pixel so near to the true damage, or to the found, counts as hit


def hit_counts(found: np.ndarray, true: np.ndarray) -> dict[str, int]:
    """Pixels of two (H, W) bool masks: `found`, `true`, `hit` (both), and hits within two pixels."""
    square = np.ones((2 * WITHIN + 1,) * 2, np.uint8)
    near_true, near_found = (
        cv2.dilate(mask.astype(np.uint8), square) > 0 for mask in (true, found)
    )
    return {
        "found": int(found.sum()),
        "true": int(true.sum()),
        "hit": int((found & true).sum()),
        "found near": int((found & near_true).sum()),
        "true near": int((true & near_found).sum()),
    }


def detection_rates(table: pd.DataFrame) -> pd.Series:
    """Precision, recall and F1 over the pixels of all photos, exact and within two pixels.

    `table` has a row of `hit_counts` for each photo.
    """
    sums = table.sum()
    rows = {
        "precision": sums["hit"] / max(1, sums["found"]),
        "recall": sums["hit"] / max(1, sums["true"]),
        "precision, 2 px": sums["found near"] / max(1, sums["found"]),
        "recall, 2 px": sums["true near"] / max(1, sums["true"]),
    }
    rows["F1"] = 2 * sums["hit"] / max(1, sums["found"] + sums["true"])
    return pd.Series(rows)
