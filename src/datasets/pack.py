"""The truth images of a competition folder as one memory map: read instead of decoded in each epoch."""

import json
import shutil
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from src.datasets.competition import SIZE, read_train, read_truth
from src.runtime.errors import InputError
from src.runtime.files import append_text, file_hash, inside, lock_folder, read_text, write_text
from src.runtime.processes import parallel_map
from src.runtime.recipe import unchanged

PACK, INDEX = "pack.npy", "pack.jsonl"  # in the competition folder; with `PART` until they are whole
PART = ".part"
IMAGE_BYTES = SIZE[0] * SIZE[1] * 3
REMEDY = "delete it to train from the PNG files"

ReadTruth = Callable[[Path], np.ndarray]  # file to (512, 512, 3) uint8
Line = tuple[str, int, int, str]  # of the index: path as in train.csv, bytes, time (ns) and SHA-256


def pack(data_dir: Path) -> int:
    """Write `pack.npy`, (N, 512, 512, 3) uint8 in the order of `train.csv`, and its index `pack.jsonl`.

    An interrupted call resumes where it stopped, and a pack that is up to date is left as it is. Both
    files have their names only when they are whole. Returns the number of images.

    Raises `InputError` for an unusable folder or image, too small a disk, or when another process works in
    the folder.
    """
    data_dir = Path(data_dir)
    names = list(read_train(data_dir)["gt_image_path"])
    with lock_folder(data_dir):
        _pack(data_dir, names)
    return len(names)


def _pack(data_dir: Path, names: list[str]) -> None:
    data, index = data_dir / (PACK + PART), data_dir / (INDEX + PART)
    if (data_dir / INDEX).exists() and data.exists():
        data.rename(data_dir / PACK)  # a kill between the two last renames of an earlier call
    try:
        Pack(data_dir)
        return
    except InputError:
        (data_dir / INDEX).unlink(missing_ok=True)
        (data_dir / PACK).unlink(missing_ok=True)
    done = _read_index(index) if index.exists() and _fits(data, len(names)) else []
    if [name for name, *_ in done] != names[: len(done)]:
        done = []
    if not done:
        data.unlink(missing_ok=True)
        free, size = shutil.disk_usage(data_dir).free, len(names) * IMAGE_BYTES
        if free < size:
            found = f"{free / 1e9:.1f} GB free, the pack needs {size / 1e9:.1f}"
            raise InputError(f"{data_dir / PACK}: {found}; free some space, or train from the PNG files")
        np.lib.format.open_memmap(data, "w+", np.uint8, (len(names), *SIZE[::-1], 3))
    write_text(index, "".join(f"{json.dumps(line)}\n" for line in done))
    waiting = list(enumerate(names))[len(done) :]
    for line in parallel_map(partial(_pack_one, data_dir, data), waiting, "packing"):
        append_text(index, f"{json.dumps(line)}\n")
    index.rename(data_dir / INDEX)
    data.rename(data_dir / PACK)


def _pack_one(data_dir: Path, data: Path, job: tuple[int, str]) -> Line:
    """Decode one truth into its row; returns its line of the index."""
    row, name = job
    path = data_dir / name
    pixels = read_truth(path)
    try:
        # written, not mapped: on a full disk a map ends the process, without an error that could be told
        with open(data, "r+b") as file:
            file.seek(np.load(data, mmap_mode="r").offset + row * IMAGE_BYTES)
            file.write(pixels.tobytes())
    except OSError as error:
        error.filename = str(data)
        raise
    facts = path.stat()
    return name, facts.st_size, facts.st_mtime_ns, file_hash(path)


def _read_index(path: Path) -> list[Line]:
    """The lines of an index up to the first that an interruption cut off; errors as for `read_text`."""
    lines = []
    for text in read_text(path, REMEDY).splitlines():
        try:
            name, size, time, sha256 = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            break
        lines.append((name, size, time, sha256))
    return lines


def _fits(data: Path, count: int) -> bool:
    """Whether a file holds `count` images."""
    try:
        found = np.lib.format.open_memmap(data, mode="r")  # np.load would open a zip as well
    except Exception:  # numpy raises what its parsing of the header meets: TokenError, SyntaxError
        return False
    return found.shape == (count, *SIZE[::-1], 3) and found.dtype == np.uint8


class Pack:
    """Truth images of a packed folder, read by their path; may be sent to other processes.

    Raises `InputError` when the pack is broken or stale: `train.csv` or a truth is not what was packed. All
    sizes and times are compared, and the contents of files whose time differs.
    """

    def __init__(self, data_dir: Path):
        data_dir = Path(data_dir)
        self.path, index = inside(data_dir, PACK), inside(data_dir, INDEX)
        try:
            lines = _read_index(index)
        except OSError as error:
            raise InputError(f"{index}: unreadable ({error}); {REMEDY}", "pack") from None
        if [name for name, *_ in lines] != list(read_train(data_dir)["gt_image_path"]):
            raise InputError(f"{index}: lists other files than train.csv; {REMEDY}", "pack")
        if not _fits(self.path, len(lines)):
            raise InputError(f"{self.path}: missing, broken or of another size; {REMEDY}", "pack")
        for name, size, time, sha256 in lines:
            if not unchanged(data_dir / name, [size, time], sha256):
                found = "changed" if (data_dir / name).exists() else "removed"
                raise InputError(f"{data_dir / name}: {found} since {self.path} was made; {REMEDY}", "pack")
        self.rows = {data_dir / name: row for row, (name, *_) in enumerate(lines)}

    @cached_property
    def images(self) -> np.ndarray:
        """(N, 512, 512, 3) uint8, mapped into memory in each process that reads."""
        return np.lib.format.open_memmap(self.path, mode="r")

    def __getstate__(self) -> dict:
        return {"path": self.path, "rows": self.rows}  # not the map, which would be sent as a whole

    def __call__(self, path: Path) -> np.ndarray:
        """(512, 512, 3) uint8 RGB, not to be written to."""
        return np.asarray(self.images[self.rows[path]])


def truth_reader(data_dir: Path) -> ReadTruth:
    """The folder's `Pack` where there is one, otherwise `read_truth`."""
    return Pack(data_dir) if (Path(data_dir) / PACK).exists() else read_truth
