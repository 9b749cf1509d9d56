"""Reading and writing files so that bad input is named and nothing is left half-written."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

PNG_LEVEL = 2  # of 9: a quarter of the time of the default 6, and a tenth larger
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


class InputError(Exception):
    """Something the user can mend: the message names the file, what was found and the remedy."""


def open_image(path: Path) -> Image.Image:
    """Decode an image file whole, so that a truncated one is found here and not later.

    Raises `InputError` for a missing, unreadable, truncated or oversized file.
    """
    path = Path(path)
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the folder or the CSV that names it") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image; replace it or remove it from the folder") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}; make the image smaller") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; grant it with chmod") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: broken image ({error}); fetch the file again") from None
    return image


def read_image(path: Path, mode: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image file as an array, refused unless it is stored in the expected mode and size.

    Args:
        mode: `"L"` for (H, W) uint8 or `"RGB"` for (H, W, 3) uint8.
        size: expected (width, height) in pixels, or None for any.

    Raises `InputError` when the file is unreadable, of another mode or of another size.
    """
    image = open_image(path)
    if image.mode != mode:
        raise InputError(f"{path}: mode is {image.mode}, expected {mode}; convert it first")
    if size is not None and image.size != size:
        found, wanted = (f"{w}x{h}" for w, h in (image.size, size))
        raise InputError(f"{path}: size is {found}, expected {wanted}; use the original file")
    return np.asarray(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB image from any PIL mode: EXIF rotation applied, 16 bits scaled, alpha on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray(np.round(values.clip(0, top) * (255.0 / top)).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def list_images(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted by path; hidden files and folders are left out.

    Raises `InputError` when the folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder that holds the images")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(p for p in found if not any(s.startswith(".") for s in p.relative_to(folder).parts))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file written beside `path`, renamed over it at the end; on any error nothing is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = None
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException as error:
        if beside:
            Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # not the passing name of the file beside it
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def append_text(path: Path, text: str) -> None:
    """Add UTF-8 text to a file; an `OSError` names it."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        error.filename = str(path)
        raise


def write_json(path: Path, value: object) -> None:
    """`write_bytes` for JSON, indented, with a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_png(path: Path, array: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) uint8 as a PNG; identical arrays give identical bytes."""
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=PNG_LEVEL)
    write_bytes(path, buffer.getvalue())


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
