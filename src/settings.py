"""Settings that the scripts share."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from src.files import InputError
from src.models import MODELS

DEFAULT_MODEL = next(iter(MODELS))


@dataclass(frozen=True)
class RunSettings:
    """Where results go."""

    output_dir: Path = Path("outputs")
    """Where every run writes; a run is one folder in it."""
    name: str = ""
    """The run's folder below output-dir; the model's name when left out."""

    @property
    def run_dir(self) -> Path:
        """The folder of the run; raises `InputError` for a name that leaves `output_dir`."""
        name = self.name or getattr(self, "model", DEFAULT_MODEL)
        if Path(name).name != name or name == "..":
            raise InputError(f"--name {name}: must be one plain folder name, such as first_try")
        return self.output_dir / name


@dataclass(frozen=True)
class DataSettings(RunSettings):
    """Where the data is besides."""

    data_dir: Path = Path("data")
    """The competition folder: train.csv, test.csv, train_input/, train_gt/, test_input/."""


@dataclass(frozen=True)
class ComputeSettings(DataSettings):
    """What computes a run besides."""

    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""
    devices: int = 1
    """Processes that share the work on this machine, a device each; torchrun's number under torchrun."""


def as_json(settings: object) -> dict:
    """A settings dataclass as values that JSON can hold."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))
