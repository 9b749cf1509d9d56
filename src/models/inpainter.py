"""Luma in the hole, at full resolution, from the grey around it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 4  # sides of the finest feature cells, in pixels
MULTIPLE = 16  # sides of the network's input are multiples of this many pixels
WIDTHS = (48, 96, 160)  # channels at strides 4, 8 and 16
DILATIONS = (1, 2, 4, 8, 1, 1)  # of the blocks at stride 16; together they see 370 px in each direction


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
    """U-Net over cells of 4×4 pixels that corrects a smooth fill of the hole, pixel by pixel."""

    def __init__(self):
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.fine = nn.Sequential(conv(2 * STRIDE**2, fine), Block(fine))
        self.middle = nn.Sequential(conv(fine, middle, stride=2), Block(middle, 2))
        self.coarse = nn.Sequential(
            conv(middle, coarse, stride=2), *(Block(coarse, dilation) for dilation in DILATIONS)
        )
        self.up_middle = nn.Sequential(conv(coarse + middle, middle), Block(middle))
        self.up_fine = nn.Sequential(conv(middle + fine, fine), Block(fine))
        self.head = nn.Conv2d(fine, STRIDE**2, 3, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, gray: Tensor, mask: Tensor) -> Tensor:
        """Luma (B, 1, H, W), about [0, 1]; equal to `gray` outside the hole.

        Args:
            gray: (B, 1, H, W) in [0, 1], any values in the hole; sides are multiples of `MULTIPLE`.
            mask: (B, 1, H, W), 1 where lost.
        """
        smooth = push_pull(gray, 1 - mask)
        fine = self.fine(F.pixel_unshuffle(torch.cat([smooth * 2 - 1, mask], dim=1), STRIDE))
        middle = self.middle(fine)
        x = self.coarse(middle)
        x = self.up_middle(torch.cat([F.interpolate(x, scale_factor=2.0), middle], dim=1))
        x = self.up_fine(torch.cat([F.interpolate(x, scale_factor=2.0), fine], dim=1))
        return smooth + F.pixel_shuffle(self.head(x), STRIDE) * mask
