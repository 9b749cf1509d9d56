"""One photo in the app: damage found, corrected by hand, colorizations to choose from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.color.decode import render
from src.color.samples import alternative_colorizations
from src.fills.copies import textured
from src.pipeline import Pipeline
from src.utils.images import Details

SHOWN = 1024  # px, longest side of the page's pictures
MIN_COVER = 0.05  # a stroke counts where it covers more of a pixel than this
COLORIZATIONS = 6
EDITOR_SLACK = np.ones((5, 5), np.uint8)  # scaling a layer moves its borders by up to 2 px
MARK = np.array([255, 60, 30, 160], np.uint8)  # RGBA of lost pixels in the editor


@dataclass
class Session:
    """A photo and its results so far."""

    name: str
    gray: np.ndarray  # (H, W) uint8
    found: np.ndarray  # (H, W) bool, the damage that was found
    details: Details = field(default_factory=Details)  # resolution and EXIF for the result
    luma: np.ndarray | None = None  # (H, W) uint8, with the damage painted in
    colors: list[np.ndarray] = field(default_factory=list)  # (2, h, w) of each colorization
    results: list[Path] = field(default_factory=list)  # the last PNGs to download

    def corrected(self, layers: Sequence[np.ndarray]) -> np.ndarray:
        """The found mask (H, W) bool, with what the user painted or erased in `layers`."""
        before = marked(self.found)[..., 3] > 0
        after = np.zeros_like(before)
        for layer in layers:
            after |= _resized(layer[..., 3], before.shape, cv2.INTER_NEAREST) > 0
        # in an enlarged photo a thin stroke covers part of a pixel
        how = cv2.INTER_AREA if max(self.gray.shape) < SHOWN else cv2.INTER_NEAREST
        added = _resized(_gained(before, after), self.gray.shape, how) > MIN_COVER
        removed = _resized(_gained(after, before), self.gray.shape, how) > MIN_COVER
        return (self.found | added) & ~removed

    def restore(self, pipeline: Pipeline, mask: np.ndarray) -> None:
        """Fill the mask and sample the colorizations; the pipeline's model must be a restorer."""
        estimate = pipeline.estimate(self.gray, mask)
        self.luma = textured(estimate["luma"], mask)
        p, chroma_mass = estimate["p"], estimate["chroma_mass"]
        self.colors = alternative_colorizations(p, chroma_mass, COLORIZATIONS)

    def colored(self, chosen: int, saturation: float) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one of the colorizations; its chroma is scaled by `saturation`."""
        return render(self.luma, self.colors[chosen] * saturation)

    def thumbnails(self) -> list[np.ndarray]:
        """Every colorization at the size of `thumbnail`."""
        small = thumbnail(self.luma)
        return [render(small, color) for color in self.colors]


def thumbnail(array: np.ndarray) -> np.ndarray:
    """An image, (H, W) or (H, W, 3) uint8, reduced to at most `SHOWN` pixels along a side."""
    image = Image.fromarray(array)
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.BILINEAR)
    return np.asarray(image)


def in_editor(gray: np.ndarray) -> np.ndarray:
    """A photo (H, W) uint8 as it is painted on: (h, w) uint8, its longest side `SHOWN` px."""
    return np.asarray(Image.fromarray(gray).resize(_editor_size(gray), Image.Resampling.BICUBIC))


def marked(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool as a layer over `in_editor`, (h, w, 4) uint8 RGBA."""
    layer = Image.fromarray(mask.astype(np.uint8) * 255)
    # bilinear: nearest would drop lines thinner than a pixel
    alpha = np.asarray(layer.resize(_editor_size(mask), Image.Resampling.BILINEAR))
    return (alpha > 0)[..., None] * MARK


def _editor_size(photo: np.ndarray) -> tuple[int, int]:
    height, width = (max(1, round(side * SHOWN / max(photo.shape))) for side in photo.shape)
    return width, height


def _resized(array: np.ndarray, shape: tuple[int, int], how: int) -> np.ndarray:
    return cv2.resize(array.astype(np.float32), shape[::-1], interpolation=how)


def _gained(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The pixels new in `after`, (h, w) bool, less borders that only moved."""
    core = after & (cv2.dilate(before.view(np.uint8), EDITOR_SLACK) == 0)
    return (cv2.dilate(core.view(np.uint8), EDITOR_SLACK) > 0) & after & ~before
