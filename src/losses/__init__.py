"""Training losses: each takes tensors and returns named terms whose sum is minimized."""

import torch
from torch import Tensor
from torch.nn import functional as F

L1_WEIGHT = 100.0  # of the reconstruction beside the adversarial term, Isola et al. 2017 (pix2pix)


def pipeline_loss(
    mask_logits: Tensor, inpainted: Tensor, colorized: Tensor, mask: Tensor, gray: Tensor, rgb: Tensor
) -> dict[str, Tensor]:
    """Terms of the three-stage pipeline, each stage against its own target.

    Args:
        mask_logits: (B, 1, H, W), against `mask` (B, 1, H, W) of 0 and 1.
        inpainted: (B, 1, H, W) in [-1, 1], against the undamaged `gray`.
        colorized: (B, 3, H, W) in [-1, 1], against `rgb`.
    """
    return {
        "mask": F.binary_cross_entropy_with_logits(mask_logits, mask),
        "inpaint": F.l1_loss(inpainted, gray),
        "colorize": F.l1_loss(colorized, rgb),
    }


def generator_loss(fake_logits: Tensor, fake: Tensor, rgb: Tensor) -> dict[str, Tensor]:
    """pix2pix: fool the discriminator, stay near the truth; `fake` and `rgb` (B, 3, H, W) in [-1, 1]."""
    return {
        "adversarial": F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits)),
        "l1": L1_WEIGHT * F.l1_loss(fake, rgb),
    }


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """Tell real from generated; the mean of both cross-entropies, as in the report."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return {"discriminator": (real + fake) / 2}
