"""From hue distributions to one hue a pixel: what the score rewards, or what looks best.

The score's C compares hue histograms of whole images, so the best guess is the *expected*
histogram, and not the histogram of each pixel's best guess. docs/restorer.md derives it.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color.lattice import HUES, compose, least_chroma
from src.utils.cli import Style
from src.utils.compiled import compiled

COOLING = (0.5, 0.25, 0.12, 0.06, 0.03)  # temperatures of the transport, in nats
ROUNDS = 8  # price updates at each of them
FINE_ROUNDS = 6  # price updates on the finer grid, at the last temperature
FINE = 2  # the finer grid's cells for each of the estimate's, along a side
MISFIT = 0.05  # nats for a squared distance of one level
LEAST = 1e-6  # floor of probabilities
VISUAL_TEMPERATURE = 0.4  # Zhang et al. 2016 use 0.38
VIVIDNESS = 1.2  # of the colours that people are shown, relative to the annealed mean
STRIP = 1 << 16  # pixels coloured at once, which bounds the memory


def unit_vectors(device: torch.device) -> Tensor:
    """(2, 180): the direction of each hue bin in the plane of colours."""
    angle = torch.arange(HUES, device=device) * (2 * math.pi / HUES)
    return torch.stack([angle.cos(), angle.sin()])


def transport_prices(
    fit: Tensor, target: Tensor, start: Tensor, temperature: float, rounds: int
) -> Tensor:
    """Prices that make the cells' hues match a histogram: the dual of entropic optimal transport.

    Cell x takes hue h with probability softmax_h((fit[x, h] + price[h]) / temperature). Each round
    sets the prices so that, with the cells' normalizers held, the mean over the cells is the
    target: one half-step of Sinkhorn's algorithm (Cuturi 2013); the softmax is the other.

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
    """How well each hue suits each cell: its log-probability less `MISFIT` times a squared
    distance.

    The distance is that of the expected colour from the nearest colour that this hue can show,
    since dull
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


def histogram_fit(fit: Tensor, target: Tensor, height: int, width: int) -> Tensor:
    """`fit` with prices added, so that the hues that fit each pixel best have the histogram
    `target`.

    Args:
        fit: (180, h, w), how well each hue suits each cell of a coarse grid, in nats.
        target: (180,) histogram, sums to 1.
        height, width: of the image.

    Returns: (180, h, w).
    """
    prices = torch.zeros_like(target)
    coarse = cells_first(fit)
    for temperature in COOLING:
        prices = transport_prices(coarse, target, prices, temperature, ROUNDS)
    sizes = zip(fit.shape[1:], (height, width), strict=True)
    fine = cells_first(resize(fit, *(min(FINE * cells, pixels) for cells, pixels in sizes)))
    prices = transport_prices(fine, target, prices, COOLING[-1], FINE_ROUNDS)
    return fit + prices[:, None, None]


def cells_first(maps: Tensor) -> Tensor:
    """(K, h, w) to (h·w, K), contiguous: a softmax over the last dimension is twice as fast."""
    return maps.flatten(1).t().contiguous()


@compiled(fastmath=True)
def best_hues(lines: np.ndarray, first: int, last: int, height: int, width: int) -> np.ndarray:
    """The hue that fits each pixel of some rows best, interpolated bilinearly.

    Args:
        lines: (h, w, 180) float32, finite, how well each hue suits each cell.
        first, last: range of rows, of an image of `height` × `width` pixels.

    Returns: (last - first, width) uint8, the first of equals.
    """
    rows, columns, count = lines.shape
    hues = np.empty((last - first, width), np.uint8)
    line, values = np.empty((columns, count), np.float32), np.empty(count, np.float32)
    for y in range(first, last):
        above, below, weight = _neighbours(y, rows, height)
        for i in range(columns):
            for k in range(count):
                line[i, k] = lines[above, i, k] + weight * (lines[below, i, k] - lines[above, i, k])
        for x in range(width):
            left, right, weight = _neighbours(x, columns, width)
            near, far = line[left], line[right]
            for k in range(count):
                values[k] = near[k] + weight * (far[k] - near[k])
            best = values[0]
            for k in range(count):
                best = max(best, values[k])
            found = 0
            for k in range(count):  # no early exit: the compiler makes it vector instructions
                found = max(found, count - k if values[k] == best else 0)
            hues[y - first, x] = count - found
    return hues


@numba.njit(inline="always")
def _neighbours(pixel: int, cells: int, pixels: int) -> tuple[int, int, float]:
    """The two cells nearest to a pixel's middle and the weight of the second, as torch
    interpolates."""
    place = min(max((pixel + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
    cell = int(place)
    return cell, min(cell + 1, cells - 1), np.float32(place - cell)


def rows_of(maps: Tensor, rows: slice, height: int, width: int) -> Tensor:
    """Some rows of `resize(maps, height, width)`: (K, h, w) to (K, number of rows, width)."""
    place = (torch.arange(rows.start, rows.stop, device=maps.device) + 0.5) * maps.shape[
        1
    ] / height - 0.5
    place = place.clamp(0, maps.shape[1] - 1)
    above = place.floor().long()
    below = (above + 1).clamp(max=maps.shape[1] - 1)
    lines = torch.lerp(maps[:, above], maps[:, below], (place - above)[:, None])
    return resize(lines, len(place), width)


def expected_color(p: Tensor, chroma_mass: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean colour of each cell, (2, h, w) in levels; below a temperature of 1 likely hues count
    more.

    Args as for `decode`. With a temperature of about 0.4 it is the annealed mean of Zhang et al.
    2016.
    """
    log_p = p.clamp(min=LEAST).log()
    chroma = chroma_mass / p.clamp(min=LEAST)
    sharpened = (log_p / temperature).softmax(dim=0)
    return torch.einsum("dk,khw->dhw", unit_vectors(p.device), sharpened * chroma)


def render(luma: np.ndarray, color: Tensor, fit: Tensor | None = None) -> np.ndarray:
    """RGB of a luma, a hue for each pixel, and the chroma that brings it nearest to a colour.

    The colour c·e(hue) nearest to a given one, or of least expected squared distance from a random
    one of that mean, has c = <colour, e(hue)>. Where that is negative it becomes the least the hue
    can have.

    Args:
        luma: (H, W) uint8.
        color: (2, h, w) in levels, on a grid of any size.
        fit: (180, h, w), how well each hue suits each cell; the best becomes a pixel's hue. Without
            it a pixel has its colour's own hue.

    Returns: (H, W, 3) uint8; its PIL luma is `luma`, exactly.
    """
    height, width = luma.shape
    color, directions = color.cpu(), unit_vectors(torch.device("cpu"))
    lines = None if fit is None else fit.cpu().permute(1, 2, 0).contiguous().numpy()
    rgb = np.empty((height, width, 3), np.uint8)
    step = max(1, STRIP // width)
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        x, y = rows_of(color, rows, height, width)
        if lines is None:
            hue = (torch.atan2(y, x) * (HUES / (2 * math.pi))).round().long() % HUES
        else:
            hue = torch.from_numpy(best_hues(lines, rows.start, rows.stop, height, width)).long()
        chroma = (x * directions[0][hue] + y * directions[1][hue]).round().clamp(0, 255).long()
        rgb[rows] = compose(luma[rows], hue.numpy(), chroma.numpy())
    return rgb


def visual_color(p: Tensor, chroma_mass: Tensor) -> Tensor:
    """The colour of each cell that people are shown, (2, h, w) in levels; args as for `decode`.

    Means are duller than what they are means of; `VIVIDNESS` makes up for that.
    """
    return VIVIDNESS * expected_color(p, chroma_mass, VISUAL_TEMPERATURE)


def decode(luma: np.ndarray, p: Tensor, chroma_mass: Tensor, style: Style) -> np.ndarray:
    """RGB of one image from its luma and the distribution of its colours.

    Args:
        luma: (H, W) uint8; the result's PIL luma, exactly.
        p: (180, h, w) probability of each hue, on a grid of any size.
        chroma_mass: (180, h, w) probability times the chroma (0 to 255) expected of that hue.
        style: "score": the hue histogram is the expected one, which is the mean of `p`. "visual":
            Zhang's annealed mean, more vivid.

    Returns: (H, W, 3) uint8.
    """
    if style == "visual":
        return render(luma, visual_color(p, chroma_mass))
    color = expected_color(p, chroma_mass)
    return render(
        luma, color, histogram_fit(plausibility(p, color), p.mean(dim=(1, 2)), *luma.shape)
    )
