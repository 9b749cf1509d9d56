"""Image files to arrays and back; what cannot be decoded is named."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features
from PIL.ExifTags import Base as ExifTag

from src.utils.errors import InputError
from src.utils.files import inside, require_file, write_bytes
from src.utils.pixels import is_turned, to_srgb, transparent

try:
    import pi_heif
except ImportError:  # it is optional
    HEIF = False
else:
    HEIF = True
    pi_heif.register_heif_opener()

PNG_LEVEL = 2  # of 9: a quarter of the time of the default 6, and a tenth larger
T = TypeVar("T")

AVIF = features.check("avif")  # not every build of PIL has it
IMAGE_SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
}
HEIF_MISSING = "HEIC needs a package that is not installed: pip install pi-heif"
HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
IMAGE_SUFFIXES |= ({".avif"} if AVIF else set()) | (HEIF_SUFFIXES if HEIF else set())
# By content; PIL would hand others to Ghostscript.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
IMAGE_FORMATS += (("AVIF",) if AVIF else ()) + (("HEIF",) if HEIF else ())
MAX_PIXELS = 2 * (
    Image.MAX_IMAGE_PIXELS or 89_478_485
)  # from which PIL refuses an image: 179 megapixels
DPI = (2, 100_000)  # below, programs mean that they do not know; of film scanners 10,000 are known
DATES = {  # tags of EXIF by the block that holds them
    0: (ExifTag.DateTime,),
    ExifTag.ExifOffset: (
        ExifTag.DateTimeOriginal,
        ExifTag.DateTimeDigitized,
        ExifTag.OffsetTime,
        ExifTag.OffsetTimeOriginal,
        ExifTag.OffsetTimeDigitized,
    ),
}
# PIL keeps text of a PNG and refuses more than a megabyte in one piece; of all together it allows
# this much.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


@contextmanager
def _decoding(path: Path, formats: Sequence[str], max_pixels: int) -> Iterator[None]:
    """Name the file in whatever PIL raises; only calls of PIL belong inside."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; check the folder or the CSV that names it"
        ) from None
    except UnidentifiedImageError:
        if path.suffix.lower() in HEIF_SUFFIXES - IMAGE_SUFFIXES:
            raise InputError(f"{path}: {HEIF_MISSING}") from None
        kinds = ", ".join(formats)
        raise InputError(f"{path}: not an image of type {kinds}; replace it or remove it") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; grant it with chmod") from None
    except Image.DecompressionBombError as error:
        raise _too_large(path, int(re.findall(r"\d+", str(error))[0]), max_pixels) from None
    except (
        Exception
    ) as error:  # a decoder raises what its parsing meets: struct.error, KeyError, EOFError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: broken image ({reason}); fetch the file again") from None


def _too_large(path: Path, pixels: int, limit: int) -> InputError:
    found, most = (f"{number / 1e6:.4g}" for number in (pixels, limit))
    return InputError(f"{path}: {found} megapixels, at most {most}; make the image smaller")


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

    Raises `InputError` for a missing, unreadable or truncated file, and before anything is decoded
    for another format, mode or size.
    """
    with ExitStack() as stack:
        with _decoding(path, formats, max_pixels):
            if content is None:
                require_file(path)
                # not by its name: PIL would map a TIFF into memory, and scramble its rows when it
                # turns it
                content = stack.enter_context(open(path, "rb"))
            image = Image.open(content, formats=formats)
        if mode is not None and image.mode != mode:
            raise InputError(f"{path}: mode is {image.mode}, expected {mode}; convert it first")
        if size is not None and image.size != size:
            found, wanted = (f"{width}x{height}" for width, height in (image.size, size))
            raise InputError(f"{path}: size is {found}, expected {wanted}; use the original file")
        if image.width * image.height > max_pixels:
            raise _too_large(path, image.width * image.height, max_pixels)
        with _decoding(path, formats, max_pixels):
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


def open_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Any photo as 8-bit sRGB, mode L or RGB; see `src.utils.pixels.to_srgb`.

    Raises `InputError` for a file that is not an image, has more than `max_pixels`, or holds
    numbers whose meaning cannot be told.
    """
    return to_srgb(open_image(path, max_pixels=max_pixels), path)


def read_gray(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Any photo as (H, W) uint8: colours, sepia too, become PIL's luma. Raises as `open_photo`."""
    return np.asarray(open_photo(Path(path), max_pixels).convert("L"))


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, np.ndarray | None]:
    """A photo as `read_gray`, and where it is transparent, (H, W) bool, or None where it nowhere
    is."""
    image = open_image(Path(path), max_pixels=max_pixels)
    return np.asarray(to_srgb(image, path).convert("L")), transparent(image)


def gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    """(H, W) to (H, W, 3) of three equal channels."""
    return np.repeat(gray[..., None], 3, axis=2)


def list_images(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted by path; hidden files and folders are left out.

    Raises `InputError` when the folder is missing, or for a link to an image or a folder outside of
    it.
    """
    return [path for path in _visible(folder) if _named_as_image(path)]


def list_others(folder: Path) -> list[Path]:
    """Every file below `folder` that `list_images` passes over, hidden ones excepted; raises as it
    does."""
    return [path for path in _visible(folder) if not _named_as_image(path)]


def _named_as_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _visible(folder: Path) -> list[Path]:
    """Files below a folder that are not hidden, sorted; a link that leads nowhere counts as one.

    Links to folders inside of it are not followed, since what those hold is found at its own place.

    Raises `InputError` for a folder that cannot be read, and as `list_images`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder that holds the images")
    files, root, entered = [], os.path.realpath(folder), {os.path.realpath(folder)}
    for base, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        visible = [Path(base) / name for name in (*folders, *names) if not name.startswith(".")]
        for path in visible:
            if path.is_symlink() and (_named_as_image(path) or path.is_dir()):
                inside(folder, path.relative_to(folder))
        files += [path for path in visible if not path.is_dir()]
        folders.clear()
        for path in sorted(path for path in visible if path.is_dir()):
            real = os.path.realpath(path)
            if real not in entered and not (path.is_symlink() and Path(real).is_relative_to(root)):
                entered.add(real)
                folders.append(path.name)
    return sorted(files)


def _unreadable(error: OSError) -> None:
    raise InputError(
        f"{error.filename}: unreadable folder ({error.strerror}); grant it with chmod"
    ) from None


class Details(NamedTuple):
    """What a photo's file says beside its pixels, as far as it can be read."""

    frames: int = 1  # pages or frames; the second views of a phone do not count
    dpi: tuple[float, float] | None = None  # dots an inch, across and down
    exif: bytes = b""  # its dates alone


def read_details(path: Path) -> Details:
    """The details of an image file; nothing is said against one that is broken, which its decoding
    will."""
    try:
        with open(path, "rb") as file, Image.open(file, formats=IMAGE_FORMATS) as image:
            return Details(
                _read(image, _frames, 1), _read(image, _resolution, None), _read(image, _dates, b"")
            )
    except Exception:  # PIL raises what its parsing meets
        return Details()


def _read(image: Image.Image, detail: Callable[[Image.Image], T], unknown: T) -> T:
    try:
        return detail(image)
    except Exception:  # broken EXIF, or further pages that are broken
        return unknown


def _frames(image: Image.Image) -> int:
    return 1 if image.format in ("JPEG", "MPO", "HEIF") else getattr(image, "n_frames", 1)


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    # of a JPEG with EXIF but without a resolution PIL says 72
    stated = (
        image.format != "JPEG"
        or image.info.get("jfif_unit")
        or ExifTag.XResolution in image.getexif()
    )
    if not stated or "dpi" not in image.info:
        return None
    across, down = (float(value) for value in image.info["dpi"])
    dpi = (down, across) if _read(image, is_turned, False) else (across, down)
    return dpi if all(DPI[0] <= value <= DPI[1] for value in dpi) else None


def _dates(image: Image.Image) -> bytes:
    """EXIF with the dates of another image's EXIF, and nothing else of it."""
    found, dates, any_date = image.getexif(), Image.Exif(), False
    for block, tags in DATES.items():
        source = found.get_ifd(block) if block else found
        target = dates.get_ifd(block) if block else dates
        for tag in tags:
            if isinstance(source.get(tag), str):
                target[tag], any_date = source[tag], True
    return dates.tobytes() if any_date else b""


def write_png(path: Path, array: np.ndarray, details: Details | None = None) -> None:
    """Write (H, W) or (H, W, 3) uint8 as a PNG; identical arrays and details give identical bytes.

    With the details of a photo, its resolution and its dates are kept, and sRGB is stated.
    """
    buffer, kept = BytesIO(), {}
    if details:
        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"sRGB", b"\0")  # perceptual intent
        kept = {"pnginfo": chunks, "exif": details.exif} | (
            {"dpi": details.dpi} if details.dpi else {}
        )
    Image.fromarray(array).save(buffer, format="PNG", compress_level=PNG_LEVEL, **kept)
    write_bytes(Path(path), buffer.getvalue())
