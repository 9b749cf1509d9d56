"""The loss of full_pipeline."""

from torch import Tensor
from torch.nn import functional as F


def three_stage_loss(
    mask_logits: Tensor, inpainted: Tensor, colorized: Tensor, mask: Tensor, gray: Tensor, rgb: Tensor
) -> dict[str, Tensor]:
    """Each of the three stages against its own target.

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
