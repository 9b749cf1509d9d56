"""Settings that the scripts share."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from src.files import InputError
from src.models import MODELS

DEFAULT_MODEL = next(iter(MODELS))


@dataclass(frozen=True)
class RunSettings:
    """Where the data is, where results go, and what computes them."""

    data_dir: Path = Path("data")
    """The competition folder: train.csv, test.csv, train_input/, train_gt/, test_input/."""
    output_dir: Path = Path("outputs")
    """Where every run writes; a run is one folder in it."""
    name: str = ""
    """The run's folder below output-dir; the model's name when left out."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""
    seed: int = 0
    """Seed of all randomness."""

    @property
    def run_dir(self) -> Path:
        """The folder of the run; raises `InputError` for a name that leaves `output_dir`."""
        name = self.name or getattr(self, "model", DEFAULT_MODEL)
        if Path(name).name != name or name == "..":
            raise InputError(f"--name {name}: must be one plain folder name, such as first_try")
        return self.output_dir / name


def as_json(settings: object) -> dict:
    """A settings dataclass as values that JSON can hold."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))


def pick_device(name: str) -> torch.device:
    """The torch device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises `InputError` for an unknown or absent device.
    """
    if name == "auto":
        name = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name}: {reason}; use --device auto or --device cpu") from None
    return device
