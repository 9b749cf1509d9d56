"""Copies of the photo's own texture, which the visual style puts into holes.

Each lost pixel gets one of a few offsets and is copied from there, so whole pieces of the photo
fill the hole, with inconspicuous seams. Sources: He, Sun, ECCV 2012 (few offsets); Pritch et
al., ICCV 2009 (cost of a seam); Tappen, Freeman, ICCV 2003 (order of the messages); Pérez et al.,
SIGGRAPH 2003 (blending). See `docs/restorer.md`.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numba
import numpy as np
import scipy.fft
from PIL import Image

from src.color.dino import MULTIPLE, VIEW
from src.fills.regions import MARGIN, Box, box_with_margin, reduced, regions, thick_regions

RING = 10  # px of surroundings that a copy should match
NOISE = 0.02**2  # texture variance that is ignored
SHARPNESS = 0.5  # weight of the ratio of sharpness, which tells what is in focus
DISTANCE = 0.2  # cost of an offset as long as the image
MAX_COST = np.float32(1e6)  # cost of copying a lost pixel
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # down and right, to the neighbours of a pixel


def textured(luma: np.ndarray, mask: np.ndarray, search: int = 256) -> np.ndarray:
    """(H, W) uint8 with copies of the photo's texture in its thick damage; `luma` is (H, W) uint8,
    filled where `mask` (H, W) bool is True; each region's surroundings are reduced to about
    `search`² pixels to find copies, to fewer if much is lost.
    """
    result = luma.copy()
    thick, factor = thick_regions(mask)
    search //= factor

    def fill(job: tuple[Box, np.ndarray]) -> None:
        box, region = job
        copies = copy_texture(luma[box].astype(np.float32) / 255, mask[box], region, search)
        result[box][region] = (copies[region] * 255).round().astype(np.uint8)

    with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as threads:
        list(threads.map(fill, regions(thick, MARGIN)))
    return result


def color_view(luma: np.ndarray, mask: np.ndarray, size: int = VIEW) -> np.ndarray:
    """What DINOv2 and the colorizer see of a photo (H, W) uint8 that is filled where `mask` (H, W)
    bool is True: about `size`² pixels of its aspect ratio, up to 64:1, with its own texture in the
    hole; (h, w) uint8, its sides multiples of `MULTIPLE`."""
    scale = size / math.sqrt(luma.size) / MULTIPLE
    # more tokens would need too much memory
    sides = [min(64, max(1, round(side * scale))) * MULTIPLE for side in luma.shape]
    small, lost = (
        np.asarray(Image.fromarray(image).resize(sides[::-1], Image.Resampling.BILINEAR))
        for image in (luma, mask * np.uint8(255))
    )
    return textured(small, lost > 0, search=size // 4)


def copy_texture(
    luma: np.ndarray, mask: np.ndarray, wanted: np.ndarray, search: int = 256
) -> np.ndarray:
    """Replace a fill with copies from elsewhere in the photo, deterministically.

    `luma` (H, W) float32 in [0, 1] is filled everywhere; the copies get this fill's brightness. It
    is returned unchanged if nothing can be copied. `wanted` (H, W) bool are the pixels to replace;
    pixels outside `mask` (H, W) bool may be copied.
    """
    # offsets are searched among about search² pixels, and chosen for about 64² lost ones
    factor = max(1, math.sqrt(luma.size) / search, math.sqrt(np.count_nonzero(wanted)) / 64)
    factor = math.ceil(factor)
    blurred = np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 1))
    near_lost = cv2.erode((~mask).view(np.uint8), np.ones((5, 5), np.uint8)) == 0
    sharp, _ = reduced(blurred, near_lost, factor)
    small, _ = reduced(luma, np.zeros_like(mask), factor)
    known = reduced(luma, mask, factor)[1] > 0.999
    hole = reduced(luma, ~wanted, factor)[1] > 0
    if not hole.any() or not known.any():
        return luma
    near = cv2.dilate(hole.view(np.uint8), np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)) > 0
    ring = (near & known).astype(np.float32)
    offsets = _offsets(small, known, hole, ring, sharp)
    if not len(offsets):
        return luma
    labels, offsets = _labels(small, known, hole, ring, sharp, offsets)
    labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)[: luma.shape[0], : luma.shape[1]]
    return _blended(luma, mask, wanted, labels, offsets * factor)


def _offsets(
    gray: np.ndarray, known: np.ndarray, hole: np.ndarray, ring: np.ndarray, sharp: np.ndarray
) -> np.ndarray:
    """(K, 2) offsets down and right at which the photo matches the ring or a part of it."""
    box = box_with_margin(hole, RING)
    extent = int(np.ptp(np.argwhere(hole), axis=0).max()) + 1
    ring, lost = ring[box], hole[box]
    k = known.astype(np.float32)
    g = np.where(known, gray - gray[known].mean(), 0).astype(np.float32)
    # source = place in the box + offset from its corner, which makes some offsets negative
    sizes = list(zip(gray.shape, lost.shape, strict=True))
    shape = [scipy.fft.next_fast_len(n + m, real=True) for n, m in sizes]
    spectra = _transform(shape, g, g * g, k, sharp * k)
    steps = [np.arange(n) for n in shape]
    down, right = (
        np.where(n < size, n, n - len(n)) - line.start
        for n, size, line in zip(steps, gray.shape, box, strict=True)
    )
    length = DISTANCE * np.hypot(down[:, None], right) / max(gray.shape)
    # the whole hole, and up to three places along each side, for 12 and 4 offsets
    count = max(1, min(3, round(extent / 16)))
    found = set()
    for number, near in enumerate(_places(lost, count, extent / count / 2 + 2)):
        around, inside = ring * near, lost * near
        if around.sum() < 1e-3 or inside.sum() < 1e-3:
            continue
        around, inside = around / around.sum(), inside / inside.sum()
        weights = _transform(shape, around, around * g[box], around * g[box] ** 2, inside)
        cost = _offset_costs(shape, spectra, weights, (around * sharp[box]).sum(), length)
        lowest = np.argwhere((cost == cv2.erode(cost, np.ones((3, 3), np.uint8))) & (cost < np.inf))
        best = np.argsort(cost[tuple(lowest.T)], kind="stable")[: 4 if number else 12]
        found |= {(int(down[y]), int(right[x])) for y, x in lowest[best]}
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _transform(shape: list[int], *maps: np.ndarray) -> np.ndarray:
    return scipy.fft.rfft2(np.stack(maps).astype(np.float32), shape, workers=cv2.getNumThreads())


def _offset_costs(
    shape: list[int], spectra: np.ndarray, weights: np.ndarray, sharp: float, length: np.ndarray
) -> np.ndarray:
    """Misfit of the photo at each offset, an array of `shape`; infinite if too little is known."""
    min_share = 0.6  # known at an offset, both of the surroundings and of the hole
    image, square, whole, edges = spectra
    # of weights around a place, these times the photo and its square there, and inside the hole
    a0, a1, a2, b = np.conj(weights)
    products = [a0 * whole, a0 * square, a1 * image, a2 * whole, a0 * image, a1 * whole]
    products = np.stack([*products, b * whole, b * edges])
    seen, *sums, cover, sharpness = scipy.fft.irfft2(products, shape, workers=cv2.getNumThreads())
    seen, cover = np.maximum(seen, 1e-3), np.maximum(cover, 1e-3)
    cost = _mismatch(*(sums / seen))
    cost += SHARPNESS * _ratio(sharpness / cover, sharp) + length
    cost[(seen < min_share) | (cover < min_share)] = np.inf
    return cost


def _places(hole: np.ndarray, count: int, spread: float) -> Iterator[np.ndarray]:
    """Weights (h, w): 1 for the whole box, then what is near each of count × count places in it."""
    yield np.float32(1)
    y, x = np.ogrid[: hole.shape[0], : hole.shape[1]]
    for row, column in np.ndindex(count, count):
        down = (row + 0.5) * hole.shape[0] / count
        right = (column + 0.5) * hole.shape[1] / count
        distance = (y - down) ** 2 + (x - right) ** 2
        yield np.exp(-distance / (2 * spread**2)).astype(np.float32)


def _mismatch(
    there2: np.ndarray, both: np.ndarray, here2: np.ndarray, there: np.ndarray, here: np.ndarray
) -> np.ndarray:
    """About 1 where two textures have nothing in common; from means of squares, products, values.
    Difference and contrast count relative to both variances: smooth pieces differ less than rough
    ones."""
    difference = np.maximum(there2 - 2 * both + here2 - 0.7 * (there - here) ** 2, 0)
    there_variance = np.maximum(there2 - there**2, 0)
    here_variance = np.maximum(here2 - here**2, 0)
    a, b = np.sqrt(there_variance), np.sqrt(here_variance)
    contrast = 0.5 * np.abs(a - b) / (a + b + math.sqrt(NOISE))
    return difference / (there_variance + here_variance + NOISE) + contrast


def _ratio(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute logarithm of a ratio of sharpness."""
    noise = 0.004  # sharpness that is ignored
    return np.abs(np.log((np.maximum(one, 0) + noise) / (np.maximum(other, 0) + noise)))


def _shifted(image: np.ndarray, offset: np.ndarray, box: Box) -> np.ndarray:
    """A box of an image at an offset; 0 beyond the border."""
    y, x = (places + shift for places, shift in zip(np.ogrid[box], offset, strict=True))
    inside = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
    return image[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)] * inside


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """A blur of two boxes, which has a Gaussian's variance and takes less time."""
    side = round(math.sqrt(6) * sigma) | 1
    once = cv2.boxFilter(image.astype(np.float32), -1, (side, side))
    return cv2.boxFilter(once, -1, (side, side))


def _labels(
    gray: np.ndarray,
    known: np.ndarray,
    hole: np.ndarray,
    ring: np.ndarray,
    sharp: np.ndarray,
    offsets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The number of each lost pixel's offset, -1 elsewhere, (H, W) int32; and the offsets used."""
    box = box_with_margin(hole, 2 * RING)
    extent = int(np.ptp(np.argwhere(hole), axis=0).max())
    spread = min(max(3.0, 0.12 * extent), 10.0)  # px around a pixel whose surroundings count most
    max_bias = 0.1  # brightness differences up to this are compensated
    here, ring = gray[box], ring[box]
    expected = _blur(sharp[box] * ring, spread) / (_blur(ring, spread) + 1e-9)
    guide = _blur(here, 3)
    values, costs = [], []
    for offset in offsets:
        there, known_there = _shifted(gray, offset, box), _shifted(known, offset, box)
        seen = ring * known_there
        share = _blur(seen, spread) + 1e-4 * seen.mean() + 1e-9
        a, b = there * seen, here * seen
        products = (a * there, a * here, b * here, a, b)
        means = [_blur(product, spread) / share for product in products]
        bias = (means[3] - means[4]).clip(-max_bias, max_bias)
        smooth = _blur(there * known_there, 3) / np.maximum(_blur(known_there, 3), 1e-3)
        sharpness = _blur(_shifted(sharp, offset, box) * known_there, 2)
        sharpness /= np.maximum(_blur(known_there, 2), 1e-3)
        fit = _mismatch(*means) + DISTANCE * np.hypot(*offset) / max(gray.shape)
        fit += SHARPNESS * _ratio(sharpness, expected)
        cost = 0.05 * fit + np.abs(smooth - bias - guide)
        costs.append(np.where(known_there, cost, MAX_COST))
        values.append(np.where(known_there, there - bias, guide))
    values = np.ascontiguousarray(np.stack(values, axis=-1), np.float32)
    costs = np.ascontiguousarray(np.stack(costs, axis=-1), np.float32)
    # keep offsets that are among the four best of some pixel
    inside = costs[hole[box]]
    kth = min(4, len(offsets)) - 1
    stay = (inside <= np.partition(inside, kth, axis=1)[:, kth : kth + 1]).any(axis=0)
    values, costs = (np.ascontiguousarray(maps[..., stay]) for maps in (values, costs))
    labels = np.full(gray.shape, -1, np.int32)
    labels[box] = _propagate(values, costs, hole[box], here.astype(np.float32))
    return labels, offsets[stay]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _propagate(values, costs, hole, here) -> np.ndarray:
    """The labels (h, w) int32 of least cost, -1 where not lost, by min-sum belief propagation.

    `values` and `costs` (h, w, K) float32 are the value each label gives a pixel, and its cost
    there; `here` (h, w) float32 is the photo beside the hole.
    """
    height, width, count = values.shape
    sides = ((1, 0), (-1, 0), (0, 1), (0, -1))
    for y in range(height):
        for x in range(width):
            if hole[y, x]:
                for down, right in sides:
                    v, u = y + down, x + right
                    if 0 <= v < height and 0 <= u < width and not hole[v, u]:
                        for a in range(count):
                            costs[y, x, a] += 2 * abs(values[v, u, a] - here[v, u])
    messages = np.zeros((4, height, width, count), np.float32)  # by direction of travel
    belief = np.empty(count, np.float32)
    for _ in range(3):
        for direction in range(4):
            down, right = sides[direction]
            back = direction ^ 1
            for i in range(height):
                y = height - 1 - i if down < 0 else i
                for j in range(width):
                    x = width - 1 - j if right < 0 else j
                    v, u = y + down, x + right
                    if not hole[y, x] or not (0 <= v < height and 0 <= u < width) or not hole[v, u]:
                        continue
                    for a in range(count):
                        belief[a] = costs[y, x, a] - messages[back, y, x, a]
                        for d in range(4):
                            belief[a] += messages[d, y, x, a]
                    _message(messages[direction, v, u], belief, values[y, x], values[v, u])
    labels = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            labels[y, x], lowest = -1, MAX_COST * 1e3
            for a in range(count if hole[y, x] else 0):
                total = costs[y, x, a]
                for d in range(4):
                    total += messages[d, y, x, a]
                if total < lowest:
                    labels[y, x], lowest = a, total
    return labels


@numba.njit(cache=True, nogil=True, fastmath=True)
def _message(message, belief, sources, targets) -> None:
    """Write the least cost of each label of a pixel over the labels of its neighbour.

    All are (K,) float32: `belief` is the cost of the neighbour's labels; `sources` and `targets`
    are what the labels make of the neighbour and of the pixel, whose differences a seam costs.
    """
    count = len(message)
    for b in range(count):
        message[b] = MAX_COST
    for a in range(count):  # outside, so that the compiler vectorizes the inner loop
        cost, there, here = belief[a], sources[a], targets[a]
        for b in range(count):
            total = cost + abs(sources[b] - there) + abs(targets[b] - here)
            message[b] = total if total < message[b] else message[b]
    lowest = message[0]
    for b in range(count):
        lowest = min(lowest, message[b])
    for b in range(count):
        message[b] -= lowest


def _blended(
    luma: np.ndarray, mask: np.ndarray, wanted: np.ndarray, labels: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """`luma` with the slopes of the copies where wanted, by Poisson's equation; the slope between
    two pixels is that of their copies, the mean of both on a seam."""
    framed_luma = np.pad(np.where(mask, np.nan, luma), 1, constant_values=np.nan)
    beyond = -2
    framed_labels = np.pad(labels, 1, constant_values=beyond)

    def known(places: np.ndarray) -> np.ndarray:
        """(N,) luma at (N, 2) places, NaN where it is lost or beyond the border."""
        return framed_luma[tuple((places + 1).clip(0, np.array(framed_luma.shape) - 1).T)]

    places = np.argwhere(wanted)
    label = labels[wanted]
    sources = places + offsets[label]
    copied = known(sources)
    result = luma.copy()
    result[wanted] = np.where(np.isnan(copied), luma[wanted], copied)
    goal, neighbours = np.zeros(len(places), np.float32), np.zeros(len(places), np.float32)
    for step in STEPS:
        other = framed_labels[tuple((places + step + 1).T)]
        neighbours += other != beyond
        other_sources = places + offsets[other.clip(0)]
        seam = (other >= 0) & (other != label)
        other_slope = np.where(seam, known(other_sources) - known(other_sources + step), np.nan)
        slopes = np.stack([copied - known(sources + step), other_slope])
        seen = np.count_nonzero(~np.isnan(slopes), axis=0)
        goal += np.where(other != beyond, np.nansum(slopes, axis=0) / seen.clip(1), 0)
    extent = int(np.ptp(places, axis=0).max()) + 1
    rounds = min(200, 20 + extent)
    relaxation = np.float32(2 / (1 + math.sin(math.pi / (extent + 1))))  # optimal for a square
    _relax(result, places, goal, neighbours, rounds, relaxation)
    result[wanted] = result[wanted].clip(0, 1)
    return result


@numba.njit(cache=True, nogil=True)
def _relax(result, places, goal, neighbours, rounds, relaxation) -> None:
    """Solve Poisson's equation at `places` (N, 2) of `result` by successive over-relaxation; `goal`
    (N,) is the sum of the slopes to the neighbours, of which there are `neighbours` (N,)."""
    height, width = result.shape
    for _ in range(rounds):
        for n in range(len(places)):
            y, x = places[n]
            total = goal[n]
            for down, right in STEPS:
                v, u = y + down, x + right
                if 0 <= v < height and 0 <= u < width:
                    total += result[v, u]
            result[y, x] += relaxation * (total / neighbours[n] - result[y, x])
