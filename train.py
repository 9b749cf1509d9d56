"""Train one fold of a model, or all of them: python train.py --fold 0"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.models.options import DEFAULT_MODEL, MODELS, model_options
from src.training.settings import TrainSettings, default_settings
from src.utils.cli import parse_settings, run_script, split_model
from src.utils.errors import InputError, SettingError, Stopped
from src.utils.files import lock_folder

if TYPE_CHECKING:  # torch takes seconds, which --help need not wait for
    from lightning_fabric import Fabric

    from src.models.base import Batch
    from src.training.logger import RunLogger
    from src.training.state import Budget, TrainingState
    from src.utils.processes import StopSignals

DESCRIPTION = """Train one fold of a model, or all folds. Run the same command again to resume.

Models: {models}. The name comes first, as in `train.py gan --fold 0`;
the default is restorer. `train.py gan --help` shows the defaults of gan.

Loss terms of {model} and their weights: {terms}."""


@dataclass
class Run:
    """One fold in training."""

    settings: TrainSettings
    fold: int
    folder: Path
    config: dict  # what config.json holds
    val_pairs: list[tuple[Path, Path]]  # (input, truth)
    state: "TrainingState"
    budget: "Budget"
    batches: "Iterator[Batch]"
    fabric: "Fabric"


def train_fold(settings: TrainSettings, fold: int, fabric: "Fabric") -> None:
    """Train on all folds but one and validate on that one, in `<run>/fold<k>/`."""
    run = set_up(settings, fold, fabric)
    report(run, loop(run))


def set_up(settings: TrainSettings, fold: int, fabric: "Fabric") -> Run:
    """Data, model and budget of a fold, and where an interrupted run stopped."""
    from lightning_fabric import seed_everything

    from src.datasets.bank import load_bank
    from src.datasets.folds import evenly_spaced, fold_weights
    from src.datasets.loader import EndlessSampler, TrainingImages, training_batches
    from src.models import build_model
    from src.models.checkpoints import LAST, load_weights
    from src.runs import initial_checkpoint
    from src.training import state as runs
    from src.training.validation import reserve_time

    options, data_dir, seed = settings.model, settings.folders.data_dir, settings.seed
    folder = settings.folders.run_dir / f"fold{fold}"
    seed_everything(seed + fold, verbose=False)
    model = build_model(options).to(fabric.device)
    bank = load_bank(data_dir)  # refuses a stale one before anything is written
    with fabric.rank_zero_first():  # it may have to find the scenes, which the others then read
        train_pairs, val_pairs, split_info = split(settings, fold)
        weights = fold_weights(data_dir, settings.folds, seed, fold, settings.folders.run_dir)
        config = settings.config() | split_info
        runs.begin_run(folder, config, options.trained)
    truths = [truth for _, truth in train_pairs]
    val_pairs = evenly_spaced(val_pairs, settings.val_images)

    resumed, loaded = (folder / LAST).exists(), {}
    if settings.init and not resumed:
        loaded = load_weights(model, initial_checkpoint(settings.init, fold))
        if fabric.is_global_zero:
            runs.keep_untrained(folder, model, settings.model_name, loaded, split_info)
    state = runs.TrainingState(model, seed, split_info)
    if resumed:
        state.load(folder / LAST)
    state.facts["trained_on"] = runs.trained_on(truths, [*loaded.values(), state.facts])
    if fabric.is_global_zero:
        images = f"{len(truths)} training and {len(val_pairs)} validation images"
        print(f"fold {fold}: {images}, {fabric.world_size} x {fabric.device.type}")
        print(f"fold {fold}: starts {runs.describe_start(options, settings.init, state.step)}")

    epoch_steps = max(1, len(truths) // options.batch_size)
    budget = runs.Budget(
        steps=settings.planned_epochs and settings.planned_epochs * epoch_steps,
        seconds=settings.max_minutes and settings.max_minutes * 60,
        validate_steps=settings.validate_every * epoch_steps,
        earlier=state.elapsed,
    )
    if settings.max_minutes:
        reserve_time(budget, state.ema.module, val_pairs, fabric)
    images = TrainingImages(truths, options.image_size, seed, model.batch_spec, bank)
    process = {"process": fabric.global_rank, "processes": fabric.world_size}
    order = {"first_batch": state.step, "hole_every": model.batch_spec.hole_every, **process}
    sampler = EndlessSampler(weights, options.batch_size, seed, **order)
    on_gpu = fabric.device.type == "cuda"
    batches = training_batches(images, sampler, settings.workers, pin_memory=on_gpu)
    return Run(settings, fold, folder, config, val_pairs, state, budget, batches, fabric)


def split(settings: TrainSettings, fold: int) -> tuple[list, list, dict]:
    """(input, truth) files to train on and to validate on, and what a checkpoint says of them."""
    from src.datasets.folds import fingerprint, fold_files

    folders = settings.folders
    files = fold_files(folders.data_dir, settings.folds, settings.seed, fold, folders.run_dir)
    return *files, {"fold": fold, "held_out": fingerprint(files[1])}


def loop(run: Run) -> int:
    """Train until the budget is spent or a signal comes; returns the signal's number, or 0."""
    from src.models.checkpoints import LAST
    from src.training.logger import LOG_EVERY, RunLogger
    from src.training.state import learning_rate, training_step
    from src.utils.distributed import all_reduce_max
    from src.utils.processes import StopSignals

    state, budget, fabric, options = run.state, run.budget, run.fabric, run.settings.model
    label = f"fold {run.fold}"
    lr = 0.0
    with StopSignals() as stop, RunLogger(run.folder, state.step, fabric, label) as log:
        batches = log.timed(run.batches)
        while True:
            elapsed, signal_number = all_reduce_max(fabric, budget.elapsed(), stop.number)
            progress = budget.progress(state.step, elapsed)
            log.show(progress)
            save = signal_number or elapsed - state.elapsed > 60 * run.settings.save_minutes
            due = budget.validation_due(state.step, progress) and state.step > state.validated
            if due or save or state.step % LOG_EVERY == 0:
                log.flush(state.step, lr, options.batch_size)
            if due and not signal_number:
                if not validate_and_keep_best(run, elapsed, stop, log):
                    continue  # a signal came
                save = True
            if save and state.step > 0:
                (state.elapsed,) = all_reduce_max(fabric, budget.elapsed())
                if fabric.is_global_zero:
                    state.save(run.folder / LAST)
                log.restart_clock()
            if signal_number or progress >= 1:
                return int(signal_number)
            lr = learning_rate(options.lr, progress)
            log.add(training_step(state, next(batches), lr, fabric))


def validate_and_keep_best(run: Run, elapsed: float, stop: "StopSignals", log: "RunLogger") -> bool:
    """Validate the averaged weights and keep them if they are the best; False if a signal came."""
    from src.training.validation import validate

    state, fabric = run.state, run.fabric
    result = validate(state.ema.module, run.val_pairs, fabric, stop)
    if result is None:
        return False
    scores, pictures = result
    log.validation(state.step, elapsed / 60, scores, pictures)
    state.validated = state.step
    state.keep_if_best(run.folder, run.settings.model_name, scores, write=fabric.is_global_zero)
    return True


def report(run: Run, signal_number: int) -> None:
    """Say what a fold's training came to."""
    from src.models.checkpoints import LAST
    from src.training.state import finish_run

    label = f"fold {run.fold}"
    if not run.fabric.is_global_zero:
        if signal_number:
            raise SystemExit(128 + signal_number)  # the first process says why
        return
    if signal_number:
        name = signal.Signals(signal_number).name
        saved = f"progress is saved in {run.folder / LAST}"
        step = run.state.step
        raise Stopped(f"{label}: stopped by {name} at step {step}; {saved}", signal_number)
    if run.state.step == 0:
        raise InputError(f"{label}: the budget was spent before the first step", "time budget")
    finish_run(run.folder, run.config)
    print(f"{label}: best validation score {run.state.best:.4f}, {run.folder}")
    if run.settings.model_name == "detector":
        command = f"python -m tools.ship_weights {run.folder.parent}"
        print(f"{command} makes it the detector that infer.py uses")


def check_starts(settings: TrainSettings, folds: list[int]) -> None:
    """Refuse an unfit --init before the first of the folds is trained."""
    from src.models.checkpoints import LAST
    from src.runs import initial_checkpoint
    from src.training.state import check_initial

    for fold in folds:
        if not (settings.folders.run_dir / f"fold{fold}" / LAST).exists():
            _, val_pairs, split_info = split(settings, fold)
            truths = [truth for _, truth in val_pairs]
            check_initial(
                initial_checkpoint(settings.init, fold), settings.model, split_info, truths
            )


def main() -> None:
    """Train what the command line asks for."""
    model, arguments = split_model(sys.argv[1:], DEFAULT_MODEL)
    terms = ", ".join(f"{term} {w:g}" for term, w in model_options(model).loss_terms.items())
    description = DESCRIPTION.format(models=", ".join(MODELS), model=model, terms=terms)
    program, defaults = f"train.py {model}", default_settings(model)
    settings = parse_settings(
        TrainSettings[MODELS[model]], description, arguments, program, defaults
    )
    if settings.dry_run:
        print(json.dumps(settings.config(), indent=2))
        return
    from src.utils.distributed import launch

    fabric = launch(settings.compute.device, settings.compute.devices, settings.precision)
    if settings.model.batch_size % fabric.world_size:
        reason = f"must be a multiple of the {fabric.world_size} processes, which share it"
        raise SettingError("batch_size", settings.model.batch_size, reason)
    folds = list(range(settings.folds)) if settings.fold == "all" else [settings.fold]
    if settings.init:
        with fabric.rank_zero_first():
            check_starts(settings, folds)
    for fold in folds:
        folder = settings.folders.run_dir / f"fold{fold}"
        with lock_folder(folder) if fabric.is_global_zero else nullcontext():
            train_fold(settings, fold, fabric)


if __name__ == "__main__":
    run_script(main)
