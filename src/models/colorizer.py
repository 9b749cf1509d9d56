"""Predicts a distribution over hue from luma, with a chroma for each hue."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from src.color.lattice import HUES
from src.models.encoders import backbone

DROP_PATH = 0.15  # rate of stochastic depth; high because there are few photos
CELL = 4  # side of a cell in pixels of the colorizer's input
WIDTHS = (64, 96, 128, 160)  # channels of the decoder at strides 4, 8, 16 and 32


class Colorizer(nn.Module):
    """Pretrained encoder and light top-down decoder; one distribution per 4×4 pixels."""

    def __init__(self, encoder: str, encoder_weights: str):
        super().__init__()
        self.encoder = backbone(encoder, encoder_weights, in_channels=1, drop_path=DROP_PATH)
        channels = self.encoder.feature_info.channels()
        self.context = nn.Linear(channels[-1], WIDTHS[-1])
        sides = zip(channels, WIDTHS, strict=True)
        self.lateral = nn.ModuleList(nn.Conv2d(c, w, 1, bias=False) for c, w in sides)
        levels = pairwise(WIDTHS)
        self.above = nn.ModuleList(nn.Conv2d(a, w, 1, bias=False) for w, a in levels)
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(w),
                nn.SiLU(inplace=True),
                nn.Conv2d(w, w, 3, 1, 1, bias=False),
                nn.BatchNorm2d(w),
                nn.SiLU(inplace=True),
            )
            for w in WIDTHS
        )
        self.hue = nn.Conv2d(WIDTHS[0], HUES, 1)
        self.chroma = nn.Conv2d(WIDTHS[0], HUES, 1)

    def forward(self, luma: Tensor, spacing: int = 1) -> tuple[Tensor, Tensor]:
        """Logits of the hues (B, 180, h, w), and the chroma of each, at least 0, in units of 255.

        `luma` is (B, 1, H, W) in [0, 1] with sides that are multiples of 32. The grid has H/4 × W/4
        cells, of which every `spacing`-th along each side is computed.
        """
        features = self.encoder(luma * 2 - 1)
        x = None
        for level in reversed(range(len(WIDTHS))):
            y = self.lateral[level](features[level])
            if x is None:
                y = y + self.context(features[level].mean(dim=(2, 3)))[..., None, None]
            else:
                y = y + F.interpolate(self.above[level](x), scale_factor=2.0, mode="bilinear")
            x = self.smooth[level](y)
        x = x[..., ::spacing, ::spacing]
        hue_logits, chroma = self.hue(x).float(), self.chroma(x).float()  # from bf16 under autocast
        return hue_logits, F.softplus(chroma - 2)
