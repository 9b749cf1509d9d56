"""Damage of old photographs: drawn, detected by the shipped network, given as masks, filled in
pieces."""

import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from src.color.lattice import luma
from src.damage.aging import KINDS, age
from src.damage.finders import Detector, clean_mask
from src.damage.hole import find_hole, is_drawn, punch_hole
from src.damage.prints import LOOKS
from src.evaluation.scoring import detection_rates, hit_counts
from src.fills.regions import MARGIN, MAX_CROP, SEARCH, split_mask
from src.models.inpainter import Inpainter, inpaint
from src.pipeline import load_finder
from src.utils.images import read_gray

PHOTOS = (data.astronaut, data.chelsea, data.coffee, data.rocket)


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (64, 64), (300, 411)])
def test_aging_of_any_size(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seed in range(20):
        gray, mask = age(rgb, np.random.default_rng(seed))
        again, mask_again = age(rgb, np.random.default_rng(seed))
        assert gray.shape == mask.shape == shape and (gray.dtype, mask.dtype) == (np.uint8, bool)
        assert (gray == again).all() and (mask == mask_again).all()


def test_aging_draws_every_kind(monkeypatch):
    """On a flat grey photo, the pixels that a kind marks are those that it hides."""
    monkeypatch.setattr("src.damage.aging.printed", lambda gray, rng: gray)
    monkeypatch.setattr("src.damage.aging.fade", lambda gray, rng: gray.astype(np.float32))
    flat = np.full((256, 256, 3), 120, np.uint8)
    for kind in KINDS:
        hits = np.zeros(4)
        for seed in range(30):
            gray, mask = age(flat, np.random.default_rng(seed), kinds={kind: 3.0})
            level = np.median(gray)
            changed = np.abs(gray.astype(int) - level) > 40  # above the grain
            hits += (changed & mask).sum(), changed.sum(), mask.sum(), mask.any()
        hidden, changed, marked, photos = hits
        assert 5 < photos < 30 and hidden / changed > 0.95 and marked < 0.3 * 30 * mask.size, kind


@pytest.mark.parametrize("look", LOOKS)
def test_looks_of_undamaged_photos(look):
    for shape in ((1, 1), (7, 300), (256, 256)):
        gray = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for seed in range(10):
            one, other = (LOOKS[look](gray, np.random.default_rng(seed)) for _ in range(2))
            assert one.shape == shape and one.dtype == np.uint8 and (one == other).all()
    photo = luma(data.camera()[..., None].repeat(3, 2))
    changed = [
        (LOOKS[look](photo, np.random.default_rng(seed)) != photo).mean() for seed in range(10)
    ]
    assert np.mean(changed) > 0.005


def test_clean_mask():
    found = np.zeros((512, 512), np.float32)
    found[100, 50:400] = 0.4  # possible, and sure in its middle
    found[100, 200:220] = 0.97
    found[300, 50:400] = 0.6  # never sure
    found[400:402, 400] = 0.97  # a speck
    mask = clean_mask(found)
    assert mask[99:102, 49:401].all() and mask.sum() == 3 * 352
    gap = np.full((512, 512), 0.97, np.float32)
    gap[10:12, 10] = 0.0
    assert clean_mask(gap).all()


def test_detector_on_photos_it_never_saw():
    """Within two pixels of the truth, in four photos aged twice; and in the same undamaged."""
    finder = load_finder("auto")
    rows, false = [], []
    for photo in PHOTOS:
        rgb = photo()
        for seed in range(2):
            rng = np.random.default_rng([seed, zlib.crc32(photo.__name__.encode())])
            gray, true = age(rgb, rng)
            rows.append(hit_counts(clean_mask(finder.probability(gray)), true))
        false.append(clean_mask(finder.probability(luma(rgb))).mean())
    found = detection_rates(pd.DataFrame(rows))
    assert found["precision, 2 px"] > 0.9 and found["recall, 2 px"] > 0.65, found
    assert max(false) < 0.005, false


def undamaged() -> dict[str, np.ndarray]:
    """Photos that look damaged to who has only seen ordinary ones."""
    camera, cat, portrait = data.camera(), luma(data.chelsea()), luma(data.astronaut())
    frame = np.zeros((620, 620), np.uint8)
    frame[54:566, 54:566] = portrait
    white = Image.new("L", (620, 700), 245)
    white.paste(Image.fromarray(portrait), (54, 54))
    font = ImageFont.load_default(28)
    ImageDraw.Draw(white).text((200, 620), "Busan, 12. Mai 1953", fill=30, font=font)
    rows, columns = np.indices(camera.shape)
    dots = np.cos((rows + columns) * 0.9) + np.cos((rows - columns) * 0.9)
    return {
        "portrait": portrait,
        "black frame": frame,
        "white border, caption": np.asarray(white),
        "dithered": np.asarray(Image.fromarray(cat).convert("1").convert("L")),
        "halftone": np.where(camera / 255 > 0.5 + dots / 4, 235, 25).astype(np.uint8),
        "crushed": ((portrait.astype(float) - 90) * 1.6).clip(0, 255).astype(np.uint8),
        "page": data.page(),
        "coins": data.coins(),
    }


@pytest.mark.parametrize("name", undamaged())
def test_undamaged_photos_stay(name):
    """At most half a percent of their pixels is taken for damage, and a face keeps its features."""
    gray = undamaged()[name]
    mask, share = load_finder("auto")(gray)
    most = 0.04 if name == "halftone" else 0.005  # there the legs of a tripod are taken for cracks
    assert share <= most, share
    if name in ("portrait", "black frame"):
        top = left = 54 if name == "black frame" else 0
        assert not mask[top + 70 : top + 190, left + 175 : left + 275].any()  # eyes, nose and mouth


def test_too_much_damage_is_not_believed():
    finder = Detector(lambda gray: torch.ones_like(gray))
    found = finder(data.camera())
    assert found.share == 1 and not found.mask.any()
    assert str(found) == "100.0% was flagged as damage; that is more than 30%, so it is ignored"
    some = torch.zeros(1, 1, 512, 512)
    some[..., :51, :] = 1
    found = Detector(lambda gray: some)(data.camera())
    assert found.mask.any() and str(found) == "10.2% was flagged as damage"
    assert str(Detector(torch.zeros_like)(data.camera())) == "no damage found"


def test_black_objects_are_no_holes():
    """Crushed shadows are constant and end hard, as holes do, but they are not drawn."""
    drawn, objects = [], []
    for number, photo in enumerate(PHOTOS * 4):
        rng = np.random.default_rng(number)
        gray, _ = punch_hole(photo(), rng)
        drawn.append(is_drawn(gray, find_hole(gray)))
        crushed = LOOKS["crushed"](luma(photo()), rng)
        found = find_hole(crushed)
        if found.any():
            objects.append(is_drawn(crushed, found))
    assert np.mean(drawn) >= 0.9 and len(objects) >= 8 and np.mean(objects) <= 0.1


def test_hits_are_counted_within_two_pixels():
    true = np.zeros((20, 30), bool)
    true[10, 5:15] = True
    found = np.zeros_like(true)
    found[12, 5:15] = found[5, 20] = True  # two below the truth; and one pixel far from it
    assert hit_counts(found, true) == {
        "found": 11,
        "true": 10,
        "hit": 0,
        "found near": 10,
        "true near": 10,
    }
    rates = detection_rates(pd.DataFrame([hit_counts(found, true), hit_counts(true, true)]))
    assert rates.to_dict() == pytest.approx(
        {
            "precision": 10 / 21,
            "recall": 10 / 20,
            "precision, 2 px": 20 / 21,
            "recall, 2 px": 1.0,
            "F1": 20 / 41,
        }
    )
    nothing = detection_rates(pd.DataFrame([hit_counts(true & False, true & False)]))
    assert not nothing.any()


def test_what_is_looked_for():
    gray, mask = punch_hole(data.coffee(), np.random.default_rng(1))
    assert (load_finder("hole")(gray).mask == mask).mean() > 0.999
    assert not load_finder("none")(gray).mask.any()
    scratched = luma(data.coffee()).copy()
    line = (200, 20), (320, 380)
    cv2.line(scratched, *line, 250, 3, cv2.LINE_AA)
    true = cv2.line(np.zeros_like(scratched), *line, 1) > 0
    assert not load_finder("hole")(scratched).mask.any()
    assert load_finder("auto")(scratched).mask[true].mean() > 0.9


def test_large_photos_are_detected_at_a_bounded_size():
    seen = []

    def probability(gray: torch.Tensor) -> torch.Tensor:
        seen.append(gray.numel())
        return torch.zeros_like(gray)

    found = Detector(probability).probability(np.zeros((3000, 1500), np.uint8))
    assert found.shape == (3000, 1500) and max(seen) < 1_600_000


@given(st.integers(0, 10**6), st.integers(1, 900), st.integers(1, 900))
@settings(max_examples=15, deadline=None)
def test_pieces_cover_the_hole_once(seed, height, width):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    lost = age(rgb, rng)[1] | punch_hole(rgb, rng)[1]
    covered = np.zeros(lost.shape, int)
    for box, piece, _ in split_mask(lost):
        covered[box] += piece
        rows, columns = (np.flatnonzero(piece.any(axis=axis)) for axis in (1, 0))
        margins = {MARGIN, SEARCH}  # of shallow damage, and of what is deep or alone
        for line, ends, size in zip((rows, columns), box, lost.shape, strict=True):
            first, last = line[0] + ends.start, line[-1] + ends.start
            margins &= {
                m for m in margins if ends == slice(max(0, first - m), min(size, last + 1 + m))
            }
        assert margins
    assert (covered == lost).all()


@pytest.mark.parametrize("width", [4, 30])
def test_long_damage_is_filled_at_full_resolution(width):
    """Creases across a large photo of stripes: known pixels stay, and the stripes go on in them;
    thin ones need no network."""
    stripes = np.repeat([60, 190], 8).astype(np.float32) / 255
    stripes = np.tile(stripes, 75)[:, None].repeat(1200, axis=1)
    lost = np.zeros(stripes.shape, bool)
    lost[:, 300 : 300 + width] = lost[:, 900 : 900 + width] = True
    seen = []

    def inpainter(gray, hole, fills, cells):
        seen.append(gray.numel())
        return torch.where(hole > 0, fills[:, :1], gray)  # along the rows, as the stripes go

    filled = inpaint([inpainter, inpainter], np.where(lost, np.float32(1), stripes), lost)
    assert np.array_equal(filled[~lost], stripes[~lost])
    assert np.abs(filled - stripes)[lost].mean() < 0.02
    assert len(seen) == (16 if width == 30 else 0)  # one network for each of 4 x 4 tiles
    assert all(size <= MAX_CROP**2 for size in seen)


def test_slivers_of_much_damage_are_filled():
    """A part may be a sliver of what was already filled, in a photo whose parts are reduced."""
    lost = np.zeros((1500, 1500), bool)
    lost[100:1400, 266:305] = lost[300:1300, 500:1400] = True
    gray = np.where(lost, 0, np.float32(0.5))
    with torch.inference_mode():
        assert np.abs(inpaint([Inpainter().eval()], gray, lost) - 0.5).max() < 1e-3


@pytest.fixture
def scratched(tmp_path):
    """A grey photo with a scratch, and its mask in a folder of its own."""
    gray = luma(data.chelsea()).copy()
    mask = np.zeros(gray.shape, bool)
    mask[20:280, 200:203] = True
    gray[mask] = 250
    for folder, array in (("photos", gray), ("masks", mask.astype(np.uint8) * 255)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "cat.png")
    return gray, mask, tmp_path


@pytest.mark.parametrize("how", ["file", "folder", "auto", "hole", "none"])
def test_infer_fills_what_it_is_told(scratched, random_run, script, how):
    gray, mask, folder = scratched
    given = {"file": folder / "masks" / "cat.png", "folder": folder / "masks"}
    flags = ("--mask", given[how]) if how in given else ("--damage", how)
    run = ("--output-dir", random_run, "--name", "random", "--input", folder / "photos")
    status, _, stderr = script("infer", *run, "--output", folder / "out", *flags)
    assert status == 0, stderr
    changed = luma(np.asarray(Image.open(folder / "out" / "cat.png"))) != gray
    if how in ("hole", "none"):
        assert not changed.any()
    else:
        assert changed[mask].mean() > 0.9
        assert not changed[~mask].any() if how in given else changed[~mask].mean() < 0.05


def test_masks_lie_where_their_photos_lie(scratched, random_run, script):
    """Two photos of one name in two folders, each with its own mask."""
    gray, mask, folder = scratched
    for name, lost in (("a", mask), ("b", mask[:, ::-1])):
        for kind, array in (("many", gray), ("drawn", lost.astype(np.uint8) * 255)):
            (folder / kind / name).mkdir(parents=True)
            Image.fromarray(array).save(folder / kind / name / "cat.png")
    run = ("--output-dir", random_run, "--name", "random", "--input", folder / "many")
    status, _, stderr = script(
        "infer", *run, "--output", folder / "out", "--mask", folder / "drawn"
    )
    assert status == 0, stderr
    for name, lost in (("a", mask), ("b", mask[:, ::-1])):
        changed = luma(np.asarray(Image.open(folder / "out" / name / "cat.png"))) != gray
        assert changed[lost].mean() > 0.5 and not changed[~lost].any()


def test_sepia_is_turned_grey_first(random_run, script, tmp_path):
    """A sepia photo with a hole gives what its luma gives."""
    gray, mask = punch_hole(data.coffee(), np.random.default_rng(2))
    sepia = (gray[..., None] * np.array([1.0, 0.85, 0.65])).round().astype(np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(sepia).save(tmp_path / "in" / "sepia.png")
    Image.fromarray(sepia).convert("L").save(tmp_path / "in" / "grey.png")
    toned = read_gray(tmp_path / "in" / "sepia.png")
    assert (load_finder("auto")(toned).mask == mask).mean() > 0.999
    run = ("--output-dir", random_run, "--name", "random", "--input", tmp_path / "in")
    status, _, stderr = script("infer", *run, "--output", tmp_path / "out")
    assert status == 0, stderr
    results = [(tmp_path / "out" / name).read_bytes() for name in ("sepia.png", "grey.png")]
    assert results[0] == results[1]
