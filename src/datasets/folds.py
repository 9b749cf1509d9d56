"""Folds for validation: crops of one photo are never on both sides of a split."""

import base64
import errno
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from src.datasets.competition import TRAIN_COLUMNS, read_csv, read_train, require_files
from src.utils.errors import InputError, SettingError
from src.utils.files import write_text

FOLDS = "folds.csv"
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
COLUMNS = [*TRAIN_COLUMNS, "scene", "fold"]
WEIGHT = "weight"  # optional column: relative frequency of an image in training

T = TypeVar("T")
Pairs = list[tuple[Path, Path]]  # damaged input and truth of each image


def assign_folds(scenes: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Validation fold, 0 to `folds` - 1, of each image: (N,) int64; sizes are almost equal.

    `scenes` is (N,) integers, the scene of each image; a scene is never split.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and used only here

    found = len(np.unique(scenes))
    if folds < 2:
        raise SettingError("folds", folds, "at least 2 are needed to validate on unseen scenes")
    if found < folds:
        remedy = f"choose at most {found}, or add photos" if found > 1 else "add other photos"
        raise SettingError("folds", folds, f"found {found} scene(s); {remedy}")
    # with a single class it balances images; a shuffled GroupKFold would balance scenes
    one_class = np.zeros(len(scenes))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.empty(len(scenes), np.int64)
    for number, (_, members) in enumerate(splitter.split(one_class, one_class, scenes)):
        fold[members] = number
    return fold


def photo_sources(data_dir: Path) -> pd.Series:
    """Source of each image by its name: the photo's path up to the last hyphen in `crops.csv`,
    which `prepare_data.py build` wrote; empty without that file."""
    path = data_dir / "crops.csv"
    if not path.exists():
        return pd.Series(dtype=str)
    crops = pd.read_csv(path, dtype=str).set_index("name")
    return crops["photo"].str.replace(r"(-[^-/]*)?\.[^./]*$", "", regex=True)


def write_folds(data_dir: Path, path: Path, groups: np.ndarray, folds: int, seed: int) -> None:
    """Write a split of `train.csv` in which no group, (N,) integers, is split."""
    table = read_train(data_dir).assign(scene=groups, fold=assign_folds(groups, folds, seed))
    write_text(path, table.to_csv(index=False))


def split_by_source(data_dir: Path, folds: int, seed: int) -> None:
    """Write a `folds.csv` whose folds are whole sources: scores on cameras and places that training
    has not seen. An existing file is refused."""
    path = data_dir / FOLDS
    names = read_train(data_dir)["input_image_path"].map(lambda name: Path(name).stem)
    sources = photo_sources(data_dir).reindex(names)
    if path.exists():
        raise InputError(f"{path}: is there already; move it away to split by source")
    if sources.isna().any():
        raise InputError(f"{data_dir / 'crops.csv'}: missing, or without the source of every image")
    write_folds(data_dir, path, pd.factorize(sources)[0], folds, seed)


def load_folds(
    data_dir: Path, folds: int = 5, seed: int = 0, spare: Path | None = None
) -> pd.DataFrame:
    """`train.csv` with columns scene, fold (int64) and weight (float64, 1 if the file has none).

    A `folds.csv` in the data folder, or else in `spare` (a run's folder), is used as it is;
    otherwise scenes are found (minutes), and it is written, to `spare` if the data is read-only.
    """
    path, kept = data_dir / FOLDS, (spare or data_dir) / FOLDS
    train = read_train(data_dir)
    require_files(data_dir, train)
    for found in (path, kept):
        if found.exists():
            return _read_folds(found, train, folds)
    from src.datasets.scenes import find_scenes

    scenes = find_scenes([data_dir / name for name in train["gt_image_path"]])
    try:
        write_folds(data_dir, path, scenes, folds, seed)
    except OSError as error:
        if spare is None or error.errno not in READ_ONLY:
            raise
        write_folds(data_dir, kept, scenes, folds, seed)
        print(f"{path}: cannot be written ({error.strerror}), so the folds are kept in {kept}")
    return _read_folds(path if path.exists() else kept, train, folds)


def _read_folds(path: Path, train: pd.DataFrame, folds: int) -> pd.DataFrame:
    remedy = "delete it to split again"
    table = read_csv(path, remedy, COLUMNS, dtype=dict.fromkeys(TRAIN_COLUMNS, str))
    weights = table.get(WEIGHT, pd.Series(1.0, table.index))
    numbers = pd.to_numeric(weights, errors="coerce").astype(float)
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers > 0)))
    if len(wrong):
        found = f"line {wrong[0] + 2}: weight {weights[wrong[0]]!r:.80} must be a number above 0"
        raise InputError(f"{path}, {found}; correct it, or remove the column")
    if not table[TRAIN_COLUMNS].equals(train):
        found = "does not list the files of train.csv in the same order"
        raise InputError(f"{path}: {found}; {remedy}")
    if table.groupby("scene")["fold"].nunique().max() > 1:
        raise InputError(f"{path}: a scene is in two folds; {remedy}")
    found = sorted(table["fold"].unique())
    if found != list(range(folds)):
        named = ", ".join(map(str, found[:10]))
        raise InputError(f"{path}: folds {named}, expected 0 to {folds - 1}; {remedy}", "folds")
    return table[COLUMNS].assign(**{WEIGHT: numbers})


def fold_files(
    data_dir: Path, folds: int, seed: int, fold: int, spare: Path | None = None
) -> tuple[Pairs, Pairs, pd.DataFrame]:
    """(input, truth) files to train and to validate on for one fold, and the rows of `load_folds`
    for the first."""
    table = load_folds(data_dir, folds, seed, spare)
    files = table[TRAIN_COLUMNS].map(data_dir.joinpath)
    held_out = table["fold"] == fold
    parts = files[~held_out], files[held_out]
    pairs = (list(part.itertuples(index=False, name=None)) for part in parts)
    return *pairs, table[~held_out]


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, from the first to the last; all when `count` is 0 or too large."""
    chosen = np.linspace(0, len(items) - 1, min(count or len(items), len(items)))
    return [items[int(index)] for index in chosen]


def fingerprint(pairs: Pairs) -> str:
    """A short hash of the inputs' file names, by which a checkpoint knows its held-out images."""
    names = "\n".join(source.name for source, _ in pairs)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def image_keys(paths: Sequence[Path]) -> np.ndarray:
    """(K,) uint32, sorted and unique: a hash of each file's name and size."""
    keys = (zlib.crc32(f"{path.name}:{os.stat(path).st_size}".encode()) for path in paths)
    return np.unique(np.fromiter(keys, np.uint32))


def encode_keys(keys: np.ndarray) -> str:
    """`image_keys` as text, for JSON."""
    return base64.b64encode(keys.astype("<u4").tobytes()).decode()


def decode_keys(text: str) -> np.ndarray:
    """The inverse of `encode_keys`."""
    return np.frombuffer(base64.b64decode(text), "<u4")
