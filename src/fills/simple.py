"""Fills that take milliseconds, and the channels of all fills."""

import torch
from torch import Tensor
from torch.nn import functional as F

# Directions of the line fills, as steps (down, right). The score's M compares neighbours along
# rows, so the fill along rows is the best one on average.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
FAR = 1e6  # steps; larger than any photo
FILLS = len(DIRECTIONS) + 3  # maps of luma in `all_fills`
ERRORS = 2  # maps of expected errors in `all_fills`


def all_fills(gray: Tensor, mask: Tensor, costly: Tensor) -> Tensor:
    """The line fills, the smooth one and the costly ones; then the errors of the costly ones.

    Args:
        gray: (B, 1, H, W) in [0, 1], any values in the hole.
        mask: (B, 1, H, W), 1 where lost.
        costly: (B, 4, H, W), see `costly_fills`; the smooth fill stands in where an error is 1.

    Returns: (B, FILLS + ERRORS, H, W).
    """
    smooth = push_pull(gray, mask)
    fills, errors = costly[:, ::2], costly[:, 1::2] * mask
    fills = torch.where(errors < 1, fills * mask + gray * (1 - mask), smooth)
    return torch.cat([line_fills(gray, mask), smooth, fills, errors], dim=1)


def push_pull(gray: Tensor, mask: Tensor) -> Tensor:
    """Fill smoothly from a pyramid of means of what is not lost (Gortler et al. 1996).

    Takes what `all_fills` takes. Returns (B, 1, H, W); 0 everywhere if all is lost.
    """
    known = 1 - mask
    if max(gray.shape[-2:]) == 1:
        return gray * known
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(gray * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = push_pull(mean, (weight == 0).float())
    smooth = F.interpolate(coarse, gray.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(mask > 0, smooth, gray)


def line_fills(gray: Tensor, mask: Tensor) -> Tensor:
    """Fill by linear interpolation along each of `DIRECTIONS`.

    Takes what `all_fills` takes. Returns (B, 8, H, W); 0 where a line meets only lost pixels.
    """
    lost = (mask > 0).any(dim=0)[0].nonzero()
    if not len(lost):
        return gray.repeat(1, len(DIRECTIONS), 1, 1)
    # up to 2 px beyond the hole, where each line that crosses it meets a pixel that is not lost
    (top, left), (bottom, right) = lost.amin(dim=0).tolist(), lost.amax(dim=0).tolist()
    box = slice(max(0, top - 2), bottom + 3), slice(max(0, left - 2), right + 3)
    inner, inner_mask = gray[..., *box], mask[..., *box]
    fills = gray.repeat(1, len(DIRECTIONS), 1, 1)
    for number, (down, across) in enumerate(DIRECTIONS):
        ahead, near_ahead = nearest_pixel(inner, inner_mask, down, across)
        behind, near_behind = nearest_pixel(inner, inner_mask, -down, -across)
        weight = (near_ahead + near_behind).clamp(min=1e-6)
        fill = (ahead * near_ahead + behind * near_behind) / weight
        fills[:, number : number + 1, *box] = torch.where(inner_mask > 0, fill, inner)
    return fills


def nearest_pixel(gray: Tensor, mask: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """The first pixel in a direction, itself included, that is not lost, and its nearness.

    Nearness is 1 / steps (1 for the pixel itself too), 0 where the border comes first. The reach
    doubles in each round, as in parallel prefix sums.
    """
    height, width = mask.shape[-2:]
    steps = mask * FAR
    step = 1
    while (rows := abs(down) * step) < height and (columns := abs(right) * step) < width:
        here, there = [], []
        for size, far, sign in ((height, rows, down), (width, columns, right)):
            low, high = slice(0, size - far), slice(far, size)
            here.append(high if sign < 0 else low)
            there.append(low if sign < 0 else high)
        steps[..., *here] = torch.minimum(steps[..., *here], steps[..., *there] + step)
        step *= 2
    found = steps < FAR
    pixels = torch.arange(gray[0].numel(), device=gray.device)
    place = pixels + (steps * found).long().flatten(1) * (down * gray.shape[-1] + right)
    value = gray.flatten(1).gather(1, place).view_as(gray)
    return value, found / steps.clamp(min=1)
