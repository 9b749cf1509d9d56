"""Settings that the scripts share; a script's own settings hold them as groups."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_type_hints

from src.utils.errors import SettingError

T = TypeVar("T")

Style = Literal["score", "visual"]
Tta = Literal[1, 2, 8]
DamageKind = Literal["auto", "hole", "none"]

_MAY_CHANGE = "may change when a run is resumed"
MayChange = Annotated[T, _MAY_CHANGE]  # in the type of a setting that a resumed run may change


@dataclass(frozen=True)
class RunFolder:
    """Where a run's results lie."""

    name: str = "restorer"
    """Name of the run and of its folder in output-dir; when training, the model's name."""
    output_dir: MayChange[Path] = Path("outputs")
    """The folder that holds all runs."""

    @property
    def run_dir(self) -> Path:
        """The folder of the run; raises `SettingError` for a name that leaves `output_dir`."""
        if not self.name or Path(self.name).name != self.name or self.name == "..":
            raise SettingError(
                "name", self.name, "must be one plain folder name, such as first_try"
            )
        return self.output_dir / self.name


@dataclass(frozen=True)
class Folders(RunFolder):
    """Where the data lies, and where results go."""

    data_dir: MayChange[Path] = Path("data")
    """The competition folder: train.csv, test.csv, train_input/, train_gt/, test_input/."""


@dataclass(frozen=True)
class Compute:
    """The hardware to use."""

    device: MayChange[str] = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""
    devices: MayChange[int] = 1
    """Processes that share the work on this machine, one device each. Under torchrun, torchrun
    decides."""


def as_json(settings: object) -> dict:
    """A settings dataclass as one flat dict that JSON can hold; fields of its groups stand beside
    its own."""
    values = {}
    for owner, name, _ in _fields(settings):
        values[name] = getattr(owner, name)
    return json.loads(json.dumps(values, default=str))


def may_change(settings: object) -> set[str]:
    """Names of the settings, groups included, whose type is `MayChange`."""
    return {
        name
        for _, name, hint in _fields(settings)
        if _MAY_CHANGE in getattr(hint, "__metadata__", ())
    }


def _fields(settings: object) -> Iterator[tuple[object, str, object]]:
    """(owner, name, type) of each field, those of its groups included."""
    hints = get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value)
        else:
            yield settings, field.name, hints[field.name]
