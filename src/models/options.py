"""What each model's training can be told; no torch, so that `--help` need not wait for it."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeVar, get_type_hints

from src.utils.errors import InputError, SettingError

T = TypeVar("T")

_SHAPES_THE_MODEL = "needed to build the model again from its checkpoint"
Architecture = Annotated[T, _SHAPES_THE_MODEL]  # in the type of an option that a checkpoint keeps

EncoderWeights = Literal["auto", "pip", "imagenet", "none"]
COLOR_SIZES = range(
    64, 1024 + 1, 32
)  # memory grows with the square: 1024 takes 0.9 GiB for a 512 px photo


@dataclass(frozen=True)
class ModelOptions:
    """Options of every model."""

    size_multiple: ClassVar[int] = (
        32  # sides of the network's input are multiples of this many pixels
    )
    networks: ClassVar[tuple[str, ...]] = (
        "best",
    )  # files of a checkpoint; attributes of the model if several
    shaped: ClassVar[str] = "best"  # the network that the architecture's options shape
    default_loss_weights: ClassVar[dict[str, float]] = {}  # of every loss term that the model has

    image_size: int = 512
    """Side of the training images in pixels."""
    batch_size: int = 8
    """Images in a step, of all devices together."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    clip_norm: float = 1.0
    """Gradients are scaled down to at most this norm."""
    ema_decay: float = 0.998
    """Decay of the averaged weights (EMA), which are what is validated and kept."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """Change the weight of single loss terms, for example: histogram 0."""

    def __post_init__(self) -> None:
        for name in ("image_size", "batch_size", "lr", "clip_norm"):
            require_positive(name, getattr(self, name))
        for name in ("weight_decay", "ema_decay"):
            require_positive(name, getattr(self, name), zero=True)
        if self.image_size % self.size_multiple:
            multiple = f"must be a multiple of {self.size_multiple} for this model"
            raise SettingError("image_size", self.image_size, multiple)
        if self.batch_size == 1 and self.image_size == self.size_multiple:
            # batch normalization at the deepest level, where such an image is a single pixel
            raise SettingError("batch_size", 1, "this model needs at least 2 at this image size")
        unknown = self.loss_weights.keys() - self.default_loss_weights.keys()
        if unknown:
            known = ", ".join(
                f"{term} {weight:g}" for term, weight in self.default_loss_weights.items()
            )
            raise SettingError("loss_weights", min(unknown), f"unknown; the terms are {known}")

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of every loss term."""
        return self.default_loss_weights | self.loss_weights

    @property
    def trained(self) -> tuple[str, ...]:
        """Which of the networks are trained."""
        return self.networks

    def architecture(self) -> dict[str, str | int | float]:
        """The options that a checkpoint keeps, since the model is built by them."""
        return {name: getattr(self, name) for name in _architecture_names(type(self))}


@dataclass(frozen=True)
class RestorerOptions(ModelOptions):
    """The restorer (ours): an inpainter and a colorizer.

    Loss terms and their weights: inpaint_l1 2, inpaint_ssim 1, hue 1, histogram 2, chroma 20.
    """

    default_loss_weights: ClassVar = {
        "inpaint_l1": 2.0,
        "inpaint_ssim": 1.0,
        "hue": 1.0,
        "histogram": 2.0,
        "chroma": 20.0,
    }

    networks: ClassVar = ("inpainter", "colorizer")
    shaped: ClassVar = "colorizer"

    batch_size: int = 32
    """Images in a step, of all devices together."""
    lr: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """AdamW's weight decay."""
    color_size: Architecture[int] = 160
    """The colorizer sees the whole photo reduced to about color-size² pixels."""
    parts: Literal["both", "inpainter", "colorizer"] = "both"
    """Which of the two networks to train."""
    encoder: Architecture[str] = "lite0"
    """The colorizer's encoder: lite0, lite1, lite2 (weights in a pip package), or any timm model.
    """
    encoder_weights: EncoderWeights = "auto"
    """pip (from an installed package), imagenet (downloaded), none, or auto: pip where there is
    one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.color_size not in COLOR_SIZES:
            least, most, step = COLOR_SIZES[0], COLOR_SIZES[-1], COLOR_SIZES.step
            multiple = f"must be a multiple of {step} from {least} to {most}"
            raise SettingError("color_size", self.color_size, multiple)

    @property
    def trained(self) -> tuple[str, ...]:
        """Which of the networks are trained: one of them, or both."""
        return self.networks if self.parts == "both" else (self.parts,)


@dataclass(frozen=True)
class FullPipelineOptions(ModelOptions):
    """full_pipeline, the team's second system: three U-Nets in a row.

    Loss terms and their weights: mask 1, inpaint 1, colorize 1.
    """

    default_loss_weights: ClassVar = {"mask": 1.0, "inpaint": 1.0, "colorize": 1.0}

    image_size: int = 256
    """Side of the training images in pixels."""
    lr: float = 3e-4
    """Peak learning rate."""
    encoder: Architecture[str] = "resnet34"
    """The U-Nets' encoder: any encoder of segmentation-models-pytorch, lite0 to lite2, or any timm
    model."""
    encoder_weights: EncoderWeights = "auto"
    """pip (from an installed package), imagenet (downloaded), none, or auto: pip where there is
    one."""


@dataclass(frozen=True)
class GanOptions(ModelOptions):
    """gan, the team's first system: a generator against a discriminator.

    Loss terms and their weights: adversarial 1, l1 100, discriminator 1.
    """

    size_multiple: ClassVar[int] = 512
    default_loss_weights: ClassVar = {
        "adversarial": 1.0,
        "l1": 100.0,
        "discriminator": 1.0,
    }  # pix2pix's

    lr: float = 2e-4
    """Peak learning rate."""


@dataclass(frozen=True)
class DetectorOptions(ModelOptions):
    """The detector of scratches, cracks, creases, flakes, stains and tears in old photos.

    Loss terms and their weights: cross_entropy 1, dice 1.
    """

    default_loss_weights: ClassVar = {"cross_entropy": 1.0, "dice": 1.0}

    image_size: int = 256
    """Side of the training images in pixels."""
    lr: float = 1e-3
    """Peak learning rate."""
    encoder: Architecture[str] = "lite0"
    """The U-Net's encoder: any encoder of segmentation-models-pytorch, lite0 to lite2, or any timm
    model."""
    encoder_weights: EncoderWeights = "auto"
    """pip (from an installed package), imagenet (downloaded), none, or auto: pip where there is
    one."""


OPTIONS: dict[str, type[ModelOptions]] = {
    "restorer": RestorerOptions,
    "full_pipeline": FullPipelineOptions,
    "gan": GanOptions,
    "detector": DetectorOptions,
}
DEFAULT_MODEL = "restorer"


def require_positive(name: str, value: float | None, zero: bool = False) -> None:
    """Raise `SettingError` unless a number is above 0, or at least 0 if `zero`; None is fine."""
    if value is not None and not (value >= 0 if zero else value > 0):
        raise SettingError(name, value, "must be 0 or more" if zero else "must be above 0")


def model_options(name: str, **given: object) -> ModelOptions:
    """The options of a model; raises `SettingError` for an unknown model or an impossible value."""
    if name not in OPTIONS:
        raise SettingError("model", name, f"unknown; choose one of {', '.join(OPTIONS)}")
    return OPTIONS[name](**given)


def from_checkpoint(name: str, arguments: object) -> ModelOptions:
    """The options that rebuild a model from what its checkpoint says, which may come from anyone.

    Raises `InputError` unless these are values of the right types for exactly the options of
    `ModelOptions.architecture`.
    """
    expected = model_options(name).architecture()
    if not isinstance(arguments, dict) or arguments.keys() != expected.keys():
        raise InputError(
            f"arguments {arguments!r:.80}, expected one value for each of {list(expected)}"
        )
    for key, value in arguments.items():
        kind = type(expected[key])
        whole = kind is float and type(value) is int
        if type(value) is not kind and not whole:
            raise InputError(f"argument {key} is {value!r:.80}, expected type {kind.__name__}")
        if (isinstance(value, str) and not value.isprintable()) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise InputError(f"argument {key} is {value!r:.80}, which no model accepts")
    # "imagenet" would download, and the weights are in the checkpoint
    fields = {field.name for field in dataclasses.fields(OPTIONS[name])}
    offline = {"encoder_weights": "none"} if "encoder_weights" in fields else {}
    return model_options(name, **arguments, **offline)


def _architecture_names(options: type[ModelOptions]) -> list[str]:
    hints = get_type_hints(options, include_extras=True)
    return [
        field.name
        for field in dataclasses.fields(options)
        if _SHAPES_THE_MODEL in getattr(hints[field.name], "__metadata__", ())
    ]
