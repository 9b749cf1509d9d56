"""All fills of a hole, as the inpainter sees them."""

import torch
from torch import Tensor

from src.fills.push_pull import push_pull
from src.fills.simple import DIRECTIONS, line_fills

FILLS = len(DIRECTIONS) + 3  # maps of luma in `all_fills`
DOUBTS = 2  # maps of doubt


def all_fills(gray: Tensor, mask: Tensor, costly: Tensor) -> Tensor:
    """The line fills, the smooth one, and the costly ones; then the doubts of these.

    Args:
        gray: (B, 1, H, W) in [0, 1], any values in the hole.
        mask: (B, 1, H, W), 1 where lost.
        costly: (B, 4, H, W), see `src.fills.costly.costly_fills`; where a doubt is 1, the smooth
            fill stands for what was not computed or is useless.

    Returns: (B, FILLS + DOUBTS, H, W).
    """
    known = 1 - mask
    smooth = push_pull(gray, known)
    fills, doubts = costly[:, ::2], costly[:, 1::2] * mask
    fills = torch.where(doubts < 1, fills * mask + gray * known, smooth)
    return torch.cat([line_fills(gray, known), smooth, fills, doubts], dim=1)
