"""From hue distributions to one hue a pixel: what the score rewards, or what looks best.

The score's C compares hue histograms of whole images, so the best guess is the *expected* histogram, and
not the histogram of each pixel's best guess. docs/restorer.md derives it.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color import HUES, compose, least_chroma

Style = Literal["score", "visual"]
COOLING = (0.5, 0.25, 0.12, 0.06, 0.03)  # temperatures of the transport, in nats
ROUNDS = 8  # price updates at each of them
FINE_ROUNDS = 6  # price updates on the finer grid, at the last temperature
FINE = 2  # the finer grid's cells for each of the estimate's, along a side
MISFIT = 0.05  # nats for a squared distance of one level
LEAST = 1e-6  # floor of probabilities
VISUAL_TEMPERATURE = 0.4  # Zhang et al. 2016 use 0.38
STRIP = 1 << 16  # pixels assigned at once, which bounds the memory


def unit_vectors(device: torch.device) -> Tensor:
    """(2, 180): the direction of each hue bin in the plane of colours."""
    angle = torch.arange(HUES, device=device) * (2 * math.pi / HUES)
    return torch.stack([angle.cos(), angle.sin()])


def transport_prices(fit: Tensor, target: Tensor, start: Tensor, temperature: float, rounds: int) -> Tensor:
    """Prices that make the cells' hues match a histogram: the dual of entropic optimal transport.

    Cell x takes hue h with probability softmax_h((fit[x, h] + price[h]) / temperature). Each round sets
    the prices so that, with the cells' normalizers held, the mean over the cells is the target: one
    half-step of Sinkhorn's algorithm (Cuturi 2013); the softmax is the other.

    Args:
        fit: (N, 180), how well each hue suits each of N cells, in nats.
        target: (180,) histogram to match, sums to 1.
        start: (180,) prices to begin with.

    Returns: (180,) prices.
    """
    prices = start
    log_target = target.clamp(min=LEAST).log()
    for _ in range(rounds):
        share = ((fit + prices) / temperature).softmax(dim=1).mean(dim=0)
        prices = prices + temperature * (log_target - share.clamp(min=LEAST).log())
    return prices


def resize(maps: Tensor, height: int, width: int) -> Tensor:
    """(K, h, w) to (K, height, width), bilinear."""
    return F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]


def plausibility(p: Tensor, color: Tensor) -> Tensor:
    """How well each hue suits each cell: its log-probability less `MISFIT` times a squared distance.

    The distance is that of the expected colour from the nearest colour that this hue can show, since dull
    colours have few hues: hue 1 begins at a chroma of 21.

    Args:
        p: (180, h, w) probabilities.
        color: (2, h, w) expected colour, in levels.

    Returns: (180, h, w).
    """
    along = torch.einsum("dk,dhw->khw", unit_vectors(p.device), color)
    shown = along.clamp(min=least_chroma(p.device)[:, None, None])
    distance = (color**2).sum(dim=0) - 2 * shown * along + shown**2
    return p.clamp(min=LEAST).log() - MISFIT * distance


def histogram_hues(fit: Tensor, target: Tensor, height: int, width: int) -> Tensor:
    """One hue a pixel, so that the image's hue histogram is `target` and each hue suits its pixel.

    Args:
        fit: (180, h, w), how well each hue suits each cell of a coarse grid, in nats.
        target: (180,) histogram, sums to 1.
        height, width: of the image.

    Returns: (height, width) int64, 0 to 179.
    """
    prices = torch.zeros_like(target)
    coarse = cells_first(fit)
    for temperature in COOLING:
        prices = transport_prices(coarse, target, prices, temperature, ROUNDS)
    sizes = zip(fit.shape[1:], (height, width), strict=True)
    fine = cells_first(resize(fit, *(min(FINE * cells, pixels) for cells, pixels in sizes)))
    prices = transport_prices(fine, target, prices, COOLING[-1], FINE_ROUNDS)
    return most_likely(fit + prices[:, None, None], height, width)


def cells_first(maps: Tensor) -> Tensor:
    """(K, h, w) to (h·w, K), contiguous: a softmax over the last dimension is twice as fast."""
    return maps.flatten(1).t().contiguous()


def most_likely(fit: Tensor, height: int, width: int) -> Tensor:
    """The hue that fits each pixel best, interpolated bilinearly: (180, h, w) to (height, width) int64."""
    lines = fit.permute(1, 2, 0).contiguous()
    source = (torch.arange(height, device=fit.device) + 0.5) * len(lines) / height - 0.5
    source = source.clamp(0, len(lines) - 1)
    above = source.floor().long()
    below = (above + 1).clamp(max=len(lines) - 1)
    weight = (source - above)[:, None, None]
    hues = []
    for strip in torch.arange(height, device=fit.device).split(max(1, STRIP // width)):
        rows = torch.lerp(lines[above[strip]], lines[below[strip]], weight[strip])
        rows = rows[None].permute(0, 3, 1, 2)  # channels last in memory
        size = (len(strip), width)
        rows = F.interpolate(rows, size, mode="bilinear", align_corners=False)[0]
        hues.append(rows.permute(1, 2, 0).argmax(dim=2))
    return torch.cat(hues)


def expected_color(p: Tensor, mass: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean colour of each cell, (2, h, w) in levels; below a temperature of 1 likely hues count more.

    Args as for `decode`. With a temperature of about 0.4 it is the annealed mean of Zhang et al. 2016.
    """
    log_p = p.clamp(min=LEAST).log()
    chroma = mass / p.clamp(min=LEAST)
    sharpened = (log_p / temperature).softmax(dim=0)
    return torch.einsum("dk,khw->dhw", unit_vectors(p.device), sharpened * chroma)


def render(luma: np.ndarray, hue: Tensor, color: Tensor) -> np.ndarray:
    """RGB of a luma, a hue for each pixel, and the chroma that brings it nearest to a colour.

    The colour c·e(hue) nearest to a given one, or of least expected squared distance from a random one
    of that mean, has c = <colour, e(hue)>. Where that is negative it becomes the least the hue can have.

    Args:
        luma: (H, W) uint8.
        hue: (H, W) int64, 0 to 179.
        color: (2, h, w) in levels, on a grid of any size.

    Returns: (H, W, 3) uint8; its PIL luma is `luma`, exactly.
    """
    x, y = resize(color, *luma.shape)
    directions = unit_vectors(color.device)
    chroma = x * directions[0][hue] + y * directions[1][hue]
    chroma = chroma.round().clamp(0, 255).long()
    return compose(luma, hue.cpu().numpy(), chroma.cpu().numpy())


def decode(luma: np.ndarray, p: Tensor, mass: Tensor, histogram: Tensor, style: Style) -> np.ndarray:
    """RGB of one image from its luma and the distribution of its colours.

    Args:
        luma: (H, W) uint8; the result's PIL luma, exactly.
        p: (180, h, w) probability of each hue, on a grid of any size.
        mass: (180, h, w) probability times the chroma (0 to 255) expected of that hue.
        histogram: (180, 1, 1) expected hue histogram of the image.
        style: "score": the hue histogram is the expected one. "visual": Zhang's annealed mean.

    Returns: (H, W, 3) uint8.
    """
    if style == "score":
        color = expected_color(p, mass)
        hue = histogram_hues(plausibility(p, color), histogram.flatten(), *luma.shape)
    else:
        color = expected_color(p, mass, VISUAL_TEMPERATURE)
        x, y = resize(color, *luma.shape)
        hue = (torch.atan2(y, x) * (HUES / (2 * math.pi))).round().long() % HUES
    return render(luma, hue, color)
