"""The marks of age, drawn on undamaged photos to train the damage detector.

Scratches, hairs, dust, creases, cracks, flakes, stains and torn edges hide parts of the photo;
fading, blur, grain and printing do not. Lengths are pixels of a 512x512 photo; `scale`
adapts them.
"""

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.random import Generator

from src.color.lattice import luma
from src.damage.hole import REFERENCE_SIDE
from src.damage.prints import jpeg, printed

Layer = tuple[np.ndarray, float | np.ndarray]  # opacity (H, W) float32, and its tone in grey levels

SUBPIXEL = 4  # fractional bits of the coordinates that OpenCV draws with
# mean number in photos that have this kind; half of the photos have only some of the kinds
KINDS = {"scratch": 3.0, "hair": 1.5, "dust": 1.5, "crease": 0.7}
KINDS |= {"crack": 0.7, "flake": 1.0, "stain": 0.8, "tear": 0.3}


def age(
    rgb: np.ndarray,
    rng: Generator,
    scale: float | None = None,
    kinds: Mapping[str, float] = KINDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a colour photo into an old grey one.

    Args:
        rgb: (H, W, 3) uint8.
        scale: size of the damage; by default the short side over 512. Pass 1 for a 256x256 crop of
            a 512x512 photo.
        kinds: what may be drawn, and its mean number in a photo that has it.

    Returns:
        gray: (H, W) uint8.
        mask: (H, W) bool, True where damage hides the photo; empty for one photo in four or five.
    """
    clean = fade(printed(luma(rgb), rng), rng)
    aged, mask = clean, np.zeros(clean.shape, bool)
    side = min(clean.shape)
    scale = scale or side / REFERENCE_SIDE
    share = min(1.0, side / (scale * REFERENCE_SIDE))  # a crop gets this share of the damage
    unit = scale * 2 ** rng.uniform(-0.7, 1)
    kept = rng.random(len(kinds)) < rng.choice([0.0, 0.4, 1.0], p=[0.2, 0.5, 0.3])
    for (kind, mean), present in zip(kinds.items(), kept, strict=True):
        for _ in range(rng.poisson(mean * share) if present else 0):
            opacity, tone = DRAW[kind](clean.shape, rng, unit)
            before = aged
            aged = before + (tone - before) * opacity
            # a change of under 16 levels is invisible, unless beside a visible one
            change = cv2.dilate(np.abs(aged - before), np.ones((5, 5), np.uint8))
            mask |= (opacity >= 0.25) & (change >= 16)
    grain = rng.normal(0, rng.uniform(0, 6), clean.shape).astype(np.float32)
    scanned = np.round(aged + grain).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        scanned = jpeg(scanned, int(rng.integers(50, 96)))
    return scanned, mask


def fade(gray: np.ndarray, rng: Generator) -> np.ndarray:
    """(H, W) float32 grey levels of (H, W) uint8 with contrast and sharpness reduced unevenly."""
    low, high = rng.uniform(0, 60), rng.uniform(190, 255)
    faded = low + gray.astype(np.float32) * ((high - low) / 255)
    if rng.random() < 0.5:
        faded += rng.uniform(0, 25) * _clouds(gray.shape, rng, rng.uniform(100, 400))
    faded = faded.clip(0, 255)
    return cv2.GaussianBlur(faded, (0, 0), rng.uniform(0.3, 1.5)) if rng.random() < 0.5 else faded


def _path(
    shape: tuple[int, int], rng: Generator, length: float, curl: float, angle: float
) -> np.ndarray:
    """(N, 2) points (x, y) of a random curve whose turns deviate by `curl` radians per step."""
    steps = max(2, int(length / 4))
    angles = angle + np.cumsum(rng.normal(0, curl, steps))
    moves = 4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    start = rng.uniform(0, 1, 2) * shape[::-1]
    return start + np.cumsum(moves, axis=0) - moves.sum(axis=0) / 2


def _line(canvas: np.ndarray, points: np.ndarray, width: float) -> None:
    """Draw a curve of 255 into (H, W) uint8; below one pixel the width becomes opacity."""
    value, thickness = 255 * min(1.0, width), max(1, round(width))
    cv2.polylines(canvas, [_fixed(points)], False, value, thickness, cv2.LINE_AA, SUBPIXEL)


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points in the fixed-point format that OpenCV takes."""
    return np.round(points * 2**SUBPIXEL).astype(np.int32)


def _tone(rng: Generator) -> float:
    """A grey level: mostly that of bare paper or film, else of dirt."""
    return rng.uniform(190, 255) if rng.random() < 0.65 else rng.uniform(0, 60)


def _scratch(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """A long thin line, straight or nearly, vertical as on film or at any angle, often broken."""
    canvas = np.zeros(shape, np.uint8)
    upright = rng.random() < 0.5
    angle = rng.normal(math.pi / 2, 0.05 * rng.integers(2)) if upright else rng.uniform(0, math.pi)
    curl = rng.integers(2) * (0.002 if upright else 0.02)
    points = _path(shape, rng, rng.uniform(0.1, 1.4) * max(shape), curl, angle)
    width = rng.uniform(0.8, 3.5) * unit
    parts = np.array_split(points, rng.integers(1, max(2, min(12, len(points) // 4))))
    gaps = rng.uniform(0, 0.5)
    for part in parts:
        if len(part) > 1 and rng.random() >= gaps:
            _line(canvas, part, width)
    return _opacity(canvas, rng.uniform(0.5, 1)), _tone(rng)


def _hair(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """A curled fibre."""
    canvas = np.zeros(shape, np.uint8)
    length = rng.uniform(20, 200) * unit
    points = _path(shape, rng, length, rng.uniform(0.1, 0.35), rng.uniform(0, 6.3))
    _line(canvas, points, rng.uniform(0.8, 2.5) * unit)
    return _opacity(canvas, rng.uniform(0.5, 1)), _tone(rng)


def _dust(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """A scatter of specks of one tone."""
    canvas = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(3, 50)):
        radius = rng.exponential(1.5) + 0.7
        corners = int(rng.integers(5, 9))
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        reach = radius * unit * rng.uniform(0.5, 1.3, (corners, 1))
        outline = reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        outline = _fixed(rng.uniform(0, 1, 2) * shape[::-1] + outline)
        cv2.fillPoly(canvas, [outline], 255, cv2.LINE_AA, SUBPIXEL)
    return _opacity(canvas, rng.uniform(0.6, 1)), _tone(rng)


def _crease(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """A fold where the emulsion has cracked: ragged, light, with short branches."""
    canvas = np.zeros(shape, np.uint8)
    length = 1.5 * max(shape)
    points = _path(shape, rng, length, 0.01, rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)]))
    points += rng.normal(0, rng.uniform(0.3, 1.5) * unit, points.shape)
    for piece in np.array_split(points, max(1, len(points) // 6)):
        if len(piece) > 1:
            _line(canvas, piece, rng.uniform(0.8, 4) * unit)
    for index in rng.integers(0, len(points), rng.integers(0, 12)):
        branch = _path(shape, rng, rng.uniform(8, 50) * unit, 0.2, rng.uniform(0, 6.3))
        _line(canvas, branch - branch[0] + points[index], rng.uniform(0.7, 2) * unit)
    return _opacity(canvas, rng.uniform(0.6, 1)), rng.uniform(190, 255)


def _crack(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """Ragged lines of varying width where the emulsion has broken and bare paper shows."""
    canvas = np.zeros(shape, np.uint8)
    width = rng.uniform(1.5, 9) * unit
    for branch in range(rng.integers(1, 5)):
        length = rng.uniform(0.2, 1.3) * max(shape) * 0.6**branch
        points = _path(shape, rng, length, rng.uniform(0.05, 0.35), rng.uniform(0, 2 * math.pi))
        noise = rng.normal(0, 1, len(points) + 8)  # keeps its deviation when smoothed
        widths = width * 0.7**branch * np.exp(0.5 * np.convolve(noise, np.full(9, 1 / 3), "valid"))
        along = np.gradient(points, axis=0)
        norm = np.linalg.norm(along, axis=1, keepdims=True)
        across = along[:, ::-1] * (-1, 1) / np.maximum(1e-6, norm)
        edges = [points + side * across * widths[:, None] / 2 for side in (-1, 1)]
        edges = [edge + rng.normal(0, 0.15, edge.shape) * widths[:, None] for edge in edges]
        fixed = _fixed(np.concatenate([edges[0], edges[1][::-1]]))
        for start in range(len(points) - 1):  # quadrilaterals, as the outline may cross itself
            corners = fixed[[start, start + 1, -start - 2, -start - 1]]
            cv2.fillConvexPoly(canvas, cv2.convexHull(corners), 255, cv2.LINE_AA, SUBPIXEL)
    return _opacity(canvas, rng.uniform(0.7, 1)), rng.uniform(170, 255)


def _flake(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """Patches where the emulsion has come off."""
    opacity = np.zeros(shape, np.float32)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    middle, spread = rng.uniform(0, 1, 2) * shape, rng.uniform(0.05, 0.4) * max(shape)
    for _ in range(rng.integers(1, 12)):
        field = _clouds(shape, rng, rng.uniform(1.5, 10) * unit)
        reach = min(2 + rng.exponential(9) * unit, 0.15 * max(shape))
        center = middle + rng.normal(0, spread, 2)
        distance = np.hypot(rows - center[0], (columns - center[1]) * rng.uniform(0.5, 2)) / reach
        opacity = np.maximum(opacity, ((1 - distance + 0.4 * field) * reach).clip(0, 1))
    paper = rng.uniform(170, 255) if rng.random() < 0.8 else rng.uniform(0, 60)
    paper = paper + 3 * _clouds(shape, rng, 1)
    return opacity.astype(np.float32) * np.float32(rng.uniform(0.7, 1)), paper.astype(np.float32)


def _stain(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """A blot with an irregular border, sharp or soft, often darker at its rim."""
    field = _clouds(shape, rng, rng.uniform(10, 40) * unit)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    middle, reach = rng.uniform(0, 1, 2) * shape, min(rng.uniform(20, 100) * unit, 0.3 * min(shape))
    distance = np.hypot(rows - middle[0], columns - middle[1]) / reach
    inside = (1 - distance + 0.5 * field).clip(0, 1).astype(np.float32)
    rim = rng.uniform(0.02, 0.06) if rng.random() < 0.5 else rng.uniform(0.05, 0.4)
    body = np.minimum(1, inside / rim)
    if rng.random() < 0.5:
        body *= 1 - 0.6 * np.minimum(1, inside / 0.5)  # dirt dries at the rim
    return body * np.float32(rng.uniform(0.5, 1)), _tone(rng)


def _tear(shape: tuple[int, int], rng: Generator, unit: float) -> Layer:
    """A missing corner or edge, where the paper behind shows."""
    field = _clouds(shape, rng, rng.uniform(3, 15) * unit)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    angle = rng.uniform(0, 2 * math.pi)
    along = (columns - shape[1] / 2) * math.cos(angle) + (rows - shape[0] / 2) * math.sin(angle)
    depth = min(rng.uniform(10, 60) * unit, 0.3 * min(shape))
    beyond = along - (along.max() - depth) + rng.uniform(0.05, 0.3) * depth * field
    paper = rng.uniform(180, 255) + 4 * _clouds(shape, rng, 1.0)
    return beyond.clip(0, 1).astype(np.float32), paper.astype(np.float32)


def _clouds(shape: tuple[int, int], rng: Generator, size: float) -> np.ndarray:
    """Smooth noise (H, W) float32 of unit deviation, with patches of about `size` pixels."""
    small = [max(2, math.ceil(side / max(1.0, size))) for side in shape]
    noise = rng.normal(0, 1, small).astype(np.float32)
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _opacity(canvas: np.ndarray, strength: float) -> np.ndarray:
    return canvas.astype(np.float32) * np.float32(strength / 255)


_DRAWN = (_scratch, _hair, _dust, _crease, _crack, _flake, _stain, _tear)
DRAW = dict(zip(KINDS, _DRAWN, strict=True))
