"""How well and how fast holes are found."""

import time
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.settings import HoleFinding
from src.damage.hole import find_hole, punch_hole
from src.datasets.build import SIDE, SourcePhoto, inspect, photos_below, place_crops
from src.datasets.folds import evenly_spaced
from src.utils.images import open_photo
from src.utils.processes import parallel_map


def measure_damage(path: Path, root: Path, seed: int) -> dict | None:
    """What `find_hole` makes of one crop of a photo, undamaged and damaged; None for an unusable
    photo.

    A wrong pixel cannot be told apart when pixels of its value connect it to one that was rightly
    found.
    """
    photo = inspect(path, root)
    if not isinstance(photo, SourcePhoto):
        return None
    image = open_photo(path).convert("RGB").resize(photo.size, Image.Resampling.LANCZOS)
    left, top = place_crops(photo, 1, seed)[0]
    rgb = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))
    rng = np.random.default_rng([seed, zlib.crc32(photo.name.encode())])
    gray, mask = punch_hole(rgb, rng)
    start = time.perf_counter()
    found = find_hole(gray)
    seconds = time.perf_counter() - start
    wrong, right = found != mask, found & mask
    _, labels = cv2.connectedComponents((gray == gray[mask][0]).astype(np.uint8))
    return {
        "IoU": right.sum() / (found | mask).sum(),
        "exact": not wrong.any(),
        "exact up to indistinguishable": bool(
            np.isin(labels[wrong], np.unique(labels[right])).all()
        ),
        "false hole": bool(find_hole(np.asarray(Image.fromarray(rgb).convert("L"))).any()),
        "ms": 1000 * seconds,
    }


def run(settings: HoleFinding) -> None:
    """Print the table."""
    chosen = evenly_spaced(photos_below(settings.photos), settings.count)
    function = partial(measure_damage, root=settings.photos, seed=settings.seed)
    rows = [row for row in parallel_map(function, chosen, "damaging") if row]
    table = pd.DataFrame(rows)
    print(f"images            {len(table)}")
    for name in ("IoU", "exact", "exact up to indistinguishable", "false hole"):
        print(f"{name:30} {table[name].mean():.5f}")
    print(f"{'ms an image, median':30} {table['ms'].median():.2f}")
    print(f"{'ms an image, 95th percentile':30} {table['ms'].quantile(0.95):.2f}")
