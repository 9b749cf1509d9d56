"""The loss of inpainted luma."""

from torch import Tensor
from torch.nn import functional as F

from src.losses.similarity import masked_ssim


def inpainting_loss(pred: Tensor, true: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """L1 over the lost pixels, and 1 - M, the score's own measure.

    Args:
        pred, true: (B, 1, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 where lost.
    """
    l1 = (F.l1_loss(pred, true, reduction="none") * mask).sum() / mask.sum().clamp(min=1)
    return {"inpaint_l1": l1, "inpaint_ssim": (1 - masked_ssim(pred, true, mask)).mean()}
