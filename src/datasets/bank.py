"""A competition folder's truth images, and holes in them with their fills, as memory maps to train
from."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from src.color.luma import luma
from src.damage.hole import punch_hole
from src.datasets.competition import SIZE, read_train, read_truth
from src.datasets.holes import CHANNELS, CROP, hole_example
from src.utils.errors import InputError
from src.utils.files import append_text, file_hash, inside, lock_folder, read_text, write_text
from src.utils.processes import parallel_map
from src.utils.recipe import unchanged

PACK, INDEX = (
    "pack.npy",
    "pack.jsonl",
)  # in the competition folder; with `PART` until they are whole
HOLES, HOLES_INDEX = "holes.npy", "holes.jsonl"
PART = ".part"
HOLES_VERSION = 1  # to be raised when a fill or the damage changes
HOLES_SEED = 0

ReadTruth = Callable[[Path], np.ndarray]  # file to (512, 512, 3) uint8
Line = tuple[
    str | int, ...
]  # of the index: path as in train.csv, bytes, time (ns), SHA-256; a version


@dataclass(frozen=True)
class Table:
    """A memory map (N, *shape) of uint8 in a competition folder, with a line of JSON for each row.

    Both files have their names only when they are whole; an interrupted `build` resumes where it
    stopped.
    """

    data: Path
    index: Path
    shape: tuple[int, ...]
    entries: int  # of a line

    @classmethod
    def of(
        cls, data_dir: Path, data: str, index: str, shape: tuple[int, ...], entries: int
    ) -> "Table":
        """The table of two names; raises `InputError` for files that are links out of the folder."""
        return cls(inside(data_dir, data), inside(data_dir, index), shape, entries)

    def fits(self, count: int, part: str = "") -> bool:
        """Whether the memory map has `count` rows."""
        try:
            found = np.lib.format.open_memmap(
                str(self.data) + part, mode="r"
            )  # np.load would open a zip too
        except (
            Exception
        ):  # numpy raises what its parsing of the header meets: TokenError, SyntaxError
            return False
        return found.shape == (count, *self.shape) and found.dtype == np.uint8

    def lines(self, remedy: str, part: str = "") -> list[Line]:
        """The lines of the index up to the first that an interruption cut off; errors as for
        `read_text`."""
        lines = []
        for text in read_text(Path(str(self.index) + part), remedy).splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                break
            if not isinstance(line, list) or len(line) != self.entries:
                break
            lines.append(tuple(line))
        return lines

    def build(self, names: list[str], make_row: Callable, label: str) -> None:
        """Compute what is missing, one process a core.

        `make_row` maps (row, name) to a line, whose first entry is the name, and an array of
        `shape`. Raises what it raises, and `InputError` for too small a disk.
        """
        data, index = Path(str(self.data) + PART), Path(str(self.index) + PART)
        self.index.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)
        done = (
            self.lines("delete it", PART) if index.exists() and self.fits(len(names), PART) else []
        )
        if [line[:1] for line in done] != [(name,) for name in names[: len(done)]]:
            done = []
        if not done:
            data.unlink(missing_ok=True)
            free, size = (
                shutil.disk_usage(self.data.parent).free,
                len(names) * int(np.prod(self.shape)),
            )
            if free < size:
                found = f"{free / 1e9:.1f} GB free, {label} needs {size / 1e9:.1f}"
                raise InputError(
                    f"{self.data}: {found}; free some space, or train from the PNG files"
                )
            np.lib.format.open_memmap(data, "w+", np.uint8, (len(names), *self.shape))
        write_text(index, "".join(f"{json.dumps(line)}\n" for line in done))
        waiting = list(enumerate(names))[len(done) :]
        for line in parallel_map(partial(_write_row, data, make_row), waiting, label):
            append_text(index, f"{json.dumps(line)}\n")
        index.rename(self.index)
        data.rename(self.data)

    def finish_renaming(self) -> None:
        """After a kill between the two last renames of an earlier `build`."""
        data = Path(str(self.data) + PART)
        if self.index.exists() and data.exists():
            data.rename(self.data)


def _write_row(data: Path, make_row: Callable, job: tuple[int, str]) -> tuple:
    line, values = make_row(job)
    try:
        # written, not mapped: on a full disk a map ends the process, without an error that could be
        # told
        with open(data, "r+b") as file:
            file.seek(np.load(data, mmap_mode="r").offset + job[0] * values.nbytes)
            file.write(values.tobytes())
    except OSError as error:
        error.filename = str(data)
        raise
    return line


def pack(data_dir: Path) -> int:
    """Write the truths of `train.csv` in their order, then one filled hole in each.

    `pack.npy` is (N, 512, 512, 3) uint8; `holes.npy` is (N, CHANNELS, CROP, CROP) uint8, see
    `src.datasets.holes.hole_example`. What is up to date is left as it is. Returns the number of
    images.

    Raises `InputError` for an unusable folder or image, too small a disk, or when another process
    works in the folder.
    """
    data_dir = Path(data_dir)
    names = list(read_train(data_dir)["gt_image_path"])
    with lock_folder(data_dir):
        for kind, make_row, label in ((Pack, _truth, "packing"), (Holes, _hole, "filling holes")):
            table = kind.table(data_dir)
            table.finish_renaming()
            try:
                kind(data_dir)
            except InputError:
                table.build(names, partial(make_row, data_dir), label)
    return len(names)


def _truth(data_dir: Path, job: tuple[int, str]) -> tuple[Line, np.ndarray]:
    path = data_dir / job[1]
    pixels = read_truth(path)
    return _line(data_dir, job[1]), pixels


def _hole(data_dir: Path, job: tuple[int, str]) -> tuple[Line, np.ndarray]:
    row, name = job
    rgb = np.lib.format.open_memmap(data_dir / PACK, mode="r")[row]
    _, lost = punch_hole(rgb, np.random.default_rng([HOLES_SEED, row]))
    return (*_line(data_dir, name), *Holes.stamp), hole_example(luma(rgb), lost)


def _line(data_dir: Path, name: str) -> Line:
    facts = (data_dir / name).stat()
    return name, facts.st_size, facts.st_mtime_ns, file_hash(data_dir / name)


class Packed:
    """An array for each truth of a packed folder, read by the truth's path; may be sent to other
    processes.

    Raises `InputError` when it is broken or stale: `train.csv` or a truth is not what was packed.
    All sizes and times are compared, and the contents of files whose time differs.
    """

    files: ClassVar[tuple[str, str]]  # data and index
    shape: ClassVar[tuple[int, ...]]
    stamp: ClassVar[tuple[int, ...]] = ()  # what ends each line of the index
    remedy: ClassVar[str]

    def __init__(self, data_dir: Path):
        data_dir = Path(data_dir)
        table = self.table(data_dir)
        self.path = table.data
        try:
            lines = table.lines(self.remedy)
        except OSError as error:
            raise InputError(
                f"{table.index}: unreadable ({error}); {self.remedy}", "pack"
            ) from None
        if [line[0] for line in lines] != list(read_train(data_dir)["gt_image_path"]):
            raise InputError(
                f"{table.index}: lists other files than train.csv; {self.remedy}", "pack"
            )
        if any(line[len(line) - len(self.stamp) :] != self.stamp for line in lines):
            raise InputError(
                f"{table.index}: made by another version of the fills; {self.remedy}", "pack"
            )
        if not table.fits(len(lines)):
            raise InputError(
                f"{self.path}: missing, broken or of another size; {self.remedy}", "pack"
            )
        for name, size, time, sha256, *_ in lines:
            if not unchanged(data_dir / name, [size, time], sha256):
                found = "changed" if (data_dir / name).exists() else "removed"
                found = f"{found} since {self.path} was made"
                raise InputError(f"{data_dir / name}: {found}; {self.remedy}", "pack")
        self.rows = {data_dir / name: row for row, (name, *_) in enumerate(lines)}

    @classmethod
    def table(cls, data_dir: Path) -> Table:
        """Where it lies."""
        return Table.of(data_dir, *cls.files, cls.shape, 4 + len(cls.stamp))

    @cached_property
    def arrays(self) -> np.ndarray:
        """(N, *shape) uint8, mapped into memory in each process that reads."""
        return np.lib.format.open_memmap(self.path, mode="r")

    def __getstate__(self) -> dict:
        return {"path": self.path, "rows": self.rows}  # not the map, which would be sent as a whole

    def __call__(self, path: Path) -> np.ndarray:
        """An array of `shape`, uint8, not to be written to."""
        return np.asarray(self.arrays[self.rows[path]])


class Pack(Packed):
    """Truth images, (512, 512, 3) RGB."""

    files = PACK, INDEX
    shape = (*SIZE[::-1], 3)
    remedy = "delete it to train from the PNG files"


class Holes(Packed):
    """A filled hole in each truth, see `src.datasets.holes.hole_example`."""

    files = HOLES, HOLES_INDEX
    shape = CHANNELS, CROP, CROP
    stamp = (HOLES_VERSION,)
    remedy = "run prepare_data.py pack again, or delete it to fill the holes during training"


def truth_reader(data_dir: Path) -> ReadTruth:
    """The folder's `Pack` where there is one, otherwise `read_truth`."""
    return Pack(data_dir) if (Path(data_dir) / PACK).exists() else read_truth


def hole_reader(data_dir: Path) -> Holes | None:
    """The folder's `Holes` where there are some."""
    return Holes(data_dir) if (Path(data_dir) / HOLES).exists() else None
