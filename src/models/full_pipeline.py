"""The team report's second system: three U-Nets in a row, trained together."""

from collections.abc import Iterator

import torch
from torch import Tensor

from src.losses import three_stage_loss
from src.models.base import Batch, RestorationModel, unit_range
from src.models.encoders import unet
from src.models.options import FullPipelineOptions


class FullPipeline(RestorationModel):
    """Mask (1→1), inpainting (grey and mask, 2→1) and colour (1→3) U-Nets.

    The architecture is the report's. We fixed: the mask had no target (now binary cross-entropy
    against the hole); the inpainting loss compared with the damaged input (now with the undamaged
    grey); outputs in [-1, 1] were saved as if in [0, 1]; test files were renamed by row number
    (`infer.py` keeps names). The mask enters the second U-Net as a probability instead of a raw
    score.
    """

    def __init__(self, options: FullPipelineOptions):
        super().__init__(options)
        encoder = options.encoder, options.encoder_weights
        self.mask_model = unet(*encoder, in_channels=1, classes=1)
        self.inpaint_model = unet(*encoder, in_channels=2, classes=1)
        self.colorize_model = unet(*encoder, in_channels=1, classes=3)

    def forward(self, damaged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits, grey (B, 1, H, W) and RGB (B, 3, H, W) from grey; images in [-1, 1]."""
        mask_logits = self.mask_model(damaged)
        inpainted = self.inpaint_model(torch.cat([damaged, mask_logits.sigmoid()], dim=1))
        return mask_logits, inpainted, self.colorize_model(inpainted)

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """One step of all three U-Nets."""
        keys = ("damaged", "mask", "gray", "rgb")
        damaged, mask, gray, rgb = (unit_range(batch[key]) for key in keys)
        outputs = self(damaged * 2 - 1)
        yield "model", three_stage_loss(*outputs, mask, gray * 2 - 1, rgb * 2 - 1)

    def rgb(self, damaged: Tensor, mask: Tensor) -> Tensor:
        """RGB (B, 3, H, W), about [0, 1]; the model finds the hole itself and ignores `mask`."""
        return self(damaged * 2 - 1)[2] / 2 + 0.5
