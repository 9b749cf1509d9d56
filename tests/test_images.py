"""Image files of many kinds, read as the photo they hold; broken and hostile ones are named."""

import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from skimage import data

from src.utils.cli import run_script
from src.utils.errors import InputError
from src.utils.images import (
    list_images,
    open_image,
    open_photo,
    read_gray,
    read_image,
    read_photo,
    write_png,
)

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
    fields = 128 + len(body), b"test", b"\2\x10\0\0", b"mntr", space, b"XYZ "
    head = (
        struct.pack(">I4s4s4s4s4s", *fields)
        + bytes(12)
        + b"acsp"
        + bytes(28)
        + struct.pack(">3i", 63190, 65536, 54061)
    )
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
    image, options, wanted = KINDS[name]
    image.save(tmp_path / name, **options)
    found = read_gray(tmp_path / name)
    limit = 3 if "jpg" in name else 1
    assert found.dtype == np.uint8 and np.abs(found - wanted.astype(float)).max() <= limit


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GRAY.astype(np.float32) - 40, r"values from -\d+ to .* which value is black"),
        (GRAY.astype(np.float32) / 100, r"values from 0.* to 2\.\d+: cannot .* is white"),
        (np.where(GRAY > 9, GRAY, np.nan).astype(np.float32), "contains NaN or infinity"),
        (GRAY.astype(np.int32) << 16, "which value is white"),
    ],
)
def test_numbers_of_no_certain_meaning_are_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a\.tif: .*{message}; save it as 8 or 16 bit"):
        read_gray(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_black_is_black(tmp_path, dtype):
    """Even if a tag says that the largest value is 0."""
    Image.fromarray(np.zeros((20, 30), dtype)).save(tmp_path / "a.tif", tiffinfo={281: 0})
    assert not read_gray(tmp_path / "a.tif").any()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F", "CMYK", "1"])
def test_tiffs_of_every_mode_are_turned(tmp_path, mode, turn):
    """Uncompressed, as from scanners: given a name, PIL scrambles grey ones on their side."""
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


def test_grey_profiles_are_applied(tmp_path):
    """Linear light is the same in sRGB."""
    icc = profile(b"GRAY", kTRC=gamma(1.8))
    Image.fromarray(GRAY).save(tmp_path / "scan.tif", icc_profile=icc)
    linear = (GRAY / 255.0) ** 1.8
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    found = read_gray(tmp_path / "scan.tif")
    assert np.abs(found - 255 * wanted).max() < 2 and np.abs(found - GRAY.astype(int)).max() > 2


def test_display_p3_is_applied(tmp_path):
    """Its red is more vivid than sRGB's: there it is clipped, and a dull one becomes stronger."""
    rgb = np.full((8, 8, 3), (180, 90, 90), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "p3.png", icc_profile=DISPLAY_P3)
    found = np.asarray(open_photo(tmp_path / "p3.png"))[4, 4].astype(int)
    assert found[0] > 183 and found[1] < 88 and abs(found[1] - found[2]) < 6


def test_lab_becomes_the_colours_it_means(tmp_path):
    lab = ImageCms.createProfile("LAB")
    srgb, rgb = ImageCms.createProfile("sRGB"), data.astronaut()[:64, :64]
    image = ImageCms.profileToProfile(Image.fromarray(rgb), srgb, lab, outputMode="LAB")
    image.save(tmp_path / "lab.tif")
    found = np.asarray(open_photo(tmp_path / "lab.tif"))
    assert np.abs(found.astype(int) - rgb).mean() < 2


@pytest.mark.parametrize("icc", [b"no profile", DISPLAY_P3[:-40]])
def test_a_broken_profile_counts_as_none(tmp_path, icc):
    for name, array in (("grey.png", GRAY), ("rgb.png", data.coffee()[:50, :60])):
        Image.fromarray(array).save(tmp_path / name, icc_profile=icc)
        assert np.asarray(open_photo(tmp_path / name)).shape == array.shape


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


def encoded(suffix: str) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010E] = 6, "a turned photo"
    photo = Image.fromarray(data.astronaut()[:60, 100:181])
    photo.save(buffer, format=suffix, exif=exif, icc_profile=DISPLAY_P3)
    return buffer.getvalue()


FILES = {suffix: encoded(suffix) for suffix in ("png", "jpeg", "webp", "tiff", "gif", "bmp")}


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_broken_files_are_read_or_named(tmp_path_factory, suffix, choices):
    """Real files with some bytes changed and perhaps cut off: an image, or one line on the file."""
    content = bytearray(FILES[suffix])
    places = st.integers(0, min(len(content), choices.draw(st.sampled_from([300, 10**6]))) - 1)
    changes = st.dictionaries(places, st.integers(0, 255), max_size=8)
    for place, value in choices.draw(changes).items():
        content[place] = value
    end = choices.draw(st.one_of(st.just(len(content)), places))
    path = tmp_path_factory.getbasetemp() / "broken.png"
    path.write_bytes(content[:end])
    try:
        photo = read_photo(path, max_pixels=1 << 20)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert photo.gray.dtype == np.uint8 and photo.gray.ndim == 2
        write_png(path.with_name("copy.png"), photo.gray, photo.details)


def test_a_broken_tag_does_not_keep_a_photo_from_being_turned(tmp_path):
    """The width (tag 0x100) as bytes of no known type, beside an orientation that can be read."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0100] = 6, 7
    path = tmp_path / "turned.jpg"
    Image.fromarray(GRAY[:20, :40]).save(path, exif=exif)
    assert read_gray(path).shape == (40, 20)
    content = path.read_bytes()
    for entry in (b"\x01\x00\x00", b"\x00\x01"):  # big endian, little endian
        content = content.replace(entry + b"\x03", entry + b"\x07")
    content = content.replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x07")
    assert content != path.read_bytes()
    path.write_bytes(content)
    assert read_gray(path).shape == (40, 20)


def test_bad_images_are_named(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    Image.fromarray(GRAY).save(tmp_path / "photo.eps")  # PIL would hand it to Ghostscript
    (tmp_path / "photo.eps").rename(tmp_path / "script.png")
    for name in ("text", "empty", "none", "pipe", "script"):
        with pytest.raises(InputError, match=f"{name}.png: "):
            open_image(tmp_path / f"{name}.png")
    write_png(tmp_path / "a.png", data.camera())
    with pytest.raises(InputError, match="mode is L, expected RGB"):
        read_image(tmp_path / "a.png", "RGB")
    with pytest.raises(InputError, match="512x512, expected 100x50"):
        read_image(tmp_path / "a.png", "L", (100, 50))


def png_of(width: int, height: int, content: bytes) -> bytes:
    """A grey PNG that declares a size, whatever its compressed content."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_picture_bomb_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(60_000, 60_000, zlib.compress(bytes(1 << 20))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"bomb\.png: more than 179 megapixels"):
        open_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


@pytest.mark.filterwarnings("error")
def test_a_large_photo_gives_no_warning(tmp_path):
    """PIL alone would warn from 89 megapixels on."""
    path = tmp_path / "large.png"
    path.write_bytes(png_of(10_000, 10_000, zlib.compress(bytes(10_000 * 10_001), 1)))
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: int(open_image(path).size != (10_000, 10_000)))
    assert stop.value.code == 0


def test_pils_limit_stays_as_it_was(tmp_path):
    """Programs that use this code keep PIL's guard against bombs, and its warning."""
    code = (
        "import sys\nfrom PIL import Image\nbefore = Image.MAX_IMAGE_PIXELS\n"
        "from src.utils.images import read_gray\nread_gray(sys.argv[1])\n"
        "assert before and Image.MAX_IMAGE_PIXELS == before"
    )
    write_png(tmp_path / "a.png", data.camera())
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True)
    with pytest.raises(InputError, match=r"0\.2621 megapixels, at most 0\.2621"):
        read_gray(tmp_path / "a.png", max_pixels=512 * 512 - 1)


def test_links_are_followed_but_no_circle(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    write_png(photos / "a.png", GRAY)
    write_png(photos / "more" / "b.png", GRAY)
    write_png(elsewhere / "c.png", GRAY)
    targets = {"links": elsewhere, "circle": photos, "one.png": elsewhere / "c.png"}
    for link, target in targets.items():
        (photos / link).symlink_to(target)
    (elsewhere / "back").symlink_to(tmp_path)
    found = [str(path.relative_to(photos)) for path in list_images(photos)]
    assert found == ["a.png", "links/c.png", "more/b.png", "one.png"]
    shutil.rmtree(elsewhere)
    assert photos / "one.png" in list_images(photos)  # restoring will name the dangling link


def test_png_bytes_depend_on_pixels_only(tmp_path):
    write_png(tmp_path / "a.png", data.coffee())
    write_png(tmp_path / "b.png", np.asfortranarray(data.coffee()))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB"), data.coffee())


def test_a_phone_photo_is_known_by_its_content(tmp_path):
    """HEIC named .jpg: read, or in a process without the package, the hint at it."""
    shutil.copy(Path(__file__).with_name("phone.heic"), tmp_path / "photo.jpg")
    assert read_gray(tmp_path / "photo.jpg").size > 1000
    page = Image.fromarray(GRAY)  # a JPEG with a second view, as phones store it
    page.save(tmp_path / "two.jpg", "MPO", save_all=True, append_images=[page.reduce(2)])
    gray, _, details = read_photo(tmp_path / "two.jpg")
    assert gray.shape == GRAY.shape and details.frames == 1
    code = (
        "import sys\nfrom pathlib import Path\nsys.modules['pi_heif'] = None\n"
        "from src.utils.cli import run_script\nfrom src.utils.images import read_photo\n"
        "run_script(lambda: read_photo(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, tmp_path / "photo.jpg"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "photo.jpg: HEIC needs a package" in done.stderr, done.stderr


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_jpeg_2000_is_read(tmp_path, mode):
    Image.fromarray(GRAY).convert(mode).save(tmp_path / "scan.jp2")  # lossless
    assert list_images(tmp_path) == [tmp_path / "scan.jp2"]
    assert np.array_equal(read_gray(tmp_path / "scan.jp2"), GRAY)


def test_the_first_full_page_is_read(tmp_path):
    """Not a thumbnail before it; and the reduced pages of a pyramid are not counted."""
    page, path = Image.fromarray(GRAY), tmp_path / "scan.tif"
    for pages, count in (
        ([(page.reduce(4), 1), (page, 0)], 1),
        ([(page, 0), (page.reduce(2), 1), (page.reduce(4), 1)], 1),
        ([(page.convert("1"), 4), (page, 2), (page.reduce(4), 1), (page.reduce(2), 2)], 2),
        ([(page, 1)], 1),  # that it is reduced may be wrong
    ):
        for image, kind in pages:
            image.encoderinfo = {"tiffinfo": {254: kind}}
        (first, kind), *others = pages
        options = {"save_all": True, "append_images": [image for image, _ in others]}
        first.save(path, tiffinfo={254: kind}, dpi=(300, 300), **options)
        gray, _, details = read_photo(path)
        assert np.array_equal(gray, GRAY) and details.frames == count, pages
