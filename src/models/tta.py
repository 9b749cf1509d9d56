"""Test-time augmentation: an estimate averaged over mirrored and turned views of an image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

View = tuple[int, bool]  # quarter turns, and whether it is mirrored first
VIEWS: dict[int, list[View]] = {
    1: [(0, False)],
    2: [(0, False), (0, True)],
    8: [(turns, flip) for turns in (0, 2, 1, 3) for flip in (False, True)],
}


def view(images: Tensor, turns: int, flip: bool) -> Tensor:
    """(…, H, W) mirrored left to right if `flip`, then turned by `turns` quarters."""
    return torch.rot90(images.flip(-1) if flip else images, turns, (-2, -1))


def unview(images: Tensor, turns: int, flip: bool) -> Tensor:
    """The inverse of `view`."""
    images = torch.rot90(images, -turns, (-2, -1))
    return images.flip(-1) if flip else images


def mean_over_views(
    predict: Callable[..., Sequence[Tensor]], tta: int, *images: Tensor
) -> list[Tensor]:
    """Mean of what `predict` makes of each view, turned back.

    Args:
        predict: maps (N, 1, H, W) of each of `images` to any number of maps (N, K, h, w). Views of
            one shape come in one batch.
        tta: number of views, a key of `VIEWS`.
        images: (B, 1, H, W) each, of one size.

    Returns: one map (B, K, h, w) for each map of `predict`.
    """
    count, sums = len(images[0]), None
    for views in (VIEWS[tta][:4], VIEWS[tta][4:]):  # upright ones, then those that lie
        if not views:
            continue
        seen = [torch.cat([view(image, *v) for v in views]) for image in images]
        found = [
            torch.stack(
                [unview(part, *v) for part, v in zip(maps.split(count), views, strict=True)]
            ).sum(0)
            for maps in predict(*seen)
        ]
        sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
    return [total / len(VIEWS[tta]) for total in sums]
