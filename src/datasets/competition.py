"""The competition folder: where its files lie and how its tables are read."""

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
CONTROL = r"[\0-\x1f\x7f-\x9f]"  # characters that no system call takes or that steer a terminal


def read_table(data_dir: Path, name: str, columns: list[str]) -> pd.DataFrame:
    """`train.csv` or `test.csv` with the wanted columns as relative POSIX paths, in file order.

    Windows line ends, a byte order mark and backslashes are accepted.

    Raises `InputError` for a missing folder, file or column, an empty table, an empty, repeated or
    absolute path, or one that leaves the folder by `..`. Links are followed.
    """
    data_dir = Path(data_dir)
    path, remedy = data_dir / name, "use the competition's own file"
    if not data_dir.is_dir():
        raise InputError(f"{data_dir}: no such folder", "data folder")
    try:
        table = pd.read_csv(StringIO(read_text(path, remedy)), dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, so this is not a competition folder", "data folder"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            f"{path}: not a CSV file ({' '.join(str(error).split())}); {remedy}"
        ) from None
    missing = [column for column in columns if column not in table.columns]
    if missing:
        found = list(table.columns)
        raise InputError(
            f"{path}: no column {', '.join(missing)} (found: {found!r:.200}); {remedy}"
        )
    if table.empty:
        raise InputError(f"{path}: no rows; {remedy}")
    table = table[columns].copy()
    for column in columns:
        table[column] = [
            _relative(path, line, value) for line, value in enumerate(table[column], start=2)
        ]
        repeated = table[column][table[column].duplicated()]
        if len(repeated):
            raise InputError(
                f"{path}: {repeated.iloc[0]} is listed twice in {column}; remove one row"
            )
    return table


def _relative(path: Path, line: int, value: str) -> str:
    plain = PurePosixPath(value.strip().replace("\\", "/"))
    if not plain.name or re.search(CONTROL, value):
        found = f"control characters in {value!r}" if plain.name else "empty path"
        raise InputError(f"{path}, line {line}: {found}; name a file such as ./train_input/X.png")
    if plain.is_absolute() or ".." in plain.parts or ":" in plain.parts[0]:
        raise InputError(
            f"{path}, line {line}: {value} points outside the data folder; "
            "use paths relative to it, such as ./train_input/TRAIN_00000.png"
        )
    return str(plain)


def read_train(data_dir: Path) -> pd.DataFrame:
    """`train.csv` with `input_image_path` and `gt_image_path`; see `read_table`."""
    return read_table(data_dir, "train.csv", TRAIN_COLUMNS)


def read_test(data_dir: Path) -> pd.DataFrame:
    """`test.csv` with `input_image_path`; see `read_table`."""
    return read_table(data_dir, "test.csv", TEST_COLUMNS)


def read_input(path: Path) -> np.ndarray:
    """A damaged input of the competition, (512, 512) uint8; raises `InputError` for anything else."""
    return read_image(path, "L", SIZE)


def read_truth(path: Path) -> np.ndarray:
    """A ground truth of the competition, (512, 512, 3) uint8 RGB; raises `InputError` otherwise."""
    return read_image(path, "RGB", SIZE)
