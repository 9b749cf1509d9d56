"""The folders of runs, `<output-dir>/<name>/fold<k>/`: which folds are finished, which to use."""

from collections.abc import Sequence
from pathlib import Path

from src.utils.cli import RunFolder
from src.utils.errors import InputError
from src.utils.files import read_recipe

SHIPPED = Path(__file__).parents[1] / "weights"  # laid out like a run's folder
DETECTOR = SHIPPED / "detector.safetensors"
CONFIG, LAST = "config.json", "last.pt"  # in a fold's folder: its settings, its training state
RECIPE = ".recipe.json"  # in a folder of results: what made them
HASHES = ("checkpoints", "detector")  # entries of a recipe


def trained_or_shipped(folders: RunFolder) -> Path:
    """The folder of the run, or of the shipped weights if no run was named and none is trained."""
    run_dir = folders.run_dir
    return SHIPPED if folders.name is None and not _trained(run_dir) else run_dir


def fold_checkpoints(run_dir: Path, folds: Sequence[int] | None = None) -> list[Path]:
    """The folders of some folds of a run, or of all that are finished if `folds` is None."""
    trained = _trained(run_dir)
    if folds is None:
        training = folds_in_training(run_dir)
        folds = sorted(trained.keys() - training)
        if training and not folds:
            numbers = ", ".join(map(str, training))
            remedy = "run train.py again to finish, or use one as it is with --fold"
            raise InputError(f"{run_dir}: fold {numbers} still in training; {remedy}")
    if len(set(folds)) < len(folds):
        raise InputError(f"{run_dir}: folds {list(folds)}: one is listed twice and counts twice")
    missing = [f"fold {fold}" for fold in folds if fold not in trained]
    if missing or not folds:
        runs = sorted(run.name for run in run_dir.parent.glob("*/") if _trained(run))
        known, others = (", ".join(map(str, names)) or "none" for names in (sorted(trained), runs))
        found = f"no checkpoint of {missing[0] if missing else 'any fold'}"
        there = f"trained folds: {known}; runs: {others}"
        raise InputError(f"{run_dir}: {found} ({there})", "checkpoint")
    return [trained[fold] for fold in folds]


def folds_in_training(run_dir: Path) -> list[int]:
    """The folds with weights whose training has not reached the end of its budget."""
    return [
        fold
        for fold, path in sorted(_trained(run_dir).items())
        if (path / LAST).exists() and not read_recipe(path, CONFIG).get("finished")
    ]


def initial_checkpoint(init: Path, fold: int) -> Path:
    """The checkpoint a fold's training starts from: `init`, or that fold of the run `init`."""
    return fold_checkpoints(init, [fold])[0] if _trained(init) else init


def describe_recipe(recipe: dict) -> str:
    """A recipe in a few words, without hashes."""
    facts = [f"{key} {value}" for key, value in recipe.items() if key not in HASHES]
    folds = len(recipe.get("checkpoints", ()))
    return ", ".join(facts + ([f"{folds} fold(s)"] if folds else []))


def _trained(run_dir: Path) -> dict[int, Path]:
    """The folders of a run's folds that hold weights, by their number."""
    folders = {file.parent for file in run_dir.glob("fold*/*.safetensors")}
    folders = {path for path in folders if path.name[4:].isdecimal()}
    return {int(path.name[4:]): path for path in folders}
