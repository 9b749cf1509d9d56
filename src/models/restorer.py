"""Ours: luma kept or inpainted, colour as a distribution, one decode at the end."""

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color import HUES, hue_chroma
from src.decode import Style, decode
from src.losses import color_loss, inpainting_loss
from src.models.base import Batch, Estimate, RestorationModel
from src.models.colorizer import Colorizer
from src.models.inpainter import MULTIPLE, Inpainter

CROP = 256  # side of the crops that the inpainter is trained on, in pixels
MARGIN = 64  # pixels of surroundings that it sees on each side of a hole
LEAST_CROP = 0.5  # least side of the colorizer's random crops, relative to the image's
ENCODER_LR = 0.3  # learning rate of the pretrained encoder relative to the rest


class Restorer(RestorationModel):
    """Inpainter of luma around the hole, colorizer of the whole photo; a training step trains both.

    Args:
        encoder, encoder_weights: of the colorizer, see `src.models.encoders`.
        color_size: the colorizer sees the photo with about color_size² pixels.
        parts: what is trained, "inpainter", "colorizer" or "both".
    """

    image_size: ClassVar[int] = 512
    learning_rate: ClassVar[float] = 1e-3
    loss_weights: ClassVar = {
        "inpaint_l1": 2.0,
        "inpaint_ssim": 1.0,
        "hue": 1.0,
        "histogram": 2.0,
        "chroma": 20.0,
    }

    def __init__(
        self,
        encoder: str = "lite0",
        encoder_weights: str = "none",
        color_size: int = 256,
        parts: str = "both",
    ):
        super().__init__()
        self.arguments = {"encoder": encoder, "color_size": color_size}
        self.color_size = color_size
        self.parts = parts
        self.inpainter = Inpainter()
        self.colorizer = Colorizer(encoder, encoder_weights)
        self.to(memory_format=torch.channels_last)  # a training step on a CPU takes half as long

    def optimizers(self, lr: float, weight_decay: float) -> dict[str, torch.optim.Optimizer]:
        """One AdamW for each network; the pretrained encoder learns more slowly."""
        encoder = list(self.colorizer.encoder.parameters())
        rest = [p for name, p in self.colorizer.named_parameters() if not name.startswith("encoder.")]
        groups = [{"params": encoder, "lr_scale": ENCODER_LR}, {"params": rest}]
        return {
            "inpainter": torch.optim.AdamW(self.inpainter.parameters(), lr=lr, weight_decay=weight_decay),
            "colorizer": torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay),
        }

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """A step of the inpainter on crops around the holes, then one of the colorizer on its luma.

        The inpainter sees half of the batch, since it needs fewer images than the colorizer. The
        colorizer sees a random part of each, so that it does not learn the training photos by heart.
        """
        luma = batch["gray"].clone()
        if self.parts != "colorizer":
            half = (len(luma) + 1) // 2
            boxes = [crop_around(mask[0]) for mask in batch["mask"][:half]]
            damaged, mask, gray = (
                torch.stack([image[:, *box] for image, box in zip(batch[key][:half], boxes, strict=True)])
                for key in ("damaged", "mask", "gray")
            )
            filled = self.inpainter(damaged, mask)
            yield "inpainter", inpainting_loss(filled, gray, mask)
            for image, box, crop in zip(luma[:half], boxes, filled.detach(), strict=True):
                image[:, *box] = crop
        if self.parts != "inpainter":
            luma, rgb = random_square(luma, batch["rgb"])
            colors = self.colorizer(self.shrink(luma))
            yield "colorizer", color_loss(*colors, *cells(rgb, colors[0].shape[-2:]))

    def shrink(self, luma: Tensor) -> Tensor:
        """(B, 1, H, W) resized to about `color_size`² pixels of the same aspect ratio."""
        height, width = luma.shape[-2:]
        scale = self.color_size / math.sqrt(height * width) / self.size_multiple
        size = [max(1, round(side * scale)) * self.size_multiple for side in (height, width)]
        return F.interpolate(luma, size, mode="bilinear", align_corners=False, antialias=True)

    def predict(self, damaged: Tensor, mask: Tensor) -> Estimate:
        """`luma` (B, 1, H, W) in [0, 1], and what `src.decode.decode` takes.

        On a coarse grid `p` and `mass` (B, 180, h, w); `histogram` is (B, 180, 1, 1).
        """
        luma = self.inpaint(damaged, mask)
        hue_logits, chroma, histogram = self.colorizer(self.shrink(luma))
        p = hue_logits.softmax(dim=1)
        return {"luma": luma, "p": p, "mass": p * chroma * 255, "histogram": histogram[..., None, None]}

    def inpaint(self, damaged: Tensor, mask: Tensor) -> Tensor:
        """`damaged` (B, 1, H, W) with the holes filled; only their surroundings are computed."""
        if not mask.any():
            return damaged
        lost = mask.amax(dim=(0, 1)) > 0.5
        rows, columns = (surroundings(lost.any(dim=axis)) for axis in (1, 0))
        crop, hole = damaged[..., rows, columns], mask[..., rows, columns]
        pad = (0, -crop.shape[-1] % MULTIPLE, 0, -crop.shape[-2] % MULTIPLE)
        filled = self.inpainter(F.pad(crop, pad, mode="replicate"), F.pad(hole, pad, mode="replicate"))
        luma = damaged.clone()
        luma[..., rows, columns] = filled[..., : crop.shape[-2], : crop.shape[-1]].clamp(0, 1)
        return luma

    def decode(self, estimate: Estimate, damaged: Tensor, mask: Tensor, style: Style) -> Tensor:
        """RGB (B, 3, H, W) uint8; outside the hole its PIL luma is that of `damaged`, exactly."""
        luma = torch.where(mask > 0.5, estimate["luma"], damaged)
        luma = (luma * 255).round().to(torch.uint8).cpu().numpy()[:, 0]
        maps = (estimate[key] for key in ("p", "mass", "histogram"))
        images = [decode(*values, style) for values in zip(luma, *maps, strict=True)]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def surroundings(lost: Tensor) -> slice:
    """From (N,) bool, the range from the first to the last True with `MARGIN` more on both sides."""
    found = lost.nonzero()
    return slice(max(0, int(found[0]) - MARGIN), int(found[-1]) + 1 + MARGIN)


def crop_around(mask: Tensor) -> tuple[slice, slice]:
    """Rows and columns of a crop of `CROP` px with the hole of `mask` (H, W) in its middle."""
    slices = []
    for axis in (1, 0):
        size = mask.shape[1 - axis]
        found = (mask > 0.5).any(dim=axis).nonzero()
        middle = int(found[0] + found[-1]) // 2 if len(found) else size // 2
        start = min(max(0, middle - CROP // 2), max(0, size - CROP))
        slices.append(slice(start, start + CROP))
    return slices[0], slices[1]


def random_square(*images: Tensor) -> list[Tensor]:
    """The same square of all (…, S, S), anywhere, its side between `LEAST_CROP` · S and S."""
    size = images[0].shape[-1]
    side = round(size * float(torch.empty(()).uniform_(LEAST_CROP, 1)))
    top, left = torch.randint(size - side + 1, (2,)).tolist()
    return [image[..., top : top + side, left : left + side] for image in images]


def cells(rgb: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Number and summed chroma (in units of 255) of the pixels of each hue in each cell of a grid.

    Args:
        rgb: (B, 3, H, W) in [0, 1].
        grid: rows and columns of cells, (h, w).

    Returns: (B, 180, h, w) float32, twice.
    """
    hue, chroma = hue_chroma((rgb * 255).round())
    batch, height, width = hue.shape
    row = torch.arange(height, device=rgb.device) * grid[0] // height
    column = torch.arange(width, device=rgb.device) * grid[1] // width
    image = torch.arange(batch, device=rgb.device)[:, None, None]
    place = (((image * grid[0] + row[:, None]) * grid[1] + column) * HUES + hue).flatten()
    counts, chromas = torch.zeros(2, batch * HUES * grid[0] * grid[1], device=rgb.device)
    counts.index_add_(0, place, torch.ones_like(place, dtype=torch.float32))
    chromas.index_add_(0, place, chroma.flatten() / 255)
    # channels last in memory, as the logits are
    return tuple(sums.view(batch, *grid, HUES).permute(0, 3, 1, 2) for sums in (counts, chromas))
