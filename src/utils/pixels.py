"""What the numbers in an image file mean: any PIL image as 8-bit sRGB, upright and opaque."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import Base as ExifTag

from src.utils.errors import InputError

TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PHOTOMETRIC, MAX_SAMPLE = 262, 281  # tags of TIFF 6.0
WHITE_IS_ZERO = 0  # a value of the first
WHITES = (255, 4095, 65535)  # of 8, 12 and 16 bits, whatever the container
FLOAT_WHITES = {1.0: 0, 255.0: 16, 65535.0: 4096}  # and from which maximum on they are believed
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
OPAQUE = 128  # alpha from which on a pixel counts as there
SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}  # of profiles, by PIL's mode
SAVE_AS = "save it with 8 or 16 bits, 0 to white"


def to_srgb(image: Image.Image, path: Path) -> Image.Image:
    """A decoded image as an L or RGB image, upright, with 8 bits, of sRGB, on white where it is
    transparent.

    Tags tell which number is white, as far as they do; else it is the least of those of 8, 12 and
    16 bits that nothing exceeds. A colour profile that cannot be used counts as none.

    Args:
        path: names the file in errors.

    Raises `InputError` where it cannot be told what the numbers mean.
    """
    turn = _turn(image)
    image = _without_profile(_opaque(_eight_bits(image, path)))
    return image if turn is None else image.transpose(turn)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says.

    Unlike `ImageOps.exif_transpose`, which also rewrites the other tags and fails if one is broken.
    """
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def transparent(image: Image.Image) -> np.ndarray | None:
    """(H, W) bool, upright, where an image is more than half transparent; None where it nowhere is."""
    if image.mode not in TRANSPARENT and "transparency" not in image.info:
        return None
    clear = np.asarray(upright(image).convert("RGBA"))[..., 3] < OPAQUE
    return clear if clear.any() else None


def is_turned(image: Image.Image) -> bool:
    """Whether width and height change places when the image is turned upright."""
    return image.getexif().get(ExifTag.Orientation) in (5, 6, 7, 8)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright; EXIF that cannot be read counts as none."""
    try:
        orientation = image.getexif().get(ExifTag.Orientation)
    except (
        Exception
    ):  # PIL raises what its parsing of the tags meets, and viewers show such photos too
        return None
    # an orientation may be of any type that EXIF knows, lists and fractions among them
    return TURNS[orientation] if orientation in list(TURNS) else None


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The image as it is, or grey of more than 8 bits as L."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if not np.isfinite(values).all():
        raise InputError(f"{path}: values that are no numbers; {SAVE_AS}")
    low, high = float(values.min()), float(values.max())
    found = f"values from {low:g} to {high:g}"
    if low < 0:
        raise InputError(f"{path}: {found}, of which none is surely black; {SAVE_AS}")
    if image.mode == "F":
        whites = [white for white, least in FLOAT_WHITES.items() if least <= high <= white]
    else:
        stated = tags.get(MAX_SAMPLE, 0)
        stated = max(stated) if isinstance(stated, tuple) else stated
        known = (stated,) if max(1, high) <= stated <= WHITES[-1] else WHITES
        whites = [white for white in known if high <= white]
    if not whites:
        raise InputError(f"{path}: {found}, of which none is surely white; {SAVE_AS}")
    scaled = values / whites[0]
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = 1 - scaled
    gray = Image.fromarray(np.round(scaled * 255).astype(np.uint8))
    gray.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return gray


def _opaque(image: Image.Image) -> Image.Image:
    """An image of 8 bits as L, RGB, CMYK or LAB, on white where it is transparent."""
    mode, profile = image.mode, image.info.get("icc_profile")
    if mode in TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode not in SPACES:
        image = image.convert("RGB")
    if profile:
        image.info["icc_profile"] = profile
    return image


def _without_profile(image: Image.Image) -> Image.Image:
    """An image of mode L, RGB, CMYK or LAB as L or RGB of sRGB; its profile, if any, is carried
    out."""
    srgb, gray = ImageCms.createProfile("sRGB"), image.mode == "L"
    if "icc_profile" in image.info:
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"]))
            space = profile.profile.xcolor_space.strip()
            named = profile.profile.profile_description or ""
            # grey with a profile of RGB is three equal channels of it
            source = image.convert("RGB") if gray and space == "RGB" else image
            if space == SPACES[source.mode] and not (space == "RGB" and "sRGB" in named):
                intent = ImageCms.Intent.RELATIVE_COLORIMETRIC  # white stays white
                converted = ImageCms.profileToProfile(
                    source, profile, srgb, intent, outputMode="RGB"
                )
                return converted.convert("L") if gray else converted
        except (OSError, ImageCms.PyCMSError):
            pass  # a broken profile
    if image.mode == "LAB":
        return ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), srgb, outputMode="RGB"
        )
    return image if gray else image.convert("RGB")
