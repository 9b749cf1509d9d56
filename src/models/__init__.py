"""The networks, and how they are stored in files."""

from importlib import import_module
from typing import TYPE_CHECKING

from src.models.options import ModelOptions, model_options

if TYPE_CHECKING:
    from src.models.base import TrainableModel


def create_model(name: str, **options: object) -> "TrainableModel":
    """An untrained model (its encoder may be pretrained) by its name in `options.MODELS`."""
    return build_model(model_options(name, **options))


def build_model(options: ModelOptions) -> "TrainableModel":
    """The model that the options describe."""
    module, _, name = options.model_class.partition(":")
    return getattr(import_module(module), name)(options)
