"""The zip for the leaderboard: exactly the wanted PNGs, the same bytes for the same images."""

import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from src.datasets.competition import SIZE
from src.files import InputError, open_image, read_image, write_bytes

ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows; a fixed time keeps the bytes the same


def check_names(folder: Path, names: Sequence[str]) -> None:
    """Raise `InputError` unless `folder` holds exactly the files `names`."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; restore the test images first: python infer.py --ensemble"
        )
    found = {path.name for path in folder.iterdir()}
    missing, extra = sorted(set(names) - found), sorted(found - set(names))
    if missing:
        raise InputError(
            f"{folder / missing[0]}: missing, as are {len(missing) - 1} more; run infer.py again"
        )
    if extra:
        raise InputError(f"{folder / extra[0]}: not in test.csv, as are {len(extra) - 1} more; remove it")


def write_submission(folder: Path, names: Sequence[str], target: Path) -> None:
    """Zip the PNGs `names` of `folder` without folders, in order of name.

    Every image is decoded, checked (RGB, 512×512) and encoded anew, so that equal pixels give an equal zip
    whatever program wrote the PNG.

    Raises `InputError` naming the file that is missing, extra, unreadable, grey or of another size.
    """
    check_names(folder, names)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in tqdm(sorted(names), desc="zipping", unit="image", dynamic_ncols=True):
            if open_image(folder / name).format != "PNG":
                raise InputError(f"{folder / name}: not a PNG; restore it again with infer.py")
            png = BytesIO()
            Image.fromarray(read_image(folder / name, "RGB", SIZE)).save(png, format="PNG")
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, png.getvalue())
    with zipfile.ZipFile(buffer) as archive:
        broken = archive.testzip()
    if broken:
        raise InputError(f"{target}: {broken} does not read back from the zip; run the command again")
    write_bytes(target, buffer.getvalue())
