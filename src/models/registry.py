"""The models, by name."""

from src.models.base import TrainableModel
from src.models.detector import DamageDetector
from src.models.full_pipeline import FullPipeline
from src.models.gan import Gan
from src.models.options import model_options
from src.models.restorer import Restorer

MODELS: dict[str, type[TrainableModel]] = {
    "restorer": Restorer,
    "full_pipeline": FullPipeline,
    "gan": Gan,
    "detector": DamageDetector,
}


def create_model(name: str, **options: object) -> TrainableModel:
    """A model with random weights, but for its pretrained encoder; options left out have their
    defaults.

    Raises `SettingError` for an unknown name, which lists the right ones, or an impossible option.
    """
    chosen = model_options(name, **options)
    return MODELS[name](chosen)
