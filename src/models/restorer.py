"""Ours: luma kept or inpainted, colour as a distribution, one decode at the end."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color.decode import decode
from src.color.lattice import HUES, LEVELS, hue_chroma
from src.datasets.loader import BatchSpec
from src.fills.all import all_fills
from src.fills.copies import copy_texture
from src.fills.costly import COSTLY
from src.fills.regions import THIN, deep, parts
from src.losses import color_loss, inpainting_loss
from src.models.base import Batch, Ensemble, Estimate, RestorationModel, unit_range
from src.models.colorizer import CELL, Colorizer
from src.models.inpainter import Inpainter, inpaint
from src.models.options import RestorerOptions
from src.models.tta import mean_over_views
from src.utils.cli import Style

SPACING = (
    2  # of so many cells and pixels along each side a training step takes one: neighbours are alike
)
THIN_SHARE = 1 / 250  # of the shorter side; damage whose half width is less counts as thin
LEAST_REACH = 48  # px around a part of the damage, at least, that its texture is copied from
LEFT_OUT = 0.1  # share of the training images that lack a costly fill, as thin damage does
MIN_CROP = 0.5  # smallest side of the colorizer's random crops, relative to the image
MEAN_CROP = (1 + MIN_CROP) / 2
ENCODER_LR = 0.3  # learning rate of the pretrained encoder relative to the rest


class RestorerEnsemble(Ensemble):
    """Restorers that estimate together: all colorizers see the mean luma of all inpainters."""

    def estimate(self, damaged: Tensor, mask: Tensor) -> Estimate:
        """`luma` (1, 1, H, W) in [0, 1], and what `src.color.decode.decode` takes; arguments as for
        the base.

        `p` and `chroma_mass` are (1, 180, h, w), on a coarse grid.
        """
        luma = inpaint([model.inpainter for model in self.members], damaged, mask, self.tta)
        mean: Estimate = {}
        for model in self.members:
            maps = mean_over_views(model.colors, self.tta, model.shrink(luma))
            for key, values in zip(("p", "chroma_mass"), maps, strict=True):
                if (
                    key in mean and values.shape != mean[key].shape
                ):  # of a fold with another color_size
                    size = mean[key].shape[-2:]
                    values = F.interpolate(values, size, mode="bilinear", align_corners=False)
                mean[key] = mean.get(key, 0) + values / len(self.members)
        return {"luma": luma, **mean}

    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style
    ) -> np.ndarray:
        """RGB (H, W, 3) uint8; outside the mask its PIL luma is `gray`, exactly. Arguments: see the
        base.

        What people are shown has the photo's own texture in its holes, in the brightness of the
        estimate.
        """
        luma = restored_luma(estimate, gray, mask)
        shown = textured(luma, mask) if style == "visual" else luma
        return decode(shown, estimate["p"][0], estimate["chroma_mass"][0], style)


def restored_luma(estimate: Estimate, gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`gray` with the estimated luma where `mask` is True, (H, W) uint8."""
    filled = (estimate["luma"][0, 0] * 255).round().to(torch.uint8).cpu().numpy()
    return np.where(mask, filled, gray)


def textured(luma: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8 with copies of the photo's texture where it was filled, but for thin damage.

    `luma` is filled where `mask` is True.
    """
    result, radius = luma.copy(), max(THIN, round(THIN_SHARE * min(mask.shape)))

    def fill(job: tuple[tuple[slice, slice], np.ndarray]) -> None:
        box, part = job
        copies = copy_texture(luma[box].astype(np.float32) / 255, ~mask[box], part)
        result[box][part] = (copies[part] * 255).round().astype(np.uint8)

    with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as threads:
        list(threads.map(fill, parts(deep(mask, radius), LEAST_REACH)))
    return result


class Restorer(RestorationModel):
    """Inpainter of luma around the hole, colorizer of the whole photo; a training step trains both.

    Raises `SettingError` for an encoder that does not exist.
    """

    ensemble_class: ClassVar = RestorerEnsemble

    def __init__(self, options: RestorerOptions):
        super().__init__(options)
        self.inpainter = Inpainter()
        self.colorizer = Colorizer(options.encoder, options.encoder_weights)
        if options.parts == "inpainter":
            self.batch_spec = BatchSpec(("hole",))
        elif options.parts == "colorizer":
            self.batch_spec = BatchSpec(("gray", "rgb"), min_crop=MIN_CROP)
        else:
            keys = ("hole", "gray", "rgb")
            self.batch_spec = BatchSpec(keys, hole_every=2, min_crop=MIN_CROP)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One AdamW per network; a pretrained encoder learns more slowly."""
        encoder = list(self.colorizer.encoder.parameters())
        rest = [
            p for name, p in self.colorizer.named_parameters() if not name.startswith("encoder.")
        ]
        scale = ENCODER_LR if self.options.encoder_weights == "pretrained" else 1.0
        groups = [{"params": encoder, "lr_scale": scale}, {"params": rest}]
        return {
            "inpainter": self.adamw(self.inpainter.parameters()),
            "colorizer": self.adamw(groups),
        }

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """A step of the inpainter on holes, then one of the colorizer on undamaged luma.

        The inpainter gets every second image, since it needs fewer than the colorizer. The
        colorizer gets a random square of each (from the loader, see `batch_spec`), so that it does
        not overfit; objects have the size in it, on average, that they have in a whole photo
        (Touvron et al., "Fixing the Train-Test Resolution Discrepancy", NeurIPS 2019).
        """
        if "hole" in batch:
            gray, mask, costly = unit_range(batch["hole"]).split([1, 1, COSTLY], dim=1)
            left_out = torch.rand(len(costly), COSTLY // 2, 1, 1, device=costly.device) < LEFT_OUT
            costly[:, 1::2].masked_fill_(left_out, 1)
            filled = self.inpainter(gray * (1 - mask), mask, all_fills(gray, mask, costly))
            yield "inpainter", inpainting_loss(filled, gray, mask)
        if "rgb" in batch:
            rgb, small = batch["rgb"], self.shrink(unit_range(batch["gray"]), MEAN_CROP)
            grid = [side // CELL for side in small.shape[-2:]]
            step = max(
                1, min(SPACING, rgb.shape[-1] // grid[-1])
            )  # no cell is left without a pixel
            truth = (
                sums[..., ::SPACING, ::SPACING]
                for sums in hue_histograms(rgb[..., ::step, ::step], grid)
            )
            yield "colorizer", color_loss(*self.colorizer(small, SPACING), *truth)

    def shrink(self, luma: Tensor, share: float = 1.0) -> Tensor:
        """(B, 1, H, W) resized to about `color_size`² pixels of the same aspect ratio.

        Where it is a part of a photo, with a `share` of its side, to that share of `color_size`.
        """
        height, width = luma.shape[-2:]
        scale = (
            share * self.options.color_size / math.sqrt(height * width) / self.options.size_multiple
        )
        size = [
            max(1, round(side * scale)) * self.options.size_multiple for side in (height, width)
        ]
        return F.interpolate(
            luma.contiguous(), size, mode="bilinear", align_corners=False, antialias=True
        )

    def colors(self, luma: Tensor) -> list[Tensor]:
        """Probability of each hue, and this times its chroma in levels, of shrunk luma."""
        hue_logits, chroma = self.colorizer(luma)
        # Huge weights overflow; the decode would fail then, and the known luma be lost with it.
        p = hue_logits.nan_to_num().softmax(dim=1)
        chroma = chroma.nan_to_num().clamp(max=1)
        return [p, p * chroma * (LEVELS - 1)]


def hue_histograms(rgb: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Number and summed chroma (in units of 255) of the pixels of each hue in each cell of a grid.

    Args:
        rgb: (B, 3, H, W) uint8.
        grid: rows and columns of cells, (h, w).

    Returns: (B, 180, h, w) float32, twice.
    """
    hue, chroma = hue_chroma(rgb.float())
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
