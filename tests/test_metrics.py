"""The score against its published calls, the cases that they leave open, and its likeness in the
losses."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from src import losses
from src.metrics import (
    Score,
    hue_correlation,
    hue_histogram,
    masked_ssim,
    mean_score,
    published_score,
    score_image,
    ssim,
)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    true = data.coffee()[:200, :300]
    pred = cv2.GaussianBlur(true, (0, 0), 2)[..., ::-1].copy()
    mask = np.zeros(true.shape[:2], bool)
    mask[40:90, 100:180] = True
    return true, pred, mask


def noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Random (H, W, 3) uint8 between two random levels."""
    low = rng.integers(255)
    return rng.integers(low, rng.integers(low + 1, 256), (*shape, 3), endpoint=True).astype(
        np.uint8
    )


@pytest.mark.parametrize("seed", range(100))
def test_agrees_with_the_published_calls_on_anything(seed):
    """Random sizes, levels and masks: S and M to 1e-9, C exactly."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(7, 80, 2))
    true = np.full((*shape, 3), rng.integers(256), np.uint8) if seed % 5 == 0 else noise(rng, shape)
    near = np.clip(true.astype(int) + rng.integers(-2, 3, true.shape), 0, 255).astype(np.uint8)
    pred = [near, noise(rng, shape), np.where(true > 0, true, 1).astype(np.uint8)][seed % 3]
    pred[0, 0] = pred.min(), pred.max(), (int(pred.max()) + 1) % 256  # at least two levels
    mask = rng.random(shape) < rng.random() ** 2
    mask.flat[rng.permutation(mask.size)[:7]] = True
    found, published = score_image(true, pred, mask), published_score(true, pred, mask)
    assert pytest.approx((published.S, published.M), abs=1e-9) == (found.S, found.M)
    assert found.C == published.C


def test_truth_scores_one_and_so_does_an_empty_mask(pair):
    true, pred, mask = pair
    assert score_image(true, true, mask).score == pytest.approx(1)
    assert masked_ssim(true, pred, np.zeros_like(mask)) == 1


def test_seven_pixels_are_the_published_call_and_fewer_are_defined(pair):
    true, pred, mask = pair
    values = []
    for count in range(1, 9):
        few = np.zeros_like(mask)
        few.flat[50 * 300 + 5 : 50 * 300 + 5 + count] = True
        assert masked_ssim(true, true, few) == 1
        values.append(masked_ssim(true, pred, few))
    assert np.isfinite(values).all() and max(values) < 1
    seven = np.zeros_like(mask)
    seven.flat[50 * 300 + 5 : 50 * 300 + 12] = True
    assert values[6] == pytest.approx(published_score(true, pred, seven).M, abs=1e-12)


def test_all_equal_images(pair):
    true, pred, mask = pair
    flat = np.full_like(true, 90)
    assert score_image(flat, flat, mask) == Score(1, 1, 1)
    assert ssim(true, flat) == 0
    assert masked_ssim(true, flat, mask) == 0
    assert np.isfinite(hue_correlation(true, flat))
    assert 0 <= ssim(flat, pred) < 0.6


def test_wrong_arrays_are_refused(pair):
    true, pred, mask = pair
    for bad in (pred[1:], pred / 255, pred[..., 0]):
        with pytest.raises(ValueError):
            score_image(true, bad, mask)
    with pytest.raises(ValueError):
        score_image(true, pred, mask[1:])
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(true[:6], pred[:6])
    with pytest.raises(ValueError):
        mean_score([])


def test_means_and_what_each_part_loses():
    assert mean_score([Score(0, 0.5, 1), Score(1, 0.5, 0)]) == Score(0.5, 0.5, 0.5)
    score = Score(S=0.9, M=0.5, C=0.25)
    assert score.score == pytest.approx(0.2 * 0.9 + 0.4 * 0.5 + 0.4 * 0.25)
    assert score.perfected() == pytest.approx(
        {"S": score.score + 0.02, "M": score.score + 0.2, "C": 0.78}
    )


def images_of_full_range(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(true, pred, mask) of random size; the prediction has the range of 255 that the losses
    assume."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(7, 80, 2))
    true, pred, mask = noise(rng, shape), noise(rng, shape), rng.random(shape) < rng.random()
    pred[0, 0], pred[-1, -1] = 0, 255
    return true, pred, mask


def tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 to (3, H, W) float64 in [0, 1], (N, 3) to (3, 1, N)."""
    image = image[None] if image.ndim == 2 else image
    return torch.from_numpy(image.transpose(2, 0, 1) / 255)


@pytest.mark.parametrize("seed", range(20))
def test_ssim_of_the_losses_is_the_scores(seed):
    """S with windows of 7×7 pixels, and that of a sequence with windows of 1×7."""
    true, pred, _ = images_of_full_range(seed)
    x, y = tensor(true), tensor(pred)
    assert losses.ssim(x, y, (7, 7)).item() == pytest.approx(ssim(true, pred), abs=1e-5)
    lines = true.reshape(-1, 3), pred.reshape(-1, 3)
    found = losses.ssim(*map(tensor, lines), (1, 7)).item()
    assert found == pytest.approx(ssim(*lines, 255), abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_masked_ssim_of_the_losses_is_the_scores(seed):
    """Image by image of a batch, each with its own hole."""
    true, pred, mask = images_of_full_range(seed)
    masks = [mask, ~mask]
    batch = (torch.stack([tensor(image)] * 2) for image in (true, pred))
    found = losses.masked_ssim(*batch, torch.from_numpy(np.stack(masks))[:, None].double())
    wanted = [masked_ssim(true, pred, m) if m.sum() >= 7 else 1.0 for m in masks]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_correlation_of_the_losses_is_the_scores(seed):
    true, pred, _ = images_of_full_range(seed)
    images = [(true, pred), (pred, true[::-1]), (true, true)]
    histograms = (
        torch.from_numpy(np.stack([hue_histogram(pair[which])[:, 0] for pair in images])).double()
        for which in (0, 1)
    )
    wanted = [hue_correlation(*pair) for pair in images]
    assert losses.correlation(*histograms).tolist() == pytest.approx(wanted, abs=1e-5)
