"""Masks as people and programs write them: the strokes are lost, or a line says what was found."""

import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

from src.damage.masks import match_masks, read_mask
from src.pipeline import Baseline
from src.restoring import photo_jobs, restore_files, skipped_files
from src.utils.distributed import launch
from src.utils.errors import InputError
from src.utils.images import write_png

PHOTO = data.camera()[:200, :240]
STROKES = Image.new("1", (240, 200))
ImageDraw.Draw(STROKES).line([(20, 30), (120, 150), (220, 40)], 1, 9)
MEANT = np.asarray(STROKES)
LOST = MEANT.astype(np.uint8) * 255
GREY = Image.fromarray(LOST)


def layer(color: tuple[int, int, int], beneath: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """Strokes of a colour on a transparent layer."""
    rgba = np.empty((*MEANT.shape, 4), np.uint8)
    rgba[..., :3] = np.where(MEANT[..., None], color, beneath)
    rgba[..., 3] = LOST
    return Image.fromarray(rgba)


def painted(color: tuple[int, int, int], ground: np.ndarray | int) -> Image.Image:
    """Strokes of a colour over black, white or a photo."""
    ground = np.broadcast_to(ground, MEANT.shape)[..., None].repeat(3, axis=-1)
    return Image.fromarray(np.where(MEANT[..., None], color, ground).astype(np.uint8))


KINDS = {
    "white on black.png": GREY,
    "white on black.jpg": GREY,
    "bits.png": STROKES,
    "palette.png": GREY.convert("P"),
    "colours.png": GREY.convert("RGB"),
    "0 and 1.png": Image.fromarray(MEANT.astype(np.uint8)),
    "0 and 38, as a label.png": Image.fromarray(MEANT.astype(np.uint8) * 38),
    "16 bits.png": Image.fromarray(MEANT.astype(np.uint16) * 65535),
    "16 bits, 0 and 1.png": Image.fromarray(MEANT.astype(np.uint16)),
    "32 bits.tif": Image.fromarray(MEANT.astype(np.int32)),
    "floats.tif": Image.fromarray(MEANT.astype(np.float32)),
    "feathered.png": GREY.filter(ImageFilter.GaussianBlur(3)).point(lambda value: value * 0.93),
    "grey and alpha.png": GREY.convert("LA"),
    "opaque.png": GREY.convert("RGBA"),
    "white layer.png": layer((255, 255, 255)),
    "white layer over white.png": layer((255, 255, 255), (255, 255, 255)),
    "black layer.png": layer((0, 0, 0)),
    "red layer.png": layer((255, 0, 0)),
    "red on black.png": painted((255, 0, 0), 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_mask_means_what_its_author_meant(tmp_path, name):
    KINDS[name].save(tmp_path / name)
    found, line = read_mask(tmp_path / name, MEANT.shape)
    assert line.startswith(f"{found.mean():.1%} is lost according to")
    soft = name.endswith("jpg") or name.startswith("feathered")
    assert found.dtype == bool and (found == MEANT).mean() > (0.99 if soft else 1 - 1e-9)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (240, 200), 255), "all of the photo is lost"),
        (GREY.resize((120, 100)), "size is 120x100, the photo's is 240x200"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, image, message):
    image.save(tmp_path / "mask.tif")
    with pytest.raises(InputError, match=rf"mask\.tif: {message}"):
        read_mask(tmp_path / "mask.tif", MEANT.shape)


@pytest.fixture
def folder(tmp_path):
    """Photos, of which one has an umlaut in its name; their masks are drawn by the tests."""
    for name in ("a", "b", unicodedata.normalize("NFD", "Großmüttér")):
        write_png(tmp_path / "photos" / f"{name}.png", PHOTO)
    return tmp_path


def matched(folder, masks: str) -> dict[str, str]:
    photos = sorted((folder / "photos").glob("*.png"))
    found = match_masks(folder / masks, folder / "photos", photos)
    return {unicodedata.normalize("NFC", photo.stem): mask.name for photo, mask in found.items()}


def test_masks_are_found_by_name(folder):
    """As LaMa names them too, and whatever the Unicode form."""
    for name in (
        "a_mask001.png",
        "b_mask.png",
        f"{unicodedata.normalize('NFC', 'Großmüttér')}.png",
    ):
        write_png(folder / "masks" / name, LOST)
    assert matched(folder, "masks") == {
        "a": "a_mask001.png",
        "b": "b_mask.png",
        "Großmüttér": "Großmüttér.png",
    }
    write_png(folder / "masks" / "a.png", LOST)
    with pytest.raises(
        InputError, match=r"a_mask001\.png and a\.png are masks|a\.png and a_mask001\.png"
    ):
        matched(folder, "masks")


def test_masks_beside_their_photos(folder):
    """Neither are they restored, nor is a photo its own mask; a photo without one is named."""
    write_png(folder / "photos" / "a_mask001.png", LOST)
    where = (folder / "photos", folder / "out")
    jobs = photo_jobs(*where, folder / "photos")
    named = {job.photo.stem: job.mask and job.mask.name for job in jobs}
    assert len(jobs) == 3 and named["a"] == "a_mask001.png" and named["b"] is None
    lines = skipped_files(*where, jobs, folder / "photos")
    assert len(lines) == 2 and any(
        "b.png: no mask, so it is only coloured" in line for line in lines
    )


def test_the_share_that_is_lost_is_printed(folder, capsys):
    """With a warning where it is most of the photo."""
    write_png(folder / "masks" / "a.png", LOST)
    write_png(folder / "masks" / "b.png", 255 - LOST)
    jobs = photo_jobs(folder / "photos", folder / "out", folder / "masks")
    assert not restore_files(Baseline("telea", damage="none"), jobs, folder / "out", launch("cpu"))
    lines = {
        line.split(":")[0].rsplit("/")[-1]: line for line in capsys.readouterr().out.splitlines()
    }
    assert (
        f"{MEANT.mean():.1%} is lost according" in lines["a.png"]
        and "warning" not in lines["a.png"]
    )
    assert f"{1 - MEANT.mean():.1%} is lost" in lines["b.png"] and "inverted?" in lines["b.png"]
