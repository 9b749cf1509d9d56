"""The small U-Net over cells of pixels that the inpainter is made of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


class CellUNet(nn.Module):
    """U-Net of three levels over cells of `stride` × `stride` pixels; the heads are the user's.

    Args:
        inputs: channels of the image.
        stride: side of a cell in pixels; the levels lie at this stride, twice and four times it.
        widths: channels of the three levels, from fine to coarse.
        middle_dilation: of the block of the middle level.
        coarse_dilations: of the blocks of the coarse level.
    """

    def __init__(
        self,
        inputs: int,
        stride: int,
        widths: tuple[int, int, int],
        middle_dilation: int,
        coarse_dilations: Sequence[int],
    ):
        super().__init__()
        fine, middle, coarse = widths
        self.stride = stride
        self.fine = nn.Sequential(conv(inputs * stride**2, fine), Block(fine))
        self.middle = nn.Sequential(conv(fine, middle, stride=2), Block(middle, middle_dilation))
        self.coarse = nn.Sequential(
            conv(middle, coarse, stride=2),
            *(Block(coarse, dilation) for dilation in coarse_dilations),
        )
        self.up_middle = nn.Sequential(conv(coarse + middle, middle), Block(middle))
        self.up_fine = nn.Sequential(conv(middle + fine, fine), Block(fine))

    def features(self, image: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, widths[0], H / stride, W / stride); sides are multiples of 4 ·
        stride."""
        fine = self.fine(F.pixel_unshuffle(image, self.stride))
        middle = self.middle(fine)
        x = self.coarse(middle)
        x = self.up_middle(torch.cat([F.interpolate(x, scale_factor=2.0), middle], dim=1))
        return self.up_fine(torch.cat([F.interpolate(x, scale_factor=2.0), fine], dim=1))
