"""Train one fold of a model, or all of them: python train.py --fold 0"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.models.options import DEFAULT_MODEL, MODELS
from src.runs import CONFIG, LAST, initial_checkpoint
from src.training.settings import TrainSettings, begin_run, default_settings
from src.utils.cli import parse_settings, run_script
from src.utils.errors import InputError, SettingError, Stopped
from src.utils.files import lock_folder, write_json

if TYPE_CHECKING:  # torch takes seconds to import; --help need not wait
    from lightning_fabric import Fabric

    from src.models.base import Batch
    from src.training.state import Budget, TrainingState

DESCRIPTION = """Train one fold of a model, or all folds. Run the same command again to resume.

Models: {models}. The name comes first, as in `train.py gan --fold 0`;
the default is restorer. `train.py gan --help` shows the options of gan."""


@dataclass
class Run:
    """One fold in training."""

    settings: TrainSettings
    folder: Path
    config: dict  # written to config.json
    val_pairs: list[tuple[Path, Path]]  # (input, truth)
    state: "TrainingState"
    budget: "Budget"
    batches: "Iterator[Batch]"
    fabric: "Fabric"


def set_up(settings: TrainSettings, fold: int, fabric: "Fabric") -> Run:
    """Data, model and budget of a fold; an interrupted run continues from its `last.pt`."""
    from lightning_fabric import seed_everything

    from src.datasets import folds
    from src.datasets.bank import load_bank
    from src.datasets.loader import EndlessSampler, TrainingImages, training_batches
    from src.models import build_model
    from src.training.state import Budget, TrainingState, load_initial
    from src.training.validation import reserve_time

    options, folders = settings.model, settings.folders
    folder = folders.run_dir / f"fold{fold}"
    resumed = (folder / LAST).exists()
    seed_everything(settings.seed + fold, verbose=False)
    model = build_model(options).to(fabric.device)
    bank = load_bank(folders.data_dir)  # refuses a stale one before anything is written
    with fabric.rank_zero_first():  # the first may have to find the scenes; the others read them
        split = folders.data_dir, settings.folds, settings.seed, fold, folders.run_dir
        train_pairs, val_pairs, rows = folds.fold_files(*split)
        facts = {"fold": fold, "held_out": folds.fingerprint(val_pairs)}
        truths = [truth for _, truth in train_pairs]
        keys = folds.image_keys(truths)
        if settings.init and not resumed:
            initial = initial_checkpoint(settings.init, fold)
            keys = load_initial(model, initial, facts, val_pairs, keys)
        config = settings.config() | facts
        begin_run(folder, config)
    val_pairs = folds.evenly_spaced(val_pairs, settings.val_images)
    state = TrainingState(model, settings.seed, facts | {"trained_on": folds.encode_keys(keys)})
    if resumed:
        state.load(folder / LAST)
    epoch_steps = max(1, len(truths) // options.batch_size)
    steps = settings.planned_epochs and settings.planned_epochs * epoch_steps
    if fabric.is_global_zero:
        random = "random weights"
        if "encoder" in options.architecture:
            random += f", encoder {options.encoder_weights}"
        start = f"step {state.step}" if resumed else settings.init or random
        images = f"{len(truths)} images of {rows['scene'].nunique()} scenes"
        print(f"fold {fold}: {images}, and {len(val_pairs)} of other scenes to validate on")
        limits = [f"{steps} steps of {options.batch_size} images"] if steps else []
        limits += [f"{settings.max_minutes:g} minutes"] if settings.max_minutes else []
        devices = f"{fabric.world_size} x {fabric.device.type}"
        print(f"{' or '.join(limits)} on {devices}, from {start}")
    budget = Budget(
        steps=steps,
        seconds=settings.max_minutes and settings.max_minutes * 60,
        validate_steps=settings.validate_every * epoch_steps,
        earlier=state.elapsed,
    )
    if settings.max_minutes:
        reserve_time(budget, state.ema.module, val_pairs, fabric)
    images = TrainingImages(truths, options.image_size, settings.seed, model.batch_spec, bank)
    position = state.step, fabric.global_rank, fabric.world_size, model.batch_spec.hole_every
    weights = rows[folds.WEIGHT].to_numpy()
    sampler = EndlessSampler(weights, options.batch_size, settings.seed, *position)
    on_gpu = fabric.device.type == "cuda"
    batches = training_batches(images, sampler, settings.workers, pin_memory=on_gpu)
    return Run(settings, folder, config, val_pairs, state, budget, batches, fabric)


def loop(run: Run) -> int:
    """Train until the budget is spent or a signal comes; returns the signal's number, or 0."""
    from src.training.logger import LOG_EVERY, RunLogger
    from src.training.state import learning_rate, training_step
    from src.training.validation import validate
    from src.utils.distributed import all_reduce_max
    from src.utils.processes import StopSignals

    state, budget, fabric, settings = run.state, run.budget, run.fabric, run.settings
    is_main = fabric.is_global_zero
    with StopSignals() as stop, RunLogger(run.folder, state.step, fabric) as log:
        while True:
            elapsed, stopped = all_reduce_max(fabric, budget.elapsed(), stop.number)
            progress = budget.progress(state.step, elapsed)
            lr = learning_rate(settings.model.lr, progress)
            due = budget.validation_due(state.step, progress) and state.step > state.validated
            save = due or stopped or elapsed - state.elapsed > 60 * settings.save_minutes
            log.show(progress)
            if save or state.step % LOG_EVERY == 0:
                log.flush(state.step, lr, settings.model.batch_size)
            if due and not stopped:
                result = validate(state.ema.module, run.val_pairs, fabric, stop)
                if result is None:
                    continue  # a signal came
                log.validation(state.step, elapsed / 60, *result)
                state.keep_if_best(run.folder, settings.model_name, result[0], is_main)
            if save and state.step > 0:
                (state.elapsed,) = all_reduce_max(fabric, budget.elapsed())
                if is_main:
                    state.save(run.folder / LAST)
                log.restart_clock()
            if stopped or progress >= 1:
                return int(stopped)
            log.add(training_step(state, next(run.batches), lr, fabric))


def report(run: Run, signal_number: int) -> None:
    """Mark a fold as finished, or say where it was stopped."""
    step, is_main = run.state.step, run.fabric.is_global_zero
    if signal_number and not is_main:
        raise SystemExit(128 + signal_number)  # the first process says why
    if signal_number:
        name = signal.Signals(signal_number).name
        saved = f"progress is saved in {run.folder / LAST}"
        raise Stopped(f"{run.folder}: stopped by {name} at step {step}; {saved}", signal_number)
    if step == 0:
        raise InputError(f"{run.folder}: the budget is too short for one step", "time budget")
    if is_main:
        write_json(run.folder / CONFIG, run.config | {"finished": True})
        print(f"{run.folder}: best validation score {run.state.best:.4f}")


def main() -> None:
    """Train the folds that the command line names."""
    model, arguments = DEFAULT_MODEL, sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        model = arguments.pop(0)
    defaults = default_settings(model)
    description = DESCRIPTION.format(models=", ".join(MODELS))
    kind = TrainSettings[type(defaults.model)]
    settings = parse_settings(kind, description, arguments, f"train.py {model}", defaults)
    if settings.dry_run:
        print(json.dumps(settings.config(), indent=2))
        return
    from src.utils.distributed import launch

    fabric = launch(settings.compute.device, settings.compute.devices, settings.precision)
    if settings.model.batch_size % fabric.world_size:
        reason = f"must be a multiple of the {fabric.world_size} processes, which share it"
        raise SettingError("batch_size", settings.model.batch_size, reason)
    folds = list(range(settings.folds)) if settings.fold == "all" else [settings.fold]
    for fold in folds:
        folder = settings.folders.run_dir / f"fold{fold}"
        with lock_folder(folder) if fabric.is_global_zero else nullcontext():
            run = set_up(settings, fold, fabric)
            report(run, loop(run))


if __name__ == "__main__":
    run_script(main)
