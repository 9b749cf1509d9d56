"""The competition folder: where its files are and how its tables are read."""

import os
import re
from collections.abc import Iterable
from functools import cache
from io import StringIO
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from src.utils.errors import InputError
from src.utils.files import name_key, read_text
from src.utils.images import open_image

SIZE = (512, 512)  # width and height of every image, in pixels
TRAIN_COLUMNS = ["input_image_path", "gt_image_path"]
TEST_COLUMNS = ["input_image_path"]
EXCHANGED = "inputs are grey and truths in colour; if they are exchanged, put them back"
CONTROL = r"[\0-\x1f\x7f-\x9f]"  # invalid in file names, or can control a terminal


def read_csv(path: Path, remedy: str, columns: list[str], **options: object) -> pd.DataFrame:
    """A CSV file with these columns, read with `options`; `remedy` ends the error messages."""
    try:
        table = pd.read_csv(StringIO(read_text(path, remedy)), keep_default_na=False, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a CSV file ({reason}); {remedy}") from None
    missing = ", ".join(column for column in columns if column not in table.columns)
    if missing:
        found = f"no column {missing} (found: {list(table.columns)!r:.200})"
        raise InputError(f"{path}: {found}; {remedy}")
    return table


def read_table(data_dir: Path, name: str, columns: list[str]) -> pd.DataFrame:
    """`train.csv` or `test.csv`: the columns as relative POSIX paths, in file order.

    Backslashes are accepted; empty and absolute paths, `..`, and two files of one name are refused.
    Links are followed.
    """
    path, remedy = data_dir / name, f"use the competition's own {name} ({', '.join(columns)})"
    if not path.exists():
        raise _not_a_competition_folder(path)
    table = read_csv(path, remedy, columns, dtype=str)
    if columns == TEST_COLUMNS and "gt_image_path" in table:
        raise InputError(f"{path}: lists truths, so it is a train.csv; {remedy}")
    table = table[columns]
    if table.empty:
        raise InputError(f"{path}: no rows; {remedy}")
    for column in columns:
        values = enumerate(table[column], start=2)
        table[column] = [_relative(value, f"{path}, line {line}") for line, value in values]
        names = table[column].map(lambda value: name_key(PurePosixPath(value).stem))
        if names.duplicated().any():  # results are named so
            one, other = table[column][names == names[names.duplicated()].iloc[0]][:2]
            found = f"{other} in {column} has the name of {one}; rename one of them"
            listed = f"{one} is listed twice in {column}; remove one row"
            raise InputError(f"{path}: {listed if one == other else found}")
    return table


def _not_a_competition_folder(path: Path) -> InputError:
    """The error for a `path`, `train.csv` or `test.csv`, that does not exist."""
    data_dir, name = path.parent, path.name
    if packed := [data_dir] if data_dir.is_file() else sorted(data_dir.glob("*.zip")):
        return InputError(f"{path}: no such file, but {packed[0]} was not unpacked; unpack it")
    if inside := sorted(data_dir.glob(f"*/{name}")):
        folder = inside[0].parent
        return InputError(f"{path}: no such file, but {inside[0]} exists; use --data-dir {folder}")
    found = "no such file, so this is not a competition folder"
    return InputError(f"{path}: {found}", "data folder")


def missing_files(data_dir: Path, paths: Iterable[str]) -> list[str]:
    """The `paths` below the data folder at which there is nothing."""

    @cache
    def listed(folder: str) -> set[str]:  # looking for each of thousands of files would take long
        place = data_dir / folder
        return set(os.listdir(place)) if place.is_dir() else set()

    split = ((path, *path.rpartition("/")[::2]) for path in paths)
    absent = [path for path, folder, name in split if name not in listed(folder)]
    return [path for path in absent if not (data_dir / path).exists()]  # in another spelling


def require_files(data_dir: Path, table: pd.DataFrame) -> None:
    """Raise `InputError` unless all files of a table are there."""
    paths = [path for column in table for path in table[column]]
    if missing := missing_files(data_dir, paths):
        found = f"missing, as are {len(missing)} of {len(paths)} files in all"
        raise InputError(f"{data_dir / missing[0]}: {found}; copy the data set again")


def _relative(value: str, where: str) -> str:
    plain = PurePosixPath(value.strip().replace("\\", "/"))
    if not plain.name:
        found = "empty path"
    elif re.search(CONTROL, value):
        found = f"control characters in {value!r}"
    elif plain.is_absolute() or ".." in plain.parts or ":" in plain.parts[0]:
        found = f"{value} points outside the data folder"
    else:
        return str(plain)
    raise InputError(f"{where}: {found}; use paths such as ./train_input/TRAIN_00000.png")


def read_train(data_dir: Path) -> pd.DataFrame:
    """`train.csv` with `input_image_path` and `gt_image_path`; see `read_table`."""
    return read_table(data_dir, "train.csv", TRAIN_COLUMNS)


def read_test(data_dir: Path) -> pd.DataFrame:
    """`test.csv` with `input_image_path`; see `read_table`."""
    return read_table(data_dir, "test.csv", TEST_COLUMNS)


def read_input(path: Path) -> np.ndarray:
    """A damaged input of the competition, (512, 512) uint8."""
    return np.asarray(open_image(path, "L", SIZE, ("PNG",), remedy=EXCHANGED))


def read_truth(path: Path) -> np.ndarray:
    """A ground truth of the competition, (512, 512, 3) uint8 RGB."""
    return np.asarray(open_image(path, "RGB", SIZE, ("PNG",), remedy=EXCHANGED))
