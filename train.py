"""Train one fold of a model, or all of them: python train.py --fold 0"""

import json
import signal
import sys
from contextlib import nullcontext

from src.models.options import DEFAULT_MODEL, MODELS, model_options
from src.training.settings import TrainSettings, default_settings
from src.utils.cli import parse_settings, run_script, split_model
from src.utils.errors import InputError, SettingError
from src.utils.files import lock_folder
from src.utils.settings import may_change

DESCRIPTION = f"""Train one fold of a model, or all folds. Run the same command again to resume.

Models: {", ".join(MODELS)}. The name comes first, as in `train.py gan --fold 0`;
the default is restorer. `train.py gan --help` shows the defaults of gan."""


def train_fold(settings: TrainSettings, fold: int, fabric) -> None:
    """Train on all folds but one and validate on that one; writes into `<run>/fold<k>/`.

    Raises `Stopped` after Ctrl-C or SIGTERM, when everything is saved.
    """
    import torch

    from src.datasets.bank import load_bank
    from src.datasets.folds import evenly_spaced, fingerprint, fold_files, fold_weights
    from src.datasets.loader import EndlessSampler, TrainingImages, training_batches
    from src.models import build_model
    from src.models.checkpoints import LAST, load_weights, save_network
    from src.runs import initial_checkpoint
    from src.training.logger import LOG_EVERY, RunLogger, progress_bar
    from src.training.schedule import Budget, learning_rate
    from src.training.state import TrainingState, begin_run, training_step
    from src.training.validation import reserve_time, validate
    from src.utils.distributed import all_reduce_max
    from src.utils.errors import Stopped
    from src.utils.processes import StopSignals

    # Set up: data, model, and where an interrupted run stopped.
    folder, data_dir, options = (
        settings.folders.run_dir / f"fold{fold}",
        settings.folders.data_dir,
        settings.model,
    )
    torch.manual_seed(settings.seed + fold)
    model = build_model(options).to(fabric.device)
    bank = load_bank(data_dir)  # refuses a stale one before anything is written
    with fabric.rank_zero_first():  # it may have to find the scenes, which the others then read
        split = data_dir, settings.folds, settings.seed, fold, settings.folders.run_dir
        (train, held_out), weights = fold_files(*split), fold_weights(*split)
        facts = {"fold": fold, "held_out": fingerprint(held_out)}
        begin_run(folder, settings.config() | facts, may_change(settings))
    truths, shown = [truth for _, truth in train], evenly_spaced(held_out, settings.val_images)
    resumed = (folder / LAST).exists()
    if settings.init and not resumed:
        loaded = load_weights(model, initial_checkpoint(settings.init, fold))
        for network in loaded.keys() - set(options.trained):
            if fabric.is_global_zero:
                save_network(folder, model, settings.model_name, network, loaded[network])
    state = TrainingState(model)
    if resumed:
        state.load(folder / LAST)
    epoch_steps = max(1, len(truths) // options.batch_size)
    budget = Budget(
        steps=settings.planned_epochs and settings.planned_epochs * epoch_steps,
        seconds=settings.max_minutes and settings.max_minutes * 60,
        spent=state.spent,
        validate_at=settings.validate_at,
        validate_steps=settings.validate_every * epoch_steps,
    )
    if settings.max_minutes:
        reserve_time(budget, state.ema.module, shown, fabric)
    if settings.compile:
        torch.compiler.reset()  # the networks of an earlier fold
        for network in state.model.children():
            network.compile()
    logger = RunLogger(folder, state.step, fabric)
    spec, seed = model.batch_spec, settings.seed
    images = TrainingImages(truths, options.image_size, seed, spec, bank)
    sampler = EndlessSampler(
        weights,
        options.batch_size,
        seed,
        first_batch=state.step,
        process=fabric.global_rank,
        processes=fabric.world_size,
        hole_every=spec.hole_every,
    )
    pin_memory = fabric.device.type == "cuda"
    batches = training_batches(images, sampler, settings.workers, pin_memory)
    batches, writes, lr = logger.timed(batches), fabric.is_global_zero, 0.0
    if writes:
        where = f"{fabric.world_size} x {fabric.device.type}"
        print(f"fold {fold}: {len(truths)} training and {len(shown)} validation images, {where}")
    progress = progress_bar(f"fold {fold}", budget.done(state.step, state.spent), writes)

    # Train until the budget is spent or a signal comes: validate and save when due, then take a
    # step.
    with StopSignals() as stop, progress as bar:
        while True:
            spent, stopped = all_reduce_max(fabric, budget.spent(), stop.number)
            done = budget.done(state.step, spent)
            bar.update(100 * done - bar.n)
            unvalidated = state.step > state.validated and not stopped
            validate_now = unvalidated and (done >= 1 or budget.validation_due(state.step, spent))
            overdue = state.step > 0 and spent - state.spent > settings.save_minutes * 60
            save_now = validate_now or overdue or stopped
            if save_now or state.step % LOG_EVERY == 0:
                bar.set_postfix_str(logger.flush(state.step, lr, options.batch_size))
            if validate_now:
                validated = validate(state.ema.module, shown, fabric, stop)
                if validated is None:
                    continue  # a signal came
                scores, pictures = validated
                state.validated = state.step
                logger.validation(state.step, spent / 60, scores, pictures)
                bar.write(
                    f"step {state.step}: " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items())
                )
                state.keep_if_best(folder, settings.model_name, facts, scores, writes)
                logger.pause(budget.spent() - spent)
            if save_now:
                (state.spent,) = all_reduce_max(fabric, budget.spent())
                if writes:
                    state.save(folder / LAST)
            if stopped or done >= 1:
                break
            lr = learning_rate(options.lr, done)
            logger.add(training_step(state, next(batches), lr, fabric))

    # Report.
    if not writes and stopped:
        raise SystemExit(128 + int(stopped))  # the first process says why
    if not writes:
        return
    if state.step == 0 and not stopped:
        raise InputError(f"fold {fold}: the budget was spent before the first step", "time budget")
    if stopped:
        name = signal.Signals(int(stopped)).name
        found = f"stopped by {name} at step {state.step}; progress is saved in {folder / LAST}"
        raise Stopped(f"fold {fold}: {found}", int(stopped))
    print(f"fold {fold}: best validation score {state.best:.4f}, {folder}")
    if settings.model_name == "detector":
        print(
            f"python -m tools.ship_weights {folder.parent} makes it the detector that infer.py uses"
        )


def main() -> None:
    """Train what the command line asks for."""
    model, arguments = split_model(sys.argv[1:], DEFAULT_MODEL)
    model_options(model)  # refuses an unknown one
    settings = parse_settings(
        TrainSettings[MODELS[model]],
        DESCRIPTION,
        arguments,
        f"train.py {model}",
        default_settings(model),
    )
    if settings.dry_run:
        print(json.dumps(settings.config(), indent=2))
        return
    from src.utils.distributed import launch

    fabric = launch(settings.compute.device, settings.compute.devices, settings.precision)
    if settings.model.batch_size % fabric.world_size:
        reason = (
            f"not a multiple of the {fabric.world_size} processes, which each take their part of it"
        )
        raise SettingError("batch_size", settings.model.batch_size, reason)
    for fold in range(settings.folds) if settings.fold == "all" else [settings.fold]:
        with (
            lock_folder(settings.folders.run_dir / f"fold{fold}")
            if fabric.is_global_zero
            else nullcontext()
        ):
            train_fold(settings, fold, fabric)


if __name__ == "__main__":
    run_script(main)
