"""Reading and writing files so that bad input is named and nothing is left half-written."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag

PNG_LEVEL = 2  # of 9: a quarter of the time of the default 6, and a tenth larger
PARTIAL = ".partial"  # ends the names of files that are being written
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")  # by content; PIL would hand others to Ghostscript
MAX_PIXELS = 178_956_970  # of an image; PIL's own bound for an error, 512 MiB of RGB
MAX_TEXT = 256 << 20  # bytes of a CSV, JSON or JSONL file; infer.py notes 300 bytes a photo
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.MAX_IMAGE_PIXELS = None  # `open_image` checks MAX_PIXELS: PIL would warn at half of it as well


class InputError(Exception):
    """Something the user can mend: the message names the file, what was found and the remedy."""


def inside(folder: Path, relative: str | Path) -> Path:
    """`folder / relative`, which may be missing; `folder` itself may be a link.

    Raises `InputError` for a path that leaves the folder, by `..` or by a symbolic link.
    """
    path = Path(folder) / relative
    root, found = os.path.realpath(folder), os.path.realpath(path)
    if not Path(found).is_relative_to(root):
        remedy = "put the file itself there, or name the folder that holds it"
        raise InputError(f"{path}: leads to {found}, outside of {root}; {remedy}")
    return path


def require_file(path: Path) -> None:
    """Raise `InputError` for a folder, pipe or device, and `FileNotFoundError` where there is nothing."""
    # Opening a pipe would wait for ever, and a device such as /dev/zero never ends.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(f"{path}: not a regular file; put a file in its place")


def read_text(path: Path, remedy: str) -> str:
    """A UTF-8 text file of at most `MAX_TEXT` bytes, without a byte order mark.

    Raises `InputError`, which ends with `remedy`, for anything else and `FileNotFoundError` where there is
    no file.
    """
    require_file(path)
    with open(path, "rb") as file:
        data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise InputError(f"{path}: larger than {MAX_TEXT >> 20} MiB; {remedy}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); {remedy}") from None


def read_json(path: Path, remedy: str) -> dict:
    """The object that a JSON file holds; errors as for `read_text`, and `InputError` for other content."""
    try:
        found = json.loads(read_text(path, remedy))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, expected an object; {remedy}")
    return found


@contextmanager
def _decoding(path: Path, formats: Sequence[str]) -> Iterator[None]:
    """Name the file in whatever PIL raises; only calls of PIL belong inside."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the folder or the CSV that names it") from None
    except UnidentifiedImageError:
        kinds = ", ".join(formats)
        raise InputError(f"{path}: not an image of type {kinds}; replace it or remove it") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; grant it with chmod") from None
    except Exception as error:  # a decoder raises what its parsing meets: struct.error, KeyError, EOFError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: broken image ({reason}); fetch the file again") from None


def open_image(
    path: Path,
    mode: str | None = None,
    size: tuple[int, int] | None = None,
    formats: Sequence[str] = IMAGE_FORMATS,
    content: BinaryIO | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode an image file whole, so that a truncated one is found here and not later.

    Args:
        mode: expected PIL mode, or None for any.
        size: expected (width, height) in pixels, or None for any of at most `max_pixels`.
        formats: PIL's names of the accepted formats; the content decides, not the name.
        content: the file's bytes where they do not lie at `path`, which then only names them.

    Raises `InputError` for a missing, unreadable or truncated file, and before anything is decoded for
    another format, mode or size.
    """
    with _decoding(path, formats):
        if content is None:
            require_file(path)
        image = Image.open(content or path, formats=formats)
    if mode is not None and image.mode != mode:
        raise InputError(f"{path}: mode is {image.mode}, expected {mode}; convert it first")
    found, pixels = f"{image.width}x{image.height}", image.width * image.height
    if size is not None and image.size != size:
        raise InputError(f"{path}: size is {found}, expected {size[0]}x{size[1]}; use the original file")
    if pixels > max_pixels:
        limit = f"{pixels / 1e6:.0f} megapixels, at most {max_pixels / 1e6:.0f} are read"
        raise InputError(f"{path}: size is {found}, {limit}; make the image smaller")
    with _decoding(path, formats):
        image.load()
    return image


def read_image(path: Path, mode: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image file as an array, refused unless it is stored in the expected mode and size.

    Args:
        mode: `"L"` for (H, W) uint8 or `"RGB"` for (H, W, 3) uint8.
        size: expected (width, height) in pixels, or None for any.

    Raises `InputError` when the file is unreadable, of another mode or of another size.
    """
    return np.asarray(open_image(path, mode, size))


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; EXIF that cannot be read counts as none."""
    try:
        orientation = image.getexif().get(ExifTag.Orientation)
    except Exception:  # PIL raises what its parsing of the tags meets, and viewers show such photos too
        return image
    # an orientation may be of any type that EXIF knows, lists and fractions among them
    return image.transpose(TURNS[orientation]) if orientation in list(TURNS) else image


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB image from any PIL mode: EXIF rotation applied, 16 bits scaled, alpha on white."""
    image = upright(image)
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

    Raises `InputError` when the folder is missing, or for a link to an image or a folder outside of it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder that holds the images")
    images = []
    for path in folder.rglob("*"):
        relative, is_image = path.relative_to(folder), path.suffix.lower() in IMAGE_SUFFIXES
        if any(part.startswith(".") for part in relative.parts):
            continue
        if path.is_symlink() and (is_image or path.is_dir()):
            inside(folder, relative)
        if is_image:
            images.append(path)
    return sorted(images)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Work alone in a folder, made where it is missing, and remove what a killed process left half-written.

    The lock is a hidden file beside the folder and ends with the process, however that ends.

    Raises `InputError` when another process works in the folder.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder}: another process works there; wait for its end, or stop it") from None
    try:
        for left in folder.rglob(f".*{PARTIAL}"):
            left.unlink()
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """A binary file written beside `path`, renamed over it at the end; on any error nothing is left.

    `durable` waits until the disk has it, so that not even a loss of power leaves an empty file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = None
    try:
        handle, beside = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException as error:
        if beside:
            Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # not the passing name of the file beside it
        raise


def write_bytes(path: Path, data: bytes, durable: bool = False) -> None:
    """Write a whole file or nothing; see `replacing`."""
    with replacing(path, durable) as file:
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
    # ASCII alone: a file name that is not UTF-8 can be escaped, but not encoded
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_png(path: Path, array: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) uint8 as a PNG; identical arrays give identical bytes."""
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=PNG_LEVEL)
    write_bytes(path, buffer.getvalue())


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
