"""The losses of a generator and its discriminator (pix2pix, Isola et al. 2017)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def generator_loss(fake_logits: Tensor, fake: Tensor, rgb: Tensor) -> dict[str, Tensor]:
    """Fool the discriminator, and stay near the truth.

    Args:
        fake_logits: the discriminator's opinion of `fake`, of any shape.
        fake, rgb: (B, 3, H, W) in [-1, 1].
    """
    return {
        "adversarial": F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits)),
        "l1": F.l1_loss(fake, rgb),
    }


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """Tell real from generated; the mean of both cross-entropies, as in the team's report."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return {"discriminator": (real + fake) / 2}
