"""A smooth fill from a pyramid of means."""

import torch
from torch import Tensor
from torch.nn import functional as F


def push_pull(gray: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels smoothly from a pyramid of means of the known ones (Gortler et al. 1996).

    Args:
        gray: (B, 1, H, W), any values where unknown.
        known: (B, 1, H, W) of 0 and 1.

    Returns: (B, 1, H, W); known pixels as they were, 0 everywhere else if none is known.
    """
    if max(gray.shape[-2:]) == 1:
        return gray * known
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(gray * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = push_pull(mean, (weight > 0).float())
    smooth = F.interpolate(coarse, gray.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known > 0, gray, smooth)
