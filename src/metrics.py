"""The competition's score, 0.2·S + 0.4·M + 0.4·C, with the library calls that were published."""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.metrics import structural_similarity

WEIGHTS = {"S": 0.2, "M": 0.4, "C": 0.4}
SSIM_WINDOW = 7  # skimage's default, in pixels
HUE_BINS = 180  # OpenCV's 8-bit hue counts steps of 2 degrees


@dataclass(frozen=True)
class Score:
    """S, M and C of one image or their means over several; each at most 1, higher is better."""

    S: float
    M: float
    C: float

    @property
    def score(self) -> float:
        """The leaderboard's weighted sum."""
        return sum(weight * getattr(self, name) for name, weight in WEIGHTS.items())

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in self.as_dict().items())

    def as_dict(self) -> dict[str, float]:
        """`{"S": …, "M": …, "C": …, "score": …}`."""
        return {"S": self.S, "M": self.M, "C": self.C, "score": self.score}


def score_image(true: np.ndarray, pred: np.ndarray, mask: np.ndarray) -> Score:
    """Score one restored image.

    Args:
        true, pred: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, True where the input was lost.

    Raises `ValueError` when shapes or dtypes differ from these.
    """
    if true.shape != pred.shape or true.ndim != 3 or true.shape[2] != 3:
        raise ValueError(f"true {true.shape} and pred {pred.shape} must both be (H, W, 3)")
    if true.dtype != np.uint8 or pred.dtype != np.uint8:
        raise ValueError(f"true {true.dtype} and pred {pred.dtype} must both be uint8")
    if mask.shape != true.shape[:2]:
        raise ValueError(f"mask {mask.shape} does not fit the image {true.shape[:2]}")
    return Score(ssim(true, pred), masked_ssim(true, pred, mask), hue_correlation(true, pred))


def ssim(true: np.ndarray, pred: np.ndarray, data_range: float | None = None) -> float:
    """S: skimage's SSIM over the last axis as channels; (…, 3) uint8 in, at most 1 out.

    The published call takes `data_range` from the prediction. A prediction of one single value has no
    range and the formula becomes 0/0: it scores 1 when it equals the truth and 0 otherwise.
    """
    if data_range is None:
        data_range = int(pred.max()) - int(pred.min())
    if data_range == 0:
        return float(np.array_equal(true, pred))
    return float(structural_similarity(true, pred, channel_axis=-1, data_range=data_range))


def masked_ssim(true: np.ndarray, pred: np.ndarray, mask: np.ndarray) -> float:
    """M: the SSIM of the lost pixels in raster order, a sequence of (N, 3) uint8.

    The range is the whole prediction's, as published. Two cases that the published call cannot compute:
    an empty mask scores 1 (nothing was lost, nothing is wrong), and fewer than 7 pixels are mirrored at
    their ends to the 7 of the window.
    """
    lost_true, lost_pred = true[mask], pred[mask]
    missing = SSIM_WINDOW - len(lost_true)
    if missing == SSIM_WINDOW:
        return 1.0
    if missing > 0:
        ends = ((missing // 2, missing - missing // 2), (0, 0))
        lost_true, lost_pred = (np.pad(lost, ends, mode="symmetric") for lost in (lost_true, lost_pred))
    return ssim(lost_true, lost_pred, data_range=int(pred.max()) - int(pred.min()))


def hue_correlation(true: np.ndarray, pred: np.ndarray) -> float:
    """C: correlation of the two images' hue histograms; (H, W, 3) uint8 RGB in, -1 to 1 out."""
    return float(cv2.compareHist(hue_histogram(true), hue_histogram(pred), cv2.HISTCMP_CORREL))


def hue_histogram(rgb: np.ndarray) -> np.ndarray:
    """Normalized (L2) histogram of OpenCV's 8-bit hue, (180, 1) float32, of (H, W, 3) uint8 RGB."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    histogram = cv2.calcHist([hsv], [0], None, [HUE_BINS], [0, HUE_BINS])
    return cv2.normalize(histogram, histogram)


def mean_score(scores: list[Score]) -> Score:
    """Mean S, M and C over images; raises `ValueError` for an empty list."""
    if not scores:
        raise ValueError("no image to score")
    return Score(*(float(np.mean([getattr(s, name) for s in scores])) for name in ("S", "M", "C")))
