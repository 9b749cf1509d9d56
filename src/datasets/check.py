"""Check that a folder obeys the competition's rules; every file is decoded and compared."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from src.color.lattice import luma
from src.damage.hole import find_hole, lost_pixels
from src.datasets.competition import missing_files, read_input, read_test, read_train, read_truth
from src.datasets.folds import FOLDS, READ_ONLY, load_folds
from src.utils.errors import InputError
from src.utils.processes import parallel_map

MAX_NAMED = 5  # missing files; more are summed up
MAX_GAP = np.ones((9, 9), np.uint8)  # bridges gaps between parts of one hole


class Hole(NamedTuple):
    """The hole of a good image."""

    area: float  # share of the image, 0 to 1
    fill: int  # grey level


def check_image(row: tuple[str, str | None], data_dir: Path) -> Hole | str:
    """The hole of an (input, truth) pair or of an input alone, or what is wrong with it."""
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
    # one region of the fill; dots of it elsewhere are the thinnest tips of its polygon
    same = gray == fill
    closed = cv2.morphologyEx(same.view(np.uint8), cv2.MORPH_CLOSE, MAX_GAP)
    _, labels = cv2.connectedComponents(closed)
    hole = same & (labels == np.bincount(labels[differs]).argmax())
    elsewhere = (differs & ~hole).view(np.uint8)
    second = cv2.morphologyEx(elsewhere, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    outside = np.count_nonzero(differs & ~(same & (second == 0)))
    if outside:
        return f"{source}: {outside} pixels outside the hole differ from the grey of {row[1]}"
    return Hole(float(mask.mean()), fill)


def check_folder(data_dir: Path) -> tuple[dict[str, list[Hole]], list[str]]:
    """The holes of the good `train` pairs and `test` inputs, and one line for each defect."""
    train, test = read_train(data_dir), read_test(data_dir)
    rows = {
        "train": list(train.itertuples(index=False, name=None)),
        "test": [(path, None) for path in test["input_image_path"]],
    }
    holes, defects, incomplete = {}, [], set()
    for name, column in [*train.items(), *test.items()]:
        missing = missing_files(data_dir, column)
        if len(missing) > MAX_NAMED:
            found = f"missing, as are {len(missing)} of {len(column)} files of {name} in all"
            defects.append(f"{data_dir / missing[0]}: {found}; copy the data set again")
            incomplete |= set(missing)
    for part, members in rows.items():
        members = [row for row in members if not incomplete & set(row)]
        check = partial(check_image, data_dir=data_dir)
        results = list(parallel_map(check, members, f"checking {part}"))
        holes[part] = [result for result in results if isinstance(result, Hole)]
        defects += [result for result in results if isinstance(result, str)]
    return holes, defects


def hole_table(holes: dict[str, list[Hole]]) -> pd.DataFrame:
    """Minimum, median, mean and maximum of hole area (per cent) and fill (grey level), per part."""
    columns = {}
    for part, members in holes.items():
        table = pd.DataFrame(members, columns=Hole._fields, dtype=float)
        columns[f"{part} hole area %"] = 100 * table["area"]
        columns[f"{part} fill"] = table["fill"]
    return pd.DataFrame(columns).agg(["min", "median", "mean", "max"]).T


def folds_summary(data_dir: Path, folds: int, seed: int) -> str:
    """The number of scenes of a good folder, or why it cannot be split, which is not a defect."""
    try:
        return f"scenes: {load_folds(data_dir, folds, seed)['scene'].nunique()}"
    except InputError as error:
        if (data_dir / FOLDS).exists():
            raise
        return f"no folds.csv: {error}"
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        return f"no folds.csv ({error.strerror}): training keeps it with its run"
