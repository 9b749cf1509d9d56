"""The competition folder: where its files are and how its tables are read."""

import re
from io import StringIO
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from src.utils.errors import InputError
from src.utils.files import read_text
from src.utils.images import read_image

SIZE = (512, 512)  # width and height of every image, in pixels
TRAIN_COLUMNS = ["input_image_path", "gt_image_path"]
TEST_COLUMNS = ["input_image_path"]
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

    Backslashes are accepted; empty, repeated and absolute paths and `..` are refused. Links are
    followed.
    """
    path, remedy = data_dir / name, "use the competition's own file"
    if not path.exists():
        found = "no such file, so this is not a competition folder"
        raise InputError(f"{path}: {found}", "data folder")
    table = read_csv(path, remedy, columns, dtype=str)[columns]
    if table.empty:
        raise InputError(f"{path}: no rows; {remedy}")
    for column in columns:
        values = enumerate(table[column], start=2)
        table[column] = [_relative(value, f"{path}, line {line}") for line, value in values]
        repeated = table[column][table[column].duplicated()]
        if len(repeated):
            found = f"{repeated.iloc[0]} is listed twice in {column}"
            raise InputError(f"{path}: {found}; remove one row")
    return table


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
    return read_image(path, "L", SIZE)


def read_truth(path: Path) -> np.ndarray:
    """A ground truth of the competition, (512, 512, 3) uint8 RGB."""
    return read_image(path, "RGB", SIZE)
