"""Fills of holes that need no weights: what they keep, what they continue, and that any mask will
do."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from src.fills.copies import copy_texture, textured
from src.fills.exemplar import COSTLY, MAX_ERROR, complete, costly_fills
from src.fills.frequency import extrapolate
from src.fills.regions import THIN, Fill, box_with_margin, depth_map, reduced, regions, split_mask
from src.fills.simple import (
    DIRECTIONS,
    ERRORS,
    FILLS,
    all_fills,
    line_fills,
    push_pull,
)
from src.models.inpainter import Inpainter, inpaint

PHOTO = data.camera()[60:220, 150:310].astype(np.float32) / 255
ROWS, COLUMNS = np.mgrid[:128, :128]
HALF_A_LEVEL = 0.5 / 255


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image, np.float32))[None, None]


def smooth(gray: np.ndarray, mask: np.ndarray) -> Fill:
    return Fill(push_pull(tensor(gray), tensor(mask))[0, 0].numpy(), np.zeros_like(gray))


def lines(gray: np.ndarray, mask: np.ndarray) -> Fill:
    """(8, H, W), a map for each direction."""
    return Fill(line_fills(tensor(gray), tensor(mask))[0].numpy(), np.zeros_like(gray))


def copies(gray: np.ndarray, mask: np.ndarray) -> Fill:
    """Copies in the place of the smooth fill."""
    return Fill(copy_texture(smooth(gray, mask).luma, mask, mask), np.zeros_like(gray))


EVERY: dict[str, Callable[[np.ndarray, np.ndarray], Fill]] = {
    "frequency": extrapolate,
    "exemplar": complete,
    "copies": copies,
    "smooth": smooth,
    "lines": lines,
}
every_fill = pytest.mark.parametrize("fill", EVERY.values(), ids=EVERY)


def with_holes(shape: tuple[int, int], *holes: tuple[slice, slice]) -> np.ndarray:
    """The mask of an image with rectangular holes."""
    mask = np.zeros(shape, bool)
    for hole in holes:
        mask[hole] = True
    return mask


def only(shape: tuple[int, int], *pixels: tuple[int, int]) -> np.ndarray:
    """The mask of an image of which only some pixels are not lost."""
    mask = np.ones(shape, bool)
    for pixel in pixels:
        mask[pixel] = False
    return mask


MIDDLE = with_holes((128, 128), np.s_[44:84, 40:84])
MASKS = {
    "nothing is lost": with_holes((30, 41)),
    "a scratch": with_holes((61, 50), np.s_[:, 20:23]),
    "all but one pixel": only((33, 47), (5, 40)),
    "everything": only((33, 47)),
    "most": ~with_holes((70, 80), np.s_[10:30, 12:33]),
    "several": with_holes((90, 101), np.s_[8:20, 9:31], np.s_[40:70, 5:15], np.s_[42:60, 50:90]),
    "two borders": with_holes((80, 90), np.s_[:9, 30:50], np.s_[9:, 77:]),
    "a band": with_holes((75, 64), np.s_[20:47, :]),
    "1x1, lost": only((1, 1)),
    "1x50": with_holes((1, 50), np.s_[:, 10:35]),
    "5x5": with_holes((5, 5), np.s_[1:3, 2:5]),
    "6x6, all but one": only((6, 6), (3, 3)),
    "8x100": with_holes((8, 100), np.s_[2:6, 20:80]),
}  # fmt: skip


def check(fill: Callable, gray: np.ndarray, mask: np.ndarray) -> Fill:
    """For any image and mask: what is not lost stays, the rest is luma, the inputs stay."""
    before = gray.copy(), mask.copy()
    found = fill(gray, mask)
    assert np.array_equal(gray, before[0]) and np.array_equal(mask, before[1])
    assert found.luma.shape[-2:] == found.error.shape == gray.shape
    assert found.luma.dtype == found.error.dtype == np.float32
    assert np.isfinite(found.luma).all() and found.luma.min() >= 0 and found.luma.max() <= 1
    assert np.isfinite(found.error).all() and found.error.min() >= 0
    assert not found.error[~mask].any() and (found.luma[..., ~mask] == gray[~mask]).all()
    return found


@every_fill
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_any_mask(fill, mask):
    """Of a photo and of noise, with anything in the hole."""
    height, width = mask.shape
    noise = np.random.default_rng(0).random(mask.shape, np.float32)
    for gray in (np.array(PHOTO[:height, :width]), noise):
        found = check(fill, gray, mask)
        hidden = check(fill, np.where(mask, np.float32(40), gray), mask)
        assert all(map(np.array_equal, found, hidden))


@every_fill
@given(seed=st.integers(0, 10**6), height=st.integers(1, 70), width=st.integers(1, 70))
@settings(max_examples=25, deadline=None)
def test_any_size(fill, seed, height, width):
    """Random holes, from a few pixels to nearly all."""
    rng = np.random.default_rng(seed)
    blurred = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), rng.uniform(0.3, 6))
    mask = blurred > np.quantile(blurred, rng.uniform(0.05, 1))
    check(fill, rng.random((height, width), np.float32), mask)


@every_fill
def test_the_same_again(fill):
    """Whatever the number of threads, here OpenCV's, which the fills take as theirs."""
    before, found = cv2.getNumThreads(), []
    mask = with_holes(PHOTO.shape, np.s_[40:80, 30:90], np.s_[100:130, 70:160])
    try:
        for threads in (1, 1, 2):
            cv2.setNumThreads(threads)
            found.append(fill(PHOTO, mask))
    finally:
        cv2.setNumThreads(before)
    for other in found[1:]:
        assert all(map(np.array_equal, found[0], other))


@every_fill
@pytest.mark.parametrize("value", [0.0, 0.3, 0.77, 1.0])
def test_a_constant_is_continued(fill, value):
    """Whatever stands in the hole; and nothing is left to doubt."""
    found = fill(np.where(MIDDLE, np.float32(0.5), np.float32(value)), MIDDLE)
    assert np.abs(found.luma - value).max() < HALF_A_LEVEL and found.error.max() < 1e-4


@pytest.mark.parametrize("period", [6, 24])
@pytest.mark.parametrize("degrees", [0, 72, 135])
def test_waves_are_continued(period, degrees):
    """In any direction; measured: 0.004 to 0.024, the smooth fill 0.23 to 0.29."""
    across = COLUMNS * np.cos(np.deg2rad(degrees)) + ROWS * np.sin(np.deg2rad(degrees))
    true = (0.5 + 0.4 * np.sin(2 * np.pi / period * across)).astype(np.float32)
    gray = np.where(MIDDLE, np.float32(1), true)
    found = extrapolate(gray, MIDDLE)
    error, of_smooth = (np.abs(f.luma - true)[MIDDLE].mean() for f in (found, smooth(gray, MIDDLE)))
    assert error < 0.03 and error < of_smooth / 8
    assert found.error.max() < 0.03  # nearly all around is explained


PATTERNS = {
    "bricks": np.where((ROWS % 12 < 2) | ((COLUMNS + ROWS // 12 % 2 * 10) % 20 < 2), 0.85, 0.35),
    "stripes": np.where((COLUMNS + 2 * ROWS) % 14 < 6, 0.2, 0.75),
    "tiles": 0.3 + 0.5 * ((COLUMNS // 9 + ROWS // 9) % 2),
    "dots": np.where((COLUMNS % 13 - 6) ** 2 + (ROWS % 13 - 6) ** 2 < 14, 0.9, 0.3),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_are_continued(name):
    """Measured: the exemplar fill 0.0001 to 0.0017, copies 0.0000, the smooth fill 0.19 to 0.27."""
    true = PATTERNS[name].astype(np.float32)
    gray = np.where(MIDDLE, np.float32(1), true)
    found = complete(gray, MIDDLE)
    copied = copy_texture(extrapolate(gray, MIDDLE).luma, MIDDLE, MIDDLE)
    of_smooth = np.abs(smooth(gray, MIDDLE).luma - true)[MIDDLE].mean()
    for error in (np.abs(image - true)[MIDDLE].mean() for image in (found.luma, copied)):
        assert error < 0.005 and error < of_smooth / 40
    assert found.error.max() < 0.01


def test_only_what_is_wanted_is_extrapolated():
    mask = with_holes(PHOTO.shape, np.s_[20:50, 30:70], np.s_[90:120, 60:110])
    wanted = np.zeros(mask.shape, bool)
    wanted[:70] = True  # pixels among them that are not lost do not count
    found, lost = extrapolate(PHOTO, mask, wanted), mask & wanted
    rest = mask & ~wanted
    assert (found.luma[~mask] == PHOTO[~mask]).all() and not found.error[~mask].any()
    assert (found.luma[rest] == 0.5).all() and (found.error[rest] == 0.5).all()
    assert (found.luma[lost] != 0.5).mean() > 0.9 and (found.error[lost] != 0.5).all()
    # far apart, so that each is what it is when both are filled
    both = extrapolate(PHOTO, mask)
    assert np.abs(both.luma - found.luma)[lost].max() < HALF_A_LEVEL
    nothing = extrapolate(PHOTO, mask, ~mask)
    assert (nothing.luma[mask] == 0.5).all() and (nothing.luma[~mask] == PHOTO[~mask]).all()


def test_only_what_is_wanted_is_copied():
    mask = with_holes(PHOTO.shape, np.s_[20:50, 30:70], np.s_[90:120, 60:110])
    filled, wanted = smooth(PHOTO, mask).luma, mask.copy()
    wanted[:70] = False
    before = filled.copy()
    copied = copy_texture(filled, mask, wanted)
    assert np.array_equal(filled, before) and np.array_equal(copied[~wanted], filled[~wanted])
    assert (copied[wanted] != filled[wanted]).mean() > 0.9
    assert np.array_equal(copy_texture(filled, mask, mask & False), filled)


def test_all_fills():
    """A map of each fill; where an error is 1 the smooth fill stands."""
    masks = np.stack(
        [with_holes((64, 80), np.s_[20:45, 30:60]), with_holes((64, 80), np.s_[:30, 50:])]
    )
    gray = np.stack([PHOTO[:64, :80], PHOTO[64:128, 40:120]])
    costly = np.stack([costly_fills(g, m) for g, m in zip(gray, masks, strict=True)])
    costly[0, 1, 20:30], costly[1, 3] = 1, 1
    image, mask, costly = (torch.from_numpy(a.astype(np.float32)) for a in (gray, masks, costly))
    image, mask = image[:, None], mask[:, None]
    before = image.clone(), mask.clone(), costly.clone()
    found = all_fills(image, mask, costly)
    assert all(map(torch.equal, before, (image, mask, costly)))
    assert found.shape == (2, FILLS + ERRORS, 64, 80) and (found >= 0).all() and (found <= 1).all()
    fills, errors = found.split([FILLS, ERRORS], dim=1)
    assert torch.equal(fills * (1 - mask), (image * (1 - mask)).expand_as(fills))
    assert torch.equal(fills[:, : len(DIRECTIONS)], line_fills(image, mask))
    assert torch.equal(fills[:, len(DIRECTIONS)], push_pull(image, mask)[:, 0])
    assert torch.equal(errors, costly[:, 1::2] * mask)
    for number in range(2):
        doubted = errors[:, number] == 1
        given, stands = costly[:, 2 * number], fills[:, len(DIRECTIONS) + 1 + number]
        lost = mask[:, 0] > 0
        assert doubted[number].any() and (lost & ~doubted).any()
        assert torch.equal(stands[doubted], fills[:, len(DIRECTIONS)][doubted])
        assert torch.equal(stands[lost & ~doubted], given[lost & ~doubted])


def test_costly_fills():
    """Both with their errors, in units of the most."""
    mask = with_holes(PHOTO.shape, np.s_[40:70, 30:90])
    found, each = costly_fills(PHOTO, mask), (extrapolate(PHOTO, mask), complete(PHOTO, mask))
    assert found.shape == (COSTLY, *PHOTO.shape) and found.dtype == np.float32
    for number, fill in enumerate(each):
        assert np.array_equal(found[2 * number], fill.luma)
        assert np.array_equal(
            found[2 * number + 1], (fill.error / np.float32(MAX_ERROR)).clip(max=1)
        )


def test_thin_damage_costs_nothing(monkeypatch):
    """Neither fill is called, and the errors say so, also where only the wanted part is thin."""
    mask = with_holes(PHOTO.shape, np.s_[:, 40:52], np.s_[90:93, 70:])
    more = mask | with_holes(PHOTO.shape, np.s_[20:60, 80:130])
    called = []

    def spied(fill: Callable) -> Callable:
        return lambda *arguments: called.append(fill) or fill(*arguments)

    for fill in (extrapolate, complete):
        monkeypatch.setattr(f"src.fills.exemplar.{fill.__name__}", spied(fill))
    for lost, wanted in ((mask, None), (more, mask)):
        found = costly_fills(PHOTO, lost, wanted)
        assert found.shape == (COSTLY, *PHOTO.shape) and found.dtype == np.float32 and not called
        assert (found[1::2, lost] == 1).all() and not found[1::2, ~lost].any()
        assert (found[::2] == PHOTO).all()
    depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3).max()
    assert THIN - 1 < depth <= THIN  # no thicker damage is as cheap
    mask[:, 52] = True
    assert costly_fills(PHOTO, mask)[1, 20, 46] < 1 and {*called} == {extrapolate, complete}


def random_damage() -> Iterator[np.ndarray]:
    """Specks, scratches and holes; everything, and nothing."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        lost = rng.random((150, 211)) < rng.choice([0, 0.001, 0.01])
        for _ in range(rng.integers(0, 5)):
            top, left = rng.integers(0, 150), rng.integers(0, 211)
            lost[top : top + rng.choice([1, 3, 30]), left : left + rng.choice([1, 3, 30, 200])] = (
                True
            )
        yield lost
    yield np.ones((20, 30), bool)
    yield np.zeros((20, 30), bool)
    yield np.ones((1, 1), bool)


def test_every_lost_pixel_is_in_one_region():
    """And what touches a region belongs to it."""
    for lost in random_damage():
        before, count, labels = lost.copy(), np.zeros(lost.shape, int), np.zeros(lost.shape, int)
        for number, (box, part) in enumerate(regions(lost), 1):
            assert part.any() and part.shape == lost[box].shape and part.dtype == bool
            count[box] += part
            labels[box][part] = number
        assert np.array_equal(count, lost) and np.array_equal(lost, before)
        _, touching = cv2.connectedComponents(lost.view(np.uint8))
        for piece in range(1, touching.max() + 1):
            assert len(np.unique(labels[touching == piece])) == 1


def test_what_lies_apart_is_filled_apart():
    lost = np.zeros((900, 900), bool)
    right = 120 + 10
    for columns in (slice(100, 110), slice(113, 120), slice(right, right + 5)):
        lost[100:110, columns] = True
    lost[800, 850] = True
    found = list(regions(lost))
    assert [int(part.sum()) for _, part in found] == [170, 50, 1]
    assert all(lost[box].size < 300 * 300 for box, _ in found)


def test_means_of_what_is_known():
    gray = np.arange(35, dtype=np.float32).reshape(5, 7) / 35
    known = gray > 0.19  # all but seven pixels
    mean, share = reduced(gray, ~known, 2)
    assert mean.shape == share.shape == (3, 4) and mean.dtype == share.dtype == np.float32
    block = np.s_[0:2, 4:6]
    assert share[0, 2] == known[block].mean() and mean[0, 2] == pytest.approx(
        gray[block][known[block]].mean()
    )
    assert share[0, 0] == 0.5 and mean[0, 0] == pytest.approx(gray[1, :2].mean(), abs=1e-6)
    assert not reduced(gray, known | True, 3)[0].any()


def test_thick_damage_gets_the_texture_of_the_photo():
    """Copies in thick damage; thin damage, and what is not lost, stays as it was filled."""
    true = (PATTERNS["tiles"] * 255).round().astype(np.uint8)
    mask = MIDDLE
    filled = np.where(mask, 128, true).astype(np.uint8)
    before = filled.copy()
    shown = textured(filled, mask)
    assert shown.dtype == np.uint8 and np.array_equal(filled, before)
    assert np.array_equal(shown[~mask], true[~mask])
    contrast = [image[mask].astype(float).std() for image in (true, filled, shown)]
    assert contrast[1] == 0 and contrast[2] > 0.8 * contrast[0]
    thin = np.zeros_like(mask)
    thin[:, 60:66] = thin[20, :] = True
    assert np.array_equal(textured(filled, thin), filled)


def test_many_spots_are_what_a_search_of_the_whole_photo_finds():
    """Each spot or group of touching ones, wherever it lies, is one part with its surroundings."""
    rng = np.random.default_rng(0)
    spots = np.zeros((1200, 1500), np.uint8)
    for x, y, radius in rng.integers((0, 0, 3), (1500, 1200, 60), (40, 3)).tolist():
        cv2.circle(spots, (x, y), radius, 1, -1)
    mask = spots > 0
    count, labels = cv2.connectedComponents(cv2.dilate(spots, np.ones((8, 8))))
    parts, depth = list(split_mask(mask)), depth_map(mask)
    assert len(parts) == count - 1 > 20
    deep = [part.is_deep for part in parts]
    assert any(deep) and not all(deep)
    for number, (box, part, is_deep) in enumerate(parts, start=1):
        region = mask & (labels == number)
        assert is_deep == (depth[region].max() > 40)
        assert box == box_with_margin(region, 128 if is_deep else 48)
        assert np.array_equal(part, region[box])


def test_a_photo_of_many_parts_shows_how_far_it_is(monkeypatch, capfd):
    """On the error stream, of one process only, and not if it takes seconds anyway."""
    mask = np.zeros((700, 1300), bool)
    mask[50:130, 50:130] = mask[550:630, 1150:1230] = True
    gray = np.tile(np.linspace(0, 1, 1300, dtype=np.float32), (700, 1))
    network = Inpainter().eval()
    for delay, rank, shown in ((60, "0", False), (0, "1", False), (0, "0", True)):
        monkeypatch.setattr("src.utils.processes.DELAY", delay)
        monkeypatch.setenv("LOCAL_RANK", rank)
        with torch.inference_mode():
            inpaint([network], gray, mask)
        assert ("painting in: 100%" in capfd.readouterr().err) is shown


def test_compiling_is_announced_once(tmp_path):
    """Only where nothing was compiled before, and on the error stream."""
    code = "import numpy as np; from src.fills.exemplar import complete; "
    code += "hole = np.zeros((40, 40), bool); hole[15:25, 15:25] = True; "
    code += "complete(np.float32(np.random.rand(40, 40)), hole)"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for times in (1, 0):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr.count("compiling the fills") == times and not done.stdout
