"""Frequency-selective extrapolation: the waves of the surroundings, continued across a hole.

Sources: Seiler, Kaup, IEEE Signal Processing Letters 17 (11), 2010; Genser et al., PCS 2018, for
the order of the blocks. See `docs/restorer.md`.
"""

import heapq
from functools import partial

import numba
import numpy as np
import scipy.fft

from src.fills.regions import Fill, box_with_margin
from src.utils.processes import on_threads

WINDOW = 64  # px, side of the surroundings that a block is modelled on
BLOCK = 4  # px, side of a block, filled at once
EDGE = (WINDOW - BLOCK) // 2  # px of surroundings on each side of a block
TRUST = 0.5  # weight of a pixel that was itself extrapolated, relative to one that was not lost
MAX_WAVES = 60  # per block
STEP = 0.5  # share of a wave's amplitude subtracted per round, since waves are not orthogonal
MIN_AMPLITUDE = 0.003  # fainter waves fit noise; they cost time and lower M
HALF = WINDOW // 2  # columns of the spectrum that are kept: all others but the highest mirror them
TABLE = np.exp(2j * np.pi * np.arange(WINDOW) / WINDOW).astype(np.complex64)
COS, SIN = TABLE.real.copy(), TABLE.imag.copy()

# the farther from the block, the less a pixel counts
_DISTANCE = np.arange(WINDOW) - (EDGE + (BLOCK - 1) / 2)
WEIGHTS = (0.8 ** np.hypot(_DISTANCE[:, None], _DISTANCE)).astype(np.float32)
# high frequencies are weak in photos, so they must be stronger to be chosen
_STEPS = np.minimum(np.arange(WINDOW), WINDOW - np.arange(WINDOW))
_FREQUENCY = np.hypot(_STEPS[:, None], _STEPS[:HALF]) * np.sqrt(2) / WINDOW
PRIOR = ((1 - _FREQUENCY.clip(max=1)) ** 2).astype(np.float32)


def extrapolate(gray: np.ndarray, mask: np.ndarray, wanted: np.ndarray | None = None) -> Fill:
    """Fill lost pixels with sums of a few waves that fit the surroundings.

    Blocks of 4×4 pixels are filled from the outside in, the best supported one next. The result
    does not depend on the number of threads.

    Args:
        gray: (H, W) float32 in [0, 1], any values where lost.
        mask: (H, W) bool, True where lost.
        wanted: (H, W) bool, the lost pixels to fill; all of them if None.

    Returns: the error is the root mean square of what the waves leave unexplained of the
    surroundings. Both are 0.5 for lost pixels that are not wanted, and if all is lost.
    """
    wanted = mask if wanted is None else wanted & mask
    luma = np.where(mask, np.float32(0.5), gray)
    error = np.where(mask, np.float32(0.5), np.float32(0))
    if not wanted.any() or mask.all():
        return Fill(luma, error)
    # all that the windows of the wanted blocks see, and what is beyond the image
    border = EDGE, EDGE + BLOCK - 1
    sides = ((line, -(-(line.stop - line.start) // BLOCK)) for line in box_with_margin(wanted, 0))
    box = tuple(slice(line.start, line.start + n * BLOCK + 2 * EDGE) for line, n in sides)
    maps = np.stack([luma, ~mask, np.zeros_like(luma)])  # luma, its weight, its error
    maps, lost = np.pad(maps, ((0, 0), border, border)), np.pad(wanted, border)[box]
    state = maps[:, *box].copy()
    for blocks in _blocks_by_step(state[1].copy(), lost):
        _write(state, lost, blocks, on_threads(partial(_model, state), blocks))
    maps[:, *box] = state
    found, weight, rms = maps[:, *(slice(EDGE, EDGE + side) for side in mask.shape)]
    filled = wanted & (weight > 0)
    luma[filled], error[filled] = found[filled], rms[filled]
    return Fill(luma, error)


def _blocks_by_step(weight: np.ndarray, lost: np.ndarray) -> list[np.ndarray]:
    """Blocks, (N, 2) rows and columns per step, that can be filled at once after the step before.

    The best supported block comes first, then the best supported with that one filled, and so on. A
    block's step is one more than the last step among the blocks near it that come before.

    `weight` (H, W) float32 of each pixel is changed; `lost` is (H, W) bool.
    """
    near = 2  # blocks; waiting for blocks farther away gains nothing
    inner = lost[EDGE:-EDGE, EDGE:-EDGE]
    grid = inner.shape[0] // BLOCK, inner.shape[1] // BLOCK
    waiting = inner.reshape(grid[0], BLOCK, grid[1], BLOCK).any(axis=(1, 3))
    support, heap = np.zeros(grid, np.float32), []

    def push(places: np.ndarray) -> None:
        _support(weight, places, support)
        for row, column in places.tolist():
            if support[row, column] > 0:
                heapq.heappush(heap, (-support[row, column], row, column))

    push(np.ascontiguousarray(np.argwhere(waiting)))
    blocks, steps = [], np.zeros(grid, np.int64)
    while heap:
        minus, row, column = heapq.heappop(heap)
        if not waiting[row, column] or -minus != support[row, column]:
            continue
        top, left = max(0, row - near), max(0, column - near)
        steps[row, column] = steps[top : row + near + 1, left : column + near + 1].max() + 1
        blocks.append((row, column))
        waiting[row, column] = False
        top, left = EDGE + row * BLOCK, EDGE + column * BLOCK
        pixels = np.s_[top : top + BLOCK, left : left + BLOCK]
        weight[pixels][lost[pixels]] = TRUST
        first = max(0, row - 1), max(0, column - 1)
        around = waiting[first[0] : row + 2, first[1] : column + 2]
        push(np.argwhere(around) + first)
    blocks = np.array(blocks, np.int64).reshape(-1, 2)
    steps = steps[tuple(blocks.T)]
    by_step = np.argsort(steps, kind="stable")
    return np.split(blocks[by_step], np.flatnonzero(np.diff(steps[by_step])) + 1)


@numba.njit(cache=True, nogil=True)
def _support(weight: np.ndarray, blocks: np.ndarray, support: np.ndarray) -> None:
    """Write how much is known around each of the blocks."""
    for n in range(len(blocks)):
        row, column = blocks[n]
        support[row, column] = _weighted(weight, row, column)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _weighted(weight: np.ndarray, row: int, column: int) -> float:
    # apart from the loop over blocks, which would change the order of the sum, and so of the blocks
    total = np.float32(0)
    for y in range(WINDOW):
        for x in range(WINDOW):
            total += WEIGHTS[y, x] * weight[row * BLOCK + y, column * BLOCK + x]
    return total


def _model(state: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """(N, BLOCK² + 1) for N blocks: their pixels, and their expected error."""
    mean, windows = _windows(state, blocks)
    return _waves(scipy.fft.fft2(windows, overwrite_x=True), mean)


@numba.njit(cache=True, nogil=True)
def _windows(state: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (N,); and (N, WINDOW, WINDOW) complex, the weighted rest real, the weight imaginary."""
    means = np.empty(len(blocks), np.float32)
    windows = np.empty((len(blocks), WINDOW, WINDOW), np.complex64)
    for number in range(len(blocks)):
        top, left = blocks[number, 0] * BLOCK, blocks[number, 1] * BLOCK
        total, weights = np.float32(0), np.float32(0)
        for y in range(WINDOW):
            for x in range(WINDOW):
                w = WEIGHTS[y, x] * state[1, top + y, left + x]
                total += w * state[0, top + y, left + x]
                weights += w
        mean = total / weights
        for y in range(WINDOW):
            for x in range(WINDOW):
                w = WEIGHTS[y, x] * state[1, top + y, left + x]
                windows[number, y, x] = complex(w * (state[0, top + y, left + x] - mean), w)
        means[number] = mean
    return means, windows


@numba.njit(cache=True, nogil=True, fastmath=True)
def _waves(spectra: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Choose wave after wave; arguments are the spectra of `_windows`, the result is `_model`'s."""
    found = np.empty((len(spectra), BLOCK**2 + 1), np.float32)
    padded = WINDOW + HALF  # columns that shifting the window's spectrum by a wave can ask for
    rest_re, rest_im = np.empty((2, WINDOW, HALF), np.float32)
    window_re, window_im = np.empty((2, 2 * WINDOW, padded), np.float32)
    row_best = np.empty(WINDOW, np.float32)
    for number in range(len(spectra)):
        _split(spectra[number], rest_re, rest_im, window_re, window_im, row_best)
        # the sum of squared weights, by Parseval's theorem
        weight = np.float32(0)
        for k in range(WINDOW):
            for m in range(WINDOW):
                weight += window_re[k, m] ** 2 + window_im[k, m] ** 2
        gain = np.float32(STEP) / window_re[0, 0]
        block = found[number]
        block[:] = means[number]
        for _ in range(MAX_WAVES):
            k = np.argmax(row_best)
            m, best = 0, np.float32(-1)
            for column in range(HALF):
                e = (rest_re[k, column] ** 2 + rest_im[k, column] ** 2) * PRIOR[k, column]
                if e > best:
                    m, best = column, e
            re, im = gain * rest_re[k, m], gain * rest_im[k, m]
            if re * re + im * im < MIN_AMPLITUDE**2:
                break
            mirror_k, mirror_m = -k % WINDOW, -m % WINDOW
            alone = mirror_k == k and mirror_m == m
            if alone:
                im = np.float32(0)
            scale = np.float32(1) if alone else np.float32(2)
            for y in range(BLOCK):
                for x in range(BLOCK):
                    phase = (k * (EDGE + y) + m * (EDGE + x)) % WINDOW
                    block[y * BLOCK + x] += scale * (re * COS[phase] - im * SIN[phase])
            # subtract the wave: the window's spectrum, shifted to it and to its mirror
            other_re, other_im = (np.float32(0), np.float32(0)) if alone else (re, im)
            a_k, b_k = WINDOW - k, WINDOW - mirror_k
            a_m, b_m = WINDOW - m, WINDOW - mirror_m
            for row in range(WINDOW):
                a_re = window_re[row + a_k, a_m : a_m + HALF]
                a_im = window_im[row + a_k, a_m : a_m + HALF]
                b_re = window_re[row + b_k, b_m : b_m + HALF]
                b_im = window_im[row + b_k, b_m : b_m + HALF]
                row_re, row_im, row_prior = rest_re[row], rest_im[row], PRIOR[row]
                best = np.float32(0)
                for column in range(HALF):
                    r = row_re[column] - re * a_re[column] + im * a_im[column]
                    r = r - other_re * b_re[column] - other_im * b_im[column]
                    i = row_im[column] - re * a_im[column] - im * a_re[column]
                    i = i - other_re * b_im[column] + other_im * b_re[column]
                    row_re[column], row_im[column] = r, i
                    best = max(best, (r * r + i * i) * row_prior[column])
                row_best[row] = best
        left = np.float32(0)
        for k in range(WINDOW):
            for m in range(HALF):
                left += (rest_re[k, m] ** 2 + rest_im[k, m] ** 2) * (1 if m == 0 else 2)
        block[BLOCK**2] = np.sqrt(left / weight)
    return found


@numba.njit(cache=True, nogil=True, fastmath=True)
def _split(spectrum, rest_re, rest_im, window_re, window_im, row_best) -> None:
    """The spectra of the two real signals in one complex transform; the window's is repeated."""
    for k in range(WINDOW):
        best = np.float32(0)
        for m in range(WINDOW):
            here, there = spectrum[k, m], spectrum[-k % WINDOW, -m % WINDOW]
            re = np.float32(0.5) * (here.imag + there.imag)
            im = np.float32(0.5) * (there.real - here.real)
            window_re[k, m], window_im[k, m] = re, im
            window_re[k + WINDOW, m], window_im[k + WINDOW, m] = re, im
            if m < HALF:
                window_re[k, m + WINDOW], window_im[k, m + WINDOW] = re, im
                window_re[k + WINDOW, m + WINDOW], window_im[k + WINDOW, m + WINDOW] = re, im
                r = np.float32(0.5) * (here.real + there.real)
                i = np.float32(0.5) * (here.imag - there.imag)
                rest_re[k, m], rest_im[k, m] = r, i
                best = max(best, (r * r + i * i) * PRIOR[k, m])
        row_best[k] = best


def _write(state: np.ndarray, lost: np.ndarray, blocks: np.ndarray, models: np.ndarray) -> None:
    """Put the models into the lost pixels of the blocks, which count as known from now on."""
    inside = np.indices((BLOCK, BLOCK))[:, None]
    y, x = EDGE + BLOCK * blocks.T[..., None, None] + inside
    filled = lost[y, x]
    pixels = y[filled], x[filled]
    state[0][pixels] = models[:, :-1].reshape(y.shape)[filled].clip(0, 1)
    state[1][pixels] = TRUST
    state[2][pixels] = models[:, -1].repeat(BLOCK**2).reshape(y.shape)[filled]
