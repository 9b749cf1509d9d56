"""The damage rule and its detection, on the photographs inside scikit-image."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data as skimage_data

from src.damage.hole import draw_hole, find_hole, is_drawn, lost_pixels, punch_hole

PHOTOS = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png"]
PHOTOS += ["retina.jpg", "hubble_deep_field.jpg"]
SIDE = 512


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """(H, W, 3) uint8 each, short side 640 px."""
    folder = Path(skimage_data.__path__[0])
    found = []
    for name in PHOTOS:
        with Image.open(folder / name) as image:
            size = [max(640, round(side * 640 / min(image.size))) for side in image.size]
            found.append(np.array(image.convert("RGB").resize(size, Image.Resampling.LANCZOS)))
    return found


@pytest.fixture(scope="module")
def coffee(photos) -> np.ndarray:
    """(512, 512, 3) uint8."""
    return photos[1][:SIDE, :SIDE]


@pytest.fixture(scope="module")
def holes() -> list[np.ndarray]:
    return [draw_hole((SIDE, SIDE), np.random.default_rng(seed)) for seed in range(400)]


def luma(rgb: np.ndarray) -> np.ndarray:
    return np.array(Image.fromarray(rgb).convert("L"))


def crop(photos: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    photo = photos[rng.integers(len(photos))]
    top, left = (int(rng.integers(0, length - SIDE + 1)) for length in photo.shape[:2])
    return photo[top : top + SIDE, left : left + SIDE]


def iou(found: np.ndarray, true: np.ndarray) -> float:
    return (found & true).sum() / max(1, (found | true).sum())


def cannot_tell(gray: np.ndarray, true: np.ndarray, found: np.ndarray) -> bool:
    """Whether pixels of the fill's value connect every wrong pixel to a rightly found one."""
    labels = cv2.connectedComponents((gray == gray[true][0]).astype(np.uint8))[1]
    return bool(np.isin(labels[found != true], np.unique(labels[found & true])).all())


def drawn(gray: np.ndarray, polygon: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    canvas = Image.new("1", gray.shape[::-1])
    ImageDraw.Draw(canvas).polygon(polygon, fill=1)
    mask = np.array(canvas)
    return np.where(mask, np.uint8(40), gray), mask


@pytest.mark.parametrize("size", [(512, 512), (300, 451), (97, 64)])
def test_damage_is_one_constant_on_the_untouched_luma(photos, size):
    rgb = photos[2][: size[0], : size[1]]
    fills = set()
    for seed in range(40):
        gray, mask = punch_hole(rgb, np.random.default_rng(seed))
        again = punch_hole(rgb, np.random.default_rng(seed))
        assert np.array_equal(again[0], gray) and np.array_equal(again[1], mask)
        assert gray.dtype == np.uint8 and mask.dtype == bool and gray.shape == mask.shape == size
        assert (gray[~mask] == luma(rgb)[~mask]).all()
        (fill,) = np.unique(gray[mask])
        fills.add(int(fill))
        assert 0.005 * min(size) ** 2 <= mask.sum() <= 0.15 * mask.size
    assert min(fills) < 15 and 70 < max(fills) <= 86 and len(fills) > 20


def test_shapes_occur_as_often_as_seen(holes):
    kinds = {"rectangle": 0, "circle": 0, "polygon": 0}
    for mask in holes:
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        filled = mask.sum() / (height * width)
        if filled == 1:
            kinds["rectangle"] += 1
        elif height == width and abs(filled - np.pi / 4) < 0.01 and mask.sum() < 0.08 * mask.size:
            kinds["circle"] += 1
        else:
            kinds["polygon"] += 1
            assert 0.08 < mask.mean() < 0.15
    shares = {kind: count / len(holes) for kind, count in kinds.items()}
    assert shares == pytest.approx(
        {"rectangle": 9 / 16, "circle": 3 / 16, "polygon": 4 / 16}, abs=0.08
    )


def test_holes_are_found_as_often_as_promised(photos):
    ious, exact, same, false_holes = [], [], [], 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        rgb = crop(photos, rng)
        gray, true = punch_hole(rgb, rng)
        found = find_hole(gray)
        assert found.dtype == bool and found.shape == gray.shape
        ious.append(iou(found, true))
        exact.append((found == true).all())
        same.append(cannot_tell(gray, true, found))
        false_holes += bool(find_hole(luma(rgb)).any())
    assert np.mean(ious) >= 0.999 and np.mean(exact) >= 0.7 and np.mean(same) >= 0.99
    assert false_holes == 0


@pytest.mark.parametrize("fill", [0, 40])
def test_black_border_is_no_hole(coffee, fill):
    gray = luma(coffee)
    gray[:60], gray[-60:] = 0, 0
    assert not find_hole(gray).any()
    gray[:, :30], gray[:, -30:] = 0, 0
    assert not find_hole(gray).any()
    gray[200:270, 150:250] = fill
    true = np.zeros(gray.shape, bool)
    true[200:270, 150:250] = True
    assert iou(find_hole(gray), true) > 0.998


def test_blown_out_sky_and_crushed_black_are_no_hole(coffee):
    true = np.zeros((SIDE, SIDE), bool)
    true[230:290, 200:280] = True
    # a third of the image is clipped, softly, at either end
    ramp = np.linspace(-80, 336, SIDE)[:, None]
    gray = np.clip(ramp + luma(coffee) / 16, 0, 255).astype(np.uint8)
    assert (gray == 255).mean() > 0.1 and (gray == 0).mean() > 0.1
    assert not find_hole(gray).any()
    gray[true] = 0
    assert iou(find_hole(gray), true) > 0.998


@pytest.mark.parametrize("place", [(0, 0), (0, 200), (SIDE - 80, 150), (100, SIDE - 90)])
def test_hole_at_the_image_border(coffee, place):
    gray, true = luma(coffee), np.zeros((SIDE, SIDE), bool)
    true[place[0] : place[0] + 80, place[1] : place[1] + 90] = True
    gray[true] = 20
    assert iou(find_hole(gray), true) > 0.998


def test_pieces_joined_in_a_point_are_one_hole(coffee):
    gray, true = drawn(luma(coffee), [(100, 100), (300, 380), (300, 100), (100, 380)])
    assert iou(find_hole(gray), true) > 0.998
    apart = true.copy()
    apart[:, 200:202] = False  # the pieces end up to 2 px apart
    gray = np.where(apart, np.uint8(40), luma(coffee))
    assert iou(find_hole(gray), apart) > 0.998


def test_thin_tip_is_part_of_the_hole(coffee):
    gray, true = drawn(luma(coffee), [(60, 240), (60, 330), (460, 250)])
    assert true[:, 400:].sum() > 50
    assert iou(find_hole(gray), true) > 0.998
    assert iou(find_hole(gray)[:, 400:], true[:, 400:]) > 0.9


@pytest.mark.parametrize("value", [0, 40, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (64, 64), (512, 300)])
def test_constant_and_tiny_images_have_no_hole(size, value):
    found = find_hole(np.full(size, value, np.uint8))
    assert found.shape == size and found.dtype == bool and not found.any()
    noise = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    assert find_hole(noise).shape == size


@pytest.mark.parametrize("size", [(299, 299), (400, 300), (640, 1300), (1500, 1024)])
def test_lengths_follow_the_short_side(photos, size):
    rgb = np.array(Image.fromarray(photos[0]).resize(size[::-1], Image.Resampling.LANCZOS))
    scores = []
    for seed in range(6):
        gray, true = punch_hole(rgb, np.random.default_rng(seed))
        scores.append(iou(find_hole(gray), true))
    assert np.mean(scores) > 0.995


def test_dots_of_a_thin_tip_belong_to_the_hole_and_natural_pixels_do_not():
    rng = np.random.default_rng(0)
    gray = rng.integers(120, 200, (SIDE, SIDE)).astype(np.uint8)
    gray[:, 300:] = rng.integers(31, 50, (SIDE, SIDE - 300))  # dark, near the fill
    true = np.zeros(gray.shape, bool)
    true[100:180, 200:296] = True
    true[183, 240] = True
    gray[true] = 30
    gray[140, 302] = 30  # natural: its neighbours are as dark
    found = find_hole(gray)
    assert found[183, 240] and not found[140, 302]
    assert np.array_equal(found, true)


def test_a_missed_hole_still_counts_as_lost(coffee):
    gray = luma(coffee)
    gray[100:200, 50:150] = 200  # brighter than any fill of the competition
    assert not find_hole(gray).any()
    lost = lost_pixels(gray, coffee)
    assert lost[100:200, 50:150].mean() > 0.95 and not lost[:100].any()
    assert not lost_pixels(luma(coffee), coffee).any()


@pytest.mark.parametrize("sides", ["all", "two", "none"])
def test_a_black_hole_in_a_black_frame_is_drawn(sides):
    """The frame is no region of the photo that has the hole's value too; a black object is one."""
    gray = np.maximum(skimage_data.camera(), 1)
    gray[200:270, 150:260] = 0
    rows = cv2.copyMakeBorder(gray, 60, 60, 0, 0, cv2.BORDER_CONSTANT, value=0)
    framed = {"none": gray, "two": rows, "all": np.pad(rows, ((0, 0), (60, 60)))}[sides]
    mask = find_hole(framed)
    assert mask.sum() == 70 * 110 and is_drawn(framed, mask)
    framed[320:420, 200:330] = 0
    assert not is_drawn(framed, mask)
