"""From colours to hue distributions, and from distributions to one hue per pixel.

The score's C compares hue histograms of whole images, so the best guess is the *expected*
histogram, not the histogram of each pixel's best guess. docs/restorer.md derives it.
"""

import math
from functools import cache

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.color.lattice import HUES, LEVELS, compose, min_chroma, shown_hues
from src.utils.cli import Style

MIN_P = 1e-6  # floor of probabilities
TEMPER = 1.2  # temperature of the distributions whose mean is the expected histogram
IMPOSSIBLE = -1e4  # nats
VIVID = 0.3  # temperature of the colours of certain cells; that of uncertain ones is 1
SURE, UNSURE = 3.0, 5.2  # nats, entropies of certain cells and of those that may be anything
SAMPLES = 64  # pixels along each side to which the histogram is fitted at last
GAIN = 1.42  # of the chroma of visual colours, since means are dull
_ANGLE = torch.arange(HUES) * (2 * math.pi / HUES)
DIRECTIONS = torch.stack([_ANGLE.cos(), _ANGLE.sin()])  # (2, 180), of each hue in the colour plane
_DIRECTIONS = DIRECTIONS.numpy()


def hue_chroma(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """OpenCV's 8-bit hue (0 for grey) and the chroma, in OpenCV's own integer steps.

    Takes (B, 3, H, W) whole numbers from 0 to 255; returns two of (B, H, W) int32.
    """
    rgb = rgb.int()
    red, green, blue = rgb.unbind(dim=1)
    high = rgb.amax(dim=1)
    chroma = high - rgb.amin(dim=1)
    sector = torch.where(high == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sector = torch.where(high == red, green - blue, sector)
    # 30 / chroma in steps of 1/4096, as OpenCV tabulates it; the sector of grey is 0
    divisors = (HUES / 6 * 4096 / torch.arange(LEVELS, dtype=torch.float64).clamp(min=1)).round()
    steps = (sector * divisors.int().to(rgb.device)[chroma] + (1 << 11)) >> 12
    return torch.where(steps < 0, steps + HUES, steps), chroma


def hue_histograms(rgb: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Number and summed chroma (in units of 255) of the pixels of each hue in each cell of a grid.

    Takes (B, 3, H, W) uint8 and the grid's (h, w); returns two of (B, 180, h, w) float32.
    """
    hue, chroma = hue_chroma(rgb)
    batch, height, width = hue.shape
    row = torch.arange(height, device=rgb.device) * grid[0] // height
    column = torch.arange(width, device=rgb.device) * grid[1] // width
    image = torch.arange(batch, device=rgb.device)[:, None, None]
    place = (((image * grid[0] + row[:, None]) * grid[1] + column) * HUES + hue).flatten()
    counts, chromas = torch.zeros(2, batch * HUES * grid[0] * grid[1], device=rgb.device)
    counts.index_add_(0, place, torch.ones_like(place, dtype=torch.float32))
    chromas.index_add_(0, place, chroma.flatten() / 255)
    # channels last in memory, as the logits are
    return tuple(sums.view(batch, *grid, HUES).permute(0, 3, 1, 2) for sums in (counts, chromas))


def decode(
    luma: np.ndarray,
    p: np.ndarray,
    chroma_mass: np.ndarray,
    style: Style,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """RGB (H, W, 3) uint8 of one image from its luma and the distribution of its colours.

    Args:
        luma: (H, W) uint8; the result's PIL luma, exactly.
        p: (180, h, w) float32, probability of each hue, on a grid of any size.
        chroma_mass: (180, h, w) float32, probability times the hue's expected chroma (0 to 255).
        style: "score": the hue histogram is the expected one. "visual": `visual_color`.
    """
    p, chroma_mass = torch.from_numpy(np.stack([p, chroma_mass])).to(device)
    if style == "visual":
        return render(luma, visual_color(p, chroma_mass).cpu().numpy())
    color = expected_color(p, chroma_mass)
    target = expected_histogram(p)
    fit = histogram_fit(plausibility(p, color), target, luma)
    maps = torch.cat([color, fit]).cpu().numpy()
    return render(luma, maps[:2], maps[2:])


def expected_histogram(p: Tensor) -> Tensor:
    """The image's hue histogram (180,), of sum 1: the mean of `p` (180, h, w), a little less sure
    of itself, since distributions are too sharp for photos of unseen places."""
    return (p.clamp(min=MIN_P).log() / TEMPER).softmax(dim=0).mean(dim=(1, 2))


def visual_color(p: Tensor, chroma_mass: Tensor) -> Tensor:
    """The colour of each cell as people are shown it, (2, h, w) in levels.

    It is the annealed mean of Zhang et al. 2016, where the temperature rises with the entropy of
    the distribution: what is recognised is vivid, and the rest is muted instead of spotted.
    """
    entropy = -(p * p.clamp(min=MIN_P).log()).sum(dim=0)
    doubt = ((entropy - SURE) / (UNSURE - SURE)).clamp(0, 1)
    temperature = VIVID + (1 - VIVID) * doubt
    return GAIN * expected_color(p, chroma_mass, temperature)


def expected_color(p: Tensor, chroma_mass: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Mean colour of each cell, (2, h, w) in levels; a temperature below 1, one for all cells or
    (h, w), favours likely hues."""
    log_p = p.clamp(min=MIN_P).log()
    chroma = chroma_mass / p.clamp(min=MIN_P)
    sharpened = (log_p / temperature).softmax(dim=0)
    return torch.einsum("dk,khw->dhw", DIRECTIONS.to(p.device), sharpened * chroma)


def plausibility(p: Tensor, color: Tensor) -> Tensor:
    """The fit of each hue to each cell, (180, h, w): its log-probability less a squared distance.

    The distance is that of the expected `color` (2, h, w), in levels, from the nearest colour this
    hue can show, since dull colours have few hues: hue 1 begins at a chroma of 21.
    """
    along = torch.einsum("dk,dhw->khw", DIRECTIONS.to(p.device), color)
    shown = along.clamp(min=_min_chroma(p.device)[:, None, None])
    distance = (color**2).sum(dim=0) - 2 * shown * along + shown**2
    return p.clamp(min=MIN_P).log() - 0.05 * distance  # nats for a squared distance of one level


@cache
def _min_chroma(device: torch.device) -> Tensor:
    return torch.from_numpy(min_chroma()).to(device)


@cache
def _impossible() -> np.ndarray:
    """(256, 180) float32 in nats, to be added to the fit of each hue to a pixel of each luma."""
    return np.where(shown_hues(), np.float32(0), np.float32(IMPOSSIBLE))


def histogram_fit(fit: Tensor, target: Tensor, luma: np.ndarray) -> Tensor:
    """`fit` (180, h, w) in nats with prices added, so that the hues that fit the pixels of an image
    best, and that their `luma` (H, W) uint8 can show, have the histogram `target` (180,)."""
    prices = torch.zeros_like(target)
    # (cells, hues), contiguous: a softmax over the last dimension is twice as fast
    coarse = fit[:, ::2, ::2].flatten(1).t().contiguous()
    for halvings in range(7):
        prices = transport_prices(coarse, target, prices, 2 / 2**halvings, rounds=4)
    # then at some pixels, with their luma and what `render` interpolates there
    rows, columns = ((2 * np.arange(SAMPLES) + 1) * side // (2 * SAMPLES) for side in luma.shape)
    impossible = torch.from_numpy(_impossible()[luma[rows[:, None], columns]]).to(fit.device)
    fine = F.interpolate(fit[None], (SAMPLES, SAMPLES), mode="bilinear")[0]
    fine = fine.flatten(1).t() + impossible.flatten(0, 1)
    for temperature, rounds in ((0.03, 2), (0.01, 4)):
        prices = transport_prices(fine, target, prices, temperature, rounds)
    return fit + prices[:, None, None]


def transport_prices(
    fit: Tensor, target: Tensor, prices: Tensor, temperature: float, rounds: int
) -> Tensor:
    """Prices (180,) that make the cells' hues match a histogram: entropic optimal transport's dual.

    Cell x takes hue h with probability softmax_h((fit[x, h] + price[h]) / temperature). Each round
    sets the prices so that, with the cells' normalizers held, the mean over the cells is the
    target: one half-step of Sinkhorn's algorithm (Cuturi 2013); the softmax is the other.
    `fit` (N, 180) in nats says how well each hue suits each of N cells; `target` (180,) sums to 1.
    """
    log_target = target.clamp(min=MIN_P).log()
    for _ in range(rounds):
        share = ((fit + prices) / temperature).softmax(dim=1).mean(dim=0)
        prices = prices + temperature * (log_target - share.clamp(min=MIN_P).log())
    return prices


def render(
    luma: np.ndarray, color: np.ndarray, fit: np.ndarray | None = None, strip: int = 1 << 16
) -> np.ndarray:
    """RGB (H, W, 3) uint8 of a luma, a hue for each pixel, and the chroma nearest to a colour.

    The colour c·e(hue) nearest to a given one, or of least expected squared distance from a random
    one of that mean, has c = <colour, e(hue)>. A negative c becomes the least the hue can have.

    `luma` (H, W) uint8 is kept exactly; `color` is (2, h, w) float32 in levels. A pixel takes the
    hue with the best `fit` (180, h, w) float32 or, without `fit`, that of its color. `strip` pixels
    are rendered at once, which bounds the memory.
    """
    height, width = luma.shape
    lines = None if fit is None else np.ascontiguousarray(fit.transpose(1, 2, 0))
    rgb = np.empty((height, width, 3), np.uint8)
    step = max(1, strip // width)
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        x, y = upsampled(color, rows, height, width)
        if lines is None:
            angle = np.arctan2(y.astype(np.float64), x).astype(np.float32)
            hue = (angle * np.float32(HUES / (2 * math.pi))).round().astype(np.intp) % HUES
        else:
            hue = best_hues(lines, _impossible(), luma, rows.start, rows.stop)
        chroma = (x * _DIRECTIONS[0][hue] + y * _DIRECTIONS[1][hue]).round().clip(0, 255)
        rgb[rows] = compose(luma[rows], hue, chroma.astype(np.intp))
    return rgb


def upsampled(maps: np.ndarray, rows: slice, height: int, width: int) -> np.ndarray:
    """Some rows of (K, h, w) float32 interpolated bilinearly to (K, height, width).

    Each step uses a fused multiply-add, as torch's vector instructions do.
    """
    size = maps.shape[1:]
    place = np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5)
    place = (place * size[0] / height - 0.5).clip(0, size[0] - 1)
    above = place.astype(np.intp)
    below = np.minimum(above + 1, size[0] - 1)
    weight = (place - above)[:, None]
    slope = (maps[:, below] - maps[:, above]).astype(np.float64)
    near_above = maps[:, above] + weight * slope
    near_below = maps[:, below] + (weight - 1) * slope
    lines = np.where(weight < 0.5, near_above, near_below).astype(np.float32)
    scale = np.float64(np.float32(size[1]) / np.float32(width))
    place = ((np.arange(width) + 0.5) * scale - 0.5).astype(np.float32).clip(0)
    left = np.minimum(place.astype(np.intp), size[1] - 1)
    right = np.minimum(left + 1, size[1] - 1)
    weight = (place - left).astype(np.float32).clip(0, 1)
    near_left = lines[..., left].astype(np.float64) * (1 - weight)
    return (near_left + lines[..., right] * weight).astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True)
def best_hues(
    lines: np.ndarray, impossible: np.ndarray, luma: np.ndarray, first: int, last: int
) -> np.ndarray:
    """The hue that fits each pixel of rows first to last - 1 best, (last - first, W) uint8.

    `lines` (h, w, 180) float32 says how well each hue suits each cell, and is interpolated
    bilinearly; `impossible` (256, 180) float32 is added by `luma` (H, W). Ties go to the first hue.
    """
    rows, columns, count = lines.shape
    height, width = luma.shape
    hues = np.zeros((last - first, width), np.uint8)
    line, values = np.empty((columns, count), np.float32), np.empty(count, np.float32)
    for y in range(first, last):
        above, below, weight = _neighbours(y, rows, height)
        for i in range(columns):
            for k in range(count):
                line[i, k] = lines[above, i, k] + weight * (lines[below, i, k] - lines[above, i, k])
        for x in range(width):
            left, right, weight = _neighbours(x, columns, width)
            near, far, shown = line[left], line[right], impossible[luma[y, x]]
            best = np.float32(-1e9)
            for k in range(count):
                value = near[k] + weight * (far[k] - near[k]) + shown[k]
                values[k] = value
                best = max(best, value)
            for k in range(count):  # apart from the maximum, which the compiler vectorizes
                if values[k] == best:
                    hues[y - first, x] = k
                    break
    return hues


@numba.njit(inline="always")
def _neighbours(pixel: int, cells: int, pixels: int) -> tuple[int, int, float]:
    """The two cells nearest to a pixel's middle and the second one's weight, as in torch."""
    place = min(max((pixel + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
    cell = int(place)
    return cell, min(cell + 1, cells - 1), np.float32(place - cell)
