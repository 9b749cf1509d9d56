"""Mask files: which one belongs to which photo, and where it marks the photo as lost."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.utils.errors import InputError
from src.utils.images import OPAQUE, list_images, open_image, upright

BESIDE = re.compile(r"(.+)_mask\d*$")  # name of a mask beside its photo, as in LaMa
WARN_SHARE = 0.5  # warn if a mask covers more of the photo than this


def read_mask(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
    """A mask file as (H, W) bool, True where lost, for a photo of shape (H, W), and a line on it.

    If its transparency varies, opaque pixels are lost; otherwise those at least half as bright as
    the brightest, in any channel.
    """
    image = upright(open_image(path))
    if image.size != shape[::-1]:
        sizes = f"size is {image.width}x{image.height}, the photo's is {shape[1]}x{shape[0]}"
        raise InputError(f"{path}: {sizes}; draw it on the photo itself")
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if np.ptp(alpha):
        mask = alpha >= OPAQUE
    else:
        deep = image.mode.startswith("I") or image.mode == "F"
        values = np.asarray(image) if deep else np.asarray(image.convert("RGB")).max(axis=-1)
        mask = (values >= values.max() / 2) & (values > 0)
    if mask.all():
        raise InputError(f"{path}: all of the photo is lost; draw what is lost in white on black")
    line = f"{mask.mean():.1%} is lost according to {path}"
    if mask.mean() > WARN_SHARE:
        line += "; warning: that is most of it, and white means lost; is the mask inverted?"
    return mask, line


def match_masks(mask: Path, root: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """The mask file of each of `photos` below `root` that has one.

    In a folder, masks are placed and named like the photos, or with _mask or _mask001 appended.
    """
    if mask.is_file():
        return dict.fromkeys(photos, mask)
    if not mask.is_dir():
        raise InputError(f"{mask}: no such mask; name an image file or a folder of them")
    drawn: dict[str, Path] = {}
    for path in list_images(mask):
        name = _name(path, mask)
        # if masks lie beside the photos, a file with a photo's name is the photo itself
        keys = {name} if mask.absolute() != root.absolute() else set()
        if beside := BESIDE.fullmatch(name):
            keys.add(beside[1])
        for key in keys:
            if key in drawn:
                found = f"{path.name} and {drawn[key].name}"
                raise InputError(f"{mask}: {found} are masks of one photo; remove one")
            drawn[key] = path
    masks = {photo: drawn[name] for photo in photos if (name := _name(photo, root)) in drawn}
    if not masks:
        raise InputError(f"{mask}: holds no mask of any photo; name each like its photo")
    return masks


def without_masks(photos: Sequence[Path]) -> list[Path]:
    """The files that are not masks of others among them."""
    names = {(path.parent, path.stem) for path in photos}
    stems = {path: BESIDE.sub(r"\1", path.stem) for path in photos}
    return [p for p in photos if stems[p] == p.stem or (p.parent, stems[p]) not in names]


def _name(path: Path, folder: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
