"""The models, by name."""

from src.models.base import TrainableModel
from src.models.detector import DamageDetector
from src.models.full_pipeline import FullPipeline
from src.models.gan import Gan
from src.models.options import ModelOptions, model_options
from src.models.restorer import Restorer

MODELS: dict[str, type[TrainableModel]] = {
    "restorer": Restorer,
    "full_pipeline": FullPipeline,
    "gan": Gan,
    "detector": DamageDetector,
}


def build_model(name: str, options: ModelOptions) -> TrainableModel:
    """A model with random weights, but for its pretrained encoder; `options` are those of `name`.

    Raises `SettingError` for an encoder that does not exist or has other weights.
    """
    return MODELS[name](options)


def create_model(name: str, **options: object) -> TrainableModel:
    """`build_model` with the options given and the others left at their defaults.

    Raises `SettingError` for an unknown name, which lists the right ones, or an impossible option.
    """
    return build_model(name, model_options(name, **options))
