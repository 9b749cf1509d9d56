"""The team report's first system: an encoder-decoder generator against a discriminator."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from src.datasets.loader import BatchSpec
from src.losses import discriminator_loss, generator_loss
from src.models.base import Batch, RestorationModel, unit_range
from src.models.options import GanOptions

ENCODER_WIDTHS = [64, 128, 256, 512, 512, 512, 512, 512, 512]  # 512 px down to 1 px
DECODER_WIDTHS = [512, 512, 512, 512, 512, 256, 128, 64]
DISCRIMINATOR_WIDTHS = [64, 128, 256, 512, 512, 512, 512]  # 512 px down to 4 px


def halvings(widths: list[int], norm: type[nn.Module]) -> list[nn.Module]:
    """Convolutions that halve the sides; all but the first are normalized."""
    layers: list[nn.Module] = []
    for channels, width in pairwise(widths):
        layers.append(nn.Conv2d(channels, width, 4, 2, 1))
        if len(layers) > 1:
            layers.append(norm(width))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return layers


class Gan(RestorationModel):
    """9-level generator and discriminator with binary cross-entropy.

    The layers are the report's. Fixed: there was no reconstruction loss (now 100·L1, pix2pix); it
    knew grey only (now colour, so three channels leave the generator and enter the discriminator);
    its test code used untrained weights (`infer.py` loads the checkpoint). The sigmoid moved into
    the loss.
    """

    batch_spec = BatchSpec(("damaged", "rgb"))

    def __init__(self, options: GanOptions):
        super().__init__(options)
        layers = halvings([1, *ENCODER_WIDTHS], nn.BatchNorm2d)
        for channels, width in pairwise([ENCODER_WIDTHS[-1], *DECODER_WIDTHS]):
            layers += [nn.ConvTranspose2d(channels, width, 4, 2, 1), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU(inplace=True))
        layers += [nn.ConvTranspose2d(DECODER_WIDTHS[-1], 3, 4, 2, 1), nn.Tanh()]
        self.generator = nn.Sequential(*layers)
        layers = halvings([3, *DISCRIMINATOR_WIDTHS], nn.InstanceNorm2d)
        last = nn.Conv2d(DISCRIMINATOR_WIDTHS[-1], 1, 4, 1, 0)
        self.discriminator = nn.Sequential(*layers, last)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One AdamW per network, with the report's momentum of 0.5."""
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        betas = (0.5, 0.999)
        return {name: self.adamw(net.parameters(), betas=betas) for name, net in networks.items()}

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """First the generator's step, then the discriminator's on the same images."""
        rgb = unit_range(batch["rgb"]) * 2 - 1
        fake = self.generator(unit_range(batch["damaged"]) * 2 - 1)
        self.discriminator.requires_grad_(False)
        yield "generator", generator_loss(self.discriminator(fake), fake, rgb)
        self.discriminator.requires_grad_(True)
        logits = self.discriminator(rgb), self.discriminator(fake.detach())
        yield "discriminator", discriminator_loss(*logits)

    def rgb(self, damaged: Tensor, mask: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1]; `mask` is not used."""
        return self.generator(damaged * 2 - 1) / 2 + 0.5
