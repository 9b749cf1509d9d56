"""Train one fold of a model, or all of them: python train.py --fold 0"""

import dataclasses
import json
import signal
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric

from src.checkpoints import BEST, LAST, initial_checkpoint, load_weights, save_model
from src.command_line import parse_settings, run_script
from src.datasets.folds import fingerprint, fold_files
from src.datasets.pack import truth_reader
from src.datasets.training import training_batches
from src.distributed import agree, launch
from src.files import InputError, exclusive
from src.models import create_model, default, model_class, takes
from src.models.encoders import check_encoder
from src.models.restorer import check_color_size
from src.parallel import cores
from src.settings import DEFAULT_MODEL, ComputeSettings, as_json
from src.stopping import Stopped, StopSignals
from src.training import (
    LOG_EVERY,
    Budget,
    Records,
    TrainingState,
    begin_run,
    learning_rate,
    progress_bar,
    training_step,
    validate,
)

# These may change when a run is resumed; all other settings must stay as they were.
CHANGEABLE = {"data_dir", "output_dir", "device", "devices", "epochs", "max_minutes", "workers", "dry_run"}
CHANGEABLE |= {"validate_every", "validate_at", "val_images", "save_minutes", "precision", "compile"}
POSITIVE = [
    "folds",
    "epochs",
    "max_minutes",
    "image_size",
    "batch_size",
    "lr",
    "clip_norm",
    "validate_every",
]
NOT_NEGATIVE = ["seed", "weight_decay", "ema_decay", "workers", "val_images", "save_minutes"]


@dataclass(frozen=True)
class Settings(ComputeSettings):
    """Train one fold of a model, or all. The same command again resumes an interrupted run."""

    fold: int | Literal["all"] = 0
    """Fold to validate on, counted from 0; the others are trained on. "all" trains one after another."""
    folds: int = 5
    """Number of folds that the scenes are split into."""
    seed: int = 0
    """Seed of all randomness."""
    model: str = DEFAULT_MODEL
    """restorer (ours), full_pipeline (three U-Nets) or gan."""
    encoder: str | None = None
    """resnet34, lite0, lite1 or lite2; when left out lite0 for restorer, resnet34 for full_pipeline."""
    encoder_weights: str = "auto"
    """pip (from an installed package), imagenet (downloaded), none, or auto: pip where there is one."""
    init: Path | None = None
    """Start from trained weights, a checkpoint or a folder of folds; "weights" holds the shipped ones."""
    epochs: int | None = None
    """Passes over the training images; 20 when neither epochs nor max-minutes is given."""
    max_minutes: float | None = None
    """Wall-clock budget of a fold in minutes, validation included; the schedule is fitted to it."""
    color_size: int | None = None
    """Side in pixels at which restorer sees the whole photo to guess its colours; 256 when left out."""
    parts: Literal["both", "inpainter", "colorizer"] | None = None
    """Which of restorer's networks to train; both when left out."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """Other weights than the model's own for single loss terms, such as: histogram 0."""
    image_size: int | None = None
    """Side of the training images in pixels; the model's own when left out (512; full_pipeline 256)."""
    batch_size: int = 8
    """Images a step, of all devices together."""
    lr: float | None = None
    """Peak learning rate; the model's own when left out."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    clip_norm: float = 1.0
    """Gradients are scaled down to at most this norm."""
    ema_decay: float = 0.998
    """Decay of the averaged weights, which are what is validated and kept."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the networks in training; auto is bf16 on a GPU that has it, and fp32 elsewhere."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, then faster steps on a GPU."""
    workers: int = min(8, cores() - 1)
    """Processes, for each device, that prepare training images; 0 prepares them between the steps."""
    validate_every: int = 1
    """Epochs between validations; the end of the run is always validated."""
    validate_at: tuple[float, ...] = ()
    """Minutes of the run at which to validate, instead of validate-every: 1 2 4 8."""
    val_images: int = 100
    """Validation images, spread evenly over the fold; 0 takes all. evaluate.py --fold scores all."""
    save_minutes: float = 5.0
    """Minutes between checkpoints, beside those at each validation."""
    dry_run: bool = False
    """Print the resolved settings and stop."""


def resolve(settings: Settings) -> Settings:
    """The settings with every open value filled in; raises `InputError` for impossible ones."""
    model = model_class(settings.model)
    open_values = {"image_size": model.image_size, "lr": model.learning_rate}
    if settings.max_minutes is None:
        open_values["epochs"] = 20
    for key in ("encoder", "color_size", "parts"):
        if takes(settings.model, key):
            open_values[key] = default(settings.model, key)
        elif getattr(settings, key):
            found = f"--{key.replace('_', '-')} {getattr(settings, key)}"
            raise InputError(f"{found}: {settings.model} has none to choose; leave it out")
    filled = {key: value for key, value in open_values.items() if getattr(settings, key) is None}
    weights = model.loss_weights | settings.loss_weights
    unknown = set(settings.loss_weights) - set(model.loss_weights)
    if unknown:
        known = ", ".join(model.loss_weights)
        raise InputError(
            f"--loss-weights {min(unknown)}: unknown; the terms of {settings.model} are {known}"
        )
    settings = replace(settings, name=settings.run_dir.name, loss_weights=weights, **filled)
    for key in POSITIVE + NOT_NEGATIVE:
        value = getattr(settings, key)
        if value is not None and (value < 0 or (value == 0 and key in POSITIVE)):
            least = "above 0" if key in POSITIVE else "0 or more"
            raise InputError(f"--{key.replace('_', '-')} {value}: must be {least}")
    if settings.image_size % model.size_multiple:
        multiple = f"{settings.model} needs a multiple of {model.size_multiple}"
        raise InputError(f"--image-size {settings.image_size}: {multiple}")
    if settings.batch_size == 1 and settings.image_size == model.size_multiple:
        # batch normalization at the deepest level, where such an image is a single pixel
        raise InputError(f"--batch-size 1: {settings.model} needs at least 2 at this image size")
    if settings.color_size:
        check_color_size(settings.color_size)
    if settings.encoder:
        check_encoder(settings.encoder, settings.encoder_weights)
    if settings.fold != "all" and not 0 <= settings.fold < settings.folds:
        raise InputError(f"--fold {settings.fold}: out of range; choose 0 to {settings.folds - 1}, or all")
    return settings


def train_fold(settings: Settings, fold: int, fabric: Fabric) -> None:
    """Train on all folds but one and validate on that one; writes into `<run>/fold<k>/`.

    Raises `Stopped` after Ctrl-C or SIGTERM, when everything is saved.
    """
    folder = settings.run_dir / f"fold{fold}"
    with fabric.rank_zero_first():  # it may have to find the scenes, which the others then read
        train, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, fold)
        fold_id = fingerprint(held_out)
        config = as_json(settings) | {"fold": fold, "held_out": fold_id}
        begin_run(folder, config, CHANGEABLE)
    truths, read = [truth for _, truth in train], truth_reader(settings.data_dir)
    shown = np.linspace(0, len(held_out) - 1, min(settings.val_images or len(held_out), len(held_out)))
    held_out = [held_out[int(index)] for index in shown]

    torch.manual_seed(settings.seed + fold)
    model = create_model(settings.model, **dataclasses.asdict(settings)).to(fabric.device)
    if settings.init and not (folder / LAST).exists():
        load_weights(model, initial_checkpoint(settings.init, fold))
    state = TrainingState(model, settings.lr, settings.weight_decay, settings.ema_decay)
    if (folder / LAST).exists():
        state.load(folder / LAST)
    epoch_steps = max(1, len(truths) // settings.batch_size)
    budget = Budget(
        settings.epochs and settings.epochs * epoch_steps,
        settings.max_minutes and settings.max_minutes * 60,
        state.spent,
        settings.validate_at,
    )
    if settings.max_minutes:
        budget.reserve_validation(state.ema.module, held_out, fabric)
    if settings.compile:
        torch.compiler.reset()  # the networks of an earlier fold
        for network in state.model.children():
            network.compile()
    records = Records(folder, state.step, fabric)
    batch_size, first = settings.batch_size, state.step * settings.batch_size
    place = fabric.global_rank, fabric.world_size
    batches = training_batches(
        truths, settings.image_size, batch_size, settings.workers, settings.seed, first, read, *place
    )
    batches = records.timed(batches)
    if fabric.is_global_zero:
        where = f"{fabric.world_size} x {fabric.device.type}"
        print(f"fold {fold}: {len(truths)} training and {len(held_out)} validation images, {where}")
    bar = progress_bar(f"fold {fold}", budget.done(state.step, state.spent), fabric.is_global_zero)

    lr = 0.0
    with StopSignals() as stop:
        while True:
            spent, signal_number = agree(fabric, budget.spent(), stop.number)
            done = budget.done(state.step, spent)
            bar.update(100 * done - bar.n)
            if settings.validate_at:
                due = state.validated < state.step and budget.mark_passed(spent)
            else:
                due = state.step % (settings.validate_every * epoch_steps) == 0
            validate_now = state.validated < state.step and (done >= 1 or due) and not signal_number
            save_due = state.step > 0 and spent - state.spent > settings.save_minutes * 60
            save_now = validate_now or save_due or bool(signal_number)
            if save_now or state.step % LOG_EVERY == 0:
                bar.set_postfix_str(records.flush(state.step, lr, batch_size))
            if validate_now:
                validated = validate(state.ema.module, held_out, fabric, stop)
                if not validated:
                    continue  # a signal came
                score, pictures = validated
                state.validated = state.step
                found = {f"val/{key}": value for key, value in score.as_dict().items()}
                records.write(state.step, found | {"minutes": spent / 60})
                records.show(state.step, pictures)
                bar.write(f"step {state.step}: validation {score}")
                if score.score > state.best:
                    state.best = score.score
                    facts = {
                        "fold": fold,
                        "held_out": fold_id,
                        "step": state.step,
                        "score": score.as_dict(),
                    }
                    if fabric.is_global_zero:
                        save_model(folder / BEST, state.ema.module, settings.model, facts)
                records.pause(budget.spent() - spent)
            if save_now:
                (state.spent,) = agree(fabric, budget.spent())
                if fabric.is_global_zero:
                    state.save(folder / LAST)
            if signal_number or done >= 1:
                break
            lr = learning_rate(settings.lr, done)
            how = settings.loss_weights, settings.clip_norm, lr, fabric
            records.add(training_step(state, next(batches), *how))
    bar.close()
    if not fabric.is_global_zero:
        return
    if signal_number:
        number = int(signal_number)
        found = f"{signal.Signals(number).name} at step {state.step}, all is saved in {folder / LAST}"
        raise Stopped(f"fold {fold}: {found}; the same command goes on", number)
    print(f"fold {fold}: best validation score {state.best:.4f}, {folder / BEST}")


def main() -> None:
    """Train what the command line asks for."""
    settings = resolve(parse_settings(Settings))
    if settings.dry_run:
        print(json.dumps(as_json(settings), indent=2))
        return
    fabric = launch(settings.device, settings.devices, settings.precision)
    if settings.batch_size % fabric.world_size:
        found = f"not a multiple of the {fabric.world_size} processes"
        raise InputError(f"--batch-size {settings.batch_size}: {found}, which each take their part of it")
    for fold in range(settings.folds) if settings.fold == "all" else [settings.fold]:
        with exclusive(settings.run_dir / f"fold{fold}") if fabric.is_global_zero else nullcontext():
            train_fold(settings, fold, fabric)


if __name__ == "__main__":
    run_script(main)
