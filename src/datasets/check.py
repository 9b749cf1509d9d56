"""Check that a folder obeys the competition's rules; every file is decoded and compared."""

import zlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from src.color.lattice import luma
from src.damage.hole import find_hole, lost_pixels
from src.datasets.competition import (
    SIZE,
    missing_files,
    read_input,
    read_test,
    read_train,
    read_truth,
)
from src.datasets.folds import FOLDS, READ_ONLY, load_folds
from src.utils.errors import InputError
from src.utils.processes import parallel_map

MAX_NAMED = 5  # missing files; more are summed up
MAX_GAP = np.ones((9, 9), np.uint8)  # bridges gaps between parts of one hole


class Facts(NamedTuple):
    """What is known of a good image."""

    area: float  # of the hole, per cent of the image
    fill: int  # of the hole, grey level
    digest: int  # CRC-32 of the truth, or of an input without one
    colorless: bool  # a truth without any colour


def check_image(row: tuple[str, str | None], data_dir: Path) -> Facts | str:
    """The facts of an (input, truth) pair or of an input alone, or what is wrong with it."""
    source = data_dir / row[0]
    try:
        gray = read_input(source)
        if row[1] is None:
            true, differs = gray, find_hole(gray)
            mask = differs
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
    colorless = row[1] is not None and not np.ptp(true, axis=-1).any()
    return Facts(100 * float(mask.mean()), fill, zlib.crc32(true), colorless)


def check_folder(data_dir: Path) -> tuple[dict[str, list[Facts]], list[str]]:
    """The facts of the good `train` pairs and `test` inputs, and one line for each defect."""
    train, test = read_train(data_dir), read_test(data_dir)
    rows = {
        "train": list(train.itertuples(index=False, name=None)),
        "test": [(path, None) for path in test["input_image_path"]],
    }
    good, defects, incomplete = {}, [], set()
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
        good[part] = [result for result in results if isinstance(result, Facts)]
        defects += [result for result in results if isinstance(result, str)]
    return good, defects


def describe(good: dict[str, list[Facts]]) -> list[str]:
    """Lines on the good images of each part: how many, their holes, and what is odd."""
    lines, odd = [], []
    for part, members in good.items():
        images = pd.DataFrame(members, columns=Facts._fields)
        lines.append(f"{part}: {len(images)} good images of {SIZE[0]}x{SIZE[1]} px")
        if len(images):
            area, fill = images["area"], images["fill"]
            lines.append(
                f"  holes: {area.min():.1f} to {area.max():.1f} % of the image, median "
                f"{area.median():.1f} %, of grey levels {fill.min()} to {fill.max()}"
            )
        copies = images["digest"].duplicated().sum()
        odd += [f"{copies} {part} images occur twice"] if copies else []
    colorless = sum(facts.colorless for facts in good["train"])
    odd += [f"{colorless} truths have no colour"] if colorless else []
    return [*lines, f"odd: {'; '.join(odd) or 'nothing'}"]


def describe_folds(data_dir: Path, folds: int, seed: int) -> str:
    """The scenes and folds of a good folder, or why it has none, which is not a defect."""
    try:
        table = load_folds(data_dir, folds, seed)
    except InputError as error:
        if (data_dir / FOLDS).exists():
            raise
        return f"no folds.csv: {error}"
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        return f"no folds.csv ({error.strerror}): training keeps it with its run"
    scenes, sizes = table["scene"].value_counts(), table["fold"].value_counts()
    largest = f"the largest of {scenes.max()} images"
    split = f"{folds} folds of {sizes.min()} to {sizes.max()} images in {data_dir / FOLDS}"
    return f"scenes: {len(scenes)}, {largest}\n{split}"
