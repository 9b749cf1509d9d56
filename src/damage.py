"""The competition's damage, both ways: `synthesize` draws it, `detect` finds it again.

One region of a grey photo is lost: an axis-aligned rectangle, a circle or a polygon, filled with one
constant value, without anti-aliasing. The figures come from 16 published images of the competition
(Dacon 236420): 9 rectangles with sides of 37 to 149 px, 3 circles of 89 to 144 px, 4 polygons that
cover 11 to 13 %, some crossing themselves and then filled even-odd; fills from 0 to 86.
"""

import numpy as np
from PIL import Image, ImageDraw

REFERENCE_SIDE = 512  # the lengths below are pixels of a 512x512 image
SHAPES = {"rectangle": 9 / 16, "circle": 3 / 16, "polygon": 4 / 16}
RECTANGLE_SIDES = (37, 149)
CIRCLE_DIAMETERS = (74, 149)
POLYGON_AREAS = (0.10, 0.135)  # share of the image
MIN_AREA = 0.009  # share of the image
FILLS = (0, 86)


def synthesize(rgb: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turn a colour photo into an input of the competition.

    Args:
        rgb: (H, W, 3) uint8; lengths scale with the short side, so any size works.
        rng: the only source of randomness.

    Returns:
        gray: (H, W) uint8, PIL's `convert("L")` with the hole filled by one constant.
        mask: (H, W) bool, True where lost; never empty.
    """
    gray = np.array(Image.fromarray(rgb).convert("L"))
    mask = draw_hole(gray.shape, rng)
    gray[mask] = rng.integers(FILLS[0], FILLS[1] + 1)
    return gray, mask


def draw_hole(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """One random hole as an (H, W) bool mask, drawn by `PIL.ImageDraw` inside the image."""
    height, width = shape
    scale = min(shape) / REFERENCE_SIDE
    kind = rng.choice(list(SHAPES), p=list(SHAPES.values()))
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    if kind == "polygon":
        draw.polygon(_polygon(height, width, rng), fill=1)
    else:
        if kind == "circle":
            w = h = _between(CIRCLE_DIAMETERS, rng) * scale
        else:
            w = h = 0.0
            while w * h < MIN_AREA * (REFERENCE_SIDE * scale) ** 2:
                w, h = (_between(RECTANGLE_SIDES, rng) * scale for _ in range(2))
        w, h = (max(1, min(round(side), limit)) for side, limit in ((w, width), (h, height)))
        left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        box = [left, top, left + w - 1, top + h - 1]
        (draw.ellipse if kind == "circle" else draw.rectangle)(box, fill=1)
    return np.array(canvas)


def _between(limits: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))


def _polygon(height: int, width: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Corners of a polygon of the wanted area: ordered around a centre, or crossing itself."""
    wanted = rng.uniform(*POLYGON_AREAS) * height * width
    while True:
        corners = rng.uniform(-1, 1, (int(rng.integers(3, 9)), 2))
        if rng.random() < 0.5:  # without the sorting the outline crosses itself
            corners = corners[np.argsort(np.arctan2(*corners.T))]
        probe = Image.new("1", (256, 256))
        ImageDraw.Draw(probe).polygon([tuple(c) for c in (corners + 1) * 127.5], fill=1)
        area = np.count_nonzero(probe) / 127.5**2
        if area == 0:
            continue
        corners *= np.sqrt(wanted / area)
        corners -= corners.min(axis=0)
        room = np.array([width - 1, height - 1]) - corners.max(axis=0)
        if (room >= 0).all():
            return [tuple(c) for c in np.rint(corners + rng.uniform(0, room)).astype(int).tolist()]
