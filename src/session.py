"""A photo that somebody restores step by step: damage found, corrected by hand, colourings to
choose from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.color.decode import render
from src.color.samples import alternative_colorizations
from src.fills.copies import textured
from src.models.restorer import restored_luma
from src.pipeline import Pipeline
from src.utils.images import Details

SHOWN = 1024  # longest side in pixels of what is shown, and exactly that of what is painted on
COVERED = 0.05  # share of a pixel from which on a stroke covers it
COLOURINGS = 6  # to choose from, the likeliest first
EDITOR_SLACK = np.ones(
    (5, 5), np.uint8
)  # how far an editor moves borders, in pixels of what is shown
MARK = np.array([255, 60, 30, 160], np.uint8)  # RGBA of lost pixels in the editor


@dataclass
class Session:
    """One photo, and what was made of it so far."""

    name: str
    gray: np.ndarray  # (H, W) uint8
    found: np.ndarray  # (H, W) bool, the damage that was found
    details: Details = field(default_factory=Details)  # of its file, for the result
    luma: np.ndarray | None = None  # (H, W) uint8, with the damage painted in
    colors: list[np.ndarray] = field(default_factory=list)  # (2, h, w) of each colouring
    result: Path | None = None  # the PNG to download

    def corrected(self, layers: Sequence[np.ndarray]) -> np.ndarray:
        """The mask (H, W) bool after painting; exactly what was found where nothing was painted.

        Args:
            layers: (h, w, 4) uint8 RGBA each, as an editor returns what `marked` showed.
        """
        before = marked(self.found)[..., 3] > 0
        after = np.zeros_like(before)
        for layer in layers:
            after |= (
                cv2.resize(layer[..., 3], before.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
            )
        smaller = (
            max(self.gray.shape) < SHOWN
        )  # than the editor: a thin stroke covers part of a pixel
        how = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST
        added, removed = (
            cv2.resize(change.astype(np.float32), self.gray.shape[::-1], interpolation=how)
            > COVERED
            for change in (_gained(before, after), _gained(after, before))
        )
        return (self.found | added) & ~removed

    def restore(self, pipeline: Pipeline, mask: np.ndarray) -> None:
        """Paint in what is lost and draw the colourings; the pipeline is one of restorers."""
        estimate = pipeline.estimate(self.gray, mask)
        self.luma = textured(restored_luma(estimate, self.gray, mask), mask)
        self.colors = alternative_colorizations(estimate["p"], estimate["chroma_mass"], COLOURINGS)

    def colored(self, chosen: int, saturation: float) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one of the colourings; a saturation of 1 leaves it as it is."""
        return render(self.luma, self.colors[chosen] * saturation)

    def thumbnails(self) -> list[np.ndarray]:
        """Every colouring, in the size of `thumbnail`."""
        small = thumbnail(self.luma)
        return [render(small, color) for color in self.colors]


def thumbnail(array: np.ndarray) -> np.ndarray:
    """An image, (H, W) or (H, W, 3) uint8, reduced to at most `SHOWN` pixels along a side."""
    image = Image.fromarray(array)
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.BILINEAR)
    return np.asarray(image)


def in_editor(gray: np.ndarray) -> np.ndarray:
    """(h, w) uint8, a photo (H, W) uint8 as it is painted on: reduced or enlarged to `SHOWN`
    pixels."""
    return np.asarray(Image.fromarray(gray).resize(_editor_size(gray), Image.Resampling.BICUBIC))


def marked(mask: np.ndarray) -> np.ndarray:
    """The layer of an editor that shows a mask (H, W) bool: (h, w, 4) uint8 RGBA, as large as
    `in_editor`."""
    layer = Image.fromarray(mask.astype(np.uint8) * 255)
    # bilinear: of what is thinner than a pixel something is left
    return (np.asarray(layer.resize(_editor_size(mask), Image.Resampling.BILINEAR)) > 0)[
        ..., None
    ] * MARK


def _editor_size(photo: np.ndarray) -> tuple[int, int]:
    """Width and height in the editor."""
    height, width = (max(1, round(side * SHOWN / max(photo.shape))) for side in photo.shape)
    return width, height


def _gained(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What of `after` is new, (h, w) bool; an editor scales its layers, and borders it moved are
    not."""
    core = after & (cv2.dilate(before.view(np.uint8), EDITOR_SLACK) == 0)
    return (cv2.dilate(core.view(np.uint8), EDITOR_SLACK) > 0) & after & ~before
