"""Predicts a distribution over hue, with a chroma for each hue, from what DINOv2 recognises."""

from torch import Tensor, nn
from torch.nn import functional as F

from src.color.dino import PATCH, TOKEN
from src.color.lattice import HUES

CELL = 4  # px, side of a cell of the result
DROPOUT = 0.1


class Attention(nn.Module):
    """A pre-norm transformer block, which begins as the identity."""

    def __init__(self, width: int, head: int = 64, expansion: int = 2):
        super().__init__()
        self.heads = width // head
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
        )
        self.dropout = nn.Dropout(DROPOUT)
        for last in (self.projection, self.mlp[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same."""
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.projection(mixed))
        return x + self.dropout(self.mlp(self.norm2(x)))


def separable(channels: int, out_channels: int) -> nn.Sequential:
    """A 3×3 convolution per channel, then a 1×1 convolution that mixes them."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False),
        nn.Conv2d(channels, out_channels, 1, bias=False),
    )


class Colorizer(nn.Module):
    """A head on DINOv2's tokens, which know what is where, and on luma, which has the edges."""

    def __init__(self, width: int = 192, fine: int = 64, edges: int = 32):
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(TOKEN, width), nn.Dropout(DROPOUT), Attention(width))
        self.context = nn.Linear(width, width)
        self.coarse = nn.Linear(width, fine)
        self.edges = nn.Sequential(
            nn.PixelUnshuffle(CELL),
            nn.Conv2d(CELL**2, edges, 3, 1, 1, bias=False),
            nn.BatchNorm2d(edges),
            nn.SiLU(inplace=True),
            separable(edges, fine),
        )
        self.mix = nn.Sequential(nn.BatchNorm2d(fine), nn.SiLU(), separable(fine, fine))
        self.last = nn.Sequential(nn.BatchNorm2d(fine), nn.SiLU(inplace=True))
        self.hue = nn.Conv2d(fine, HUES, 1)
        self.chroma = nn.Conv2d(fine, HUES, 1)

    def forward(
        self,
        tokens: Tensor,
        luma: Tensor,
        window: tuple[int, int, int] | None = None,
        spacing: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Logits of the hues (B, 180, h, w), and the chroma of each, at least 0, in units of 255.

        `luma` is (B, 1, H, W) in [0, 1] with sides that are multiples of `MULTIPLE`, and `tokens`
        are `Dino`'s of it. The grid has H/4 × W/4 cells, or those of a square `window` (top, left
        and side in patches); every `spacing`-th along each side is computed.
        """
        x = self.tokens(tokens)
        x = self.coarse(x + self.context(x.mean(dim=1, keepdim=True)))
        x = x.transpose(1, 2).unflatten(2, [side // PATCH for side in luma.shape[-2:]])
        if window:
            x, luma = crop(x, window), crop(luma, window, PATCH)
        edges = self.edges(luma * 2 - 1)
        x = edges + F.interpolate(x, edges.shape[-2:], mode="bilinear")
        x = self.last(x + self.mix(x))[..., ::spacing, ::spacing]
        hue_logits, chroma = self.hue(x).float(), self.chroma(x).float()  # from bf16 under autocast
        return hue_logits, F.softplus(chroma - 2)


def crop(maps: Tensor, window: tuple[int, int, int], scale: float = 1) -> Tensor:
    """A square of (B, K, H, W): top, left and side are those of the window times `scale`."""
    top, left, side = (round(value * scale) for value in window)
    return maps[..., top : top + side, left : left + side]
