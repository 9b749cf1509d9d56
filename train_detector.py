"""Train the detector of scratches, stains and tears on photos aged by rule: python train_detector.py"""

import signal
from dataclasses import dataclass
from functools import partial

import torch

from src.aging import age
from src.checkpoints import LAST, save_model
from src.command_line import parse_settings, run_script
from src.datasets.folds import fingerprint, fold_files
from src.datasets.pack import truth_reader
from src.datasets.training import training_batches
from src.distributed import launch
from src.files import exclusive
from src.models.detector import DamageDetector
from src.old_photos import DETECTOR
from src.parallel import cores
from src.settings import DataSettings, as_json
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
)

CHANGEABLE = {"data_dir", "output_dir", "device", "workers", "save_minutes"}


@dataclass(frozen=True)
class Settings(DataSettings):
    """Train the damage detector on the photos of all folds but one. The same command again goes on."""

    name: str = "detector"
    """The run's folder below output-dir."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""
    fold: int = 0
    """Fold that is left out; bench.py detector measures precision and recall on it."""
    folds: int = 5
    """Number of folds that the scenes are split into."""
    seed: int = 0
    """Seed of all randomness."""
    max_minutes: float = 20.0
    """Wall-clock budget in minutes; the schedule is fitted to it."""
    image_size: int = 256
    """Side of the training crops in pixels, a multiple of 8."""
    batch_size: int = 8
    """Images a step."""
    lr: float = DamageDetector.learning_rate
    """Peak learning rate."""
    workers: int = min(8, cores() - 1)
    """Processes that prepare training images; 0 prepares them between the steps."""
    save_minutes: float = 5.0
    """Minutes between checkpoints."""


def train(settings: Settings) -> None:
    """Train until the budget ends; writes into `<run>/`. Raises `Stopped` after Ctrl-C or SIGTERM."""
    folder, fabric = settings.run_dir, launch(settings.device)
    train, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, settings.fold)
    begin_run(folder, as_json(settings) | {"held_out": fingerprint(held_out)}, CHANGEABLE)
    torch.manual_seed(settings.seed)
    state = TrainingState(
        DamageDetector().to(fabric.device), settings.lr, weight_decay=0.01, ema_decay=0.998
    )
    if (folder / LAST).exists():
        state.load(folder / LAST)
    budget = Budget(None, settings.max_minutes * 60, state.spent)
    records = Records(folder, state.step, fabric)
    batches = records.timed(
        training_batches(
            [truth for _, truth in train],
            settings.image_size,
            settings.batch_size,
            settings.workers,
            settings.seed,
            state.step * settings.batch_size,
            truth_reader(settings.data_dir),
            damage=partial(age, scale=1.0),
        )
    )
    bar, lr = progress_bar("detector", budget.done(state.step, state.spent), True), 0.0
    with StopSignals() as stop:
        while True:
            spent = budget.spent()
            done = budget.done(state.step, spent)
            bar.update(100 * done - bar.n)
            if state.step % LOG_EVERY == 0:
                bar.set_postfix_str(records.flush(state.step, lr, settings.batch_size))
            if stop.number or done >= 1 or spent - state.spent > settings.save_minutes * 60:
                state.spent = spent
                state.save(folder / LAST)
            if stop.number or done >= 1:
                break
            lr = learning_rate(settings.lr, done)
            how = DamageDetector.loss_weights, 1.0, lr, fabric
            records.add(training_step(state, next(batches), *how))
    bar.close()
    if stop.number:
        found = f"{signal.Signals(stop.number).name} at step {state.step}, all is saved in {folder / LAST}"
        raise Stopped(f"{found}; the same command goes on", stop.number)
    facts = {"held_out": fingerprint(held_out), "step": state.step}
    save_model(folder / DETECTOR.name, state.ema.module, "detector", facts, half=True)
    remedy = f"bench.py detector measures it; copy it to {DETECTOR.parent} to use it"
    print(f"{folder / DETECTOR.name}: after {state.step} steps; {remedy}")


def main() -> None:
    """Train what the command line asks for."""
    settings = parse_settings(Settings)
    with exclusive(settings.run_dir):
        train(settings)


if __name__ == "__main__":
    run_script(main)
