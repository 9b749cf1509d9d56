"""The bank: training data, all truths of a competition folder decoded, each with a filled hole.

Decoding a truth takes longer than augmenting it, and filling a hole a hundred times as long.
"""

import zlib
from functools import partial
from pathlib import Path

import numpy as np

from src.color.lattice import luma
from src.damage.hole import punch_hole
from src.datasets.competition import SIZE, read_train, read_truth
from src.fills.exemplar import COSTLY, costly_fills
from src.utils.errors import InputError
from src.utils.files import begin, identity, lock_folder, read_recipe
from src.utils.processes import parallel_map

FOLDER = "pack"  # in the competition folder
HOLES_VERSION = 1  # increment it when a fill or the damage changes
HOLES_SEED = 0
CROP = 256  # px, side of a hole example
TRAIN_CROP = 192  # px, side of its random part that a training step uses
CHANNELS = 2 + COSTLY  # channels of a hole example
ROWS = {  # shape and type of each file's rows, one per line of train.csv
    "truths.npy": ((*SIZE[::-1], 3), np.dtype(np.uint8)),
    "holes.npy": ((CHANNELS, CROP, CROP), np.dtype(np.uint8)),
    "stamps.npy": ((3,), np.dtype(np.int64)),  # size, time in ns, CRC-32; 0 until it is packed
}


def pack(data_dir: Path) -> int:
    """Make the bank of a competition folder, or bring it up to date; returns the number of images.

    Only what is missing or has changed is computed, one process per core.
    """
    names, folder = list(read_train(data_dir)["gt_image_path"]), data_dir / FOLDER
    with lock_folder(data_dir):
        try:
            _check(folder, names)
        except InputError:
            folder.mkdir(exist_ok=True)
            (folder / "recipe.json").unlink(missing_ok=True)
            for name, (shape, dtype) in ROWS.items():
                (folder / name).unlink(missing_ok=True)
                np.lib.format.open_memmap(folder / name, "w+", dtype, (len(names), *shape))
            begin(folder, _recipe(names))  # written last, when the arrays exist
        stamps = np.load(folder / "stamps.npy")
        rows = enumerate(names)
        jobs = [(i, name) for i, name in rows if not _unchanged(data_dir / name, stamps[i])]
        list(parallel_map(partial(_pack_image, data_dir), jobs, "packing"))
    return len(names)


def _recipe(names: list[str]) -> dict:
    return {"truths": names, "holes_seed": HOLES_SEED, "holes_version": HOLES_VERSION}


def _check(folder: Path, names: list[str]) -> None:
    """Raise `InputError` if the arrays are missing, broken or made from something else."""
    if read_recipe(folder) != _recipe(names):
        raise _unusable(folder, "made from another train.csv, or by another version of the fills")
    for path in (folder / name for name in ROWS):
        try:
            np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            raise _unusable(path, "missing or broken") from None


def _unusable(path: Path, found: str) -> InputError:
    return InputError(f"{path}: {found}; delete the folder {FOLDER} to train without", "pack")


def _pack_image(data_dir: Path, job: tuple[int, str]) -> None:
    row, name = job
    stamps = data_dir / FOLDER / "stamps.npy"
    _write_row(stamps, row, np.zeros(3, np.int64))  # 0 until the row is complete
    rgb = read_truth(data_dir / name)
    _, mask = punch_hole(rgb, np.random.default_rng([HOLES_SEED, row]))
    path = data_dir / name
    stamp = np.array([*identity(path), zlib.crc32(path.read_bytes())], np.int64)
    values = rgb, hole_example(luma(rgb), mask), stamp
    for file, row_values in zip(ROWS, values, strict=True):
        _write_row(data_dir / FOLDER / file, row, row_values)


def _write_row(path: Path, row: int, values: np.ndarray) -> None:
    # written, not mapped: with a full disk, a memory map kills the process silently
    offset = np.load(path, mmap_mode="r").offset
    try:
        with open(path, "r+b") as file:
            file.seek(offset + row * values.nbytes)
            file.write(values.tobytes())
    except OSError as error:
        error.filename = str(path)
        raise


def _unchanged(path: Path, stamp: np.ndarray) -> bool:
    """Whether a file is as it was when packed; it is only read if its time differs."""
    size, time = identity(path) or (None, None)
    same_size = size == stamp[0]
    return same_size and (time == stamp[1] or zlib.crc32(path.read_bytes()) == stamp[2])


class Bank:
    """The arrays of `pack`, read by the path of a truth; cheap to send to other processes.

    Raises `InputError` if it is unfinished or broken, or if `train.csv` or a truth has changed.
    """

    def __init__(self, data_dir: Path):
        self.folder = data_dir / FOLDER
        names = list(read_train(data_dir)["gt_image_path"])
        _check(self.folder, names)
        self.rows = {data_dir / name: row for row, name in enumerate(names)}
        stamps = np.load(self.folder / "stamps.npy")
        done = np.count_nonzero(stamps[:, 0])
        if done < len(names):
            raise _unusable(self.folder, f"holds {done} of {len(names)} images")
        for path, row in self.rows.items():
            if not _unchanged(path, stamps[row]):
                raise _unusable(path, "changed or removed since it was packed")

    def truth(self, path: Path) -> np.ndarray:
        """(512, 512, 3) uint8 RGB, read-only."""
        return self._row("truths.npy", path)

    def hole(self, path: Path) -> np.ndarray:
        """The `hole_example` of this truth, (CHANNELS, CROP, CROP) uint8, read-only."""
        return self._row("holes.npy", path)

    def _row(self, file: str, path: Path) -> np.ndarray:
        return np.asarray(np.load(self.folder / file, mmap_mode="r")[self.rows[path]])


def load_bank(data_dir: Path) -> Bank | None:
    """The bank of a competition folder, if there is one."""
    return Bank(data_dir) if (data_dir / FOLDER).exists() else None


def hole_example(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An example to train the inpainter on, (CHANNELS, CROP, CROP) uint8, or smaller if the photo
    is: grey, 255 where lost, `costly_fills`; from an undamaged photo and a mask with some True.
    """
    fills = costly_fills(gray.astype(np.float32) / 255, mask)
    box = crop_around(mask)
    maps = [gray[box], mask[box] * np.uint8(255), *(fills[:, *box] * 255).round().astype(np.uint8)]
    return np.stack(maps)


def crop_around(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a crop of `CROP` px around the lost pixels of (H, W) bool."""
    box = []
    for axis, size in ((1, mask.shape[0]), (0, mask.shape[1])):
        lost = np.flatnonzero(mask.any(axis=axis))
        start = (int(lost[0]) + int(lost[-1])) // 2 - CROP // 2
        start = min(max(0, start), max(0, size - CROP))
        box.append(slice(start, start + CROP))
    return tuple(box)


def random_part(example: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random part of an example, at most `TRAIN_CROP` px on a side; half are mirrored."""
    top, left = (int(rng.integers(max(0, side - TRAIN_CROP) + 1)) for side in example.shape[1:])
    part = example[:, top : top + TRAIN_CROP, left : left + TRAIN_CROP]
    return part[..., ::-1] if rng.random() < 0.5 else part
