"""Other colourings of a photo: what is alike in it is drawn anew as one."""

import math

import numpy as np
import torch
from torch import Tensor

from src.color.decode import LEAST, visual_color
from src.color.lattice import HUES

ALIKE = 4.0  # hues by which distributions may differ and still count as alike
REACH = 0.5  # Hellinger distance over which draws become independent
FEATURES = 32  # of the random map that draws depend on
WIDTH = 12.0  # neighbouring hues that a draw favours together
STRENGTH = 0.8  # standard deviation of what a draw adds to the logarithms of the probabilities
MOOD = 0.6  # share of its variance that the whole photo has in common
DRAWS = 24  # of which those are taken that differ most


def colourings(p: Tensor, chroma_mass: Tensor, count: int) -> list[Tensor]:
    """`count` colourings of one photo, each (2, h, w) in levels: the likeliest, then others.

    Each of the others is the likeliest of probabilities that were multiplied by exp(n). Here n is a
    draw from
    a Gaussian process over the circle of hues and the distributions of the cells: what is certain
    stays, what is alike is coloured alike, and all of the photo shares a mood. Of `DRAWS` such
    colourings those are taken that differ most from each other (farthest-point sampling, Gonzalez
    1985). The same photo always gets the same ones. Args as for `src.color.decode.decode`.
    """
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32)).to(p.device)

    draws, chroma = [visual_color(p, chroma_mass)], chroma_mass / p.clamp(min=LEAST)
    alike = _smooth(p.sqrt().flatten(1), ALIKE)  # whose distance is Hellinger's
    for _ in range(DRAWS if count > 1 else 0):
        # random Fourier features (Rahimi, Recht 2007): their products are a Gaussian kernel of the
        # distance
        phases = normal(FEATURES, HUES) @ alike / REACH + 2 * math.pi * normal(FEATURES, 1)
        own = math.sqrt(2 / FEATURES) * phases.cos()
        noise = _smooth(normal(HUES, FEATURES + 1), WIDTH)
        noise = STRENGTH * noise / noise.std(dim=0)
        noise = math.sqrt(MOOD) * noise[:, :1] + math.sqrt(1 - MOOD) * noise[:, 1:] @ own
        drawn = (p.clamp(min=LEAST).log() + noise.view_as(p)).softmax(dim=0)
        draws.append(visual_color(drawn, drawn * chroma))
    chosen, distance = [0], torch.full((len(draws),), math.inf, device=p.device)
    while len(chosen) < count:
        new = torch.stack([(draw - draws[chosen[-1]]).norm(dim=0).mean() for draw in draws])
        distance = torch.minimum(distance, new)
        chosen.append(int(distance.argmax()))
    return [draws[number] for number in chosen]


def _smooth(maps: Tensor, width: float) -> Tensor:
    """(180, N) convolved with a Gaussian around the circle of hues."""
    steps = torch.arange(HUES, device=maps.device)
    kernel = torch.exp(-(torch.minimum(steps, HUES - steps) ** 2) / (2 * width**2))
    spectrum = torch.fft.rfft(maps, dim=0) * torch.fft.rfft(kernel / kernel.sum())[:, None]
    return torch.fft.irfft(spectrum, n=HUES, dim=0)
