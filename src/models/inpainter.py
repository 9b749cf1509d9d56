"""Luma in the hole, at full resolution, from the grey around it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 4  # sides of the finest feature cells, in pixels
MULTIPLE = 16  # sides of the network's input are multiples of this many pixels
WIDTHS = (48, 96, 128)  # channels at strides 4, 8 and 16
# Lines that are continued across the hole, as steps (down, right). The score's M compares neighbours along
# rows, so the fill along rows is the best one on average and the mix begins near it.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
FIRST_MIX = (3.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0)  # logits of the directions and `push_pull`
FAR = 1e6  # steps; more than any photo has
REACH = 2  # pixels beyond a hole in which each line that crosses it meets a known pixel
DILATIONS = (1, 2, 4, 8)  # of the blocks at stride 16; together they see 300 px in each direction


def push_pull(gray: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels smoothly from a pyramid of means of the known ones (Gortler et al. 1996).

    Args:
        gray: (B, 1, H, W), any values where unknown.
        known: (B, 1, H, W) of 0 and 1.

    Returns: (B, 1, H, W); known pixels as they were, 0 everywhere else if none is known.
    """
    if max(gray.shape[-2:]) == 1:
        return gray * known
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(gray * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = push_pull(mean, (weight > 0).float())
    smooth = F.interpolate(coarse, gray.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known > 0, gray, smooth)


def steps_to_known(known: Tensor, down: int, right: int) -> Tensor:
    """Steps in a direction to the first known pixel; 0 if known itself, at least `FAR` if there is none.

    `known` is (B, 1, H, W) of 0 and 1, the result is shaped like it. The reach doubles from round to
    round, as in parallel prefix sums.
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
    """The first known pixel that each pixel meets in a direction, itself included, and its nearness.

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
    ends = torch.stack([lost.int().argmax(dim=1), lost.shape[1] - 1 - lost.flip(1).int().argmax(dim=1)])
    return ends.t().tolist()


def line_fills(gray: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels by linear interpolation along each of `DIRECTIONS`.

    Args as for `push_pull`. Returns (B, len(DIRECTIONS), H, W); 0 where a line meets no known pixel.
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


def simple_fills(gray: Tensor, mask: Tensor) -> Tensor:
    """What needs no training: (B, len(DIRECTIONS) + 1, H, W) fills of `gray` where `mask` is 1."""
    return torch.cat([line_fills(gray, 1 - mask), push_pull(gray, 1 - mask)], dim=1)


def conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalization, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


class Block(nn.Module):
    """Residual block of two convolutions, the first one dilated."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.body = nn.Sequential(conv(width, width, dilation=dilation), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        return x + self.body(x)


class Inpainter(nn.Module):
    """U-Net over cells of 4×4 pixels that mixes simple fills of the hole and corrects them pixel by pixel.

    The fills continue straight lines in eight directions, or are smooth; the network sees them all. At
    first the mix is a fixed one and the correction is zero.
    """

    def __init__(self):
        super().__init__()
        fine, middle, coarse = WIDTHS
        fills = len(DIRECTIONS) + 1
        self.fine = nn.Sequential(conv((fills + 2) * STRIDE**2, fine), Block(fine))
        self.middle = nn.Sequential(conv(fine, middle, stride=2), Block(middle, 2))
        self.coarse = nn.Sequential(
            conv(middle, coarse, stride=2), *(Block(coarse, dilation) for dilation in DILATIONS)
        )
        self.up_middle = nn.Sequential(conv(coarse + middle, middle), Block(middle))
        self.up_fine = nn.Sequential(conv(middle + fine, fine), Block(fine))
        self.mix = nn.Conv2d(fine, fills, 3, 1, 1)
        self.correction = nn.Conv2d(fine, STRIDE**2, 3, 1, 1)
        for head, bias in ((self.mix, torch.tensor(FIRST_MIX)), (self.correction, torch.zeros(STRIDE**2))):
            nn.init.zeros_(head.weight)
            head.bias.data.copy_(bias)

    def forward(self, gray: Tensor, mask: Tensor, fills: Tensor) -> Tensor:
        """Luma (B, 1, H, W), about [0, 1]; equal to `gray` outside the hole.

        Args:
            gray: (B, 1, H, W) in [0, 1], any values in the hole; sides are multiples of `MULTIPLE`.
            mask: (B, 1, H, W), 1 where lost.
            fills: `simple_fills` of both, which an ensemble computes once.
        """
        mean = fills.mean(dim=1, keepdim=True)
        seen = torch.cat([mean * 2 - 1, (fills - mean) * 4, mask], dim=1)
        fine = self.fine(F.pixel_unshuffle(seen, STRIDE))
        middle = self.middle(fine)
        x = self.coarse(middle)
        x = self.up_middle(torch.cat([F.interpolate(x, scale_factor=2.0), middle], dim=1))
        x = self.up_fine(torch.cat([F.interpolate(x, scale_factor=2.0), fine], dim=1))
        weights = F.interpolate(self.mix(x), scale_factor=float(STRIDE), mode="bilinear").softmax(dim=1)
        filled = (fills * weights).sum(dim=1, keepdim=True) + F.pixel_shuffle(self.correction(x), STRIDE)
        return torch.where(mask > 0.5, filled, gray)
