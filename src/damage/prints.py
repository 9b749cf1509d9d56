"""Looks of undamaged photographs in albums, books and newspapers: nothing is lost in them.

Drawn on photos, so that the damage detector learns what is not damage. Lengths are pixels.
"""

import math
import string

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = string.ascii_letters + string.digits + ".,-&'/"
BAYER = cv2.resize(np.float32([[0, 2], [3, 1]]), (4, 4), interpolation=cv2.INTER_NEAREST)
BAYER = (np.tile(np.float32([[0, 2], [3, 1]]) * 4, (2, 2)) + BAYER + 0.5) / 16  # Bayer 1973, 4x4


def printed(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the photos (H, W) uint8 as they are, the others in one to three of the `LOOKS`."""
    if rng.random() < 0.5:
        return gray
    looks = list(LOOKS.values())
    for index in sorted(rng.choice(len(looks), rng.integers(1, 4), replace=False)):
        gray = looks[index](gray, rng)
    return gray


def crushed(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clip shadows, highlights or both."""
    low, high = np.percentile(gray, [rng.uniform(0, 40), rng.uniform(70, 100)])
    stretched = (gray - low) * (255 / max(1.0, high - low))
    black, white = rng.uniform(0, 40), rng.uniform(215, 255)
    return _bytes(stretched.clip(0, 255) * ((white - black) / 255) + black)


def enlarged(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Enlarge a small copy."""
    factor = rng.uniform(1.5, 4)
    small = [max(1, round(side / factor)) for side in gray.shape[::-1]]
    how = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.integers(3)]
    reduced = cv2.resize(gray, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, gray.shape[::-1], interpolation=how)


def textured_paper(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the regular relief of silk or canvas paper."""
    waves = _grating(gray.shape, rng, rng.uniform(3, 10))
    waves = waves + _grating(gray.shape, rng, rng.uniform(3, 10))
    return _bytes(gray + waves * rng.uniform(2, 14))


def lettered(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a caption, a date or a signature."""
    image = Image.fromarray(gray)
    draw = ImageDraw.Draw(image)
    height, width = gray.shape
    for _ in range(rng.integers(1, 4)):
        font = ImageFont.load_default(int(rng.integers(8, 40)))
        text = "".join(LETTERS[i] for i in rng.integers(0, len(LETTERS), rng.integers(2, 24)))
        text = " ".join(text[start : start + 6] for start in range(0, len(text), 6))
        place = rng.uniform(-0.1, 0.9) * width, rng.uniform(0, 0.95) * height
        draw.text(place, text, fill=int(rng.choice([0, 30, 128, 225, 255])), font=font)
    return np.asarray(image)


def screened(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn into halftone dots or lines, as in newspapers and engravings."""
    period = rng.uniform(2.5, 9)
    screen = _grating(gray.shape, rng, period, math.pi / 4)
    if rng.random() < 0.75:
        screen = (screen + _grating(gray.shape, rng, period, 3 * math.pi / 4)) / 2
    edge = rng.uniform(0.02, 0.5)
    dots = ((gray / 255 - 0.5 - screen / 2) / edge + 0.5).clip(0, 1)
    return _bytes(rng.uniform(0, 60) + dots * rng.uniform(120, 195))


def dithered(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn black and white: by error diffusion, a Bayer matrix, noise or a threshold."""
    kind = rng.integers(4)
    if kind == 0:
        black_white = np.asarray(Image.fromarray(gray).convert("1"))
    else:
        repeats = [math.ceil(side / 4) for side in gray.shape]
        ordered = np.tile(BAYER, repeats)[: gray.shape[0], : gray.shape[1]]
        threshold = (ordered, rng.random(gray.shape, np.float32), rng.uniform(0.2, 0.8))[kind - 1]
        black_white = gray / 255 > threshold
    black, white = (0, 255) if rng.random() < 0.5 else (rng.uniform(0, 60), rng.uniform(180, 255))
    return _bytes(np.where(black_white, white, black))


def framed(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a plain border on some sides, perhaps with a line in it or with round corners."""
    height, width = gray.shape
    edges = np.array([height, width, height, width])
    widths = (rng.uniform(0.005, 0.25, 4) * edges).astype(int) * (rng.random(4) < 0.7)
    if rng.random() < 0.5:
        widths = widths // rng.integers(1, 4)
    top, right, bottom, left = (int(w) for w in widths)
    reach = min(height, width) // 2
    radius = int(rng.uniform(0, 0.15) * reach) if rng.random() < 0.3 else 0
    box = [left, top, max(left, width - 1 - right), max(top, height - 1 - bottom)]
    image = Image.new("F", (width, height))
    ImageDraw.Draw(image).rounded_rectangle(box, radius, fill=1.0)
    inside = np.asarray(image)
    if rng.random() < 0.5:
        inside = cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.4, 1.5))
    paper = np.full(gray.shape, rng.choice([0, 8, 250, 255, rng.uniform(0, 255)]), np.float32)
    if rng.random() < 0.3:
        image = Image.fromarray(paper)
        gap, line = int(rng.integers(2, 12)), float(rng.uniform(0, 255))
        outer = [box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap]
        ImageDraw.Draw(image).rectangle(outer, outline=line, width=int(rng.integers(1, 4)))
        paper = np.asarray(image)
    return _bytes(paper + (gray - paper) * inside)


def compressed(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the blocks of strong JPEG compression."""
    return jpeg(gray, int(rng.integers(8, 60)))


def jpeg(gray: np.ndarray, quality: int) -> np.ndarray:
    """(H, W) uint8 after compression."""
    _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def _grating(
    shape: tuple[int, int], rng: np.random.Generator, period: float, angle: float | None = None
) -> np.ndarray:
    """(H, W) float32 in [-1, 1]: a wave of random phase, and of random angle if none is given."""
    angle = rng.uniform(0, math.pi) if angle is None else angle
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    along = columns * math.cos(angle) + rows * math.sin(angle)
    return np.cos(along * (2 * math.pi / period) + rng.uniform(0, 2 * math.pi)).astype(np.float32)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.round(values).clip(0, 255).astype(np.uint8)


# in the order in which a photo gets them
_IN_ORDER = (crushed, enlarged, textured_paper, screened, dithered, framed, lettered, compressed)
LOOKS = {look.__name__: look for look in _IN_ORDER}
