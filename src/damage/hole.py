"""The competition's damage, both ways: `punch_hole` draws it, `find_hole` finds it again.

One region of a grey photo is lost: an axis-aligned rectangle, a circle or a polygon (some cross
themselves; even-odd rule), filled with one constant value, without anti-aliasing. The figures
come from 16 published images of the competition (Dacon 236420).
"""

import itertools
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw

from src.color.lattice import luma

# Draws damage on (H, W, 3) uint8 RGB: the damaged grey (H, W) uint8, and the mask (H, W) bool.
DrawDamage = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]

REFERENCE_SIDE = 512  # the lengths below are pixels of a 512x512 image
SHAPES = {"rectangle": 9 / 16, "circle": 3 / 16, "polygon": 4 / 16}
RECTANGLE_SIDES = (37, 149)
CIRCLE_DIAMETERS = (74, 149)
POLYGON_AREAS = (0.10, 0.135)  # share of the image
FILLS = (0, 86)

# `find_hole`: measured on 2,916 damaged photos and the same photos undamaged
SOFT_STEP = 2  # grey levels; natural constant regions fade by one or two
# largest soft share of a border: 99 % of the holes are below 0.28, of natural regions above 0.75
MAX_SOFT = 0.5
FRAME = 0.9  # a constant region along this share of an image side is a frame
LOBE = 7  # px; narrower pieces are tips, which only their border tells from natural pixels


def punch_hole(rgb: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turn a colour photo (H, W, 3) uint8 of any size into an input of the competition: its luma
    (H, W) uint8 with a hole of one constant, and the mask (H, W) bool."""
    gray = luma(rgb).copy()
    mask = draw_hole(gray.shape, rng)
    gray[mask] = rng.integers(*FILLS, endpoint=True)
    return gray, mask


def find_hole(gray: np.ndarray) -> np.ndarray:
    """Find the hole of a damaged photo: the pieces of one dark value whose border is a jump.

    Natural constant regions (clipped skies, crushed blacks) fade out over one or two grey levels,
    so the share of such soft neighbours along a piece's border tells holes and nature apart.

    Takes (H, W) uint8 of any size. Returns (H, W) bool, True where lost; empty if nothing is lost,
    if the fill is brighter than any known one, or if it equals the hole's surroundings.
    """
    # 95 % of the tips are below 0.13, 95 % of the natural pieces that touch a hole above 0.2
    max_soft_tip = 0.25
    min_tip = 4  # px; nine in ten smaller pieces that touch a hole are natural
    mask = np.zeros(gray.shape, bool)
    seed = _seed(gray)
    if seed is None:
        return mask
    same = (gray == gray[seed]).view(np.uint8)
    # dilated, because pieces that meet in a point can be up to 2 px apart after rasterization
    near = cv2.dilate(same, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(near)
    left, top, width, height, _ = stats[labels[seed]]
    box = np.s_[top : top + height, left : left + width]
    reached = same[box] & (labels[box] == labels[seed])

    lobes = cv2.morphologyEx(reached, cv2.MORPH_OPEN, _lobe(gray.shape))
    tips = _with_hard_border(reached - lobes, same[box], gray[box], max_soft_tip, min_tip)
    lobes = _with_hard_border(lobes, same[box], gray[box], MAX_SOFT)
    count, labels = cv2.connectedComponents(lobes | tips)
    with_lobe = np.bincount(labels[lobes > 0], minlength=count) > 0  # a tip alone is not a hole
    mask[box] = with_lobe[labels]

    reach = 16  # px; the thinnest tips are rasterized as separate dots
    step = 40  # grey levels; no natural pixel near a hole is as far from all of its neighbours
    first = max(0, top - reach), max(0, left - reach)
    box = np.s_[first[0] : top + height + reach, first[1] : left + width + reach]
    near = cv2.dilate(mask[box].view(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    dots = near & same[box] & ~mask[box]
    mask[box] |= _with_hard_border(dots, same[box], gray[box], 0.0, step=step) > 0
    return mask


def is_drawn(gray: np.ndarray, mask: np.ndarray) -> bool:
    """Whether what `find_hole` found is surely a drawn hole, not a black object of the photo.

    A drawn hole has few corners, and its value is rare elsewhere, apart from a frame around the
    photo: true of at least 96 % of the holes found in 216 photos with sides of 96 to 1,024 px, and
    of at most 2 % of the constant regions found in the same photos with crushed shadows. The mask
    is not empty.
    """
    # px by which an outline may leave its polygon: a circle then has 16 corners, and the steps of a
    # slanted line are none
    slack = max(1.1, 2.0 * min(gray.shape) / REFERENCE_SIDE)
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    corners = sum(len(cv2.approxPolyDP(outline, slack, True)) for outline in outlines)
    same = (gray == gray[mask][0]) & ~mask
    count, labels = cv2.connectedComponents(same.view(np.uint8))
    frames = np.zeros(count, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        frames |= np.bincount(edge, minlength=count) >= FRAME * len(edge)
    elsewhere = np.count_nonzero(same & ~frames[labels])
    # 99 % of holes have fewer corners, 95 % of crushed blacks have more
    return corners <= 24 and mask.mean() <= 0.3 and elsewhere < np.count_nonzero(mask)


def lost_pixels(gray: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The hole (H, W) bool of an input `gray` (H, W) uint8 whose truth (H, W, 3) uint8 is known.

    `find_hole` also knows the lost pixels at which the truth happens to hold the fill; if it finds
    nothing, the pixels that differ count as lost.
    """
    mask = find_hole(gray)
    return mask if mask.any() else gray != luma(true)


def _seed(gray: np.ndarray) -> tuple[int, int] | None:
    """(row, column) of one pixel of the largest constant region with a hard border, or None."""
    max_fill = 110  # a little above the highest fill seen
    # share of the squared short side, without a rim of LOBE / 2; 3,000 holes had 0.007 or more
    min_region = 0.003
    lobe = _lobe(gray.shape)
    reach = len(lobe) // 2
    # neighbours whose surroundings are constant share their value: one labelling serves all values
    constant = (cv2.erode(gray, lobe) == cv2.dilate(gray, lobe)) & (gray <= max_fill)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(constant.view(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    large = 1 + np.flatnonzero(areas[1:] >= min_region * min(gray.shape) ** 2)
    for label in large[np.argsort(-areas[large])]:
        left, top, width, height, _ = stats[label]
        first = max(0, top - reach - 1), max(0, left - reach - 1)
        window = np.s_[first[0] : top + height + reach + 1, first[1] : left + width + reach + 1]
        core = labels[window] == label
        row, column = np.argwhere(core)[0] + first
        piece = cv2.dilate(core.view(np.uint8), lobe)
        edges = (
            (top <= reach, piece[0]),
            (left <= reach, piece[:, 0]),
            (top + height >= gray.shape[0] - reach, piece[-1]),
            (left + width >= gray.shape[1] - reach, piece[:, -1]),
        )
        lengths = (gray.shape[1], gray.shape[0]) * 2
        if any(at and e.sum() >= FRAME * n for (at, e), n in zip(edges, lengths, strict=True)):
            continue
        same = (gray[window] == gray[row, column]).view(np.uint8)
        if _with_hard_border(piece, same, gray[window], MAX_SOFT).any():
            return int(row), int(column)
    return None


def _lobe(shape: tuple[int, int]) -> np.ndarray:
    """Square of ones, `LOBE` px wide at the reference size, odd and at least 3."""
    side = 2 * max(1, round((LOBE - 1) / 2 * min(shape) / REFERENCE_SIDE)) + 1
    return np.ones((side, side), np.uint8)


def _with_hard_border(
    pieces: np.ndarray,
    same: np.ndarray,
    gray: np.ndarray,
    max_soft: float,
    min_area: int = 1,
    step: int = SOFT_STEP,
) -> np.ndarray:
    """The pieces, all of one grey value, with at most `max_soft` of their neighbours within `step`
    grey levels of it. Neighbours where `same` is 1 do not count."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(pieces)
    if count == 1:
        return pieces
    inside = labels > 0
    outside = 1 - same
    soft = outside & (cv2.absdiff(gray, int(gray[inside][0])) <= step)
    owners = labels[inside]
    # counts of the 3x3 pixels around each pixel; the image ends with its border
    constant = {"normalize": False, "borderType": cv2.BORDER_CONSTANT}
    around = [cv2.boxFilter(what, -1, (3, 3), **constant)[inside] for what in (outside, soft)]
    border, faded = (np.bincount(owners, weights, count) for weights in around)
    kept = (border > 0) & (faded <= max_soft * border) & (stats[:, cv2.CC_STAT_AREA] >= min_area)
    return kept[labels].view(np.uint8)


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
            w = h = rng.integers(*CIRCLE_DIAMETERS, endpoint=True) * scale
        else:
            min_area = 0.009 * (REFERENCE_SIDE * scale) ** 2
            w = h = 0.0
            while w * h < min_area:
                w, h = rng.integers(*RECTANGLE_SIDES, 2, endpoint=True) * scale
        w, h = (max(1, min(round(side), limit)) for side, limit in ((w, width), (h, height)))
        left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        box = [left, top, left + w - 1, top + h - 1]
        # PIL draws nothing for a circle of one pixel
        (draw.ellipse if kind == "circle" and w > 1 else draw.rectangle)(box, fill=1)
    return np.array(canvas)


def _polygon(height: int, width: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Corners of a polygon of the wanted area: ordered around a centre, or crossing itself."""
    wanted = rng.uniform(*POLYGON_AREAS) * height * width
    for attempt in itertools.count():
        corners = rng.uniform(-1, 1, (int(rng.integers(3, 9)), 2))
        if rng.random() < 0.5:  # without sorting, the outline crosses itself
            corners = corners[np.argsort(np.arctan2(*corners.T))]
        probe = Image.new("1", (256, 256))
        ImageDraw.Draw(probe).polygon([tuple(c) for c in (corners + 1) * 127.5], fill=1)
        area = np.count_nonzero(probe) / 127.5**2
        if area == 0:
            continue
        corners *= np.sqrt(wanted / area)
        corners -= corners.min(axis=0)
        last = np.array([width - 1, height - 1])
        if attempt >= 1000:  # none fits into an image of one row, so it is cut off at the border
            corners = np.minimum(corners, last)
        room = last - corners.max(axis=0)
        if (room >= 0).all():
            return [tuple(c) for c in np.rint(corners + rng.uniform(0, room)).astype(int).tolist()]
