"""Image files to arrays and back; any photo as 8-bit grey or sRGB, upright and opaque."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.ExifTags import Base as Tag

from src.utils.errors import InputError
from src.utils.files import require_file, write_bytes

with suppress(ImportError):  # it is optional
    import pi_heif

    pi_heif.register_heif_opener()

HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
HEIF_MISSING = "HEIC needs a package that is not installed: pip install pi-heif"
# PIL would pass some other formats to programs such as Ghostscript.
IMAGE_FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
SUFFIXES = Image.registered_extensions()  # without AVIF in some builds of PIL
IMAGE_FORMATS = tuple(kind for kind in IMAGE_FORMATS if kind in SUFFIXES.values())
IMAGE_SUFFIXES = {suffix for suffix, kind in SUFFIXES.items() if kind in IMAGE_FORMATS}
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)  # PIL's own limit: 179 megapixels
# PIL reads text chunks of a PNG, such as XMP, but refuses more than 1 MB in one of them.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

WHITES = (255, 4095, 65535)  # 8, 12 or 16 bits per pixel, often stored in 16 or 32
FLOAT_WHITES = {1.0: 0, 255.0: 16, 65535.0: 4096}  # and the smallest maximum that suggests each
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
OPAQUE = 128  # smallest alpha of a pixel that counts as opaque
PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}  # by PIL's mode
SAVE_AS = "save it as 8 or 16 bit"


class Details(NamedTuple):
    """Metadata of a photo; defaults where it cannot be read."""

    frames: int = 1  # pages or frames; see `_pages`
    dpi: tuple[float, float] | None = None
    exif: bytes = b""  # without the orientation


class Photo(NamedTuple):
    """A photo as it was read."""

    gray: np.ndarray  # (H, W) uint8
    transparent: np.ndarray | None  # (H, W) bool, or None if nothing is
    details: Details


@contextmanager
def _decoding(path: Path) -> Iterator[BinaryIO]:
    """The content of an image file; any error in the block names the file."""
    head = b""
    try:
        require_file(path)
        # given a path, PIL would memory-map a TIFF and scramble its rows when rotating it
        with open(path, "rb") as file:
            head = file.read(12)
            file.seek(0)
            yield file
    except InputError:
        raise
    except FileNotFoundError:
        remedy = "check the folder or the CSV that names it"
        raise InputError(f"{path}: no such file; {remedy}") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; grant it with chmod") from None
    except UnidentifiedImageError:
        if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS and "HEIF" not in IMAGE_FORMATS:
            raise InputError(f"{path}: {HEIF_MISSING}") from None
        kinds = ", ".join(IMAGE_FORMATS)
        raise InputError(f"{path}: not an image of type {kinds}; replace or remove it") from None
    except Image.DecompressionBombError:
        found = f"more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels"
        raise InputError(f"{path}: {found}; make the image smaller") from None
    except Exception as error:  # decoders raise anything: struct.error, KeyError, EOFError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: broken image ({reason}); get the file again") from None


def open_image(
    path: Path,
    mode: str | None = None,
    size: tuple[int, int] | None = None,
    formats: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    remedy: str = "convert it first",
) -> Image.Image:
    """Decode a whole image file, so that a truncated one is noticed here.

    `InputError`, before decoding for another mode, size (width, height) or format (PIL's names; the
    content decides); `remedy` is for another mode. Of several pages, the first full one is read;
    see `_pages`.
    """
    with _decoding(path) as file:
        image = _open_page(file)
        if formats and image.format not in formats:
            found, expected = image.format, ", ".join(formats)
            raise InputError(f"{path}: holds {found}, expected {expected}; use the original file")
        if mode is not None and image.mode != mode:
            raise InputError(f"{path}: mode is {image.mode}, expected {mode}; {remedy}")
        if size is not None and image.size != size:
            found, expected = (f"{width}x{height}" for width, height in (image.size, size))
            raise InputError(f"{path}: size is {found}, expected {expected}; use the original file")
        if image.width * image.height > max_pixels:
            found, limit = (f"{n / 1e6:.4g}" for n in (image.width * image.height, max_pixels))
            raise InputError(f"{path}: {found} megapixels, at most {limit}; make it smaller")
        image.load()
    return image


def _open_page(file: BinaryIO) -> Image.Image:
    """Open an image, a TIFF at its first full page."""
    image = Image.open(file, formats=IMAGE_FORMATS)
    if image.format == "TIFF":
        first = _pages(image)[0]
        file.seek(0)
        image = Image.open(file, formats=IMAGE_FORMATS)  # later pages leave their profile behind
        image.seek(first)
    return image


def _pages(image: Image.Image) -> Sequence[int]:
    """The numbers of an image's pages or frames, at least one.

    In a TIFF, reduced copies and masks do not count, nor the second views of a phone elsewhere.
    """
    pages = []
    with suppress(Exception):  # broken further pages
        if image.format in ("JPEG", "MPO", "HEIF"):
            return [0]
        if image.format != "TIFF":
            return range(image.n_frames)
        for number in range(image.n_frames):
            image.seek(number)
            reduced_or_mask = image.tag_v2.get(254, 0) & 5 or image.tag_v2.get(255) == 2
            pages += [] if reduced_or_mask else [number]
    return pages or [0]


def read_image(path: Path, mode: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image as stored: mode "L" as (H, W) uint8, "RGB" as (H, W, 3) uint8, nothing else."""
    return np.asarray(open_image(path, mode, size))


def open_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Any photo as 8-bit sRGB, mode L or RGB; see `to_srgb`."""
    return to_srgb(open_image(path, max_pixels=max_pixels), path)


def read_gray(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Any photo as (H, W) uint8; colours, sepia included, become PIL's luma."""
    return np.asarray(open_photo(Path(path), max_pixels).convert("L"))


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Any photo as `read_gray`, with its transparency and metadata."""
    path = Path(path)
    image = upright(open_image(path, max_pixels=max_pixels))
    with _decoding(path) as file:
        details = _read_details(file)
    clear = None
    if image.mode in TRANSPARENT or "transparency" in image.info:
        clear = np.asarray(image.convert("RGBA"))[..., 3] < OPAQUE
    gray = np.asarray(to_srgb(image, path).convert("L"))
    return Photo(gray, clear if clear is not None and clear.any() else None, details)


def _read_details(file: BinaryIO) -> Details:
    image = _open_page(file)
    dpi, exif = None, b""
    with suppress(Exception):  # no resolution
        across, down = (float(value) for value in image.info["dpi"])
        if min(across, down) > 1 and max(across, down) < 1e5:
            dpi = across, down
    with suppress(Exception):  # broken EXIF
        tags = image.getexif()
        tags.pop(Tag.Orientation, None)
        if image.format == "TIFF":  # its other tags say how its pixels are stored
            texts = (Tag.ImageDescription, Tag.DateTime, Tag.Artist, Tag.Copyright)
            kept = {tag: tags[tag] for tag in texts if tag in tags}
            tags = Image.Exif()
            tags.update(kept)
        exif = tags.tobytes() if len(tags) else b""
    return Details(len(_pages(image)), dpi, exif)


def upright(image: Image.Image) -> Image.Image:
    """A decoded image rotated as its EXIF says; broken EXIF is ignored, as in viewers."""
    try:
        image.getexif()  # parsed and kept
        image.info.pop("exif", None)  # else it is rewritten below, which fails if a tag is broken
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # parsing raises anything
        pass
    return image


def to_srgb(image: Image.Image, path: Path) -> Image.Image:
    """A decoded image as 8-bit sRGB in mode L or RGB, upright, on white where it is transparent.

    Tags say which value is white, as far as they do; otherwise it is the smallest of the whites of
    8, 12 and 16 bits that nothing exceeds. An unusable colour profile is ignored; `InputError`,
    which names `path`, if the values cannot be interpreted.
    """
    return _apply_profile(_opaque(_eight_bits(upright(image), path)))


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The image as it is, or as mode L if it is grey of more than 8 bits."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})  # only a TIFF has them
    if not np.isfinite(values).all():
        raise InputError(f"{path}: contains NaN or infinity; {SAVE_AS}")
    low, high = float(values.min()), float(values.max())
    found = f"{path}: values from {low:g} to {high:g}"
    if low < 0:
        raise InputError(f"{found}: cannot tell which value is black; {SAVE_AS}")
    stated = np.max(tags.get(281, 0))  # MaxSampleValue, one or one per channel
    if image.mode == "F":
        whites = [white for white, least in FLOAT_WHITES.items() if least <= high <= white]
    elif max(1, high) <= stated <= WHITES[-1]:
        whites = [stated]
    else:
        whites = [white for white in WHITES if high <= white]
    if not whites:
        raise InputError(f"{found}: cannot tell which value is white; {SAVE_AS}")
    scaled = values / whites[0]
    if tags.get(262) == 0:  # PhotometricInterpretation: WhiteIsZero
        scaled = 1 - scaled
    gray = Image.fromarray(np.round(scaled * 255).astype(np.uint8))
    gray.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return gray


def _opaque(image: Image.Image) -> Image.Image:
    """An 8-bit image as L, RGB, CMYK or LAB, on white where it is transparent."""
    mode, profile = image.mode, image.info.get("icc_profile")
    if mode in TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode not in PROFILE_SPACES:
        image = image.convert("RGB")
    if profile:
        image.info["icc_profile"] = profile
    return image


def _apply_profile(image: Image.Image) -> Image.Image:
    """An image of mode L, RGB, CMYK or LAB as sRGB of mode L or RGB."""
    srgb, gray = ImageCms.createProfile("sRGB"), image.mode == "L"
    if "icc_profile" in image.info:
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"]))
            space = profile.profile.xcolor_space.strip()
            name = profile.profile.profile_description or ""
            # grey with an RGB profile means three equal channels
            source = image.convert("RGB") if gray and space == "RGB" else image
            if space == PROFILE_SPACES[source.mode] and not (space == "RGB" and "sRGB" in name):
                intent = ImageCms.Intent.RELATIVE_COLORIMETRIC  # white stays white
                image = ImageCms.profileToProfile(source, profile, srgb, intent, "RGB")
                return image.convert("L") if gray else image
        except (OSError, ValueError, ImageCms.PyCMSError):
            pass  # a broken profile
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return image if gray else image.convert("RGB")


def gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    """(H, W) to (H, W, 3) of three equal channels."""
    return np.repeat(gray[..., None], 3, axis=2)


def list_images(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted; hidden files and folders are left out."""
    return [path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def list_others(folder: Path) -> list[Path]:
    """Every visible file below `folder` that `list_images` leaves out."""
    return [path for path in _visible(folder) if path.suffix.lower() not in IMAGE_SUFFIXES]


def pngs_by_name(folder: Path) -> dict[str, Path]:
    """The visible PNGs in a folder by their name with the suffix .png, which may be .PNG."""
    files = sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    return {f"{path.stem}.png": path for path in files if path.suffix.lower() == ".png"}


def _visible(folder: Path) -> list[Path]:
    # links are followed; no folder is entered twice, and folders inside keep their own names
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder that holds the images")
    root = os.path.realpath(folder)
    files, entered = [], {root}

    def enter(path: Path) -> bool:
        real = os.path.realpath(path)
        if real in entered or (path.is_symlink() and Path(real).is_relative_to(root)):
            return False
        entered.add(real)
        return True

    def refuse(error: OSError) -> None:
        reason = f"unreadable folder ({error.strerror}); grant it with chmod"
        raise InputError(f"{error.filename}: {reason}") from None

    for base, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        files += [Path(base, name) for name in names if not name.startswith(".")]
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if enter(Path(base, name))]
    return sorted(files)


def write_png(path: Path, array: np.ndarray, details: Details | None = None) -> None:
    """Write (H, W) or (H, W, 3) uint8 as a PNG; the same arguments give the same bytes.

    With a photo's details, its resolution and EXIF are kept, and the PNG says that it is sRGB.
    """
    metadata = {}
    if details:
        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"sRGB", b"\0")  # perceptual intent
        metadata = {"pnginfo": chunks, "exif": details.exif}
        if details.dpi:
            metadata["dpi"] = details.dpi
    buffer = BytesIO()
    level = 2  # takes a quarter of the time of the default 6; files are a tenth larger
    Image.fromarray(array).save(buffer, format="PNG", compress_level=level, **metadata)
    write_bytes(Path(path), buffer.getvalue())
