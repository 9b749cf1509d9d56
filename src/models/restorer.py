"""Ours: luma kept or inpainted, colour as a distribution, one decode at the end."""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from src.color import HUES, LEVELS, hue_chroma
from src.decode import Style, decode
from src.files import InputError
from src.losses import color_loss, inpainting_loss
from src.models.base import Batch, Estimate, RestorationModel
from src.models.colorizer import CELL, Colorizer
from src.models.inpainter import MULTIPLE, Inpainter, bounds, simple_fills
from src.models.views import mean_over_views

Box = tuple[slice, slice]  # rows and columns

CROP = 256  # side of the crops that the inpainter is trained on, in pixels
MARGIN = 48  # pixels of surroundings that it sees on each side of a hole
MAX_CROP = 400  # root of the number of pixels that are inpainted at once
WIDE = 24  # pixels from the nearest known one; nothing of a thin part is as far
LEAST_KNOWN = 0.5  # share of a reduced pixel that must be known for it to count as known
SPACING = 2  # of so many cells and pixels along each side a training step takes one: neighbours are alike
LEAST_CROP = 0.5  # least side of the colorizer's random crops, relative to the image's
ENCODER_LR = 0.3  # learning rate of the pretrained encoder relative to the rest
COLOR_SIZES = range(64, 1024 + 1, 32)  # memory grows with the square: of 512 px photos 1024 takes 0.9 GiB


def check_color_size(color_size: int) -> None:
    """Raise `InputError` unless the colorizer can take and a machine can hold photos of this size."""
    if color_size not in COLOR_SIZES:
        least, most, step = COLOR_SIZES[0], COLOR_SIZES[-1], COLOR_SIZES.step
        raise InputError(f"--color-size {color_size}: must be a multiple of {step} from {least} to {most}")


class Restorer(RestorationModel):
    """Inpainter of luma around the hole, colorizer of the whole photo; a training step trains both.

    Args:
        encoder, encoder_weights: of the colorizer, see `src.models.encoders`.
        color_size: the colorizer sees the photo with about color_size² pixels.
        parts: what is trained, "inpainter", "colorizer" or "both".

    Raises `InputError` as `check_encoder` and `check_color_size` do.
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
        check_color_size(color_size)
        self.arguments = {"encoder": encoder, "color_size": color_size}
        self.color_size = color_size
        self.parts = parts
        self.inpainter = Inpainter()
        self.colorizer = Colorizer(encoder, encoder_weights)

    def optimizers(self, lr: float, weight_decay: float) -> dict[str, torch.optim.Optimizer]:
        """One AdamW for each network; the pretrained encoder learns more slowly."""
        encoder = list(self.colorizer.encoder.parameters())
        rest = [p for name, p in self.colorizer.named_parameters() if not name.startswith("encoder.")]
        groups = [{"params": encoder, "lr_scale": ENCODER_LR}, {"params": rest}]
        return {
            "inpainter": torch.optim.AdamW(
                self.inpainter.parameters(), lr=lr, weight_decay=weight_decay, fused=True
            ),
            "colorizer": torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True),
        }

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """A step of the inpainter on crops around the holes, then one of the colorizer on its luma.

        The inpainter sees half of the batch, since it needs fewer images than the colorizer. The
        colorizer sees a random part of each, so that it does not learn the training photos by heart.
        """
        luma = batch["gray"].clone()
        if self.parts != "colorizer":
            half = (len(luma) + 1) // 2
            boxes = crops_around(batch["mask"][:half, 0])
            damaged, mask, gray = (
                torch.stack([image[:, *box] for image, box in zip(batch[key][:half], boxes, strict=True)])
                for key in ("damaged", "mask", "gray")
            )
            filled = self.inpainter(damaged, mask, simple_fills(damaged, mask))
            yield "inpainter", inpainting_loss(filled, gray, mask)
            for image, box, crop in zip(luma[:half], boxes, filled.detach(), strict=True):
                image[:, *box] = crop
        if self.parts != "inpainter":
            luma, rgb = random_square(luma, batch["rgb"])
            small = self.shrink(luma)
            grid = [side // CELL for side in small.shape[-2:]]
            step = max(1, min(SPACING, rgb.shape[-1] // grid[-1]))  # no cell is left without a pixel
            truth = (sums[..., ::SPACING, ::SPACING] for sums in cells(rgb[..., ::step, ::step], grid))
            yield "colorizer", color_loss(*self.colorizer(small, SPACING), *truth)

    def shrink(self, luma: Tensor) -> Tensor:
        """(B, 1, H, W) resized to about `color_size`² pixels of the same aspect ratio."""
        height, width = luma.shape[-2:]
        scale = self.color_size / math.sqrt(height * width) / self.size_multiple
        size = [max(1, round(side * scale)) * self.size_multiple for side in (height, width)]
        return F.interpolate(luma.contiguous(), size, mode="bilinear", align_corners=False, antialias=True)

    @staticmethod
    def predict(models: "Sequence[Restorer]", damaged: Tensor, mask: Tensor, tta: int) -> Estimate:
        """`luma` (B, 1, H, W) in [0, 1], and what `src.decode.decode` takes; arguments as for the base.

        On a coarse grid `p` and `mass` (B, 180, h, w); `histogram` is (B, 180, 1, 1). All colorizers see
        the mean luma of all inpainters.
        """
        luma = inpaint([model.inpainter for model in models], damaged, mask, tta)
        mean: Estimate = {}
        for model in models:
            maps = mean_over_views(model.colors, tta, model.shrink(luma))
            for key, values in zip(("p", "mass", "histogram"), maps, strict=True):
                if key in mean and values.shape != mean[key].shape:  # of a fold with another --color-size
                    size = mean[key].shape[-2:]
                    values = F.interpolate(values, size, mode="bilinear", align_corners=False)
                mean[key] = mean.get(key, 0) + values / len(models)
        return {"luma": luma, **mean}

    def colors(self, luma: Tensor) -> list[Tensor]:
        """Probability of each hue, this times its chroma in levels, and the histogram, of shrunk luma."""
        hue_logits, chroma, histogram = self.colorizer(luma)
        # Huge weights overflow; the decode would fail then, and the known luma be lost with it.
        p = hue_logits.nan_to_num().softmax(dim=1)
        chroma = chroma.nan_to_num().clamp(max=1)
        histogram = histogram.nan_to_num(1 / HUES)
        return [p, p * chroma * (LEVELS - 1), histogram[..., None, None]]

    def decode(self, estimate: Estimate, damaged: Tensor, mask: Tensor, style: Style) -> Tensor:
        """RGB (B, 3, H, W) uint8; outside the hole its PIL luma is that of `damaged`, exactly."""
        luma = torch.where(mask > 0.5, estimate["luma"], damaged)
        luma = (luma * 255).round().to(torch.uint8).cpu().numpy()[:, 0]
        maps = (estimate[key] for key in ("p", "mass", "histogram"))
        images = [decode(*values, style) for values in zip(luma, *maps, strict=True)]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def inpaint(inpainters: Sequence[Inpainter], damaged: Tensor, mask: Tensor, tta: int) -> Tensor:
    """`damaged` (B, 1, H, W) with the holes filled by an ensemble, in [0, 1]; see `pieces`."""
    if not mask.any():
        return damaged
    luma, hole = damaged.clone(), mask.clone()
    for box, piece in pieces((mask.amax(dim=(0, 1)) > 0.5).cpu().numpy()):
        wanted = torch.from_numpy(piece).to(mask.device) & (hole[..., *box] > 0.5)
        filled = _fill(inpainters, luma[..., *box], hole[..., *box], tta)
        luma[..., *box] = torch.where(wanted, filled.nan_to_num(0.5).clamp(0, 1), luma[..., *box])
        hole[..., *box] = hole[..., *box] * ~wanted  # the next piece sees it as known
    return luma


def _fill(inpainters: Sequence[Inpainter], crop: Tensor, hole: Tensor, tta: int) -> Tensor:
    """The ensemble's fill of a crop (B, 1, h, w), of a reduced copy if it has over `MAX_CROP`² pixels."""
    size = crop.shape[-2:]
    scale = MAX_CROP / math.sqrt(size[0] * size[1])
    if scale < 1:
        small = [max(1, round(side * scale)) for side in size]
        known = F.interpolate(1 - hole, small, mode="area")
        crop = F.interpolate(crop * (1 - hole), small, mode="area") / known.clamp(min=LEAST_KNOWN)
        hole = (known < LEAST_KNOWN).float()
    pad = (0, -crop.shape[-1] % MULTIPLE, 0, -crop.shape[-2] % MULTIPLE)

    def fill(crop: Tensor, hole: Tensor) -> list[Tensor]:
        fills = simple_fills(crop, hole)
        return [sum(inpainter(crop, hole, fills) for inpainter in inpainters) / len(inpainters)]

    padded = (F.pad(maps, pad, mode="replicate") for maps in (crop, hole))
    (filled,) = mean_over_views(fill, tta, *padded)
    filled = filled[..., : crop.shape[-2], : crop.shape[-1]]
    return F.interpolate(filled, size, mode="bilinear", align_corners=False) if scale < 1 else filled


def pieces(lost: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Split a hole into what is filled at once, so that time and memory are bounded.

    What fits into `MAX_CROP`² pixels with its surroundings is one piece. Else each wide part is one, which
    is filled at a lower resolution where it is too large and so has no seams; and thin damage, which may
    run all over the photo, is filled in tiles at full resolution: all that it needs to see is near.

    Args:
        lost: (H, W) bool with some True.

    Yields: rows and columns with the surroundings, and what of them is to be filled, (h, w) bool.
    """
    box = surroundings(lost)
    if math.prod(line.stop - line.start for line in box) <= MAX_CROP**2:
        yield box, lost[box]
        return
    _, labels = cv2.connectedComponents(lost.view(np.uint8))
    depth = cv2.distanceTransform(lost.view(np.uint8), cv2.DIST_L2, 3)
    deepest = ndimage.maximum(depth, labels, np.arange(labels.max() + 1))
    wide = lost & (deepest > WIDE)[labels]
    near = cv2.dilate(wide.view(np.uint8), np.ones((MARGIN, MARGIN), np.uint8))
    _, groups = cv2.connectedComponents(near)
    for number in range(1, groups.max() + 1):
        part = wide & (groups == number)
        box = surroundings(part)
        yield box, part[box]
    thin, side = lost & ~wide, MAX_CROP - 2 * MARGIN
    for top in range(0, lost.shape[0], side):
        for left in range(0, lost.shape[1], side):
            corner = max(0, top - MARGIN), max(0, left - MARGIN)
            part = thin[corner[0] : top + side + MARGIN, corner[1] : left + side + MARGIN].copy()
            inside = np.zeros_like(part)
            inside[top - corner[0] :, left - corner[1] :][:side, :side] = True
            part &= inside
            if part.any():
                box = surroundings(part)
                place = zip(box, corner, strict=True)
                yield tuple(slice(line.start + n, line.stop + n) for line, n in place), part[box]


def surroundings(lost: np.ndarray) -> Box:
    """Rows and columns of (H, W) bool from the first to the last True, with `MARGIN` more on each side."""
    rows, columns = (np.flatnonzero(lost.any(axis=axis)) for axis in (1, 0))
    ends = zip((rows, columns), lost.shape, strict=True)
    return tuple(slice(max(0, int(n[0]) - MARGIN), min(size, int(n[-1]) + 1 + MARGIN)) for n, size in ends)


def crops_around(masks: Tensor) -> list[tuple[slice, slice]]:
    """Rows and columns of a crop of `CROP` px with the hole of each of `masks` (B, H, W) in its middle."""
    crops = []
    for axis in (2, 1):
        size = masks.shape[3 - axis]
        starts = [(first + last) // 2 - CROP // 2 for first, last in bounds((masks > 0.5).any(dim=axis))]
        starts = [min(max(0, start), max(0, size - CROP)) for start in starts]
        crops.append([slice(start, start + CROP) for start in starts])
    return list(zip(*crops, strict=True))


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
