"""Alternative colorizations: similar regions get the same sampled colour."""

import math

import numpy as np
import torch
from torch import Tensor

from src.color.decode import MIN_P, visual_color
from src.color.lattice import HUES


def alternative_colorizations(
    p: np.ndarray, chroma_mass: np.ndarray, count: int, draws: int = 24
) -> list[np.ndarray]:
    """The most probable colorization of a photo, then `count` - 1 others, each (2, h, w) in levels.

    Each of the others is the most probable once the probabilities are multiplied by exp(n), where
    n is a draw from a Gaussian process over the circle of hues and the distributions of the cells:
    certain colours stay, similar regions are coloured alike, and the photo has one mood. Of
    `draws` such colorizations those that differ most from each other are returned (farthest-point
    sampling, Gonzalez 1985). The same photo always gets the same ones. Args as for
    `src.color.decode.decode`.
    """
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    p, chroma_mass = torch.from_numpy(p), torch.from_numpy(chroma_mass)
    colors, chroma = [visual_color(p, chroma_mass)], chroma_mass / p.clamp(min=MIN_P)
    # the distance of these is Hellinger's; distributions that differ by a few hues are similar
    roots = _smooth(p.sqrt().flatten(1), width=4.0)
    features, independent = 32, 0.5  # draws are independent at this Hellinger distance
    strength, mood = 0.8, 0.6  # standard deviation of n; share of its variance that all cells share
    for _ in range(draws if count > 1 else 0):
        # random Fourier features (Rahimi, Recht 2007): their products are a Gaussian kernel
        phases = normal(features, HUES) @ roots / independent
        phases = phases + 2 * math.pi * normal(features, 1)
        own = math.sqrt(2 / features) * phases.cos()
        # smooth, so that neighbouring hues rise together
        noise = _smooth(normal(HUES, features + 1), width=12.0)
        noise = strength * noise / noise.std(dim=0)
        noise = math.sqrt(mood) * noise[:, :1] + math.sqrt(1 - mood) * noise[:, 1:] @ own
        drawn = (p.clamp(min=MIN_P).log() + noise.view_as(p)).softmax(dim=0)
        colors.append(visual_color(drawn, drawn * chroma))
    chosen, distance = [0], torch.full((len(colors),), math.inf)
    while len(chosen) < count:
        new = torch.stack([(color - colors[chosen[-1]]).norm(dim=0).mean() for color in colors])
        distance = torch.minimum(distance, new)
        chosen.append(int(distance.argmax()))
    return [colors[number].numpy() for number in chosen]


def _smooth(maps: Tensor, width: float) -> Tensor:
    """(180, N) convolved with a Gaussian around the circle of hues."""
    steps = torch.arange(HUES)
    kernel = torch.exp(-(torch.minimum(steps, HUES - steps) ** 2) / (2 * width**2))
    spectrum = torch.fft.rfft(maps, dim=0) * torch.fft.rfft(kernel / kernel.sum())[:, None]
    return torch.fft.irfft(spectrum, n=HUES, dim=0)
