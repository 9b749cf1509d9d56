"""Is a folder what the competition says? Every file is decoded and compared."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from src.damage import detect
from src.datasets.competition import read_input, read_test, read_train, read_truth
from src.files import InputError
from src.parallel import parallel_map


@dataclass(frozen=True)
class Hole:
    """What `check` keeps of an image that is as it should be."""

    area: float  # share of the image, 0 to 1
    fill: int  # grey level


def check_image(row: tuple[str, str | None], data_dir: Path) -> Hole | str:
    """The hole of an input, or what is wrong with it or with its truth.

    Pixels in which the input and the truth's PIL grey differ are lost ones, so all of them hold the fill;
    any other difference breaks the competition's grey rule.
    """
    source = data_dir / row[0]
    try:
        gray = read_input(source)
        mask = detect(gray)
        if not mask.any():
            return f"{source}: no hole found, expected one region of one constant value"
        fill = int(gray[mask][0])
        if row[1] is not None:
            true = np.asarray(Image.fromarray(read_truth(data_dir / row[1])).convert("L"))
            wrong = np.count_nonzero((gray != true) & (gray != fill))
            if wrong:
                return f"{source}: {wrong} pixels outside the hole differ from the grey of {row[1]}"
    except (InputError, OSError) as error:
        return str(error)
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
        found = list(parallel_map(partial(check_image, data_dir=data_dir), members, f"checking {part}"))
        holes[part] = [result for result in found if isinstance(result, Hole)]
        defects += [result for result in found if isinstance(result, str)]
    return holes, defects


def hole_table(holes: dict[str, list[Hole]]) -> pd.DataFrame:
    """Minimum, median, mean and maximum of hole area (per cent) and fill (grey level), per part."""
    columns = {}
    for part, members in holes.items():
        columns[f"{part} hole area %"] = pd.Series([100 * hole.area for hole in members], dtype=float)
        columns[f"{part} fill"] = pd.Series([hole.fill for hole in members], dtype=float)
    rows = {
        name: [series.min(), series.median(), series.mean(), series.max()]
        for name, series in columns.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["min", "median", "mean", "max"])
