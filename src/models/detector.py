"""Where an old photograph is scratched, stained, creased or torn: a small U-Net over luma."""

from collections.abc import Iterator
from typing import ClassVar

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.base import Batch
from src.models.inpainter import Block, conv

STRIDE = 2  # sides of the finest feature cells, in pixels
WIDTHS = (16, 40, 80)  # channels at strides 2, 4 and 8
DILATIONS = (1, 2, 4)  # of the blocks at stride 8; together they see 80 px in each direction


class DamageDetector(nn.Module):
    """Logits of each pixel being lost, trained on `src.aging.age`; what `train_detector.py` trains."""

    size_multiple: ClassVar[int] = 8  # sides of the input are multiples of this many pixels
    learning_rate: ClassVar[float] = 2e-3
    loss_weights: ClassVar = {"cross_entropy": 1.0, "dice": 1.0}

    def __init__(self):
        super().__init__()
        self.arguments = {}
        fine, middle, coarse = WIDTHS
        self.fine = nn.Sequential(conv(STRIDE**2, fine), Block(fine))
        self.middle = nn.Sequential(conv(fine, middle, stride=2), Block(middle))
        self.coarse = nn.Sequential(
            conv(middle, coarse, stride=2), *(Block(coarse, dilation) for dilation in DILATIONS)
        )
        self.up_middle = nn.Sequential(conv(coarse + middle, middle), Block(middle))
        self.up_fine = nn.Sequential(conv(middle + fine, fine), Block(fine))
        self.head = nn.Conv2d(fine, STRIDE**2, 3, 1, 1)
        nn.init.constant_(self.head.bias, -3.0)  # about one pixel of twenty is lost
        self._dice = smp.losses.DiceLoss("binary")

    def forward(self, gray: Tensor) -> Tensor:
        """Logits (B, 1, H, W) from luma (B, 1, H, W) in [0, 1]."""
        fine = self.fine(F.pixel_unshuffle(gray * 2 - 1, STRIDE))
        middle = self.middle(fine)
        x = self.coarse(middle)
        x = self.up_middle(torch.cat([F.interpolate(x, scale_factor=2.0), middle], dim=1))
        x = self.up_fine(torch.cat([F.interpolate(x, scale_factor=2.0), fine], dim=1))
        return F.pixel_shuffle(self.head(x), STRIDE)

    def optimizers(self, lr: float, weight_decay: float) -> dict[str, torch.optim.Optimizer]:
        """One AdamW, as `RestorationModel.optimizers`."""
        return {
            "detector": torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
        }

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Cross-entropy and Dice loss of `mask` from `damaged`."""
        logits = self(batch["damaged"]).float()
        cross_entropy = F.binary_cross_entropy_with_logits(logits, batch["mask"])
        yield "detector", {"cross_entropy": cross_entropy, "dice": self._dice(logits, batch["mask"])}
