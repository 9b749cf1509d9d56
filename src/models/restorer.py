"""Our model: luma kept or inpainted, colour as a distribution, one decode at the end."""

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color.decode import decode, hue_histograms
from src.color.lattice import LEVELS
from src.datasets.loader import BatchSpec
from src.fills.copies import textured
from src.fills.exemplar import COSTLY
from src.fills.simple import all_fills
from src.losses import color_loss, inpainting_loss
from src.models.base import (
    Batch,
    Ensemble,
    Estimate,
    RestorationModel,
    mean_view,
    unit_range,
    views,
)
from src.models.colorizer import CELL, Colorizer
from src.models.inpainter import Inpainter, inpaint
from src.models.options import RestorerOptions
from src.utils.cli import Style

LOSS_STRIDE = 2  # the loss uses every second cell; neighbours are alike
MIN_CROP = 0.5  # smallest side of the colorizer's random crops, relative to the image's
MEAN_CROP = (1 + MIN_CROP) / 2


class RestorerEnsemble(Ensemble):
    """Restorers that estimate together: all colorizers see the mean luma of all inpainters."""

    @torch.inference_mode()
    def estimate(self, gray: np.ndarray, mask: np.ndarray) -> Estimate:
        """`luma` (H, W) in [0, 1]; on a coarse grid the probability `p` (180, h, w) of each hue,
        and `chroma_mass` (180, h, w), `p` times the expected chroma of the hue."""
        inpainters = [model.inpainter for model in self.members]
        luma = inpaint(inpainters, gray.astype(np.float32) / 255, mask, self.tta, self.device)
        photo = torch.from_numpy(luma)[None, None]
        small: dict[int, Tensor] = {}  # by color_size: folds may differ
        mean = None
        for model in self.members:
            size = model.options.color_size
            if size not in small:
                small[size] = views(model.shrink(photo).to(self.device), self.tta)
            maps = mean_view(torch.stack(model.colors(small[size]), dim=1))[0]
            if mean is not None and maps.shape != mean.shape:
                grid = mean.shape[-2:]
                maps = F.interpolate(maps, grid, mode="bilinear", align_corners=False)
            share = maps / len(self.members)
            mean = share if mean is None else mean + share
        p, chroma_mass = mean.cpu().numpy()
        return {"luma": luma, "p": p, "chroma_mass": chroma_mass}

    @torch.inference_mode()
    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style
    ) -> np.ndarray:
        """RGB (H, W, 3) uint8; outside the mask its PIL luma is `gray`, exactly.

        The visual style fills holes with the photo's own texture at the estimate's brightness.
        """
        luma = restored_luma(estimate, gray, mask)
        if style == "visual":
            luma = textured(luma, mask)
        return decode(luma, estimate["p"], estimate["chroma_mass"], style, self.device)


def restored_luma(estimate: Estimate, gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`gray` with the estimated luma where `mask` is True, (H, W) uint8."""
    return np.where(mask, (estimate["luma"] * 255).round().astype(np.uint8), gray)


class Restorer(RestorationModel):
    """Inpainter of luma around the hole, colorizer of the whole photo; each step trains both."""

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
        named = list(self.colorizer.named_parameters())
        encoder = [p for name, p in named if name.startswith("encoder.")]
        rest = [p for name, p in named if not name.startswith("encoder.")]
        scale = 0.3 if self.options.encoder_weights == "pretrained" else 1.0
        colorizer = self.adamw([{"params": encoder, "lr_scale": scale}, {"params": rest}])
        return {"inpainter": self.adamw(self.inpainter.parameters()), "colorizer": colorizer}

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """A step of the inpainter on holes, then one of the colorizer on undamaged luma.

        The inpainter gets every second image, since it needs fewer. The colorizer gets a random
        square of each, so that it does not overfit; objects have the same mean size in it as in
        whole photos (Touvron et al., "Fixing the Train-Test Resolution Discrepancy", 2019).
        """
        if "hole" in batch:
            gray, mask, costly = unit_range(batch["hole"]).split([1, 1, COSTLY], dim=1)
            # each costly fill is left out of one in ten, as on thin damage
            left_out = torch.rand(len(costly), COSTLY // 2, 1, 1, device=costly.device) < 0.1
            costly[:, 1::2].masked_fill_(left_out, 1)
            filled = self.inpainter(gray * (1 - mask), mask, all_fills(gray, mask, costly))
            yield "inpainter", inpainting_loss(filled, gray, mask)
        if "rgb" in batch:
            rgb, small = batch["rgb"], self.shrink(unit_range(batch["gray"]), MEAN_CROP)
            grid = [side // CELL for side in small.shape[-2:]]
            # every second pixel, unless that would leave some cells empty
            step = max(1, min(LOSS_STRIDE, rgb.shape[-1] // grid[-1]))
            histograms = hue_histograms(rgb[..., ::step, ::step], grid)
            targets = (sums[..., ::LOSS_STRIDE, ::LOSS_STRIDE] for sums in histograms)
            yield "colorizer", color_loss(*self.colorizer(small, LOSS_STRIDE), *targets)

    def shrink(self, luma: Tensor, share: float = 1.0) -> Tensor:
        """(B, 1, H, W) resized to about `color_size`² pixels of the same aspect ratio, or to
        `share` of that along each side."""
        height, width = luma.shape[-2:]
        multiple = self.options.size_multiple
        scale = share * self.options.color_size / math.sqrt(height * width) / multiple
        size = [max(1, round(side * scale)) * multiple for side in (height, width)]
        how = {"mode": "bilinear", "align_corners": False, "antialias": True}
        return F.interpolate(luma.contiguous(), size, **how)

    def colors(self, luma: Tensor) -> list[Tensor]:
        """Probability of each hue, and `p` times its chroma in levels, from shrunk luma."""
        hue_logits, chroma = self.colorizer(luma)
        # huge weights overflow; the decode would then fail and lose the known luma too
        p = hue_logits.nan_to_num().softmax(dim=1)
        chroma = chroma.nan_to_num().clamp(max=1)
        return [p, p * chroma * (LEVELS - 1)]
