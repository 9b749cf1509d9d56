"""The zip for the leaderboard: exactly the wanted PNGs, the same bytes for the same images."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from src.datasets.competition import SIZE
from src.runs import RECIPE, describe_recipe
from src.utils.errors import InputError
from src.utils.files import read_recipe, write_bytes
from src.utils.images import open_image, pngs_by_name

ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that equal images give equal bytes


def write_submission(folder: Path, names: Sequence[str], target: Path) -> None:
    """Zip the PNGs `names` of `folder`, sorted; a missing or extra file is an `InputError`.

    Every image is checked (RGB, 512x512) and encoded again, so equal pixels give an equal zip.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", "restored")
    pngs = pngs_by_name(folder)
    others = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    found = others - {path.name for path in pngs.values()} | pngs.keys()
    if missing := sorted(set(names) - found):
        raise InputError(f"{folder / missing[0]}: missing{_more(missing)}", "restored")
    if extra := sorted(found - set(names)):
        raise InputError(f"{folder / extra[0]}: not in test.csv{_more(extra)}; remove it")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in tqdm(sorted(names), desc="zipping", unit="image", dynamic_ncols=True):
            png = io.BytesIO()
            image = open_image(pngs[name], "RGB", SIZE, ("PNG",))
            Image.fromarray(np.asarray(image)).save(png, format="PNG")  # without any metadata
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, png.getvalue())
    write_bytes(target, buffer.getvalue())


def _more(names: Sequence[str]) -> str:
    return f", like {len(names) - 1} more" if len(names) > 1 else ""


def describe_results(folder: Path, names: Sequence[str]) -> str:
    """A line: how the results in a folder were made, with a warning if not for the score."""
    found = read_recipe(folder, RECIPE)
    recipe, photos = found.get("recipe"), found.get("photos", {})
    if not recipe:
        return f"{folder}: not made by infer.py"
    line = f"{folder}: {describe_recipe(recipe)}"
    if "baseline" in recipe or recipe.get("style") == "visual":
        line += "; warning: that is not for the score; run infer.py --ensemble --overwrite"
    if others := [name for name in names if not photos.get(name)]:
        line += f"; warning: {others[0]}{_more(others)} made otherwise"
    return line
