"""The folders of runs, `<output-dir>/<name>/fold<k>/`: which folds have weights, which to use."""

from collections.abc import Sequence
from pathlib import Path

from src.utils.errors import InputError

SHIPPED = Path(__file__).parents[1] / "weights"  # laid out like a run's folder
DETECTOR = SHIPPED / "detector.safetensors"


def trained_or_shipped(run_dir: Path) -> Path:
    """`run_dir`, or the folder of the shipped weights if no fold of it has a checkpoint yet."""
    return run_dir if _trained(run_dir) else SHIPPED


def fold_checkpoints(run_dir: Path, folds: Sequence[int] | None = None) -> list[Path]:
    """The folders of some folds, or of every trained fold of a run if `folds` is None.

    Raises `InputError` if one is missing; it names the folds and runs that exist.
    """
    trained = _trained(run_dir)
    for fold in set(folds or ()):
        if list(folds).count(fold) > 1:
            raise InputError(f"{run_dir}: fold {fold} is listed twice, and would count twice")
    wanted = sorted(trained) if folds is None else folds
    missing = [f"fold {fold}" for fold in wanted if fold not in trained]
    if missing or not wanted:
        runs = sorted(run.name for run in run_dir.parent.glob("*/") if _trained(run))
        known, others = (", ".join(map(str, names)) or "none" for names in (sorted(trained), runs))
        found = f"no checkpoint of {(missing or ['any fold'])[0]}"
        raise InputError(
            f"{run_dir}: {found} (trained folds: {known}; runs: {others})", "checkpoint"
        )
    return [trained[fold] for fold in wanted]


def initial_checkpoint(init: Path, fold: int) -> Path:
    """The checkpoint that a fold's training starts from: `init` itself, or the same fold's of a
    run."""
    is_run = any(init.glob("fold*/"))
    return fold_checkpoints(init, [fold])[0] if is_run else init


def _trained(run_dir: Path) -> dict[int, Path]:
    """The folders of a run's folds that hold weights, by their number."""
    folders = {file.parent for file in run_dir.glob("fold*/*.safetensors")}
    numbers = {path: path.name.removeprefix("fold") for path in folders}
    return {int(number): path for path, number in numbers.items() if number.isdecimal()}
