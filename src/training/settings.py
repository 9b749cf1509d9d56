"""The settings of a training run; no torch, so that `--help` need not wait for it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

from src.models.options import MODELS, ModelOptions, require_positive
from src.utils.errors import SettingError
from src.utils.processes import cores
from src.utils.settings import Compute, Folders, MayChange, as_json

DEFAULT_EPOCHS = 20

Options = TypeVar("Options", bound=ModelOptions)


@dataclass(frozen=True)
class TrainSettings(Generic[Options]):
    """Train one fold of a model, or all folds. Run the same command again to resume."""

    model: Options
    fold: int | Literal["all"] = 0
    """The fold to validate on, counted from 0; the others are trained on. "all" trains one after
    another."""
    max_minutes: MayChange[float | None] = None
    """Wall-clock budget of a fold in minutes, validation included; the schedule is fitted to it."""
    epochs: MayChange[int | None] = None
    """Passes over the training images; 20 when max-minutes is left out as well."""
    init: Path | None = None
    """Start from trained weights of the same model: a checkpoint, or a folder of folds such as
    weights."""
    folds: int = 5
    """Number of folds that the scenes are split into."""
    seed: int = 0
    """Seed of all randomness."""
    val_images: MayChange[int] = 100
    """Validation images, spread evenly over the fold; 0 takes all. evaluate.py --fold scores all.
    """
    validate_every: MayChange[int] = 1
    """Epochs between validations; the end of the run is always validated."""
    validate_at: MayChange[tuple[float, ...]] = ()
    """Minutes of the run at which to validate, instead of validate-every: 1 2 4 8."""
    save_minutes: MayChange[float] = 5.0
    """Minutes between checkpoints, beside those at each validation."""
    workers: MayChange[int] = field(default_factory=lambda: min(8, cores() - 1))
    """Processes, for each device, that prepare training images; 0 prepares them between the steps.
    """
    precision: MayChange[Literal["auto", "fp32", "bf16"]] = "auto"
    """Arithmetic of the networks in training; auto is bf16 on a GPU that has it, and fp32
    elsewhere."""
    compile: MayChange[bool] = False
    """Compile the networks with torch.compile: a minute or two at the start; gained nothing on an
    H200."""
    dry_run: MayChange[bool] = False
    """Print the resolved settings and stop."""
    folders: Folders = field(default_factory=Folders)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        for name in ("folds", "epochs", "max_minutes", "validate_every"):
            require_positive(name, getattr(self, name))
        for name in ("seed", "workers", "val_images", "save_minutes"):
            require_positive(name, getattr(self, name), zero=True)
        if self.fold != "all" and not 0 <= self.fold < self.folds:
            raise SettingError(
                "fold", self.fold, f"out of range; choose 0 to {self.folds - 1}, or all"
            )

    @property
    def model_name(self) -> str:
        """The model's name in `MODELS`."""
        return next(name for name, kind in MODELS.items() if kind is type(self.model))

    @property
    def planned_epochs(self) -> int | None:
        """Passes over the training images; None where only the clock ends the run."""
        return DEFAULT_EPOCHS if self.epochs is None and self.max_minutes is None else self.epochs

    def config(self) -> dict:
        """All settings as one flat dict that JSON can hold."""
        resolved = {"epochs": self.planned_epochs, "loss_weights": self.model.term_weights}
        return {"model": self.model_name, **as_json(self), **resolved}


def default_settings(model: str) -> TrainSettings:
    """The settings of a model's run when nothing is said; the run has the model's name."""
    return replace(TrainSettings(MODELS[model]()), folders=Folders(name=model))
