"""What the numbers in image files mean: real files of many kinds, read as the photo that they hold."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from skimage import data

from src.utils.errors import InputError
from src.utils.images import open_photo, read_gray

GRAY = data.camera()[100:300, 150:350]  # black to nearly white
WHITE_IS_ZERO = {"tiffinfo": {262: 0}}


def profile(space: bytes, **tags: bytes) -> bytes:
    """A small ICC profile, version 2, of the colours `space`."""
    tags = {"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    start, table, blocks = 128 + 4 + 12 * len(tags), b"", b""
    for name, block in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(blocks), len(block))
        blocks += block + bytes(-len(block) % 4)
    body = struct.pack(">I", len(tags)) + table + blocks
    head = struct.pack(
        ">I4s4s4s4s4s", 128 + len(body), b"test", b"\2\x10\0\0", b"mntr", space, b"XYZ "
    )
    head = head + bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


DISPLAY_P3 = profile(
    b"RGB ",
    rXYZ=xyz(0.5151, 0.2412, -0.0011),
    gXYZ=xyz(0.2920, 0.6922, 0.0419),
    bXYZ=xyz(0.1571, 0.0666, 0.7841),
    **dict.fromkeys(("rTRC", "gTRC", "bTRC"), gamma(2.2)),
)


def from_sixteen(bits: int) -> Image.Image:
    """Grey of so many bits in 16; its brightest pixel is white."""
    scaled = GRAY.astype(np.float64) / GRAY.max() * (2**bits - 1)
    return Image.fromarray(scaled.round().astype(np.uint16))


FULL = np.round(GRAY.astype(np.float64) / GRAY.max() * 255)  # what the above is in 8 bits
KINDS = {
    "8.png": (Image.fromarray(GRAY), {}, GRAY),
    "8 white is zero.tif": (Image.fromarray(GRAY), WHITE_IS_ZERO, GRAY),
    "1.tif": (Image.fromarray(GRAY > 127), {}, (GRAY > 127) * 255),
    "1 white is zero.tif": (Image.fromarray(GRAY > 127), WHITE_IS_ZERO, (GRAY > 127) * 255),
    "8 in 16.tif": (from_sixteen(8), {}, FULL),
    "12 in 16.tif": (from_sixteen(12), {}, FULL),
    "12 in 16.png": (from_sixteen(12), {}, FULL),
    "16.tif": (from_sixteen(16), {}, FULL),
    "16.png": (from_sixteen(16), {}, FULL),
    "14 in 16, said so.tif": (from_sixteen(14), {"tiffinfo": {281: 2**14 - 1}}, FULL),
    "16 white is zero.tif": (from_sixteen(16), WHITE_IS_ZERO, 255 - FULL),
    "32.tif": (Image.fromarray(GRAY.astype(np.int32)), {}, GRAY),
    "float to 1.tif": (Image.fromarray(GRAY.astype(np.float32) / 255), {}, GRAY),
    "float to 255.tif": (Image.fromarray(GRAY.astype(np.float32)), {}, GRAY),
    "float to 65535.tif": (Image.fromarray(GRAY.astype(np.float32) * 257), {}, GRAY),
    "palette.png": (Image.fromarray(GRAY).convert("P"), {}, GRAY),
    "gray and alpha.png": (Image.fromarray(GRAY).convert("LA"), {}, GRAY),
    "cmyk.jpg": (Image.fromarray(GRAY).convert("RGB").convert("CMYK"), {"quality": 100}, GRAY),
    "cmyk.tif": (Image.fromarray(GRAY).convert("RGB").convert("CMYK"), {}, GRAY),
}


@pytest.mark.parametrize("name", KINDS)
def test_grey_of_every_kind(tmp_path, name):
    image, settings, wanted = KINDS[name]
    image.save(tmp_path / name, **settings)
    found = read_gray(tmp_path / name)
    assert found.dtype == np.uint8 and np.abs(found - wanted.astype(float)).max() <= (
        3 if "jpg" in name else 1
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GRAY.astype(np.float32) - 40, r"values from -\d+ to .* none is surely black"),
        (
            GRAY.astype(np.float32) / 100,
            r"values from 0.* to 2\.\d+, of which none is surely white",
        ),
        (GRAY.astype(np.float32) * 1e4, "none is surely white"),
        (np.where(GRAY > 9, GRAY, np.nan).astype(np.float32), "values that are no numbers"),
        (np.where(GRAY > 9, GRAY, np.inf).astype(np.float32), "values that are no numbers"),
        (GRAY.astype(np.int32) - 300, "none is surely black"),
        (GRAY.astype(np.int32) << 16, "none is surely white"),
    ],
)
def test_numbers_of_no_certain_meaning_are_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a\.tif: .*{message}.*; save it with 8 or 16 bits"):
        read_gray(tmp_path / "a.tif")


@pytest.mark.parametrize("settings", [{}, {"tiffinfo": {281: 0}}])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_black_is_black(tmp_path, dtype, settings):
    """Whatever a tag says of the greatest number."""
    Image.fromarray(np.zeros((20, 30), dtype)).save(tmp_path / "a.tif", **settings)
    assert not read_gray(tmp_path / "a.tif").any()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F", "CMYK", "1"])
def test_tiffs_of_every_mode_are_turned(tmp_path, mode, turn):
    """Uncompressed, as scanners write them: PIL itself scrambles grey ones that lie on their side."""
    gray = GRAY[:60, :90]
    image = {
        "I;16": lambda: Image.fromarray(gray.astype(np.uint16) * 257),
        "F": lambda: Image.fromarray(gray.astype(np.float32)),
        "CMYK": lambda: Image.fromarray(gray).convert("RGB").convert("CMYK"),
    }.get(mode, lambda: Image.fromarray(gray).convert(mode))()
    image.save(tmp_path / "turned.tif", tiffinfo={274: turn})
    wanted = [gray, gray[:, ::-1], gray[::-1, ::-1], gray[::-1]]
    wanted += [gray.T, np.rot90(gray, -1), gray[::-1, ::-1].T, np.rot90(gray)]
    wanted = wanted[turn - 1]
    found = read_gray(tmp_path / "turned.tif")
    assert found.shape == wanted.shape
    if mode == "1":
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.3  # dithered
    else:
        assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("value", [1.75, 1.8, 2.2])
def test_grey_profiles_are_carried_out(tmp_path, value):
    """Of gamma 1.8, for instance: linear light is the same in sRGB."""
    icc = profile(b"GRAY", kTRC=gamma(value))
    Image.fromarray(GRAY).save(tmp_path / "scan.tif", icc_profile=icc)
    linear = (GRAY / 255.0) ** value
    wanted = (
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    )
    found = read_gray(tmp_path / "scan.tif")
    assert np.abs(found - wanted).max() < 2 and np.abs(found - GRAY.astype(int)).max() > 2


def test_display_p3_is_carried_out(tmp_path):
    """Its red is more vivid than sRGB's: there it is clipped, and a dull one becomes stronger."""
    rgb = np.full((8, 8, 3), (180, 90, 90), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "p3.png", icc_profile=DISPLAY_P3)
    found = np.asarray(open_photo(tmp_path / "p3.png"))[4, 4].astype(int)
    assert found[0] > 183 and found[1] < 88 and abs(found[1] - found[2]) < 6
    grey = np.full((8, 8, 3), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png", icc_profile=DISPLAY_P3)
    assert np.ptp(np.asarray(open_photo(tmp_path / "grey.png"))) <= 2


def test_lab_becomes_the_colours_it_means(tmp_path):
    lab = ImageCms.createProfile("LAB")
    srgb, rgb = ImageCms.createProfile("sRGB"), data.astronaut()[:64, :64]
    ImageCms.profileToProfile(Image.fromarray(rgb), srgb, lab, outputMode="LAB").save(
        tmp_path / "lab.tif"
    )
    found = np.asarray(open_photo(tmp_path / "lab.tif"))
    assert np.abs(found.astype(int) - rgb).mean() < 2


@pytest.mark.parametrize("icc", [b"no profile", DISPLAY_P3[:200], DISPLAY_P3[:-40], bytes(400)])
def test_a_broken_profile_counts_as_none(tmp_path, icc):
    for name, array in (("grey.png", GRAY), ("rgb.png", data.coffee()[:50, :60])):
        Image.fromarray(array).save(tmp_path / name, icc_profile=icc)
        assert np.asarray(open_photo(tmp_path / name)).shape == array.shape


def test_a_profile_of_other_colours_counts_as_none(tmp_path):
    rgb = data.coffee()[:50, :60]
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=profile(b"GRAY", kTRC=gamma(1.8)))
    assert np.array_equal(np.asarray(open_photo(tmp_path / "a.png")), rgb)


def test_transparency_lies_on_white(tmp_path):
    clear = Image.fromarray(data.coffee()).convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    assert read_gray(tmp_path / "clear.png").min() == 255
    key = int(GRAY[0, 0])
    Image.fromarray(GRAY).save(tmp_path / "key.png", transparency=key)
    assert np.array_equal(read_gray(tmp_path / "key.png"), np.where(key == GRAY, 255, GRAY))


def test_large_text_in_a_png_does_no_harm(tmp_path):
    """Paint programs keep megabytes of XMP, compressed to nothing."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x>" + "history " * 400_000 + "</x>", zip=True)
    Image.fromarray(GRAY).save(tmp_path / "a.png", pnginfo=text)
    assert np.array_equal(read_gray(tmp_path / "a.png"), GRAY)
