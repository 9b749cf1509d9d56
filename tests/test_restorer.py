"""The restorer's parts: losses against the score, the decode against brute force, luma on real
photos."""

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from skimage import data
from torch.nn import functional as F

from src.color.decode import (
    GAIN,
    best_hues,
    decode,
    histogram_fit,
    hue_histograms,
    render,
    transport_prices,
    upsampled,
    visual_color,
)
from src.color.dino import PATCH, STEP, TOKEN, VIEW, dino
from src.color.lattice import HUES, compose, luma, shown_hues
from src.damage.hole import find_hole, punch_hole
from src.datasets.bank import CROP, crop_around
from src.fills.regions import MAX_CROP
from src.fills.simple import DIRECTIONS, ERRORS, FILLS, line_fills, push_pull
from src.losses import color_loss, correlation, inpainting_loss
from src.metrics import hue_correlation, masked_ssim
from src.models import create_model
from src.models.colorizer import crop
from src.models.inpainter import inpaint
from src.models.options import RestorerOptions
from src.models.restorer import SEEN, Restorer
from src.pipeline import Pipeline

PHOTO = data.astronaut()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("restorer").eval()


def tensor(gray: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(gray.astype(np.float32) / 255)[None, None]


def smooth_distributions(seed: int) -> torch.Tensor:
    """(180, 32, 32) distributions around a few common hues that vary smoothly over the image."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, 24, 8, 8, generator=generator)
    local = F.interpolate(noise, (HUES, 32, 32), mode="trilinear")[0, 0]
    common = torch.randn(HUES, 1, 1, generator=generator) * 1.5
    return (local + common).softmax(dim=0)


def test_differentiable_m_is_the_scores():
    """On grey images whose values span the whole range, so that skimage's data_range is 255."""
    gray = luma(PHOTO).copy()
    gray[0, :2] = 0, 255
    _, mask = punch_hole(PHOTO, np.random.default_rng(1))
    mask[0, :2] = False
    guess = np.where(mask, cv2.GaussianBlur(gray, (0, 0), 2), gray)
    wanted = masked_ssim(*(np.repeat(a[..., None], 3, axis=2) for a in (gray, guess)), mask)
    pred = tensor(guess).requires_grad_()
    terms = inpainting_loss(pred, tensor(gray), torch.from_numpy(mask).float()[None, None])
    terms["inpaint_ssim"].backward()
    assert terms["inpaint_ssim"].item() == pytest.approx(1 - wanted, abs=1e-4)
    assert terms["inpaint_l1"].item() == pytest.approx(
        np.abs(guess / 255 - gray / 255)[mask].mean(), abs=1e-5
    )
    assert pred.grad[0, 0].numpy()[mask].any() and not pred.grad[0, 0].numpy()[~mask].any()


def test_differentiable_m_of_a_tiny_hole_is_the_best():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 0, :6] = 1
    pred = torch.rand(1, 1, 8, 8, requires_grad=True)
    loss = inpainting_loss(pred, torch.rand(1, 1, 8, 8), mask)["inpaint_ssim"]
    loss.backward()
    assert loss.item() == 0 and not pred.grad.any()


def test_histogram_correlation_is_opencvs():
    one, two = np.random.default_rng(0).random((2, HUES)).astype(np.float32)
    wanted = cv2.compareHist(one, two, cv2.HISTCMP_CORREL)
    found = correlation(torch.from_numpy(one)[None], torch.from_numpy(two)[None])
    assert found.item() == pytest.approx(wanted, abs=1e-5)


def test_every_pixel_is_counted_in_its_cell():
    rgb = torch.from_numpy(PHOTO).permute(2, 0, 1)[None]
    counts, chromas = hue_histograms(rgb.repeat(2, 1, 1, 1), (16, 8))
    hue = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2HSV)[..., 0]
    chroma = PHOTO.max(axis=2).astype(int) - PHOTO.min(axis=2)
    assert counts.shape == chromas.shape == (2, HUES, 16, 8)
    block = np.s_[32:64, 448:512]  # row 1, column 7
    expected = np.bincount(hue[block].ravel(), minlength=HUES)
    assert np.array_equal(counts[1, :, 1, 7].numpy(), expected)
    weighted = np.bincount(hue[block].ravel(), chroma[block].ravel(), HUES) / 255
    assert np.allclose(chromas[1, :, 1, 7].numpy(), weighted, atol=1e-3)


def test_color_loss_of_the_truth():
    """Only the entropy of the cells is left when the prediction is the truth."""
    rgb = torch.from_numpy(PHOTO).permute(2, 0, 1)[None]
    counts, chromas = hue_histograms(rgb, (64, 64))
    share = counts / counts.sum(dim=1, keepdim=True)
    logits, chroma = share.clamp(min=1e-9).log(), chromas / counts.clamp(min=1)
    terms = color_loss(logits, chroma, counts, chromas)
    entropy = -(share * share.clamp(min=1e-9).log()).sum(dim=1).mean()
    assert terms["hue"].item() == pytest.approx(entropy.item(), rel=1e-3)
    assert abs(terms["histogram"].item()) < 1e-5 and terms["chroma"].item() < 1e-9
    wrong = color_loss(logits.roll(90, 1), chroma + 0.1, counts, chromas)
    assert all(wrong[key] > terms[key] + 0.005 for key in terms)


def test_fill_is_smooth_and_keeps_what_is_known():
    gray = tensor(luma(PHOTO))
    known = torch.ones_like(gray)
    known[..., 100:200, 50:300] = 0
    filled = push_pull(gray * known, 1 - known)
    assert torch.equal(filled[known > 0], gray[known > 0])
    assert filled.min() >= gray.min() and filled.max() <= gray.max()
    # A ramp is continued, up to the mixing at the pyramid's coarse levels.
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    known = torch.ones_like(ramp)
    known[..., 24:40, 24:40] = 0
    assert (push_pull(ramp * known, 1 - known) - ramp).abs().max() < 0.1
    assert not push_pull(torch.rand(1, 1, 5, 9), torch.ones(1, 1, 5, 9)).any()


@pytest.mark.parametrize("index", range(len(DIRECTIONS)))
def test_lines_are_continued(index):
    """Stripes along a direction come back exactly from that direction's fill, and from no other."""
    down, right = DIRECTIONS[index]
    rows, columns = np.mgrid[:96, :96]
    stripes = torch.from_numpy((rows * right - columns * down) % 7 / 6).float()[None, None]
    known = torch.ones_like(stripes)
    known[..., 30:60, 40:70] = 0
    fills = line_fills(stripes * known, 1 - known)[0]
    assert torch.equal(
        fills[:, known[0, 0] > 0], stripes[0][:, known[0, 0] > 0].expand(len(fills), -1)
    )
    error = (fills - stripes[0]).abs().amax(dim=(1, 2))
    assert error[index] < 1e-5 and (error > 0.2).sum() == len(DIRECTIONS) - 1


@pytest.mark.parametrize("seed", range(12))
def test_lines_meet_the_first_known_pixel(seed):
    """Against a walk pixel by pixel: several images, holes of any form, also at the border."""
    rng = np.random.default_rng(seed)
    gray, known = (
        torch.rand(2, 1, 14, 17),
        torch.from_numpy(rng.random((2, 1, 14, 17)) < 0.4).float(),
    )
    known[:, :, :3], known[0, :, :, 9:] = 1, 1
    fills = line_fills(gray * known, 1 - known)
    ways = [(sign * down, sign * right) for down, right in DIRECTIONS for sign in (1, -1)]
    for image in range(2):
        for y, x in np.argwhere(known[image, 0].numpy() == 0):
            for index in range(len(DIRECTIONS)):
                values, weights = [], []
                for down, right in ways[2 * index : 2 * index + 2]:
                    for step in range(1, 20):
                        row, column = y + step * down, x + step * right
                        if not (0 <= row < 14 and 0 <= column < 17):
                            break
                        if known[image, 0, row, column]:
                            values.append(gray[image, 0, row, column].item())
                            weights.append(1 / step)
                            break
                wanted = np.average(values, weights=weights) if values else 0.0
                assert fills[image, index, y, x].item() == pytest.approx(wanted, abs=1e-5)


def ramp_batch() -> dict[str, torch.Tensor]:
    """Two photos whose every token, pixel of luma and pixel of colour tells where it is."""
    place = torch.arange(VIEW // PATCH)
    place = 4 * place[:, None] + 3 * place
    tokens = place.flatten()[None, :, None].expand(2, -1, TOKEN).to(torch.int8)
    gray = place.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1).expand(2, 1, -1, -1)
    rgb = place.repeat_interleave(16, 0).repeat_interleave(16, 1).expand(2, 3, -1, -1)
    return {"tokens": tokens, "gray": gray.byte(), "rgb": rgb.byte()}


def test_tokens_luma_and_colors_of_a_window_belong_together(monkeypatch):
    """Also in mirrored batches: what the head compares shows the same places."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, tokens, luma, window, spacing):
            grid = tokens[..., 0].unflatten(1, (16, 16))[:, None]
            seen.append([crop(grid, window) / STEP, crop(luma, window, PATCH)[..., ::14, ::14]])
            return model.colorizer(tokens, luma, window, spacing)

    def histograms(rgb, grid):
        colors.append(rgb[:, :1, ::16, ::16].float())
        return hue_histograms(rgb, grid)

    colors = []
    monkeypatch.setattr("src.models.restorer.hue_histograms", histograms)
    model, trained = create_model("restorer"), create_model("restorer", parts="colorizer")
    trained.colorizer = Spy()
    for seed in range(8):
        torch.manual_seed(seed)
        ((name, terms),) = trained.losses(ramp_batch())
        assert name == "colorizer" and all(value.isfinite() for value in terms.values())
    for (tokens, luma_seen), rgb in zip(seen, colors, strict=True):
        assert rgb.shape == (2, 1, 8, 8)
        assert torch.allclose(tokens, rgb, atol=0.1) and torch.allclose(luma_seen * 255, rgb)
    mirrored = {bool(rgb[0, 0, 0, 0] > rgb[0, 0, 0, 1]) for rgb in colors}
    assert mirrored == {False, True} and len({rgb.sum().item() for rgb in colors}) > 3


def test_a_window_of_the_colors_is_part_of_them():
    torch.manual_seed(0)
    colorizer = create_model("restorer").eval().colorizer
    tokens, luma_seen = torch.randn(2, 8 * 10, TOKEN), torch.rand(2, 1, 8 * PATCH, 10 * PATCH)
    whole, part = colorizer(tokens, luma_seen), colorizer(tokens, luma_seen, (2, 4, 4), 2)
    inner = np.s_[..., 2:-2, 2:-2]  # convolutions see zeros beyond the window
    for one, two in zip(whole, part, strict=True):
        assert one.shape == (2, HUES, 28, 35) and two.shape == (2, HUES, 7, 7)
        assert torch.allclose(one[..., 7:21:2, 14:28:2][inner], two[inner], atol=1e-4)


@pytest.mark.parametrize("tta", [1, 2])
def test_views_of_a_hole_are_mirrored_back(tta):
    """An inpainter that continues the rows of each view."""
    rows, columns = np.linspace(0, 1, 90)[:, None], np.linspace(0, 1, 140)
    gray, mask = ((rows + columns) / 2).astype(np.float32), np.zeros((90, 140), bool)
    mask[30:50, 40:90] = True

    def inpainter(crop, hole, fills, cells):
        assert crop.shape == hole.shape and fills.shape[1] == FILLS + ERRORS
        return torch.where(hole > 0, fills[:, :1], crop)  # the fill along the rows of the view

    filled = inpaint([inpainter], gray * ~mask, mask, tta)
    assert np.allclose(filled, gray, atol=1e-4)  # a ramp is linear along every line
    assert np.array_equal(filled[~mask], gray[~mask])


@pytest.mark.parametrize("corner", [(0, 0), (200, 180), (480, 470)])
def test_crops_hold_the_hole(corner):
    mask = np.zeros((512, 512), bool)
    mask[corner[0] : corner[0] + 32, corner[1] : corner[1] + 42] = True
    other = np.zeros((512, 512), bool)
    other[:40, 470:] = True
    for hole in (mask, other):
        crop = hole[crop_around(hole)]
        assert crop.shape == (CROP, CROP) and crop.sum() == hole.sum()
    small = mask[-100:, -CROP - 50 :] | True
    assert small[crop_around(small)].shape == (100, CROP)


def test_things_are_as_large_in_crops_as_in_photos(monkeypatch):
    model, sizes = create_model("restorer", parts="colorizer"), []
    encoder = dino(torch.device("cpu"))

    def spied(luma):
        sizes.append(tuple(luma.shape[-2:]))
        return encoder(luma)

    monkeypatch.setattr("src.models.restorer.dino", lambda _: spied)
    Pipeline([model.eval()])(luma(PHOTO), np.zeros((512, 512), bool))
    shapes = {"gray": (2, 1, 400, 400), "rgb": (2, 3, 400, 400)}
    list(model.losses({k: torch.zeros(s, dtype=torch.uint8) for k, s in shapes.items()}))
    assert sizes == [(SEEN, SEEN), (168, 168)]


def test_transport_is_the_best_assignment():
    """Against the Hungarian algorithm: every hue a fixed number of cells, the largest total fit."""
    fit = torch.randn(120, HUES, generator=torch.Generator().manual_seed(0)) * 2
    counts = torch.zeros(HUES)
    counts[[3, 50, 120]] = torch.tensor([60.0, 40.0, 20.0])
    prices = torch.zeros(HUES)
    for temperature in (0.5, 0.25, 0.12, 0.06, 0.03):
        prices = transport_prices(fit, counts / 120, prices, temperature, 60)
    chosen = (fit + prices).argmax(dim=1)
    found = torch.bincount(chosen, minlength=HUES).float()
    assert (found - counts).abs().sum() <= 6
    slots = torch.repeat_interleave(torch.arange(HUES), counts.int())
    _, order = linear_sum_assignment(fit[:, slots].numpy(), maximize=True)
    best = fit[torch.arange(120), slots[order]].sum()
    total = fit[torch.arange(120), chosen].sum()
    assert total == pytest.approx(best.item(), rel=0.02)


def test_hues_follow_the_expected_histogram():
    """The transported histogram is the expected one; the histogram of the best guesses is not."""
    for seed in range(3):
        p = smooth_distributions(seed)
        target = p.mean(dim=(1, 2))

        def agreement(hues: torch.Tensor, target: torch.Tensor = target) -> float:
            histogram = torch.bincount(hues.flatten(), minlength=HUES).float()
            return correlation(histogram[None], target[None]).item()

        gray = np.random.default_rng(seed).integers(0, 256, (200, 136), np.uint8)
        for photo in (np.full_like(gray, 128), gray):  # of some, dark and bright pixels show little
            fit = histogram_fit(p.log(), target, photo)
            assert agreement(hues_of(fit, photo)) > 0.98
            assert agreement(hues_of(p, photo)) < 0.9


def hues_of(fit: torch.Tensor, gray: np.ndarray) -> torch.Tensor:
    lines, shown = fit.permute(1, 2, 0).contiguous().numpy(), shown_hues()
    impossible = np.where(shown, np.float32(0), np.float32(-1e4))
    return torch.from_numpy(best_hues(lines, impossible, gray, 0, len(gray))).long()


def test_every_hue_that_is_chosen_can_be_shown():
    """Also by the darkest and brightest pixels; what cannot be shown would become grey."""
    fit = smooth_distributions(0).log()
    gray = np.arange(256, dtype=np.uint8).repeat(4).reshape(32, 32)
    hues = hues_of(fit, gray).numpy()
    shown = cv2.cvtColor(compose(gray, hues, np.full_like(hues, 60)), cv2.COLOR_RGB2HSV)[..., 0]
    assert np.array_equal(shown, hues)


def test_what_is_recognised_is_vivid_and_the_rest_is_muted():
    """Red with a probability of 0.6, and of 0.1; all else is uniform. A fixed temperature of 1
    would show 0.6 of the first cell's chroma, one of 0.3 all of the second's."""
    p = torch.full((HUES, 1, 2), 1 / HUES) * torch.tensor([0.4, 0.9])
    p[0] += torch.tensor([0.6, 0.1])
    recognised, unknown = (visual_color(p, 60 * p).norm(dim=0)[0] / (60 * GAIN)).tolist()
    assert recognised > 0.95 and unknown < 0.2


@pytest.mark.parametrize("size", [(300, 501), (5, 9), (1, 1), (3, 200)])
def test_strips_are_torchs_interpolation(size):
    fit = torch.randn(HUES, 7, 9, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(fit[None], size, mode="bilinear", align_corners=False)[0]
    gray, lines = np.full(size, 128, np.uint8), fit.permute(1, 2, 0).contiguous().numpy()
    assert (hues_of(fit, gray) == whole.argmax(dim=0)).float().mean() > 0.9999
    rows = slice(size[0] // 3, size[0])
    assert np.allclose(upsampled(fit.numpy(), rows, *size), whole[:, rows], atol=1e-5)
    part = best_hues(lines, np.zeros((256, HUES), np.float32), gray, rows.start, rows.stop)
    assert np.array_equal(part, hues_of(fit, gray)[rows].numpy())


@pytest.mark.parametrize("with_fit", [True, False])
def test_large_photos_have_no_seams(with_fit):
    """Rendered strip by strip, a photo is what it is when rendered at once."""
    generator = torch.Generator().manual_seed(0)
    color = (torch.randn(2, 16, 16, generator=generator) * 40).numpy()
    fit = torch.randn(HUES, 16, 16, generator=generator).numpy() if with_fit else None
    gray, pictures = luma(data.coffee()), []
    for strip in (1 << 24, 4000):
        pictures.append(render(gray, color, fit, strip))
    assert np.array_equal(*pictures) and np.array_equal(luma(pictures[0]), gray)


@pytest.mark.parametrize("style", ["score", "visual"])
def test_decode_keeps_luma_and_shows_colors(style):
    """From the true distributions: the luma is untouched, the colours are those of the photo."""
    rgb = torch.from_numpy(PHOTO).permute(2, 0, 1)[None]
    counts, chromas = (sums[0].numpy() / 64 for sums in hue_histograms(rgb, (64, 64)))
    restored = decode(luma(PHOTO), counts, chromas * 255, style)
    assert np.array_equal(luma(restored), luma(PHOTO))
    assert np.abs(restored.astype(int) - PHOTO).mean() < (6 if style == "score" else 12)
    if style == "score":
        assert hue_correlation(PHOTO, restored) > 0.95


def test_restored_luma_is_the_inputs(model):
    """Whatever the network says: every known pixel of a real photo keeps its luma, for any size."""
    for photo in (PHOTO, data.coffee()[:301, :173], data.chelsea()[:40, :75]):
        damaged, mask = punch_hole(photo, np.random.default_rng(0))
        for style in ("score", "visual"):
            restored = Pipeline([model, model], tta=2, style=style)(damaged, mask)
            assert restored.shape == photo.shape
            assert np.array_equal(luma(restored)[~mask], damaged[~mask])


def test_photo_without_damage(model):
    gray = luma(data.rocket())
    assert np.array_equal(luma(Pipeline([model])(gray, np.zeros(gray.shape, bool))), gray)


def test_only_the_hole_is_inpainted(model):
    damaged, mask = punch_hole(PHOTO, np.random.default_rng(3))
    gray = damaged.astype(np.float32) / 255
    with torch.inference_mode():
        changed = inpaint([model.inpainter], gray, mask) != gray
    assert changed[mask].mean() > 0.9 and not changed[~mask].any()
    assert np.array_equal(find_hole(damaged), mask)


def test_a_large_hole_is_filled_at_a_lower_resolution(model):
    """Only the hole changes, smoothly from its border on; no more than `MAX_CROP`² pixels are
    computed."""
    ramp = np.linspace(0.2, 0.8, 2600, dtype=np.float32)[None].repeat(1800, axis=0)
    mask = np.zeros(ramp.shape, bool)
    mask[300:1500, 200:2300] = True
    seen = []

    def inpainter(gray, hole, fills, cells):
        seen.append(gray.numel())
        return model.inpainter(gray, hole, fills, cells)

    with torch.inference_mode():
        filled = inpaint([inpainter], np.where(mask, np.float32(0), ramp), mask)
    assert max(seen) < 1.1 * MAX_CROP**2  # padding included
    assert np.array_equal(filled[~mask], ramp[~mask])
    assert np.abs(filled - ramp).max() < 0.1  # the border's grey and not the fill's 0
    assert np.abs(np.diff(filled)).max() < 0.05


def test_ensembles_average_distributions():
    """Two models that are each sure of another hue: both hues appear, half of the pixels each."""

    class Sure(Restorer):
        def __init__(self, hue):
            super().__init__(RestorerOptions())
            self.hue = hue

        def colors(self, tokens, luma):
            p = torch.zeros(len(luma), HUES, 16, 16)
            p[:, self.hue] = 1
            return [p, p * 80]

    gray = np.full((64, 64), 128, np.uint8) + np.arange(64, dtype=np.uint8)
    restored = Pipeline([Sure(20).eval(), Sure(25).eval()])(gray, np.zeros(gray.shape, bool))
    hue = cv2.cvtColor(restored, cv2.COLOR_RGB2HSV)[..., 0]
    assert set(np.unique(hue)) <= {20, 25}


def test_parameters_of_one_fold():
    assert sum(p.numel() for p in create_model("restorer").parameters()) < 12e6
