"""What training and inference ask of every model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.datasets.loader import BatchSpec
from src.models.options import ModelOptions
from src.models.tta import mean_over_views
from src.utils.cli import Style

Batch = dict[str, Tensor]
Estimate = dict[str, Tensor]  # maps (1, K, h, w) of any sizes; an ensemble averages each of them


class TrainableModel(nn.Module):
    """Base of all models: everything that `train.py` asks of one.

    A subclass takes its options, which `src.models.options` lists, and defines `losses`; the rest
    has defaults. A model that restores photos is a `RestorationModel`.
    """

    batch_spec = BatchSpec()  # what a training batch holds

    def __init__(self, options: ModelOptions):
        super().__init__()
        self.options = options

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield (optimizer name, unweighted loss terms) once per optimizer.

        The caller takes that optimizer's step before it asks for the next. The terms are those of
        the options' `loss_terms`. `batch` holds uint8 on the model's device; see `unit_range`.
        """
        raise NotImplementedError

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimizers by name. `lr_scale` in a parameter group scales its learning rate."""
        return {"model": self.adamw(self.parameters())}

    def adamw(self, parameters: Iterable, **settings: object) -> torch.optim.Optimizer:
        """AdamW of some parameters, or groups of them, with the options' rate and decay."""
        options = {"lr": self.options.lr, "weight_decay": self.options.weight_decay, "fused": True}
        return torch.optim.AdamW(parameters, **options, **settings)


def unit_range(image: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return image.float() / 255


class Ensemble:
    """Models of one class that estimate together: estimates are averaged over members and views.

    Args:
        members: in evaluation mode, on one device.
        tta: number of views: 1, 2 (mirrored) or 8 (mirrored and turned). The views of one shape are
            one batch, which takes as many times the memory.
    """

    def __init__(self, members: "Sequence[RestorationModel]", tta: int = 1):
        self.members = list(members)
        self.tta = tta

    def estimate(self, damaged: Tensor, mask: Tensor) -> Estimate:
        """The mean estimate of one photo of any size.

        Args:
            damaged, mask: (1, 1, H, W) float32 in [0, 1]; the mask is 1 where lost.
        """

        def mean_rgb(damaged: Tensor, mask: Tensor) -> list[Tensor]:
            return [sum(model.rgb(damaged, mask) for model in self.members) / len(self.members)]

        views = partial(mean_over_views, mean_rgb, self.tta)
        (mean,) = on_padded(views, self.members[0].options.size_multiple, damaged, mask)
        return {"rgb": mean}

    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style
    ) -> np.ndarray:
        """RGB (H, W, 3) uint8 of an estimate.

        Args:
            gray, mask: (H, W) uint8 and bool, what was estimated.
            style: for models that estimate distributions, see `src.color.decode`; RGB leaves no
                choice.
        """
        rgb = (estimate["rgb"][0].clamp(0, 1) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(rgb.permute(1, 2, 0).cpu().numpy())


class RestorationModel(TrainableModel):
    """Base of the models that turn damaged grey into colour."""

    ensemble_class: ClassVar[type[Ensemble]] = Ensemble

    def rgb(self, damaged: Tensor, mask: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1] of images whose sides are multiples of the model's
        `size_multiple`.

        Models that estimate something else than RGB have an `ensemble_class` of their own instead.
        """
        raise NotImplementedError


def on_padded(
    function: Callable[..., Sequence[Tensor]], multiple: int, *images: Tensor
) -> list[Tensor]:
    """`function` of images that are padded at the right and bottom to a multiple; its results are
    cropped.

    Args:
        function: maps (B, K, H', W') tensors to any number of maps of their size.
        images: (B, K, H, W) each, of one size; the border is repeated.
    """
    height, width = images[0].shape[-2:]
    pad = (0, -width % multiple, 0, -height % multiple)
    found = function(*(F.pad(image, pad, mode="replicate") for image in images))
    return [maps[..., :height, :width] for maps in found]
