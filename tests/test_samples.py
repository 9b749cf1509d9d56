"""Alternative colorizations: regions are coloured as one, what is certain stays, all differ."""

import numpy as np
import pytest
import torch

from src.color.lattice import HUES
from src.color.samples import alternative_colorizations

SIZE = 24  # cells along a side


def distribution(*hues: int) -> torch.Tensor:
    """(180,) equal bumps around some hues."""
    steps = torch.arange(HUES)
    away = torch.stack([(steps - hue + 90) % HUES - 90 for hue in hues])
    bumps = torch.exp(-(away**2) / 50).sum(dim=0)
    return bumps / bumps.sum()


@pytest.fixture
def photo() -> tuple[np.ndarray, np.ndarray]:
    """A certain blue sky above a wall that is orange or green, with little noise; p and chroma
    mass."""
    noise = np.random.default_rng(0).normal(0, 0.1, (HUES, SIZE, SIZE)).astype(np.float32)
    p = torch.empty(HUES, SIZE, SIZE)
    p[:, : SIZE // 2] = distribution(105)[:, None, None]
    p[:, SIZE // 2 :] = distribution(12, 60)[:, None, None]
    p = (p.clamp(min=1e-6).log() + torch.from_numpy(noise)).softmax(dim=0).numpy()
    return p, p * 60


def hue(color: np.ndarray) -> np.ndarray:
    """Degrees of (2, h, w)."""
    return np.rad2deg(np.arctan2(color[1], color[0])) % 360


def test_each_region_is_coloured_as_one(photo):
    for color in alternative_colorizations(*photo, 6):
        for half in (color[:, : SIZE // 2 - 4], color[:, SIZE // 2 + 4 :]):
            direction = (half / np.linalg.norm(half, axis=0)).mean(axis=(1, 2))
            assert np.linalg.norm(direction) > 0.99  # all point the same way


def test_what_is_certain_stays_and_the_rest_varies(photo):
    colors = alternative_colorizations(*photo, 6)
    sky = np.array([np.median(hue(color)[: SIZE // 2 - 4]) for color in colors])
    wall = np.array([np.median(hue(color)[SIZE // 2 + 4 :]) for color in colors])
    assert np.abs(sky - 210).max() < 15
    assert wall.min() < 50 and wall.max() > 90


def test_they_are_the_same_each_time_and_all_different(photo):
    first, second = alternative_colorizations(*photo, 6), alternative_colorizations(*photo, 6)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    for number, color in enumerate(first):
        for other in first[:number]:
            assert np.linalg.norm(color - other, axis=0).mean() > 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (40, 33)])
def test_any_grid(shape):
    """One cell, a line, and cells that are all alike."""
    p = np.full((HUES, *shape), 1 / HUES, np.float32)
    colors = alternative_colorizations(p, p * 60, 3)
    assert len(colors) == 3 and all(c.shape == (2, *shape) and np.isfinite(c).all() for c in colors)
