"""The zip for the leaderboard: exactly the wanted PNGs, the same bytes for the same images."""

import io
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from src.datasets.competition import SIZE
from src.utils.errors import InputError
from src.utils.files import require_file, write_bytes
from src.utils.images import open_image

ZIP_TIME = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the earliest that zip knows; a fixed time keeps the bytes the same
MAX_ENTRIES = 10_000  # the competition asks for 100
MAX_PNG = 4 << 20  # bytes of an entry; the pixels alone take 0.8 MB where nothing is compressed
MAX_READ = 8 << 20  # bytes read at once: `MAX_ENTRIES` with long names need no larger directory


def check_names(folder: Path, found: set[str], names: Sequence[str]) -> None:
    """Raise `InputError` unless `found`, which lies in `folder` or in a zip, is exactly `names`."""
    missing, extra = sorted(set(names) - found), sorted(found - set(names))
    if missing:
        raise InputError(f"{folder / missing[0]}: missing{_more(missing)}", "restored")
    if extra:
        raise InputError(f"{folder / extra[0]}: not in test.csv{_more(extra)}; remove it")


def _plain(name: str) -> str:
    """The name of a PNG with its ending in small letters."""
    return name[:-4] + ".png" if name.lower().endswith(".png") else name


def _more(names: Sequence[str]) -> str:
    """How many names there are beyond the one that an error shows."""
    return f", like {len(names) - 1} more" if len(names) > 1 else ""


def write_submission(folder: Path, names: Sequence[str], target: Path) -> None:
    """Zip the PNGs `names` of `folder` without folders, in order of name.

    Every image is decoded, checked (RGB, 512×512) and encoded again, so that equal pixels give an
    equal zip whatever program wrote the PNG. The zip is read back before it is written to `target`.

    Raises `InputError` naming the file that is missing, extra, unreadable, grey or of another size.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", "restored")
    found = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    # some programs end names in capitals
    files = {_plain(name): name for name in found if _plain(name) in names}
    check_names(folder, set(files) | (set(found) - set(files.values())), names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in tqdm(sorted(names), desc="zipping", unit="image", dynamic_ncols=True):
            png = io.BytesIO()
            image = open_image(folder / files[name], "RGB", SIZE, ("PNG",))
            Image.fromarray(np.asarray(image)).save(
                png, format="PNG"
            )  # the pixels without any metadata
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, png.getvalue())
    check_names(target, {name for name, _ in _read_entries(buffer, target)}, names)
    write_bytes(target, buffer.getvalue())


def check_submission(path: Path, names: Sequence[str]) -> None:
    """Raise `InputError` unless a zip, whatever program made it, is what `write_submission` would
    make."""
    check_names(path, {name for name, _ in read_submission(path)}, names)


def read_submission(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each entry of a zip, checked before it is handed over; memory is bounded.

    Raises `InputError` for anything but a zip of at most `MAX_ENTRIES` PNGs, RGB and 512×512, of at
    most `MAX_PNG` bytes each: for a folder, a path, a link, a repeated name or an encrypted entry
    too.
    """
    try:
        require_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such zip", "submission") from None
    with _Limited(path) as file:
        yield from _read_entries(file, path)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A folder with the PNGs of a submission's zip, removed at the end; errors as for
    `read_submission`."""
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.") as folder:
        for name, png in read_submission(path):
            (Path(folder) / name).write_bytes(png)
        yield Path(folder)


class _Limited(io.FileIO):
    """A file of which no more than `MAX_READ` bytes are read at once."""

    def read(self, size: int = -1) -> bytes:
        # zipfile reads a directory of whatever size the file declares, and makes an object for each
        # entry
        data = super().read(min(size, MAX_READ + 1) if size >= 0 else MAX_READ + 1)
        if len(data) > MAX_READ:
            raise zipfile.BadZipFile("its directory is too large")
        return data


def _read_entries(file: BinaryIO, path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(file) as archive:
            _check_entries(archive.infolist(), path)
            for entry in archive.infolist():
                with archive.open(entry) as packed:
                    png = packed.read(MAX_PNG + 1)
                if len(png) != entry.file_size:
                    raise InputError(
                        f"{path / entry.filename}: not of its declared size", "submission"
                    )
                open_image(path / entry.filename, "RGB", SIZE, ("PNG",), io.BytesIO(png))
                yield entry.filename, png
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise InputError(f"{path}: broken zip ({error})", "submission") from None


def _check_entries(entries: Sequence[zipfile.ZipInfo], path: Path) -> None:
    """Raise `InputError` for what no entry of a submission may be; nothing is unpacked yet."""
    if len(entries) > MAX_ENTRIES:
        raise InputError(
            f"{path}: {len(entries)} entries, at most {MAX_ENTRIES} are read", "submission"
        )
    seen = set()
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        if PurePosixPath(name).name != name or not name.endswith(".png") or set(name) & set("\\:"):
            defect = "not the plain name of a PNG"
        elif not name.isprintable() or len(name.encode()) > 255:
            defect = "a name that no file can have"
        elif kind not in (0, stat.S_IFREG):  # 0 where the system that made the zip knows no kinds
            defect = "a link or another special file"
        elif entry.flag_bits & 1:
            defect = "encrypted"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            defect = "compressed by another method than deflate"
        elif entry.file_size > MAX_PNG:
            defect = f"{entry.file_size} bytes, at most {MAX_PNG} are read"
        elif name in seen:
            defect = "listed twice"
        else:
            seen.add(name)
            continue
        raise InputError(f"{path}: entry {name!r:.80} is {defect}", "submission")
