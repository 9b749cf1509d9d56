"""The interface of every model, for training and for inference."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.datasets.loader import BatchSpec
from src.models.options import ModelOptions
from src.utils.cli import Style

Batch = dict[str, Tensor]
Estimate = dict[str, np.ndarray]  # maps of any size; an ensemble averages each


class TrainableModel(nn.Module):
    """Base of all models: everything that `train.py` needs.

    A subclass takes its options, which `src.models.options` lists, and defines `losses`; the rest
    has defaults. A model that restores photos is a `RestorationModel`.
    """

    batch_spec = BatchSpec()  # the tensors of a training batch

    def __init__(self, options: ModelOptions):
        super().__init__()
        self.options = options

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield (optimizer name, unweighted loss terms) once per optimizer.

        The caller steps that optimizer before it asks for the next. The terms are those of
        the options' `loss_terms`. `batch` holds uint8 on the model's device; see `unit_range`.
        """
        raise NotImplementedError

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimizers by name."""
        return {"model": self.adamw(self.parameters())}

    def adamw(self, parameters: Iterable, **settings: object) -> torch.optim.Optimizer:
        """AdamW of some parameters, or groups of them, with the rate and decay of the options."""
        options = {"lr": self.options.lr, "weight_decay": self.options.weight_decay, "fused": True}
        return torch.optim.AdamW(parameters, **options, **settings)


def unit_range(image: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return image.float() / 255


class Ensemble:
    """Models of one class that estimate together: estimates are averaged over members and views.

    The members are in evaluation mode, on one device. `tta` is the number of views: 1, or 2 for
    the photo and its mirror image.
    """

    def __init__(self, members: "Sequence[RestorationModel]", tta: int = 1):
        self.members = list(members)
        self.tta = tta
        self.device = next((p.device for p in members[0].parameters()), torch.device("cpu"))

    @torch.inference_mode()
    def estimate(self, gray: np.ndarray, mask: np.ndarray) -> Estimate:
        """The mean estimate of a photo: float32 arrays by name, here `rgb` (3, H, W), about [0, 1].

        `gray` is (H, W) uint8 and `mask` (H, W) bool, True where lost.
        """
        photo = np.stack([gray.astype(np.float32) / 255, mask])
        images = padded(torch.from_numpy(photo)[None], self.members[0].options.size_multiple)
        damaged, lost = views(images.to(self.device), self.tta).split(1, dim=1)
        rgb = sum(model.rgb(damaged, lost) for model in self.members) / len(self.members)
        height, width = gray.shape
        return {"rgb": mean_view(rgb)[0, :, :height, :width].cpu().numpy()}

    @torch.inference_mode()
    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style
    ) -> np.ndarray:
        """RGB (H, W, 3) uint8 of the estimate of a photo and its mask.

        `style` is for models that estimate distributions, see `src.color.decode`.
        """
        rgb = (estimate["rgb"].clip(0, 1) * 255).round().astype(np.uint8)
        return np.ascontiguousarray(rgb.transpose(1, 2, 0))


class RestorationModel(TrainableModel):
    """Base of the models that turn damaged grey into colour."""

    ensemble_class: ClassVar[type[Ensemble]] = Ensemble

    def rgb(self, damaged: Tensor, mask: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1] of images with sides that are multiples of `size_multiple`.

        Models that estimate something else than RGB have an `ensemble_class` of their own instead.
        """
        raise NotImplementedError


def padded(images: Tensor, multiple: int) -> Tensor:
    """(B, K, H, W) padded by repeating the right and bottom border, up to multiples of a number."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def views(image: Tensor, count: int) -> Tensor:
    """(1, K, H, W) to (count, K, H, W): the image, and its mirror image for a count of 2."""
    return torch.cat([image, image.flip(-1)]) if count == 2 else image


def mean_view(maps: Tensor) -> Tensor:
    """The mean (1, K, h, w) of the maps of each of `views`, mirrored back."""
    return (maps[:1] + maps[1:].flip(-1)) / 2 if len(maps) == 2 else maps
