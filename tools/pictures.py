"""The pictures of the README: python -m tools.pictures --photos PHOTOS

Six photographs that no fold was trained on: damaged, restored for people by all folds, and as they
were.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageOps

from src.color.luma import luma
from src.damage.aging import age
from src.datasets.build import sample_photos
from src.models.checkpoints import SHIPPED
from src.pipeline import Pipeline
from src.utils.images import gray_to_rgb

SHAPE = 3 / 2  # width by height
SHOWN = (384, 256)  # pixels in the README
GAP = 6  # pixels between the pictures
FILL = 40  # grey level of a hole
TARGET = Path(__file__).parent.parent / "docs" / "images" / "pictures.jpg"


class Subject(NamedTuple):
    """A photograph and what is done to it.

    Attributes:
        photo: its file in the folder of photographs, or one of scikit-image's.
        center: the point that stays in the middle when it is cropped, as far as there is room;
            shares of width and height.
        outline: of the hole: two corners of a box for a rectangle or an ellipse, or a polygon's
            corners, in shares of width and height; empty for the damage of an old photograph.
        drawn: the method of `ImageDraw` that draws it.
        seed: of an old photograph's damage.
    """

    photo: str
    center: tuple[float, float] = (0.5, 0.5)
    outline: Sequence[tuple[float, float]] = ()
    drawn: str = "rectangle"
    seed: int = 0


SUBJECTS = (
    Subject("more/korea_streets-8d5e3e04.webp", (0.5, 0.4), ((0.33, 0.2), (0.55, 0.55)), "ellipse"),
    Subject("spb_facades-347f5001.jpg", (0.5, 0.3), ((0.3, 0.18), (0.46, 0.6))),
    Subject(
        "metadata_extractor-3ebee66c.jpg",
        (0.5, 0.5),
        ((0.4, 0.1), (0.7, 0.2), (0.6, 0.5)),
        "polygon",
    ),
    Subject("metadata_extractor-27186d32.jpg", (0.5, 0.5), ((0.4, 0.7), (0.6, 0.9))),
    Subject("astronaut.png", (0.5, 0.2), seed=17),
    Subject("more/vehicles_oi-dc8d0007.webp", (0.5, 0.4), ((0.1, 0.5), (0.3, 0.8))),
)


def damaged(rgb: np.ndarray, subject: Subject) -> np.ndarray:
    """(H, W) uint8: the grey photograph as it is damaged."""
    gray = luma(rgb)
    if not subject.outline:
        return age(rgb, np.random.default_rng(subject.seed))[0]
    height, width = gray.shape
    mask = Image.new("L", (width, height))
    points = [(x * width, y * height) for x, y in subject.outline]
    getattr(ImageDraw.Draw(mask), subject.drawn)(points, fill=255)
    return np.where(np.asarray(mask) > 0, np.uint8(FILL), gray)


def row(pipeline: Pipeline, folder: Path, subject: Subject) -> np.ndarray:
    """(h, w, 3) uint8: a photograph damaged, restored and as it was, side by side."""
    samples = {path.name: path for path in sample_photos()}
    with Image.open(samples.get(subject.photo, folder / subject.photo)) as photo:
        width = round(min(photo.width, photo.height * SHAPE))
        size = (width, round(width / SHAPE))
        rgb = np.asarray(ImageOps.fit(photo.convert("RGB"), size, centering=subject.center))
    gray = damaged(rgb, subject)
    pictures = [gray_to_rgb(gray), pipeline(gray), rgb]
    shown = [cv2.resize(picture, SHOWN, interpolation=cv2.INTER_AREA) for picture in pictures]
    return np.hstack([np.pad(p, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for p in shown])


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", type=Path, required=True, help="the folder that holds the photographs"
    )
    arguments = parser.parse_args()
    pipeline = Pipeline.load(SHIPPED, tta=2, style="visual")
    rows = [row(pipeline, arguments.photos, subject) for subject in SUBJECTS]
    Image.fromarray(np.vstack(rows)[:-GAP, :-GAP]).save(TARGET, quality=88)


if __name__ == "__main__":
    main()
