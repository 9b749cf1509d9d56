"""The zip for the leaderboard: exactly the wanted PNGs, the same bytes for the same images."""

import io
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from src.datasets.competition import SIZE
from src.runs import RECIPE
from src.utils.errors import InputError
from src.utils.files import read_recipe, write_bytes
from src.utils.images import open_image

ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that equal images give equal bytes


def check_names(folder: Path, found: set[str], names: Sequence[str]) -> None:
    """Raise `InputError` unless the names found in a folder or a zip are exactly `names`."""
    missing = sorted(set(names) - found)
    extra = sorted(found - set(names))
    if missing:
        raise InputError(f"{folder / missing[0]}: missing{_more(missing)}", "restored")
    if extra:
        raise InputError(f"{folder / extra[0]}: not in test.csv{_more(extra)}; remove it")


def _more(names: Sequence[str]) -> str:
    return f", like {len(names) - 1} more" if len(names) > 1 else ""


def lower_suffix(name: str) -> str:
    """The name of a PNG with its ending in small letters; some programs write capitals."""
    return name[:-4] + ".png" if name.lower().endswith(".png") else name


def write_submission(folder: Path, names: Sequence[str], target: Path) -> None:
    """Zip the PNGs `names` of `folder` without folders, in order of name.

    Every image is decoded, checked (RGB, 512x512) and encoded again, so that equal pixels give an
    equal zip, whatever program wrote the PNG.

    Raises `InputError` naming the file that is missing, extra, unreadable, grey or of another size.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", "restored")
    found = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    files = {lower_suffix(name): name for name in found if lower_suffix(name) in names}
    check_names(folder, set(files) | (set(found) - set(files.values())), names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in tqdm(sorted(names), desc="zipping", unit="image", dynamic_ncols=True):
            png = io.BytesIO()
            image = open_image(folder / files[name], "RGB", SIZE, ("PNG",))
            Image.fromarray(np.asarray(image)).save(png, format="PNG")  # without any metadata
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, png.getvalue())
    write_bytes(target, buffer.getvalue())


def describe_results(folder: Path, names: Sequence[str]) -> str:
    """A line: how the results in a folder were made, with a warning if not for the score."""
    found = read_recipe(folder, RECIPE)
    recipe, photos = found.get("recipe"), found.get("photos", {})
    if not recipe:
        return f"{folder}: not made by infer.py"
    hashes = ("checkpoints", "detector")
    facts = [f"{key} {value}" for key, value in recipe.items() if key not in hashes]
    facts += [f"{len(recipe['checkpoints'])} fold(s)"] if "checkpoints" in recipe else []
    line = f"{folder}: {', '.join(facts)}"
    if "baseline" in recipe or recipe.get("style") == "visual":
        line += "; warning: that is not for the score; run infer.py --ensemble --overwrite"
    others = [name for name in names if not photos.get(name, {}).get("photo")]
    if others:
        line += f"; warning: {others[0]}{_more(others)} made otherwise"
    return line


def check_submission(path: Path, names: Sequence[str]) -> None:
    """Raise `InputError` unless a zip holds what `write_submission` would put there."""
    check_names(path, {name for name, _ in read_submission(path)}, names)


def read_submission(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each entry of a zip; raises `InputError` for anything but 512x512 RGB PNGs of
    plain and different names."""
    if not path.is_file():
        raise InputError(f"{path}: no such zip", "submission")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                # a backslash or a colon leads to another folder on Windows
                if PurePosixPath(name).name != name or set(name) & set("\\:"):
                    raise InputError(f"{path}: entry {name!r} is not a plain file name")
                if names.count(name) > 1:
                    raise InputError(f"{path}: entry {name!r} is listed twice", "submission")
                png = archive.read(name)
                open_image(path / name, "RGB", SIZE, ("PNG",), io.BytesIO(png))
                yield name, png
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: broken zip ({error})", "submission") from None
    except RuntimeError as error:  # an encrypted entry
        raise InputError(f"{path}: {error}", "submission") from None


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A folder with the PNGs of a submission's zip, removed at the end."""
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.") as folder:
        for name, png in read_submission(path):
            (Path(folder) / name).write_bytes(png)
        yield Path(folder)
