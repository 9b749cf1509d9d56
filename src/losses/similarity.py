"""SSIM and correlation of tensors, differentiable; the exact ones of uint8 images are in `src.metrics`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from src.metrics import SSIM_WINDOW


def ssim(x: Tensor, y: Tensor, window: tuple[int, int], data_range: float = 1.0) -> Tensor:
    """Mean structural similarity (Wang et al. 2004), a scalar, at most 1.

    Constants and the sample covariance are those of skimage's `structural_similarity`.

    Args:
        x, y: (K, H, W) float, at least as large as the window.
        window: rows and columns of the window; (1, 7) for a sequence.
        data_range: largest less smallest possible value.
    """
    count = window[0] * window[1]
    sample = count / (count - 1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = F.avg_pool2d(moments, window, stride=1)
    var_x, var_y = sample * (xx - mean_x**2), sample * (yy - mean_y**2)
    covariance = sample * (xy - mean_x * mean_y)
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


def masked_ssim(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The score's M of each image, (B,): the one-dimensional SSIM of the lost pixels in raster order.

    Args:
        x, y: (B, K, H, W) in [0, 1]; 1 is taken as the range of the data.
        mask: (B, 1, H, W), 1 where lost. An image with fewer than 7 lost pixels has an M of 1.
    """
    lost = mask[:, 0] > 0.5
    place, counts = lost.flatten().nonzero()[:, 0], lost.flatten(1).sum(dim=1).tolist()  # one wait for a GPU
    parts = (image.transpose(0, 1).flatten(1)[:, place].split(counts, dim=1) for image in (x, y))
    found = []
    for a, b in zip(*parts, strict=True):
        too_few = a.shape[1] < SSIM_WINDOW
        found.append(1 + a.sum() * 0 if too_few else ssim(a[:, None], b[:, None], (1, SSIM_WINDOW)))
    return torch.stack(found)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """OpenCV's HISTCMP_CORREL of histograms: (B, K) and (B, K) to (B,), -1 to 1."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1)
