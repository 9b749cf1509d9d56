"""A U-Net that finds scratches, cracks, stains and tears in the luma of old photographs."""

from collections.abc import Iterator
from functools import partial

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torch.nn import functional as F

from src.damage.aging import age
from src.datasets.loader import BatchSpec
from src.models.base import Batch, TrainableModel, padded, unit_range
from src.models.encoders import unet
from src.models.options import DetectorOptions

DECODER = (96, 64, 32, 16, 8)  # channels; smp's defaults take twice the time


class DamageDetector(TrainableModel):
    """U-Net that predicts which pixels are lost, trained on photos aged by `src.damage.aging`.

    Its encoder is pretrained on a million photos: it can tell an eye or a letter from a blot.
    """

    # the training crops are parts of 512 px photos
    batch_spec = BatchSpec(("damaged", "mask"), draw_damage=partial(age, scale=1.0))

    def __init__(self, options: DetectorOptions):
        super().__init__(options)
        self.network = unet(options.encoder, options.encoder_weights, 1, 1, DECODER)
        # start at a probability of 5 %, the share of pixels that are lost
        nn.init.constant_(self.network.segmentation_head[0].bias, -3.0)
        self._dice = smp.losses.DiceLoss("binary")

    def forward(self, gray: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of luma in [0, 1], its sides multiples of `size_multiple`."""
        return self.network(gray * 2 - 1)

    def probability(self, gray: Tensor) -> Tensor:
        """Probability of each pixel being lost, from luma (B, 1, H, W) in [0, 1] of any size."""
        device = next(self.parameters()).device
        height, width = gray.shape[-2:]
        logits = self(padded(gray.to(device), self.options.size_multiple))
        return logits[..., :height, :width].sigmoid()

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Cross-entropy and Dice loss of `mask` from `damaged`."""
        logits, mask = self(unit_range(batch["damaged"])).float(), unit_range(batch["mask"])
        cross_entropy = F.binary_cross_entropy_with_logits(logits, mask)
        yield "model", {"cross_entropy": cross_entropy, "dice": self._dice(logits, mask)}
