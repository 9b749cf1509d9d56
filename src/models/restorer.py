"""Our model: luma kept or inpainted, colour as a distribution, one decode at the end."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color.decode import decode, hue_histograms
from src.color.dino import PATCH, VIEW, dino, from_bytes
from src.color.lattice import LEVELS
from src.datasets.loader import BatchSpec
from src.fills.copies import color_view, textured
from src.fills.exemplar import COSTLY
from src.fills.simple import all_fills
from src.losses import color_loss, inpainting_loss
from src.models.base import Batch, Ensemble, Estimate, RestorationModel, unit_range
from src.models.colorizer import CELL, Colorizer, crop
from src.models.inpainter import Inpainter, inpaint, to_cells
from src.models.options import RestorerOptions
from src.utils.cli import Style

LOSS_STRIDE = 2  # the loss uses every second cell; neighbours are alike
SEEN = 252  # px as `VIEW`, but of photos to restore: better than the size of training
MIN_CROP = 0.5  # smallest side of the colorizer's random crops, relative to the image's
CROP_VIEW = round(VIEW * (1 + MIN_CROP) / 2)  # px, side of those crops as DINOv2 sees them
WINDOW = 8  # patches; the loss looks at a random square of so many


class RestorerEnsemble(Ensemble):
    """Restorers that estimate together: all colorizers see the mean luma of all inpainters."""

    @torch.inference_mode()
    def estimate(self, gray: np.ndarray, mask: np.ndarray) -> Estimate:
        """The photo's luma and the distribution of its colours.

        `luma` (H, W) uint8 is `gray` with the hole inpainted. `p` (180, h, w) float32 is the
        probability of each hue on a coarse grid, and `chroma_mass` (180, h, w) is `p` times the
        hue's expected chroma in levels.
        """
        inpainters = [model.inpainter for model in self.members]
        filled = inpaint(inpainters, gray.astype(np.float32) / 255, mask, self.tta, self.device)
        luma = np.where(mask, (filled * 255).round().astype(np.uint8), gray)
        seen = torch.from_numpy(color_view(luma, mask, SEEN)[None, None]).to(self.device)
        seen = unit_range(seen)
        tokens = dino(self.device)(seen)  # of one view: a mirrored one gains 0.0005 of C
        colors = [model.colors(tokens, seen) for model in self.members]
        total = torch.stack([sum(maps)[0] for maps in zip(*colors, strict=True)])
        p, chroma_mass = (total / len(colors)).cpu().numpy()
        return {"luma": luma, "p": p, "chroma_mass": chroma_mass}

    @torch.inference_mode()
    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style
    ) -> np.ndarray:
        """RGB (H, W, 3) uint8; outside the mask its PIL luma is `gray`, exactly.

        The visual style shows the photo's own texture in the hole, the score style the mean luma.
        """
        luma = estimate["luma"]
        luma = textured(luma, mask) if style == "visual" else luma
        return decode(luma, estimate["p"], estimate["chroma_mass"], style, self.device)


class Restorer(RestorationModel):
    """Inpainter of luma around the hole, colorizer of the whole photo; each step trains both."""

    ensemble_class: ClassVar = RestorerEnsemble

    def __init__(self, options: RestorerOptions):
        super().__init__(options)
        self.inpainter = Inpainter()
        self.colorizer = Colorizer()
        views = {"min_crop": MIN_CROP, "views": True}
        if options.parts == "inpainter":
            self.batch_spec = BatchSpec(("hole",))
        elif options.parts == "colorizer":
            self.batch_spec = BatchSpec(("gray", "rgb"), **views)
        else:
            self.batch_spec = BatchSpec(("hole", "gray", "rgb"), hole_every=2, **views)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One AdamW per network."""
        networks = {"inpainter": self.inpainter, "colorizer": self.colorizer}
        return {name: self.adamw(network.parameters()) for name, network in networks.items()}

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """A step of the inpainter on holes, then one of the colorizer on whole or repaired luma.

        The inpainter gets every second image, since it needs fewer.
        """
        if "hole" in batch:
            gray, mask, costly = unit_range(batch["hole"]).split([1, 1, COSTLY], dim=1)
            # each costly fill is left out of one in ten, as on thin damage
            left_out = torch.rand(len(costly), COSTLY // 2, 1, 1, device=costly.device) < 0.1
            costly[:, 1::2].masked_fill_(left_out, 1)
            fills = all_fills(gray, mask, costly)
            filled = self.inpainter(gray * (1 - mask), mask, fills, to_cells(fills, mask))
            yield "inpainter", inpainting_loss(filled, gray, mask)
        if "rgb" in batch:
            yield "colorizer", self.colorizer_loss(batch)

    def colorizer_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Colours of a random window of each photo, or of a random crop of it, seen by DINOv2.

        Objects have the same mean size in crops as in whole photos (Touvron et al., "Fixing the
        Train-Test Resolution Discrepancy", 2019). Half of the batches are mirrored.
        """
        rgb, luma = batch["rgb"], unit_range(batch["gray"])
        if "tokens" in batch:
            tokens = from_bytes(batch["tokens"])
        else:
            if luma.shape[-1] != VIEW:
                luma = F.interpolate(luma, (CROP_VIEW,) * 2, mode="bilinear", antialias=True)
            tokens = dino(luma.device)(luma)
        side = luma.shape[-1] // PATCH
        if torch.rand(()) < 0.5:
            tokens = tokens.unflatten(1, (side, side)).flip(2).flatten(1, 2)
            rgb, luma = rgb.flip(-1), luma.flip(-1)
        top, left = (2 * torch.randint((side - WINDOW) // 2 + 1, (2,))).tolist()
        window = top, left, WINDOW
        seen = crop(rgb, window, rgb.shape[-1] / side)
        counts, chromas = hue_histograms(seen, (WINDOW * PATCH // CELL,) * 2)
        counts, chromas = (sums[..., ::LOSS_STRIDE, ::LOSS_STRIDE] for sums in (counts, chromas))
        colors = self.colorizer(tokens, luma, window, LOSS_STRIDE)
        return color_loss(*colors, counts, chromas)

    def colors(self, tokens: Tensor, luma: Tensor) -> list[Tensor]:
        """Probability of each hue, and `p` times its chroma in levels; see `Colorizer`."""
        hue_logits, chroma = self.colorizer(tokens, luma)
        # huge weights overflow; the decode would then fail and lose the known luma too
        # channels are last in memory, where a softmax over the first of them would copy
        p = hue_logits.nan_to_num_().movedim(1, -1).softmax(dim=-1).movedim(-1, 1)
        return [p, chroma.nan_to_num_().clamp_(max=1).mul_(p).mul_(LEVELS - 1)]
