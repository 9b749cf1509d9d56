"""The bank: what training reads of a competition folder, computed once.

Decoding a truth takes longer than augmenting it, filling a hole a hundred times as long, and what
DINOv2 sees in a photo half as long again.
"""

import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from src.color.dino import PATCH, TOKEN, VIEW, dino, to_bytes
from src.color.lattice import luma
from src.damage.hole import punch_hole
from src.datasets.competition import SIZE, read_train, read_truth
from src.fills.copies import color_view
from src.fills.exemplar import COSTLY, costly_fills
from src.fills.regions import Box, box_with_margin
from src.fills.simple import push_pull
from src.utils.errors import InputError
from src.utils.files import begin, identity, lock_folder, read_recipe
from src.utils.processes import parallel_map

FOLDER = "pack"  # in the competition folder
VERSION = 2  # increment it when a fill, the damage or the encoder changes
HOLES_SEED = 0
REPAIRED = 3  # one view in so many has a repaired hole
CROP = 256  # px, side of a hole example
TRAIN_CROP = 192  # px, side of its random part that a training step uses
CHANNELS = 2 + COSTLY  # channels of a hole example

Array = Literal["holes", "views", "tokens"]
ROWS = {  # shape and type of each array's rows, one per line of train.csv
    "truths": ((*SIZE[::-1], 3), np.dtype(np.uint8)),  # RGB
    "holes": ((CHANNELS, CROP, CROP), np.dtype(np.uint8)),  # see `hole_example`
    "views": ((VIEW, VIEW), np.dtype(np.uint8)),  # see `training_view`
    "tokens": (((VIEW // PATCH) ** 2, TOKEN), np.dtype(np.int8)),  # see `view_tokens`
    "stamps": ((3,), np.dtype(np.int64)),  # size, time in ns, CRC-32; 0 until it is packed
}


def pack(data_dir: Path, arrays: Sequence[Array] = get_args(Array)) -> int:
    """Make the bank of a competition folder, or bring it up to date; returns the number of images.

    Only what is missing or has changed is computed, one process per core.
    """
    names, folder = list(read_train(data_dir)["gt_image_path"]), data_dir / FOLDER
    needed = {"truths", "stamps", *arrays} | ({"views"} if "tokens" in arrays else set())
    kept = [name for name in ROWS if name in needed]
    with lock_folder(data_dir):
        try:
            if _check(folder, names) != kept:
                raise _unusable(folder, "holds other arrays")
        except InputError:
            folder.mkdir(exist_ok=True)
            (folder / "recipe.json").unlink(missing_ok=True)
            for name in ROWS:
                _file(folder, name).unlink(missing_ok=True)
            for name in kept:
                shape, dtype = ROWS[name]
                np.lib.format.open_memmap(_file(folder, name), "w+", dtype, (len(names), *shape))
            begin(folder, _recipe(names) | {"arrays": kept})  # last, when the arrays exist
        stamps = np.load(_file(folder, "stamps"))
        rows = enumerate(names)
        jobs = [(i, name) for i, name in rows if not _unchanged(data_dir / name, stamps[i])]
        list(parallel_map(partial(_pack_image, data_dir, kept), jobs, "packing"))
    return len(names)


def _file(folder: Path, array: str) -> Path:
    return folder / f"{array}.npy"


def _recipe(names: list[str]) -> dict:
    return {"truths": names, "holes_seed": HOLES_SEED, "version": VERSION}


def _check(folder: Path, names: list[str]) -> list[str]:
    """The names of its arrays; `InputError` if they are missing, broken or made from other data."""
    recipe = read_recipe(folder)
    arrays = recipe.pop("arrays", [])
    if recipe != _recipe(names):
        raise _unusable(folder, "made from another train.csv, or by another version")
    for path in (_file(folder, name) for name in arrays):
        try:
            np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            raise _unusable(path, "missing or broken") from None
    return arrays


def _unusable(path: Path, found: str) -> InputError:
    return InputError(f"{path}: {found}; delete the folder {FOLDER} to train without", "pack")


def _pack_image(data_dir: Path, arrays: Sequence[str], job: tuple[int, str]) -> None:
    (row, name), folder = job, data_dir / FOLDER
    _write_row(_file(folder, "stamps"), row, np.zeros(3, np.int64))  # 0 until the row is complete
    path = data_dir / name
    rgb = read_truth(path)
    gray = luma(rgb)
    _, mask = punch_hole(rgb, np.random.default_rng([HOLES_SEED, row]))
    values = {"truths": rgb, "stamps": [*identity(path), zlib.crc32(path.read_bytes())]}
    if "holes" in arrays:
        values["holes"] = hole_example(gray, mask)
    if "views" in arrays:
        values["views"] = training_view(gray, mask & (row % REPAIRED == 0))
    if "tokens" in arrays:
        values["tokens"] = view_tokens(values["views"])
    for array in arrays:
        _write_row(_file(folder, array), row, np.asarray(values[array], ROWS[array][1]))


def training_view(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The `color_view` of a photo (512, 512) uint8 whose hole (H, W) bool is lost and filled,
    (VIEW, VIEW) uint8."""
    images = (torch.from_numpy(np.float32(image))[None, None] for image in (gray, mask))
    return color_view(push_pull(*images)[0, 0].round().byte().numpy(), mask)


@torch.inference_mode()
def view_tokens(view: np.ndarray) -> np.ndarray:
    """What DINOv2 sees in a `training_view`, (256, 1536) int8."""
    torch.set_num_threads(1)  # one process per core
    luma = torch.from_numpy(view)[None, None].float() / 255
    return to_bytes(dino(torch.device("cpu"))(luma))[0].numpy()


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
        self.arrays = _check(self.folder, names)
        self.rows = {data_dir / name: row for row, name in enumerate(names)}
        stamps = np.load(_file(self.folder, "stamps"))
        done = np.count_nonzero(stamps[:, 0])
        if done < len(names):
            raise _unusable(self.folder, f"holds {done} of {len(names)} images")
        for path, row in self.rows.items():
            if not _unchanged(path, stamps[row]):
                raise _unusable(path, "changed or removed since it was packed")

    def row(self, array: str, path: Path) -> np.ndarray:
        """What an array of `ROWS` holds of this truth, read-only; `InputError` if not packed."""
        if array not in self.arrays:
            found = f"{self.folder}: was packed without {array}"
            raise InputError(f"{found}; pack again with --arrays {array}", "pack")
        return np.asarray(np.load(_file(self.folder, array), mmap_mode="r")[self.rows[path]])


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


def crop_around(mask: np.ndarray) -> Box:
    """Rows and columns of a crop of `CROP` px around the lost pixels of (H, W) bool."""
    box = []
    for lost, size in zip(box_with_margin(mask, 0), mask.shape, strict=True):
        start = (lost.start + lost.stop - 1) // 2 - CROP // 2
        start = min(max(0, start), max(0, size - CROP))
        box.append(slice(start, start + CROP))
    return tuple(box)


def random_part(example: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random part of an example, at most `TRAIN_CROP` px on a side; half are mirrored."""
    top, left = (int(rng.integers(max(0, side - TRAIN_CROP) + 1)) for side in example.shape[1:])
    part = example[:, top : top + TRAIN_CROP, left : left + TRAIN_CROP]
    return part[..., ::-1] if rng.random() < 0.5 else part
