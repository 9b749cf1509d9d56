"""Exemplar completion: a hole filled with the mean of those pieces of the photo that fit best.

Sources: Wexler, Shechtman, Irani, "Space-Time Completion of Video", PAMI 29 (3), 2007, for the
votes of overlapping patches from coarse to fine; Barnes, Shechtman, Finkelstein, Goldman,
"PatchMatch", SIGGRAPH 2009, for the search. See `docs/restorer.md`.
"""

import cv2
import numba
import numpy as np

from src.fills.base import Fill
from src.fills.frequency import extrapolate
from src.fills.reduce import reduced
from src.utils.compiled import compiled

RADIUS = 3  # of a patch, in pixels
SIDE = 2 * RADIUS + 1
AREA = SIDE**2
LEAST_SOURCES = 4 * AREA  # patches to copy from; a level that has fewer is not searched
COARSE_DEPTH = 4  # px; a hole that is no deeper needs no coarser level
LEAST_KNOWN = 0.5  # share of a reduced pixel that must be known for it to count as known
LEAST_SIDE = 4 * SIDE  # px; an image that is no larger is not reduced
PASSES = 4  # searches, each followed by a vote, at each level
BIAS = 0.15  # of the brightness between a patch and its copy that is made up for, at most
BIAS_COST = 0.3  # of a squared difference in brightness, relative to one in texture
DEPTH_TRUST = 0.9  # weight of a patch one pixel deeper in the hole (Wexler et al.)
SPREAD = 75  # percentile of the patches' costs that a vote's weight falls off with (Wexler et al.)
SEED = 2463534242  # of Marsaglia's xorshift: the search is random, but always the same
WORST = np.float32(1e9)


def complete(gray: np.ndarray, known: np.ndarray, wanted: np.ndarray | None = None) -> Fill:
    """Fill unknown pixels by votes of the photo's patches that are most like their surroundings.

    The result is deterministic. Time is proportional to the number of `wanted` pixels and, a
    hundred times less, to the size of the image; memory to the latter.

    Args:
        gray: (H, W) float32 in [0, 1], any values where unknown.
        known: (H, W) bool.
        wanted: (H, W) bool, the unknown pixels to fill; all of them if None.

    Returns: the doubt is the root mean square of what the voting patches differ by. Known pixels
    are as they were; what is not wanted is a guess. Where the image has too few whole patches, this
    is the fill of `extrapolate`.
    """
    levels = [(gray, known, ~known if wanted is None else wanted & ~known)]
    while _depth(levels[-1][1]).max() > COARSE_DEPTH and min(levels[-1][0].shape) > LEAST_SIDE:
        gray, known, wanted = levels[-1]
        mean, share = reduced(gray, known, 2)
        coarse_known = share >= LEAST_KNOWN
        part, _ = reduced(wanted.astype(np.float32), np.ones_like(known), 2)
        levels.append((mean, coarse_known, (part > 0) & ~coarse_known))
    gray, known, _ = levels[-1]
    fill, offsets = extrapolate(gray, known), np.zeros((1, 1, 2), np.int32)
    for gray, known, wanted in reversed(levels):
        height, width = gray.shape
        luma = cv2.resize(fill.luma, (width, height), interpolation=cv2.INTER_LINEAR)
        luma = np.where(known, gray, luma)
        patch = np.ones((SIDE, SIDE), np.uint8)
        sources = cv2.erode(
            known.view(np.uint8), patch, borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        targets = cv2.dilate(wanted.view(np.uint8), patch)
        targets[:RADIUS] = targets[max(0, height - RADIUS) :] = 0
        targets[:, :RADIUS] = targets[:, max(0, width - RADIUS) :] = 0
        if sources.sum() < LEAST_SOURCES or not targets.any():
            fill = extrapolate(gray, known)
            continue
        means = cv2.boxFilter(luma, -1, (SIDE, SIDE))
        trust = (DEPTH_TRUST ** _depth(known)).astype(np.float32)
        coarse, offsets = offsets, np.zeros((height, width, 2), np.int32)
        fill = Fill(*_search(luma, wanted, sources, targets, means, trust, coarse, offsets))
    return fill


def _depth(known: np.ndarray) -> np.ndarray:
    """Distance of each unknown pixel from the nearest known one, in pixels."""
    return cv2.distanceTransform((~known).view(np.uint8), cv2.DIST_L2, 3)


@numba.njit(inline="always")
def _random(state: np.ndarray, count: int) -> int:
    """The next of Marsaglia's xorshift numbers, modulo `count`."""
    state[0] ^= state[0] << np.uint32(13)
    state[0] ^= state[0] >> np.uint32(17)
    state[0] ^= state[0] << np.uint32(5)
    return np.int64(state[0] % np.uint32(count))


@compiled(fastmath=True)
def _cost(
    luma: np.ndarray, mean: np.ndarray, y: int, x: int, v: int, u: int, limit: float
) -> float:
    """Squared difference of the patches around (y, x) and (v, u), or something above `limit`."""
    bias = min(max(mean[y, x] - mean[v, u], np.float32(-BIAS)), np.float32(BIAS))
    total = np.float32(BIAS_COST * AREA) * bias * bias
    for row in range(-RADIUS, RADIUS + 1):
        part = np.float32(0)
        for column in range(-RADIUS, RADIUS + 1):
            difference = luma[y + row, x + column] - luma[v + row, u + column] - bias
            part += difference * difference
        total += part
        if total >= limit:
            break
    return total


@compiled(fastmath=True)
def _means(luma: np.ndarray, patches: np.ndarray, mean: np.ndarray) -> None:
    """Write the mean of each patch to its middle."""
    for number in range(len(patches)):
        y, x = patches[number]
        total = np.float32(0)
        for row in range(y - RADIUS, y + RADIUS + 1):
            for column in range(x - RADIUS, x + RADIUS + 1):
                total += luma[row, column]
        mean[y, x] = total / AREA


@compiled()
def _places(where: np.ndarray) -> np.ndarray:
    """(N, 2) rows and columns of what is not 0."""
    places = np.empty((np.count_nonzero(where), 2), np.int64)
    count = 0
    for y in range(where.shape[0]):
        for x in range(where.shape[1]):
            if where[y, x]:
                places[count, 0], places[count, 1] = y, x
                count += 1
    return places


@compiled(fastmath=True)
def _search(
    luma: np.ndarray,
    wanted: np.ndarray,
    sources: np.ndarray,
    targets: np.ndarray,
    mean: np.ndarray,
    trust: np.ndarray,
    coarse: np.ndarray,
    match: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Search and vote `PASSES` times; returns luma and doubt.

    Args:
        luma: (H, W) float32 with a first fill.
        wanted: (H, W) bool, the pixels to vote on.
        sources, targets: (H, W), not 0 in the middle of whole patches and of patches with lost
            pixels.
        mean: (H, W) of the patch around each pixel; those of the targets are kept up to date.
        trust: (H, W) weights of the targets.
        coarse: (h, w, 2) offsets from targets to sources at half the size, 0 where there is none.
        match: (H, W, 2) int32, is written to: the offsets at this size.
    """
    height, width = luma.shape
    state = np.array([SEED], np.uint32)
    cost = np.zeros((height, width), np.float32)
    total, weight, error = np.empty_like(cost), np.empty_like(cost), np.empty_like(cost)
    from_, to = _places(sources), _places(targets)
    for number in range(len(to)):
        y, x = to[number]
        up = coarse[min(y // 2, coarse.shape[0] - 1), min(x // 2, coarse.shape[1] - 1)]
        v, u = y + 2 * up[0], x + 2 * up[1]
        if not (0 <= v < height and 0 <= u < width and sources[v, u]):
            v, u = from_[_random(state, len(from_))]
        match[y, x, 0], match[y, x, 1] = v - y, u - x
    costs = np.empty(len(to), np.float32)
    for _ in range(PASSES):
        _means(luma, to, mean)
        for number in range(len(to)):
            y, x = to[number]
            cost[y, x] = _cost(luma, mean, y, x, y + match[y, x, 0], x + match[y, x, 1], WORST)
        _improve(luma, mean, sources, targets, to, match, cost, state, 1)
        _improve(luma, mean, sources, targets, to, match, cost, state, -1)
        for number in range(len(to)):
            costs[number] = cost[to[number, 0], to[number, 1]]
        spread = max(2 * np.percentile(costs, SPREAD), 1e-4)
        total[:], weight[:], error[:] = 0, 0, 0
        for number in range(len(to)):
            y, x = to[number]
            v, u = y + match[y, x, 0], x + match[y, x, 1]
            bias = min(max(mean[y, x] - mean[v, u], np.float32(-BIAS)), np.float32(BIAS))
            w = np.float32(np.exp(-cost[y, x] / spread)) * trust[y, x] + np.float32(1e-12)
            for row in range(-RADIUS, RADIUS + 1):
                for column in range(-RADIUS, RADIUS + 1):
                    total[y + row, x + column] += w * (luma[v + row, u + column] + bias)
                    error[y + row, x + column] += w * cost[y, x]
                    weight[y + row, x + column] += w
        for y in range(height):
            for x in range(width):
                if wanted[y, x]:
                    luma[y, x] = min(max(total[y, x] / weight[y, x], np.float32(0)), np.float32(1))
    doubt = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            if wanted[y, x]:
                doubt[y, x] = np.sqrt(error[y, x] / weight[y, x] / AREA)
    return luma, doubt


@compiled(fastmath=True)
def _improve(
    luma: np.ndarray,
    mean: np.ndarray,
    sources: np.ndarray,
    targets: np.ndarray,
    to: np.ndarray,
    match: np.ndarray,
    cost: np.ndarray,
    state: np.ndarray,
    step: int,
) -> None:
    """Try the neighbours' offsets, then random ones nearer and nearer; the last patch first if step
    is -1."""
    height, width = luma.shape
    for count in range(len(to)):
        y, x = to[count] if step == 1 else to[len(to) - 1 - count]
        down, right, best = match[y, x, 0], match[y, x, 1], cost[y, x]
        for a, b in ((y - step, x), (y, x - step)):
            if 0 <= a < height and 0 <= b < width and targets[a, b]:
                v, u = y + match[a, b, 0], x + match[a, b, 1]
                if 0 <= v < height and 0 <= u < width and sources[v, u]:
                    found = _cost(luma, mean, y, x, v, u, best)
                    if found < best:
                        down, right, best = v - y, u - x, found
        reach = max(height, width)
        while reach >= 1:
            v = y + down + _random(state, 2 * reach + 1) - reach
            u = x + right + _random(state, 2 * reach + 1) - reach
            if 0 <= v < height and 0 <= u < width and sources[v, u]:
                found = _cost(luma, mean, y, x, v, u, best)
                if found < best:
                    down, right, best = v - y, u - x, found
            reach //= 2
        match[y, x, 0], match[y, x, 1], cost[y, x] = down, right, best
