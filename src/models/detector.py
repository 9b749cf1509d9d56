"""Where an old photograph is scratched, stained, creased or torn: a small U-Net over luma."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torch.nn import functional as F

from src.damage.aging import age
from src.models.base import Batch, TrainableModel, on_padded
from src.models.options import DetectorOptions
from src.models.unet import CellUNet

STRIDE = 2  # sides of the finest feature cells, in pixels
WIDTHS = (16, 40, 80)  # channels at strides 2, 4 and 8
DILATIONS = (1, 2, 4)  # of the blocks at stride 8; together they see 80 px in each direction


class DamageDetector(CellUNet, TrainableModel):
    """Logits of each pixel being lost, trained on `src.damage.aging.age`."""

    # the training crops are parts of 512 px photos
    draw_damage: ClassVar = staticmethod(partial(age, scale=1.0))

    def __init__(self, options: DetectorOptions):
        super().__init__(1, STRIDE, WIDTHS, 1, DILATIONS)
        self.options = options
        self.head = nn.Conv2d(WIDTHS[0], STRIDE**2, 3, 1, 1)
        nn.init.constant_(self.head.bias, -3.0)  # about one pixel of twenty is lost
        self._dice = smp.losses.DiceLoss("binary")

    def forward(self, gray: Tensor) -> Tensor:
        """Logits (B, 1, H, W) from luma (B, 1, H, W) in [0, 1]; sides are multiples of `size_multiple`."""
        return F.pixel_shuffle(self.head(self.features(gray * 2 - 1)), STRIDE)

    def probability(self, gray: Tensor) -> Tensor:
        """How probably each pixel is lost, (B, 1, H, W), from luma (B, 1, H, W) in [0, 1] of any size."""
        device = next(self.parameters()).device
        (logits,) = on_padded(lambda image: [self(image)], self.options.size_multiple, gray.to(device))
        return logits.sigmoid()

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Cross-entropy and Dice loss of `mask` from `damaged`."""
        logits = self(batch["damaged"]).float()
        cross_entropy = F.binary_cross_entropy_with_logits(logits, batch["mask"])
        yield "model", {"cross_entropy": cross_entropy, "dice": self._dice(logits, batch["mask"])}
