"""Masks that people and programs draw: which file belongs to which photo, and what it says is lost."""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.utils.errors import InputError
from src.utils.files import require_file
from src.utils.images import OPAQUE, list_images, open_image, upright

BESIDE = re.compile(
    r"(.+)_mask\d*"
)  # the name of a mask that lies beside its photo, as LaMa has them
VIVID = 64  # difference of two channels from which on a pixel is painted in colour
VARIED = 32  # standard deviation of a channel from which on colours are those of a photo
ENDS, LEAST_AT_ENDS = (
    0.2,
    0.9,
)  # this share of the range at each end holds that share of a mask's pixels
REMEDY = "draw what is lost in white on black"


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """What a mask file says is lost, (H, W) bool.

    White on black is lost, of whatever depth and values, 0 and 1 as well; so is what is painted on
    a transparent layer, whatever its colour, what was erased from the photo itself, and what is
    painted in colour over grey.

    Args:
        shape: rows and columns of the photo.

    Raises `InputError` for a file that is unreadable, not of the photo's size, or of which it
    cannot be told what it says.
    """
    image = upright(open_image(path))
    if image.size != shape[::-1]:
        found, wanted = (f"{width}x{height}" for width, height in (image.size, shape[::-1]))
        raise InputError(
            f"{path}: size is {found}, the photo's is {wanted}; draw it on the photo itself"
        )
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        painted = rgba[..., 3] >= OPAQUE
        if not painted.any():
            raise InputError(f"{path}: transparent everywhere, so nothing is painted; {REMEDY}")
        if not painted.all():
            # a photo with what is lost erased, or strokes on a layer
            return ~painted if _varied(rgba[painted][:, :3]) else painted
        image = image.convert("RGB")
    if image.mode.startswith("I") or image.mode in ("1", "L", "F"):
        return _bright(np.asarray(image).astype(np.float64), path)
    rgb = np.asarray(image.convert("RGB"))
    vivid = np.ptp(rgb, axis=-1) >= VIVID
    if vivid.any() and _varied(rgb[vivid]):
        raise InputError(f"{path}: of many colours, as a photo; {REMEDY}")
    return (
        vivid if vivid.any() else _bright(np.asarray(image.convert("L")).astype(np.float64), path)
    )


def _varied(colors: np.ndarray) -> bool:
    """Whether (N, 3) colours are more than one with a soft border."""
    return bool(colors.astype(np.float64).std(axis=0).max() > VARIED)


def _bright(values: np.ndarray, path: Path) -> np.ndarray:
    """The brighter of two levels, (H, W) bool; raises `InputError` where there are not two."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all():
        raise InputError(f"{path}: values that are no numbers; {REMEDY}")
    if low == high:
        if low == 0:
            return np.zeros(values.shape, bool)
        raise InputError(
            f"{path}: {low:g} everywhere, so that nothing tells what is lost; {REMEDY}"
        )
    place = (values - low) / (high - low)
    if np.mean((place <= ENDS) | (place >= 1 - ENDS)) < LEAST_AT_ENDS:
        levels = len(np.unique(values))
        raise InputError(
            f"{path}: {levels} levels from {low:g} to {high:g}, as in a photo; {REMEDY}"
        )
    return place > 0.5


def match_masks(mask: Path, root: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """The mask file of each of `photos` below `root`; a photo without one is left out.

    Args:
        mask: a mask file for all, or a folder of masks placed like the photos and named like them,
            or with _mask or _mask001 after the name. Names are compared whatever their Unicode
            form.

    Raises `InputError` for a missing file or folder, for two masks of one photo, and where no photo
    has one.
    """
    if mask.is_dir():
        drawn: dict[str, Path] = {}
        for path in list_images(mask):
            name = _name(path, mask)
            keys = (
                [name] if mask.absolute() != root.absolute() else []
            )  # there a photo has its own name
            beside = BESIDE.fullmatch(name)
            for key in [*keys, *([beside[1]] if beside else [])]:
                if key in drawn:
                    found = f"{path.name} and {drawn[key].name}"
                    raise InputError(f"{mask}: {found} are masks of one photo; remove one")
                drawn[key] = path
        named = {photo: drawn.get(_name(photo, root)) for photo in photos}
        masks = {photo: path for photo, path in named.items() if path}
    elif not os.path.lexists(mask):
        raise InputError(f"{mask}: no such mask; {REMEDY}, as large as the photo")
    else:
        masks = dict.fromkeys(photos, mask)
    if not masks:
        raise InputError(f"{mask}: holds no mask of any photo; name each like its photo")
    for path in set(masks.values()):
        require_file(path)
    return {photo: path.absolute() for photo, path in masks.items()}


def without_masks(photos: Sequence[Path]) -> list[Path]:
    """Those of some files that are no masks of others among them."""
    names = {(path.parent, path.stem) for path in photos}
    kept = []
    for path in photos:
        beside = BESIDE.fullmatch(path.stem)
        if not (beside and (path.parent, beside[1]) in names):
            kept.append(path)
    return kept


def _name(path: Path, folder: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
