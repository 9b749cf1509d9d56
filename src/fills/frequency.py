"""Frequency-selective extrapolation: the waves of the surroundings, continued across a hole.

Sources: Seiler and Kaup, "Complex-Valued Frequency Selective Extrapolation for Fast Image and Video
Signal Extrapolation", IEEE Signal Processing Letters 17 (11), 2010; and for the order of the blocks
Genser, Seiler, Schilling, Kaup, "Signal and Loss Geometry Aware Frequency Selective Extrapolation
for Error Concealment", PCS
2018. See `docs/restorer.md`.
"""

import heapq
from functools import partial

import numpy as np
import scipy.fft

from src.fills.base import Fill
from src.utils.compiled import compiled
from src.utils.processes import on_threads

WINDOW = 64  # side of the surroundings that a block is modelled on, in pixels
BLOCK = 4  # side of what is filled at once
EDGE = (WINDOW - BLOCK) // 2
FADE = 0.8  # weight of a pixel one pixel farther from the block
TRUST = 0.5  # weight of a pixel that was itself extrapolated, relative to a known one
ROUNDS = 60  # waves of a model
STEP = 0.5  # share of a wave's amplitude that a round takes, since the waves are not orthogonal
FAINT = (
    0.003  # amplitude below which no wave is taken: faint waves fit the noise, and cost M and time
)
HALF = (
    WINDOW // 2
)  # columns of the spectrum that are kept: the rest mirrors them, but for the highest
WIDE = WINDOW + HALF  # columns of the window's spectrum that shifting it by a wave can ask for
TABLE = np.exp(2j * np.pi * np.arange(WINDOW) / WINDOW).astype(np.complex64)
COS, SIN = TABLE.real.copy(), TABLE.imag.copy()


def _fade() -> np.ndarray:
    distance = np.arange(WINDOW) - (EDGE + (BLOCK - 1) / 2)
    return (FADE ** np.hypot(distance[:, None], distance)).astype(np.float32)


def _prior() -> np.ndarray:
    """(WINDOW, HALF): high frequencies must be stronger to be chosen, as in photos they are weaker."""
    steps = np.arange(WINDOW)
    steps = np.minimum(steps, WINDOW - steps)
    frequency = np.hypot(steps[:, None], steps[:HALF]) * np.sqrt(2) / WINDOW
    return ((1 - frequency.clip(max=1)) ** 2).astype(np.float32)


WEIGHTS, PRIOR = _fade(), _prior()
NEAR = 2  # blocks; waiting for what is farther from a block gains nothing


def extrapolate(gray: np.ndarray, known: np.ndarray, wanted: np.ndarray | None = None) -> Fill:
    """Fill unknown pixels by sums of few waves that fit what is around them.

    Blocks of 4×4 pixels are filled from the outside in, the best supported one next. The result is
    deterministic and does not depend on the number of threads. Time is proportional to the number
    of `wanted` pixels, memory to the size of the box around them.

    Args:
        gray: (H, W) float32 in [0, 1], any values where unknown.
        known: (H, W) bool.
        wanted: (H, W) bool, the unknown pixels to fill; all of them if None.

    Returns: the doubt is the root mean square of what the waves leave unexplained of the
    surroundings. Known pixels are as they were; what is not wanted, or where nothing is known, is
    0.5 with a doubt of 0.5.
    """
    wanted = ~known if wanted is None else wanted & ~known
    luma, doubt = (
        np.where(known, gray, np.float32(0.5)),
        np.where(known, np.float32(0), np.float32(0.5)),
    )
    if not wanted.any() or not known.any():
        return Fill(luma, doubt)
    rows, columns = (np.flatnonzero(wanted.any(axis=axis)) for axis in (1, 0))
    top, left = rows[0], columns[0]
    grid = (rows[-1] - top) // BLOCK + 1, (columns[-1] - left) // BLOCK + 1
    # all that the windows of the wanted blocks see, and what lies beyond the image
    frame = tuple(n * BLOCK + 2 * EDGE for n in grid)
    state = np.zeros((3, *frame), np.float32)  # luma, its weight, doubt
    lost = np.zeros(frame, bool)
    from_y, from_x = max(0, top - EDGE), max(0, left - EDGE)
    here = (slice(from_y, top - EDGE + frame[0]), slice(from_x, left - EDGE + frame[1]))
    part = luma[here]
    there = tuple(
        slice(a - b + EDGE, a - b + EDGE + n)
        for a, b, n in zip((from_y, from_x), (top, left), part.shape, strict=True)
    )
    state[0][there], state[1][there], lost[there] = part, known[here], wanted[here]
    inner = lost[EDGE:-EDGE, EDGE:-EDGE].reshape(grid[0], BLOCK, grid[1], BLOCK)
    waiting = inner.any(axis=(1, 3))
    for blocks in _waves_of_blocks(waiting, state[1].copy(), lost):
        _write(state, lost, blocks, on_threads(partial(_model, state), blocks))
    found = wanted[here] & (state[1][there] > 0)
    luma[here][found], doubt[here][found] = state[0][there][found], state[2][there][found]
    return Fill(luma, doubt)


def _waves_of_blocks(waiting: np.ndarray, weight: np.ndarray, lost: np.ndarray) -> list[np.ndarray]:
    """Blocks, (N, 2) rows and columns each time, that can be filled at once when those before are
    filled."""
    blocks, steps = _order(waiting, weight, lost)
    by_step = np.argsort(steps, kind="stable")
    return np.split(blocks[by_step], np.flatnonzero(np.diff(steps[by_step])) + 1)


@compiled()
def _order(
    waiting: np.ndarray, weight: np.ndarray, lost: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best supported block first, then the best supported with that one filled, and so on.

    Returns: rows and columns of the blocks (N, 2), and the step of each: one more than the last of
    the blocks near it that come before.
    """
    support = np.zeros(waiting.shape, np.float32)
    heap = [(np.float32(0), 0, 0)]
    for y in range(waiting.shape[0]):
        for x in range(waiting.shape[1]):
            if waiting[y, x]:
                support[y, x] = _support(weight, y, x)
                heap.append((-support[y, x], y, x))
    heapq.heapify(heap)
    blocks = np.empty((len(heap) - 1, 2), np.int64)
    steps = np.zeros(waiting.shape, np.int64)
    count = 0
    while len(heap):
        minus, y, x = heapq.heappop(heap)
        if minus == 0 or steps[y, x] or -minus != support[y, x]:
            continue
        blocks[count, 0], blocks[count, 1] = y, x
        count += 1
        before = steps[max(0, y - NEAR) : y + NEAR + 1, max(0, x - NEAR) : x + NEAR + 1].max()
        steps[y, x] = before + 1
        top, left = EDGE + y * BLOCK, EDGE + x * BLOCK
        for v in range(top, top + BLOCK):
            for u in range(left, left + BLOCK):
                if lost[v, u]:
                    weight[v, u] = TRUST
        for v in range(max(0, y - 1), min(waiting.shape[0], y + 2)):
            for u in range(max(0, x - 1), min(waiting.shape[1], x + 2)):
                if waiting[v, u] and not steps[v, u]:
                    support[v, u] = _support(weight, v, u)
                    heapq.heappush(heap, (-support[v, u], v, u))
    blocks = blocks[:count]
    found = np.empty(count, np.int64)
    for number in range(count):
        found[number] = steps[blocks[number, 0], blocks[number, 1]]
    return blocks, found


@compiled(fastmath=True)
def _support(weight: np.ndarray, row: int, column: int) -> float:
    """How much is known around a block."""
    total = np.float32(0)
    for y in range(WINDOW):
        for x in range(WINDOW):
            total += WEIGHTS[y, x] * weight[row * BLOCK + y, column * BLOCK + x]
    return total


def _model(state: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """(N, BLOCK² + 1) of N blocks: their pixels, and their doubt."""
    mean, windows = _windows(state, blocks)
    found = np.empty((len(blocks), BLOCK**2 + 1), np.float32)
    _waves(scipy.fft.fft2(windows, overwrite_x=True), mean, found)
    return found


@compiled()
def _windows(state: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means (N,); and (N, WINDOW, WINDOW), the weighted rest real, the weight imaginary."""
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


@compiled(fastmath=True)
def _waves(spectra: np.ndarray, means: np.ndarray, found: np.ndarray) -> None:
    """Choose wave after wave, and write what they make of each block; arguments as in `_model`."""
    rest_re, rest_im = np.empty((WINDOW, HALF), np.float32), np.empty((WINDOW, HALF), np.float32)
    window_re, window_im = (
        np.empty((2 * WINDOW, WIDE), np.float32),
        np.empty((2 * WINDOW, WIDE), np.float32),
    )
    row_best = np.empty(WINDOW, np.float32)
    for number in range(len(spectra)):
        _split(spectra[number], rest_re, rest_im, window_re, window_im, row_best)
        # the sum of squared weights, by Parseval's theorem
        weight = np.float32(0)
        for k in range(WINDOW):
            for m in range(WINDOW):
                mirrored = window_re[k, m]
                weight += mirrored * mirrored + window_im[k, m] ** 2
        gain = np.float32(STEP) / window_re[0, 0]
        block = found[number]
        block[:] = means[number]
        for _ in range(ROUNDS):
            k = np.argmax(row_best)
            m, best = 0, np.float32(-1)
            for column in range(HALF):
                e = (rest_re[k, column] ** 2 + rest_im[k, column] ** 2) * PRIOR[k, column]
                if e > best:
                    m, best = column, e
            re, im = gain * rest_re[k, m], gain * rest_im[k, m]
            if re * re + im * im < FAINT**2:
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
            # the rest without this wave: the window's spectrum, moved to the wave and to its mirror
            # image
            other_re, other_im = (np.float32(0), np.float32(0)) if alone else (re, im)
            a_k, b_k = WINDOW - k, WINDOW - mirror_k
            a_m, b_m = WINDOW - m, WINDOW - mirror_m
            for row in range(WINDOW):
                a_re, a_im = (
                    window_re[row + a_k, a_m : a_m + HALF],
                    window_im[row + a_k, a_m : a_m + HALF],
                )
                b_re, b_im = (
                    window_re[row + b_k, b_m : b_m + HALF],
                    window_im[row + b_k, b_m : b_m + HALF],
                )
                row_re, row_im, row_prior = rest_re[row], rest_im[row], PRIOR[row]
                best = np.float32(0)
                for column in range(HALF):
                    r = (
                        row_re[column]
                        - re * a_re[column]
                        + im * a_im[column]
                        - other_re * b_re[column]
                        - other_im * b_im[column]
                    )
                    i = (
                        row_im[column]
                        - re * a_im[column]
                        - im * a_re[column]
                        - other_re * b_im[column]
                        + other_im * b_re[column]
                    )
                    row_re[column], row_im[column] = r, i
                    best = max(best, (r * r + i * i) * row_prior[column])
                row_best[row] = best
        left = np.float32(0)
        for k in range(WINDOW):
            for m in range(HALF):
                left += (rest_re[k, m] ** 2 + rest_im[k, m] ** 2) * (1 if m == 0 else 2)
        block[BLOCK**2] = np.sqrt(left / weight)


@compiled(fastmath=True)
def _split(
    spectrum: np.ndarray,
    rest_re: np.ndarray,
    rest_im: np.ndarray,
    window_re: np.ndarray,
    window_im: np.ndarray,
    row_best: np.ndarray,
) -> None:
    """The spectra of the two real signals in one complex transform; the window's is repeated."""
    for k in range(WINDOW):
        best = np.float32(0)
        for m in range(WINDOW):
            here, there = spectrum[k, m], spectrum[-k % WINDOW, -m % WINDOW]
            re, im = (
                np.float32(0.5) * (here.imag + there.imag),
                np.float32(0.5) * (there.real - here.real),
            )
            window_re[k, m], window_im[k, m] = re, im
            window_re[k + WINDOW, m], window_im[k + WINDOW, m] = re, im
            if m < HALF:
                window_re[k, m + WINDOW], window_im[k, m + WINDOW] = re, im
                window_re[k + WINDOW, m + WINDOW], window_im[k + WINDOW, m + WINDOW] = re, im
                r, i = (
                    np.float32(0.5) * (here.real + there.real),
                    np.float32(0.5) * (here.imag - there.imag),
                )
                rest_re[k, m], rest_im[k, m] = r, i
                best = max(best, (r * r + i * i) * PRIOR[k, m])
        row_best[k] = best


@compiled()
def _write(state: np.ndarray, lost: np.ndarray, blocks: np.ndarray, models: np.ndarray) -> None:
    """Put what was found into the lost pixels of the blocks, which are known from now on."""
    for number in range(len(blocks)):
        for y in range(BLOCK):
            for x in range(BLOCK):
                v, u = blocks[number, 0] * BLOCK + EDGE + y, blocks[number, 1] * BLOCK + EDGE + x
                if lost[v, u]:
                    state[0, v, u] = min(
                        max(models[number, y * BLOCK + x], np.float32(0)), np.float32(1)
                    )
                    state[1, v, u] = TRUST
                    state[2, v, u] = models[number, BLOCK**2]
