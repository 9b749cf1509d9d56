"""The competition's score of a batch of tensors, on the device where they lie."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color import HUES, hue_chroma
from src.metrics import SSIM_WINDOW, Score, score_image

Images = Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]  # true, pred, mask, as for `score_image`


def score_images(images: Images, device: torch.device) -> list[Score]:
    """Score images of one size: on a GPU in one batch there, to 1e-5; on the CPU one by one, to 1e-9."""
    return score_stacked(images, device) if device.type == "cuda" else [score_image(*i) for i in images]


def score_stacked(images: Images, device: torch.device) -> list[Score]:
    """`score_batch` of arrays."""
    true, pred, mask = (torch.from_numpy(np.stack(a)).to(device) for a in zip(*images, strict=True))
    found = score_batch(true.permute(0, 3, 1, 2), pred.permute(0, 3, 1, 2), mask)
    return [Score(*row) for row in torch.stack([found[key] for key in ("S", "M", "C")], dim=1).tolist()]


def score_batch(true: Tensor, pred: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """S, M and C of each image, (B,) float64, as `src.metrics.score_image` defines them, to 1e-5.

    Args:
        true, pred: (B, 3, H, W) uint8 RGB of one device, at least 7 pixels a side.
        mask: (B, H, W) bool, True where the input was lost.
    """
    data_range = (pred.amax(dim=(1, 2, 3)).double() - pred.amin(dim=(1, 2, 3))).unbind()
    rows = zip(true.double(), pred.double(), mask, data_range, strict=True)
    s, m = zip(*[(_ssim(x, y, r), _masked_ssim(x, y, lost, r)) for x, y, lost, r in rows], strict=True)
    histograms = [_hue_histogram(images) for images in (true, pred)]
    a, b = (counts - counts.mean(dim=1, keepdim=True) for counts in histograms)
    return {"S": torch.stack(s), "M": torch.stack(m), "C": F.cosine_similarity(a, b, dim=1)}


def _ssim(x: Tensor, y: Tensor, data_range: Tensor) -> Tensor:
    """Mean SSIM of (3, H, W), or of sequences (3, 1, N), float64; windows of 7×7 pixels, or of 7."""
    window = (min(SSIM_WINDOW, x.shape[1]), SSIM_WINDOW)
    n = window[0] * window[1]
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.stack([x, y, x * x + y * y, x * y])
    a, b, squares, products = F.avg_pool2d(moments, window, stride=1)
    means, cross, sample = a * a + b * b, a * b, n / (n - 1)
    above = (2 * cross + c1) * (2 * sample * (products - cross) + c2)
    similarity = above / ((means + c1) * (sample * (squares - means) + c2))
    equal = (x == y).all().to(similarity.dtype)  # what a prediction of one single value scores
    return torch.where(data_range > 0, similarity.mean(), equal)


def _masked_ssim(x: Tensor, y: Tensor, lost: Tensor, data_range: Tensor) -> Tensor:
    """M of (3, H, W) float64; see `src.metrics.masked_ssim` for small masks."""
    x, y = x[:, lost], y[:, lost]
    missing = SSIM_WINDOW - x.shape[1]
    if missing == SSIM_WINDOW:
        return torch.ones_like(data_range)
    if missing > 0:
        place = torch.arange(-(missing // 2), x.shape[1] + missing - missing // 2, device=x.device)
        place = place % (2 * x.shape[1])
        place = torch.minimum(place, 2 * x.shape[1] - 1 - place)  # mirrored at both ends
        x, y = x[:, place], y[:, place]
    return _ssim(x[:, None], y[:, None], data_range)


def _hue_histogram(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 to (B, 180) float64 counts of OpenCV's 8-bit hue."""
    hue = hue_chroma(rgb)[0].flatten(1).long()
    counts = torch.zeros(len(hue), HUES, dtype=torch.float64, device=hue.device)
    return counts.scatter_add_(1, hue, torch.ones_like(hue, dtype=torch.float64))
