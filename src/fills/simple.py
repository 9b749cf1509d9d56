"""The fills that the inpainter mixes."""

import torch
from torch import Tensor

from src.fills.lines import DIRECTIONS, line_fills
from src.fills.push_pull import push_pull

COUNT = len(DIRECTIONS) + 1  # maps of `simple_fills`


def simple_fills(gray: Tensor, mask: Tensor) -> Tensor:
    """The line fills of `gray` (B, 1, H, W) where `mask` (B, 1, H, W) is 1, then the smooth one.

    Returns: (B, COUNT, H, W).
    """
    known = 1 - mask
    return torch.cat([line_fills(gray, known), push_pull(gray, known)], dim=1)
