"""The settings of a training run; no torch, so `--help` is fast."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

from src.models.options import MODELS, ModelOptions, model_options, require_positive
from src.runs import CONFIG, LAST
from src.utils.cli import Compute, Folders, as_json
from src.utils.errors import InputError, SettingError
from src.utils.files import begin
from src.utils.processes import cores

DEFAULT_EPOCHS = 20

# Settings that may change when a run resumes; others change the result and are refused.
MAY_CHANGE = {
    *("max_minutes", "epochs", "val_images", "validate_every", "save_minutes"),
    *("workers", "precision", "dry_run", "data_dir", "output_dir", "device", "devices"),
    "finished",  # set at the end of train.py
}

Options = TypeVar("Options", bound=ModelOptions)


@dataclass(frozen=True)
class TrainSettings(Generic[Options]):
    """Train one fold of a model, or all folds. Run the same command again to resume."""

    model: Options
    fold: int | Literal["all"] = 0
    """The fold held out for validation, counted from 0; "all" trains all folds in turn."""
    max_minutes: float | None = None
    """Wall-clock budget per fold in minutes, validation included; the schedule adapts to it."""
    epochs: int | None = None
    """Passes over the training images; 20 if max-minutes is left out as well."""
    init: Path | None = None
    """Start from trained weights of the same model: a checkpoint, or a folder of folds such as
    weights. They must not have seen the validation images."""
    folds: int = 5
    """Number of folds that the scenes are split into."""
    seed: int = 0
    """Seed of all randomness."""
    val_images: int = 100
    """Validation images, spread evenly over the fold; 0 takes all, as evaluate.py --fold does."""
    validate_every: int = 1
    """Epochs between validations; the run always ends with one."""
    save_minutes: float = 5.0
    """Minutes between checkpoints, in addition to one at each validation."""
    workers: int = field(default_factory=lambda: min(8, cores() - 1))
    """Processes per device that prepare training images; 0 prepares them between the steps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the networks in training; auto is bf16 on a GPU that supports it, else fp32."""
    dry_run: bool = False
    """Print the resolved settings and stop."""
    folders: Folders = field(default_factory=Folders)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        for name in ("epochs", "max_minutes", "validate_every"):
            require_positive(name, getattr(self, name))
        for name in ("seed", "workers", "val_images", "save_minutes"):
            require_positive(name, getattr(self, name), zero=True)
        if self.folds < 2:
            raise SettingError("folds", self.folds, "at least 2, to train on one and score another")
        if self.fold != "all" and not 0 <= self.fold < self.folds:
            reason = f"out of range; choose 0 to {self.folds - 1}, or all"
            raise SettingError("fold", self.fold, reason)
        missing = set(self.model.networks) - set(self.model.trained)
        if missing and self.init is None:
            reason = f"the {missing.pop()} must come from --init, such as --init weights"
            raise SettingError("parts", ", ".join(self.model.trained), reason)

    @property
    def model_name(self) -> str:
        """The model's name in `MODELS`."""
        return next(name for name, kind in MODELS.items() if kind is type(self.model))

    @property
    def planned_epochs(self) -> int | None:
        """Passes over the training images; None if only the clock ends the run."""
        return DEFAULT_EPOCHS if self.epochs is None and self.max_minutes is None else self.epochs

    def config(self) -> dict:
        """All settings as one flat dict that JSON can hold."""
        resolved = {"epochs": self.planned_epochs, "loss_weights": self.model.term_weights}
        return {"model": self.model_name, **as_json(self), **resolved}


def default_settings(model: str) -> TrainSettings:
    """The default settings of a run of the model, which is named after it."""
    return replace(TrainSettings(model_options(model)), folders=Folders(name=model))


def begin_run(folder: Path, config: dict) -> None:
    """Write `config.json` into a fold's folder, or check that it resumes the run there."""
    if not (folder / LAST).exists():  # nothing was saved, so nothing can be lost
        (folder / CONFIG).unlink(missing_ok=True)
        for file in folder.glob("*.safetensors"):
            found = f"{file}: would be overwritten, as there is no {LAST} to resume from"
            raise InputError(f"{found}; move it away", "earlier run")
    begin(folder, config, MAY_CHANGE, CONFIG, f"delete {folder} to start again", "earlier run")
