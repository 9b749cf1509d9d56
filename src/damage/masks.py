"""Mask files: which belongs to which photo, and where it says that the photo is lost."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.utils.errors import InputError
from src.utils.images import OPAQUE, list_images, open_image, upright

BESIDE = re.compile(r"(.+)_mask\d*")  # name of a mask beside its photo, as LaMa has them
WARN_SHARE = 0.5  # warn if a mask covers more of the photo than this


def read_mask(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Where a mask file says that a photo of (rows, columns) is lost, and a line that says so.

    If its transparency varies, opaque pixels are lost; else those at least half as bright as the
    brightest, in any channel.

    Returns: mask (H, W) bool, True where lost; and the line.
    """
    image = upright(open_image(path))
    if image.size != shape[::-1]:
        found, wanted = (f"{width}x{height}" for width, height in (image.size, shape[::-1]))
        raise InputError(
            f"{path}: size is {found}, the photo's is {wanted}; draw it on the photo itself"
        )
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if np.ptp(alpha):
        mask = alpha >= OPAQUE
    else:
        deep = image.mode.startswith("I") or image.mode == "F"
        values = np.asarray(image if deep else image.convert("RGB")).astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"{path}: contains NaN or infinity; save it as 8 bit")
        values = values if deep else values.max(axis=-1)
        mask = (2 * values >= values.max()) & (values > 0)
    if mask.all():
        raise InputError(f"{path}: all of the photo is lost; draw what is lost in white on black")
    line = f"{mask.mean():.1%} is lost according to {path}"
    if mask.mean() > WARN_SHARE:
        line += "; warning: that is most of it, and white means lost; is the mask inverted?"
    return mask, line


def match_masks(mask: Path, root: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """The mask file of each of `photos` below `root`; a photo without one is left out.

    Args:
        mask: a mask file for all, or a folder of masks placed like the photos and named like them,
            or with _mask or _mask001 after the name.
    """
    if mask.is_dir():
        drawn: dict[str, Path] = {}
        for path in list_images(mask):
            name = _name(path, mask)
            # beside the photos, a file of a photo's name is the photo
            keys = [name] if mask.absolute() != root.absolute() else []
            beside = BESIDE.fullmatch(name)
            for key in [*keys, *([beside[1]] if beside else [])]:
                if key in drawn:
                    found = f"{path.name} and {drawn[key].name}"
                    raise InputError(f"{mask}: {found} are masks of one photo; remove one")
                drawn[key] = path
        named = {photo: drawn.get(_name(photo, root)) for photo in photos}
        masks = {photo: path for photo, path in named.items() if path}
    elif not mask.is_file():
        raise InputError(f"{mask}: no such mask; name an image file or a folder of them")
    else:
        masks = dict.fromkeys(photos, mask)
    if not masks:
        raise InputError(f"{mask}: holds no mask of any photo; name each like its photo")
    return {photo: path.absolute() for photo, path in masks.items()}


def without_masks(photos: Sequence[Path]) -> list[Path]:
    """The files that are not masks of others among them."""
    names = {(path.parent, path.stem) for path in photos}
    kept = []
    for path in photos:
        beside = BESIDE.fullmatch(path.stem)
        if not (beside and (path.parent, beside[1]) in names):
            kept.append(path)
    return kept


def _name(path: Path, folder: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
