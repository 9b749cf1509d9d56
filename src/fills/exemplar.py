"""Exemplar completion: a hole filled with the mean of the photo's best-fitting patches.

Sources: Wexler et al., PAMI 29 (3), 2007, for the votes of overlapping patches from coarse to fine;
Barnes et al., "PatchMatch", SIGGRAPH 2009, for the search. See `docs/restorer.md`.
"""

import cv2
import numba
import numpy as np

from src.fills.frequency import extrapolate
from src.fills.regions import Fill, depth_map, reduced, regions, thick_regions

COSTLY = 4  # channels of `costly_fills`
MAX_ERROR = 0.25  # larger errors are clipped: such a fill is useless
MIN_KNOWN = 0.5  # a reduced pixel counts as lost if a smaller share of it is known
RADIUS = 3  # px; a patch has 7×7
SIDE = 2 * RADIUS + 1
AREA = SIDE**2
MAX_BIAS = 0.15  # brightness differences between a patch and its copy are compensated up to this
BIAS_COST = 0.3  # cost of a squared difference in brightness, relative to one in texture


def costly_fills(
    gray: np.ndarray, mask: np.ndarray, wanted: np.ndarray | None = None
) -> np.ndarray:
    """The frequency-selective and the exemplar fill of thick regions, each followed by its error.

    Takes what `complete` takes. Returns (COSTLY, H, W) float32 in [0, 1]; errors are in units of
    `MAX_ERROR`, and 1 where a lost pixel was not filled.
    """
    maps = np.stack([gray, mask, gray, mask]).astype(np.float32)
    thick, _ = thick_regions(mask if wanted is None else mask & wanted)
    for box, region in regions(thick):
        for channel, fill in ((0, extrapolate), (2, complete)):
            luma, error = fill(gray[box], mask[box], region)
            maps[channel, *box][region] = luma[region]
            maps[channel + 1, *box][region] = (error[region] / MAX_ERROR).clip(max=1)
    return maps


def complete(gray: np.ndarray, mask: np.ndarray, wanted: np.ndarray | None = None) -> Fill:
    """Fill lost pixels with votes of the photo's patches that are most like what is around them.

    Args:
        gray: (H, W) float32 in [0, 1], any values where lost.
        mask: (H, W) bool, True where lost.
        wanted: (H, W) bool, the lost pixels to fill; all of them if None.

    Returns: the error is the root mean square of the voting patches' differences; lost pixels that
    are not wanted are a guess. An image with too few whole patches gets the fill of `extrapolate`.
    """
    levels = [(gray, mask, mask if wanted is None else wanted & mask)]
    # shallow holes need no coarser level; small images have none
    while depth_map(levels[-1][1]).max() > 4 and min(levels[-1][0].shape) > 4 * SIDE:
        gray, mask, wanted = levels[-1]
        mean, known = reduced(gray, mask, 2)
        _, share = reduced(gray, ~wanted, 2)
        levels.append((mean, known < MIN_KNOWN, (share > 0) & (known < MIN_KNOWN)))
    gray, mask, _ = levels[-1]
    fill, offsets = extrapolate(gray, mask), np.zeros((1, 1, 2), np.int32)
    for gray, mask, wanted in reversed(levels):
        height, width = gray.shape
        luma = cv2.resize(fill.luma, (width, height), interpolation=cv2.INTER_LINEAR)
        luma = np.where(mask, luma, gray)
        patch = np.ones((SIDE, SIDE), np.uint8)
        known = (~mask).view(np.uint8)
        sources = cv2.erode(known, patch, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        targets = cv2.dilate(wanted.view(np.uint8), patch)
        targets[:RADIUS] = targets[max(0, height - RADIUS) :] = 0
        targets[:, :RADIUS] = targets[:, max(0, width - RADIUS) :] = 0
        if sources.sum() < 4 * AREA or not targets.any():  # too little to copy from
            fill = extrapolate(gray, mask)
        else:
            fill, offsets = _search(luma, mask, wanted, sources, targets, offsets)
    return fill


def _search(
    luma: np.ndarray,
    mask: np.ndarray,
    wanted: np.ndarray,
    sources: np.ndarray,
    targets: np.ndarray,
    coarse: np.ndarray,
) -> tuple[Fill, np.ndarray]:
    """Search for patches and let them vote, four times.

    Args:
        luma: (H, W) float32 with a first fill; is changed.
        wanted: (H, W) bool, the lost pixels to vote on.
        sources, targets: (H, W) uint8, not 0 in the middle of patches without and with lost pixels.
        coarse: (h, w, 2) offsets from targets to sources at half the size, 0 where there is none.

    Returns: the fill; and the offsets at this size, (H, W, 2) int32.
    """
    # the deeper in the hole, the less a patch counts (Wexler et al.)
    trust = (0.9 ** depth_map(mask)).astype(np.float32)
    state = np.array([2463534242], np.uint32)  # the seed: the search is random but reproducible
    places = np.ascontiguousarray(np.argwhere(targets))
    rows, columns = places.T
    # the offsets of the coarser level, and random ones where these lead to no source
    last = np.array(coarse.shape[:2]) - 1
    found = places + 2 * coarse[tuple(np.minimum(places // 2, last).T)]
    framed = np.pad(sources, 1)
    fits = framed[tuple((found + 1).clip(0, np.array(framed.shape) - 1).T)] > 0
    every = np.argwhere(sources)
    for number in np.flatnonzero(~fits):
        found[number] = every[_random(state, len(every))]
    match = np.zeros((*sources.shape, 2), np.int32)
    match[rows, columns] = found - places
    mean = cv2.boxFilter(luma, -1, (SIDE, SIDE))
    cost, error = np.zeros_like(luma), np.zeros_like(luma)
    for _ in range(4):
        _measure(luma, mean, places, match, cost)
        _improve(luma, mean, sources, targets, places, match, cost, state, 1)
        _improve(luma, mean, sources, targets, places, match, cost, state, -1)
        # votes fall off with the upper quartile of the costs (Wexler et al.)
        spread = max(2 * np.quantile(cost[rows, columns].astype(np.float64), 0.75), 1e-4)
        _vote(luma, mean, wanted, places, match, cost, trust, spread, error)
    return Fill(luma, error), match


@numba.njit(cache=True, nogil=True)
def _random(state: np.ndarray, count: int) -> int:
    """The next of Marsaglia's xorshift numbers, modulo `count`; `state` is (1,) uint32."""
    state[0] ^= state[0] << np.uint32(13)
    state[0] ^= state[0] >> np.uint32(17)
    state[0] ^= state[0] << np.uint32(5)
    return np.int64(state[0] % np.uint32(count))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _cost(luma, mean, y, x, v, u, limit) -> float:
    """Squared difference of the patches around (y, x) and (v, u), or something above `limit`."""
    bias = min(max(mean[y, x] - mean[v, u], np.float32(-MAX_BIAS)), np.float32(MAX_BIAS))
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


@numba.njit(cache=True, nogil=True, fastmath=True)
def _measure(luma, mean, places, match, cost) -> None:
    """Write the mean and the cost of each target's patch to its middle."""
    for number in range(len(places)):
        y, x = places[number]
        total = np.float32(0)
        for row in range(y - RADIUS, y + RADIUS + 1):
            for column in range(x - RADIUS, x + RADIUS + 1):
                total += luma[row, column]
        mean[y, x] = total / AREA
    limit = np.float32(1e9)
    for number in range(len(places)):
        y, x = places[number]
        cost[y, x] = _cost(luma, mean, y, x, y + match[y, x, 0], x + match[y, x, 1], limit)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _improve(luma, mean, sources, targets, places, match, cost, state, step) -> None:
    """Try the neighbours' offsets, then random ones nearer and nearer; backwards if step is -1."""
    height, width = luma.shape
    for count in range(len(places)):
        y, x = places[count] if step == 1 else places[len(places) - 1 - count]
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


@numba.njit(cache=True, nogil=True, fastmath=True)
def _vote(luma, mean, wanted, places, match, cost, trust, spread, error) -> None:
    """Write the weighted mean of all patches that cover a wanted pixel, and their differences."""
    height, width = luma.shape
    total = np.zeros((height, width), np.float32)
    weight = np.zeros((height, width), np.float32)
    error[:] = 0
    for number in range(len(places)):
        y, x = places[number]
        v, u = y + match[y, x, 0], x + match[y, x, 1]
        bias = min(max(mean[y, x] - mean[v, u], np.float32(-MAX_BIAS)), np.float32(MAX_BIAS))
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
                error[y, x] = np.sqrt(error[y, x] / weight[y, x] / AREA)
            else:
                error[y, x] = 0
