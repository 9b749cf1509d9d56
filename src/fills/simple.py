"""Straight lines of the surroundings, continued across a hole."""

import torch
from torch import Tensor

# Lines that are continued, as steps (down, right). The score's M compares neighbours along rows, so
# the fill along rows is the best one on average.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
FAR = 1e6  # steps; more than any photo has
REACH = 2  # pixels beyond a hole in which each line that crosses it meets a known pixel


def steps_to_known(known: Tensor, down: int, right: int) -> Tensor:
    """Steps in a direction to the first known pixel; 0 if known itself, at least `FAR` if there is
    none.

    `known` is (B, 1, H, W) of 0 and 1, the result is shaped like it. The reach doubles from round
    to round, as in parallel prefix sums.
    """
    height, width = known.shape[-2:]
    steps = (1 - known) * FAR
    step = 1
    while (rows := abs(down) * step) < height and (columns := abs(right) * step) < width:
        here, there = [], []
        for size, far, sign in ((height, rows, down), (width, columns, right)):
            low, high = slice(0, size - far), slice(far, size)
            here.append(high if sign < 0 else low)
            there.append(low if sign < 0 else high)
        steps[..., *here] = torch.minimum(steps[..., *here], steps[..., *there] + step)
        step *= 2
    return steps


def nearest_known(gray: Tensor, known: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """The first known pixel that each pixel meets in a direction, itself included, and its
    nearness.

    Nearness is 1 / steps (1 for a known pixel itself too), 0 where the border comes first.
    """
    steps = steps_to_known(known, down, right)
    found = steps < FAR
    pixels = torch.arange(gray[0].numel(), device=gray.device)
    place = pixels + (steps * found).long().flatten(1) * (down * gray.shape[-1] + right)
    value = gray.flatten(1).gather(1, place).view_as(gray)
    return value, found / steps.clamp(min=1)


def bounds(lost: Tensor) -> list[list[int]]:
    """First and last index of True in each line of (N, L) bool; [0, L - 1] for a line without any.

    One transfer from the device for all lines.
    """
    ends = torch.stack(
        [lost.int().argmax(dim=1), lost.shape[1] - 1 - lost.flip(1).int().argmax(dim=1)]
    )
    return ends.t().tolist()


def line_fills(gray: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels by linear interpolation along each of `DIRECTIONS`.

    Args:
        gray: (B, 1, H, W), any values where unknown.
        known: (B, 1, H, W) of 0 and 1.

    Returns: (B, len(DIRECTIONS), H, W); 0 where a line meets no known pixel.
    """
    lost = (known == 0).any(dim=0)[0]
    box = []
    for axis in (1, 0):
        ((first, last),) = bounds(lost.any(dim=axis)[None])
        box.append(slice(max(0, first - REACH), last + 1 + REACH))
    fills = gray.repeat(1, len(DIRECTIONS), 1, 1)
    fills[..., *box] = _line_fills(gray[..., *box], known[..., *box])
    return fills


def _line_fills(gray: Tensor, known: Tensor) -> Tensor:
    fills = []
    for down, right in DIRECTIONS:
        ahead, near_ahead = nearest_known(gray, known, down, right)
        behind, near_behind = nearest_known(gray, known, -down, -right)
        weight = (near_ahead + near_behind).clamp(min=1e-6)
        fill = (ahead * near_ahead + behind * near_behind) / weight
        fills.append(torch.where(known > 0, gray, fill))
    return torch.cat(fills, dim=1)
