"""The models, by name."""

import inspect

from src.files import InputError
from src.models.base import RestorationModel
from src.models.full_pipeline import FullPipeline
from src.models.gan import Gan
from src.models.restorer import Restorer

MODELS: dict[str, type[RestorationModel]] = {
    "restorer": Restorer,
    "full_pipeline": FullPipeline,
    "gan": Gan,
}


def model_class(name: str) -> type[RestorationModel]:
    """The class of a model; raises `InputError` that lists the right names for a wrong one."""
    if name not in MODELS:
        raise InputError(f"--model {name}: unknown; choose one of {', '.join(MODELS)}")
    return MODELS[name]


def takes(name: str, argument: str) -> bool:
    """Whether a model's constructor has an argument of this name."""
    return argument in inspect.signature(model_class(name)).parameters


def default(name: str, argument: str) -> object:
    """The value of a constructor's argument that is left out."""
    return inspect.signature(model_class(name)).parameters[argument].default


def create_model(name: str, /, **arguments: object) -> RestorationModel:
    """Build a model with those of `arguments` that it takes; see `model_class` for errors."""
    return model_class(name)(**{key: value for key, value in arguments.items() if takes(name, key)})
