"""The models by name, and the options of each; no torch, so `--help` is fast."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from src.utils.errors import SettingError

EncoderWeights = Literal["pretrained", "random"]


@dataclass(frozen=True)
class ModelOptions:
    """Options of every model. A model's own class sets the class variables and adds its options."""

    model_class: ClassVar[str] = ""  # "module:Class" of the model, a base.TrainableModel
    loss_terms: ClassVar[dict[str, float]] = {}  # name and default weight of every loss term
    architecture: ClassVar[tuple[str, ...]] = ()  # the options that a checkpoint keeps
    # A checkpoint has one file per network, named like the model's attribute; "best" is the whole
    # model, if it has only one network.
    networks: ClassVar[tuple[str, ...]] = ("best",)
    shaped: ClassVar[str] = "best"  # the network that the architecture options shape
    size_multiple: ClassVar[int] = 32  # sides of the input are multiples of this many pixels
    encoder_weights: ClassVar[str] = "random"
    parts: ClassVar[str] = "both"

    image_size: int = 512
    """Side of the training images in pixels."""
    batch_size: int = 8
    """Images per step, over all devices."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    clip_norm: float = 1.0
    """Maximum gradient norm; larger gradients are scaled down."""
    ema_decay: float = 0.998
    """Decay of the averaged weights (EMA), which are the ones validated and kept."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """New weights for some loss terms, for example: histogram 0 hue 2."""

    def __post_init__(self) -> None:
        for name in ("image_size", "batch_size", "lr", "clip_norm"):
            require_positive(name, getattr(self, name))
        require_positive("weight_decay", self.weight_decay, zero=True)
        if not 0 <= self.ema_decay < 1:
            raise SettingError("ema_decay", self.ema_decay, "must be at least 0 and below 1")
        if self.image_size % self.size_multiple:
            multiple = f"must be a multiple of {self.size_multiple} for this model"
            raise SettingError("image_size", self.image_size, multiple)
        for term, weight in self.loss_weights.items():
            if term not in self.loss_terms:
                known = ", ".join(f"{name} {value:g}" for name, value in self.loss_terms.items())
                raise SettingError("loss_weights", term, f"unknown; the terms are {known}")
            require_positive("loss_weights", weight, zero=True)

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of every loss term."""
        return self.loss_terms | self.loss_weights

    @property
    def trained(self) -> tuple[str, ...]:
        """The networks that are trained."""
        return self.networks if self.parts == "both" else (self.parts,)

    def arguments(self) -> dict[str, str | int | float]:
        """The options that a checkpoint keeps, to build the model again."""
        return {name: getattr(self, name) for name in self.architecture}


@dataclass(frozen=True)
class RestorerOptions(ModelOptions):
    """The restorer (ours): an inpainter and a colorizer."""

    model_class: ClassVar = "src.models.restorer:Restorer"
    loss_terms: ClassVar = {
        "inpaint_l1": 2.0,
        "inpaint_ssim": 1.0,
        "hue": 1.0,
        "histogram": 2.0,
        "chroma": 20.0,
    }
    networks: ClassVar = ("inpainter", "colorizer")
    shaped: ClassVar = "colorizer"

    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.05
    parts: Literal["both", "inpainter", "colorizer"] = "both"
    """Which of the two networks to train; the other one comes from --init."""


@dataclass(frozen=True)
class FullPipelineOptions(ModelOptions):
    """full_pipeline, the team's second system: three U-Nets in a row."""

    model_class: ClassVar = "src.models.full_pipeline:FullPipeline"
    loss_terms: ClassVar = {"mask": 1.0, "inpaint": 1.0, "colorize": 1.0}
    architecture: ClassVar = ("encoder",)

    image_size: int = 256
    lr: float = 3e-4
    encoder: str = "resnet34"
    """The U-Nets' encoder: lite0, or any of segmentation-models-pytorch or timm."""
    encoder_weights: EncoderWeights = "random"
    """pretrained (on ImageNet, from an installed package: lite0 only) or random."""


@dataclass(frozen=True)
class GanOptions(ModelOptions):
    """gan, the team's first system: a generator against a discriminator."""

    model_class: ClassVar = "src.models.gan:Gan"
    loss_terms: ClassVar = {"adversarial": 1.0, "l1": 100.0, "discriminator": 1.0}  # pix2pix's
    size_multiple: ClassVar[int] = 512

    lr: float = 2e-4


@dataclass(frozen=True)
class DetectorOptions(ModelOptions):
    """The detector of scratches, cracks, creases, flakes, stains and tears in old photos."""

    model_class: ClassVar = "src.models.detector:DamageDetector"
    loss_terms: ClassVar = {"cross_entropy": 1.0, "dice": 1.0}
    architecture: ClassVar = ("encoder",)

    image_size: int = 256
    encoder: str = "lite0"
    """The U-Net's encoder: lite0, or any of segmentation-models-pytorch or timm."""
    encoder_weights: EncoderWeights = "pretrained"
    """pretrained (on ImageNet, from an installed package: lite0 only) or random."""


MODELS: dict[str, type[ModelOptions]] = {
    "restorer": RestorerOptions,
    "full_pipeline": FullPipelineOptions,
    "gan": GanOptions,
    "detector": DetectorOptions,
}
DEFAULT_MODEL = "restorer"


def require_positive(name: str, value: float | None, zero: bool = False) -> None:
    """Raise `SettingError` unless a number is above 0 (with `zero`, at least 0) or None."""
    if value is not None and not (value >= 0 if zero else value > 0):
        raise SettingError(name, value, "must be 0 or more" if zero else "must be above 0")


def model_options(name: str, **options: object) -> ModelOptions:
    """The options of a model by its name in `MODELS`."""
    if name not in MODELS:
        raise SettingError("model", name, f"unknown; choose one of {', '.join(MODELS)}")
    return MODELS[name](**options)
