"""What training and inference ask of every model."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.decode import Style
from src.models.views import mean_over_views

Batch = dict[str, Tensor]
Estimate = dict[str, Tensor]  # maps (B, K, h, w) of any sizes; an ensemble averages each of them


class RestorationModel(nn.Module):
    """Base of the models: damaged grey in, a colour estimate out.

    A training batch holds `damaged` (B, 1, H, W), `mask` (B, 1, H, W; 1 where lost), `gray` (B, 1, H, W)
    and `rgb` (B, 3, H, W), float32 in [0, 1]. `arguments` rebuilds the model from its checkpoint.
    """

    image_size: ClassVar[int] = 256  # side of the training images in pixels, unless set otherwise
    size_multiple: ClassVar[int] = 32  # inputs are padded to a multiple of this many pixels
    learning_rate: ClassVar[float] = 3e-4
    loss_weights: ClassVar[dict[str, float]]  # of every term that `losses` may yield
    arguments: dict

    def optimizers(self, lr: float, weight_decay: float) -> dict[str, torch.optim.Optimizer]:
        """Optimizers by name; `losses` says which one a loss belongs to."""
        return {"model": torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=weight_decay, fused=True)}

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield (optimizer name, unweighted loss terms); the caller steps before asking for the next."""
        raise NotImplementedError

    def estimate(self, damaged: Tensor, mask: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1] of images whose sides are multiples of `size_multiple`."""
        raise NotImplementedError

    @staticmethod
    def predict(models: "Sequence[RestorationModel]", damaged: Tensor, mask: Tensor, tta: int) -> Estimate:
        """The mean estimate of an ensemble over `tta` views, for any size; see `decode`.

        Photos are padded at the right and at the bottom to the model's multiple, and the views of one shape
        are one batch, which takes as many times the memory.

        Args:
            models: in evaluation mode, all of one class and on one device.
            damaged, mask: (B, 1, H, W) in [0, 1].
            tta: a key of `src.models.views.VIEWS`.
        """
        height, width = damaged.shape[-2:]
        multiple = models[0].size_multiple
        pad = (0, -width % multiple, 0, -height % multiple)

        def rgb(damaged: Tensor, mask: Tensor) -> list[Tensor]:
            return [sum(model.estimate(damaged, mask) for model in models) / len(models)]

        padded = F.pad(damaged, pad, mode="replicate"), F.pad(mask, pad)
        (mean,) = mean_over_views(rgb, tta, *padded)
        return {"rgb": mean[..., :height, :width]}

    def decode(self, estimate: Estimate, damaged: Tensor, mask: Tensor, style: Style) -> Tensor:
        """RGB (B, 3, H, W) uint8 from the mean estimate over views and folds.

        `style` is for models that estimate distributions, see `src.decode`; those that estimate RGB have
        no choice and ignore it.
        """
        return (estimate["rgb"].clamp(0, 1) * 255).round().to(torch.uint8)
