"""Is a folder what the competition says? Every file is decoded and compared."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src.color.luma import luma
from src.damage.hole import find_hole, lost_pixels
from src.datasets.competition import read_input, read_test, read_train, read_truth
from src.utils.errors import InputError
from src.utils.processes import parallel_map

GAP = 9  # px; pieces of a hole lie nearer to each other


@dataclass(frozen=True)
class Hole:
    """What `check` keeps of an image that is as it should be."""

    area: float  # share of the image, 0 to 1
    fill: int  # grey level


def check_image(row: tuple[str, str | None], data_dir: Path) -> Hole | str:
    """The hole of an input, or what is wrong with it or with its truth.

    With the truth, the hole is where the input differs from its PIL grey: one region of one value,
    or the competition's grey rule is broken. Without it, the hole is what `find_hole` finds.
    """
    source = data_dir / row[0]
    try:
        gray = read_input(source)
        if row[1] is None:
            differs = mask = find_hole(gray)
        else:
            true = read_truth(data_dir / row[1])
            differs = gray != luma(true)
            mask = lost_pixels(gray, true)
    except (InputError, OSError) as error:
        return str(error)
    if not differs.any():
        return f"{source}: no hole found, expected one region of one constant value"
    fill = int(np.median(gray[differs]))
    filled = cv2.morphologyEx(
        (gray == fill).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((GAP, GAP), np.uint8)
    )
    _, labels = cv2.connectedComponents(filled)
    hole = (gray == fill) & (labels == np.bincount(labels[differs]).argmax())
    # single pixels of the fill are dots of a polygon's thinnest tips, a larger region is a second
    # hole
    second = cv2.morphologyEx(
        (differs & ~hole).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    )
    outside = np.count_nonzero(differs & ((gray != fill) | (second > 0)))
    if outside:
        return f"{source}: {outside} pixels outside the hole differ from the grey of {row[1]}"
    return Hole(float(mask.mean()), fill)


def check_folder(data_dir: Path) -> tuple[dict[str, list[Hole]], list[str]]:
    """Check every file that the CSVs list.

    Returns: the holes of the good `train` pairs and `test` inputs, and one line for each defect.

    Raises `InputError` when a CSV itself is missing or malformed.
    """
    train, test = read_train(data_dir), read_test(data_dir)
    rows = {
        "train": list(zip(train["input_image_path"], train["gt_image_path"], strict=True)),
        "test": [(path, None) for path in test["input_image_path"]],
    }
    holes, defects = {}, []
    for part, members in rows.items():
        found = list(
            parallel_map(partial(check_image, data_dir=data_dir), members, f"checking {part}")
        )
        holes[part] = [result for result in found if isinstance(result, Hole)]
        defects += [result for result in found if isinstance(result, str)]
    return holes, defects


def hole_table(holes: dict[str, list[Hole]]) -> pd.DataFrame:
    """Minimum, median, mean and maximum of hole area (per cent) and fill (grey level), per part."""
    columns = {}
    for part, members in holes.items():
        columns[f"{part} hole area %"] = pd.Series(
            [100 * hole.area for hole in members], dtype=float
        )
        columns[f"{part} fill"] = pd.Series([hole.fill for hole in members], dtype=float)
    return pd.DataFrame(
        {name: c.agg(["min", "median", "mean", "max"]) for name, c in columns.items()}
    ).T
