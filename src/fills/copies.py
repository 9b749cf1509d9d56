"""Copies of the photo's own texture: what people are shown in a hole.

Each lost pixel gets one of a few offsets and is copied from there, so that whole pieces of the
photo fill the hole, with seams where they show least. Sources: He and Sun, "Statistics of Patch
Offsets for Image Completion", ECCV 2012, for one of few offsets a pixel; Pritch, Kav-Venaki, Peleg,
"Shift-Map Image Editing", ICCV 2009, for the cost of a seam; Tappen and Freeman, "Comparison of
Graph Cuts with Belief Propagation for Stereo", ICCV 2003, for the order of the messages; Pérez,
Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003, for the blending. See `docs/restorer.md`.
"""

import math
from collections.abc import Iterator

import cv2
import numpy as np
import scipy.fft

from src.fills.reduce import reduced
from src.utils.compiled import compiled

WORK = 256  # root of the number of pixels among which offsets are looked for
NODES = 64  # root of the number of lost pixels among which they are chosen
RING = 10  # px of surroundings that a copy should match
PLACES = (
    3  # along each side of the hole, each of which looks for offsets that match what is near it
)
BEST = 6  # offsets of each place, and twice as many of the hole as a whole
SHARE = 0.6  # of the surroundings, and of the hole near a place, that must be known at an offset
NOISE = 0.02**2  # variance of texture that does not count
UNBIASED = 0.7  # share of the squared difference in brightness that does not count
CONTRAST = 0.5  # weight of a difference in contrast, relative to one in texture
SHARPNESS = 0.5  # weight of a ratio of sharpness, which tells what is in focus
FINE = 0.004  # sharpness that does not count
DISTANCE = 0.2  # weight of an offset as long as the image
FIT = 0.05  # weight of all these, in units of the luma
GUIDE = 1.0  # weight of the difference in brightness from the fill so far
BIAS = 0.1  # of brightness that is made up for, at most
WIDEST = 10.0  # px around a pixel whose surroundings count most, at most
RANK = 4  # an offset stays that is among the so many best of some pixel
SWEEPS = 4  # of belief propagation
NEVER = np.float32(1e6)  # cost of a copy of what is unknown
ROUNDS = 200  # of the blending, at most


def copy_texture(luma: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Replace a fill by copies from elsewhere in the photo.

    Deterministic; time and memory are proportional to the size of the image and of the hole.

    Args:
        luma: (H, W) float32 in [0, 1], filled everywhere; the copies have the brightness of this
            fill.
        known: (H, W) bool, what may be copied.
        wanted: (H, W) bool, what to replace, all of it unknown.

    Returns: (H, W) float32 in [0, 1]; what is not wanted is as it was; all is, where nothing can be
    copied.
    """
    factor = math.ceil(
        max(1, math.sqrt(luma.size) / WORK, math.sqrt(np.count_nonzero(wanted)) / NODES)
    )
    inner = cv2.erode(known.view(np.uint8), np.ones((5, 5), np.uint8)) > 0
    sharp = np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 1))
    sharp, _ = reduced(sharp, inner, factor)
    small, _ = reduced(luma, np.ones_like(known), factor)
    some_wanted = reduced(luma, wanted, factor)[1] > 0
    all_known = reduced(luma, known, factor)[1] > 0.999
    if not some_wanted.any() or not all_known.any():
        return luma
    offsets = _offsets(small, all_known, some_wanted, sharp)
    if not len(offsets):
        return luma
    labels, offsets = _labels(small, all_known, some_wanted, sharp, offsets)
    labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)[: luma.shape[0], : luma.shape[1]]
    return _blended(luma, known, wanted, labels, offsets * factor)


def _offsets(
    gray: np.ndarray, known: np.ndarray, lost: np.ndarray, sharp: np.ndarray
) -> np.ndarray:
    """(K, 2) offsets down and right at which the photo matches what is around the hole or a part of
    it."""
    height, width = gray.shape
    rows, columns = np.nonzero(lost)
    box = tuple(slice(max(0, n.min() - RING), n.max() + RING + 1) for n in (rows, columns))
    lost, ring = lost[box], _ring(lost, known)[box]
    k, g = (
        known.astype(np.float32),
        np.where(known, gray - gray[known].mean(), 0).astype(np.float32),
    )
    # source = place in the box + offset from its corner, and the box is what makes some of these
    # negative
    shape = [
        scipy.fft.next_fast_len(n + m, real=True)
        for n, m in zip(gray.shape, lost.shape, strict=True)
    ]

    def transform(*maps: np.ndarray) -> np.ndarray:
        return scipy.fft.rfft2(
            np.stack(maps).astype(np.float32), shape, workers=cv2.getNumThreads()
        )

    image, square, whole, edges = transform(g, g * g, k, sharp * k)
    steps = [np.arange(n) for n in shape]
    steps = [
        np.where(n < size, n, n - s) for n, size, s in zip(steps, gray.shape, shape, strict=True)
    ]
    steps = [n - line.start for n, line in zip(steps, box, strict=True)]
    length = DISTANCE * np.hypot(steps[0][:, None], steps[1]) / max(height, width)
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    count = max(1, min(PLACES, round(extent / 16)))
    spread = extent / count / 2 + 2
    found = set()
    for near in _places(lost, count, spread):
        around, inside = ring * near, lost * near
        if around.sum() < 1e-3 or inside.sum() < 1e-3:
            continue
        around, inside, here = around / around.sum(), inside / inside.sum(), g[box]
        a0, a1, a2, b = np.conj(transform(around, around * here, around * here**2, inside))
        products = (
            a0 * whole,
            a0 * square,
            a1 * image,
            a2 * whole,
            a0 * image,
            a1 * whole,
            b * whole,
            b * edges,
        )
        maps = scipy.fft.irfft2(np.stack(products), shape, workers=cv2.getNumThreads())
        seen, cover = np.maximum(maps[0], 1e-3), np.maximum(maps[6], 1e-3)
        cost = _mismatch(*(moment / seen for moment in maps[1:6]))
        cost += SHARPNESS * _ratio(maps[7] / cover, (around * sharp[box]).sum()) + length
        cost[(seen < SHARE) | (cover < SHARE)] = np.inf
        lowest = np.argwhere((cost == cv2.erode(cost, np.ones((3, 3), np.uint8))) & (cost < np.inf))
        best = np.argsort(cost[tuple(lowest.T)], kind="stable")[
            : 2 * BEST if np.ndim(near) == 0 else BEST
        ]
        found |= {(int(steps[0][y]), int(steps[1][x])) for y, x in lowest[best]}
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _ring(lost: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What is known within `RING` px of the lost, (H, W) float32."""
    near = cv2.dilate(lost.view(np.uint8), np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)) > 0
    return (near & known).astype(np.float32)


def _places(lost: np.ndarray, count: int, spread: float) -> Iterator[np.ndarray]:
    """Weights (h, w) of what is near each of count×count places in a box; before them 1, for the
    whole."""
    yield np.float32(1)
    y, x = (np.arange(n)[:, None] for n in lost.shape)
    for down in (np.arange(count) + 0.5) * lost.shape[0] / count:
        for right in (np.arange(count) + 0.5) * lost.shape[1] / count:
            yield np.exp(-((y - down) ** 2 + (x - right).T ** 2) / (2 * spread**2)).astype(
                np.float32
            )


def _mismatch(
    there2: np.ndarray, both: np.ndarray, here2: np.ndarray, there: np.ndarray, here: np.ndarray
) -> np.ndarray:
    """Of texture, about 1 where two have nothing in common; from the means of squares, products and
    values.

    A smooth piece differs less from a rough one than two rough ones do, so that the squared
    difference counts relative to both variances, and a difference in contrast counts as well.
    """
    difference = np.maximum(there2 - 2 * both + here2 - UNBIASED * (there - here) ** 2, 0)
    variances = [
        np.maximum(square - mean**2, 0) for square, mean in ((there2, there), (here2, here))
    ]
    a, b = map(np.sqrt, variances)
    return difference / (sum(variances) + NOISE) + CONTRAST * np.abs(a - b) / (
        a + b + math.sqrt(NOISE)
    )


def _ratio(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute logarithm of a ratio of sharpness."""
    return np.abs(np.log((np.maximum(one, 0) + FINE) / (np.maximum(other, 0) + FINE)))


def _shifted(image: np.ndarray, offset: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """A box of an image at an offset; 0 beyond the border."""
    moved = np.zeros([line.stop - line.start for line in box], image.dtype)
    of, to = [], []
    for d, line, size in zip(offset, box, image.shape, strict=True):
        first, last = max(0, line.start + d), min(size, line.stop + d)
        of.append(slice(first, max(first, last)))
        to.append(slice(first - d - line.start, max(first, last) - d - line.start))
    moved[tuple(to)] = image[tuple(of)]
    return moved


def _labels(
    gray: np.ndarray, known: np.ndarray, lost: np.ndarray, sharp: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) int32, the number of each lost pixel's offset and -1 elsewhere; and the offsets that
    stay."""
    rows, columns = np.nonzero(lost)
    pad = 2 * RING
    box = tuple(
        slice(max(0, n.min() - pad), min(s, n.max() + pad + 1))
        for n, s in zip((rows, columns), gray.shape, strict=True)
    )
    here, ring = gray[box], _ring(lost, known)[box]
    spread = min(max(3.0, 0.12 * max(np.ptp(rows), np.ptp(columns))), WIDEST)

    def blur(image: np.ndarray, sigma: float = spread) -> np.ndarray:
        side = round(math.sqrt(6) * sigma) | 1  # two boxes have a Gaussian's variance, in less time
        return cv2.boxFilter(
            cv2.boxFilter(image.astype(np.float32), -1, (side, side)), -1, (side, side)
        )

    expected, guide = blur(sharp[box] * ring) / (blur(ring) + 1e-9), blur(here, 3)
    values, costs = [], []
    for offset in offsets:
        there, fine = _shifted(gray, offset, box), _shifted(known, offset, box)
        seen = ring * fine
        share = blur(seen) + 1e-4 * seen.mean() + 1e-9
        a, b = there * seen, here * seen
        means = [blur(product) / share for product in (a * there, a * here, b * here, a, b)]
        smooth, covered = blur(there * fine, 3), np.maximum(blur(fine, 3), 1e-3)
        there = there - (means[3] - means[4]).clip(-BIAS, BIAS)
        fit = _mismatch(*means) + DISTANCE * np.hypot(*offset) / max(gray.shape)
        fit += SHARPNESS * _ratio(
            blur(_shifted(sharp, offset, box) * fine, 2) / np.maximum(blur(fine, 2), 1e-3), expected
        )
        low = smooth / covered - (means[3] - means[4]).clip(-BIAS, BIAS)
        costs.append(np.where(fine, FIT * fit + GUIDE * np.abs(low - guide), NEVER))
        values.append(np.where(fine, there, guide))
    values, costs = (
        np.ascontiguousarray(np.stack(maps, axis=-1), np.float32) for maps in (values, costs)
    )
    inside = costs[lost[box]]
    kth = min(RANK, len(offsets)) - 1
    stay = (inside <= np.partition(inside, kth, axis=1)[:, kth : kth + 1]).any(axis=0)
    labels = np.full(gray.shape, -1, np.int32)
    arrays = (np.ascontiguousarray(maps[..., stay]) for maps in (values, costs))
    labels[box] = _propagate(*arrays, lost[box], here.astype(np.float32))
    return labels, offsets[stay]


@compiled(fastmath=True)
def _propagate(
    values: np.ndarray, costs: np.ndarray, lost: np.ndarray, here: np.ndarray
) -> np.ndarray:
    """The labels (h, w) of least cost, -1 where not lost, by min-sum belief propagation in sweeps.

    Args:
        values, costs: (h, w, K) float32, what each label makes of each pixel, and its cost there.
        lost: (h, w) bool.
        here: (h, w) float32, the values beside the lost pixels.
    """
    height, width, count = values.shape
    sides = ((1, 0), (-1, 0), (0, 1), (0, -1))
    for y in range(height):
        for x in range(width):
            if lost[y, x]:
                for down, right in sides:
                    v, u = y + down, x + right
                    if 0 <= v < height and 0 <= u < width and not lost[v, u]:
                        for a in range(count):
                            costs[y, x, a] += 2 * abs(values[v, u, a] - here[v, u])
    came = np.zeros(
        (4, height, width, count), np.float32
    )  # messages, by the direction that they went in
    belief = np.empty(count, np.float32)
    for _ in range(SWEEPS):
        for direction in range(4):
            down, right = sides[direction]
            back = direction ^ 1
            for i in range(height):
                y = height - 1 - i if down < 0 else i
                for j in range(width):
                    x = width - 1 - j if right < 0 else j
                    v, u = y + down, x + right
                    if not lost[y, x] or not (0 <= v < height and 0 <= u < width) or not lost[v, u]:
                        continue
                    for a in range(count):
                        belief[a] = costs[y, x, a] - came[back, y, x, a]
                        for d in range(4):
                            belief[a] += came[d, y, x, a]
                    _message(came[direction, v, u], belief, values[y, x], values[v, u])
    labels = np.full((height, width), -1, np.int32)
    for y in range(height):
        for x in range(width):
            if lost[y, x]:
                for a in range(count):
                    belief[a] = costs[y, x, a]
                    for d in range(4):
                        belief[a] += came[d, y, x, a]
                labels[y, x] = np.argmin(belief)
    return labels


@compiled(fastmath=True)
def _message(message: np.ndarray, belief: np.ndarray, from_: np.ndarray, to: np.ndarray) -> None:
    """Write the least cost of each label of a pixel, whatever its neighbour's, whose belief is
    given.

    A seam costs what the two labels' copies differ by at both pixels, `from_` and `to`.
    """
    count = len(message)
    message[:] = NEVER
    for a in range(count):  # outside, so that the compiler makes the inner loop vector instructions
        cost, there, here = belief[a], from_[a], to[a]
        for b in range(count):
            total = cost + abs(from_[b] - there) + abs(to[b] - here)
            message[b] = total if total < message[b] else message[b]
    message -= message.min()


def _blended(
    luma: np.ndarray, known: np.ndarray, wanted: np.ndarray, labels: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """`luma` with the slopes of the copies where wanted; arguments as above, at full resolution."""
    places = np.argwhere(wanted)
    extent = int(np.ptp(places, axis=0).max()) + 1
    rounds = min(ROUNDS, 20 + 2 * extent)
    step = np.float32(
        2 / (1 + math.sin(math.pi / (extent + 1)))
    )  # the best over-relaxation of a square
    return _solve(luma, known, np.ascontiguousarray(labels), offsets, places, rounds, step)


@compiled()
def _slope(
    luma: np.ndarray, known: np.ndarray, y: int, x: int, v: int, u: int, offset: np.ndarray
) -> tuple[float, int]:
    """Luma at (y, x) less that at (v, u), both at an offset; and whether it is known there."""
    height, width = luma.shape
    a, b, c, d = y + offset[0], x + offset[1], v + offset[0], u + offset[1]
    if (
        0 <= a < height
        and 0 <= b < width
        and 0 <= c < height
        and 0 <= d < width
        and known[a, b]
        and known[c, d]
    ):
        return luma[a, b] - luma[c, d], 1
    return np.float32(0), 0


@compiled()
def _solve(
    luma: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray,
    offsets: np.ndarray,
    places: np.ndarray,
    rounds: int,
    step: float,
) -> np.ndarray:
    """Poisson's equation at `places` (N, 2) by successive over-relaxation.

    The slope between two pixels is that of their copies, the mean of both on a seam.
    """
    height, width = luma.shape
    result = luma.copy()
    goal, neighbours = np.zeros(len(places), np.float32), np.zeros(len(places), np.float32)
    for n in range(len(places)):
        y, x = places[n]
        label = labels[y, x]
        a, b = y + offsets[label, 0], x + offsets[label, 1]
        if 0 <= a < height and 0 <= b < width and known[a, b]:
            result[y, x] = luma[a, b]
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= v < height and 0 <= u < width):
                continue
            neighbours[n] += 1
            total, seen = _slope(luma, known, y, x, v, u, offsets[label])
            if labels[v, u] >= 0 and labels[v, u] != label:
                other, fine = _slope(luma, known, y, x, v, u, offsets[labels[v, u]])
                total, seen = total + other, seen + fine
            if seen:
                goal[n] += total / seen
    for _ in range(rounds):
        for n in range(len(places)):
            y, x = places[n]
            total = goal[n]
            if y > 0:
                total += result[y - 1, x]
            if y < height - 1:
                total += result[y + 1, x]
            if x > 0:
                total += result[y, x - 1]
            if x < width - 1:
                total += result[y, x + 1]
            result[y, x] += step * (total / neighbours[n] - result[y, x])
    for n in range(len(places)):
        y, x = places[n]
        result[y, x] = min(max(result[y, x], np.float32(0)), np.float32(1))
    return result
