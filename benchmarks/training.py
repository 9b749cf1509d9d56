"""How fast a training step is, and how long it waits for its images."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import RUNS, describe_machine
from benchmarks.settings import TrainingSpeed
from src.datasets.bank import Pack, ReadTruth, hole_reader, truth_reader
from src.datasets.competition import read_train, read_truth
from src.datasets.loader import training_batches
from src.models.base import Batch, TrainableModel
from src.models.options import DEFAULT_MODEL, OPTIONS
from src.models.registry import MODELS, create_model
from src.training.state import TrainingState, training_step
from src.utils.distributed import launch
from src.utils.processes import cores

BATCH_SIZES = {name: options().batch_size for name, options in OPTIONS.items()}
LR = 1e-4  # any; what a step costs does not depend on it


def read_batches(
    data_dir: Path,
    image_size: int,
    batch_size: int,
    workers: int,
    read: ReadTruth | None = None,
    model: type[TrainableModel] = TrainableModel,
) -> Iterator[Batch]:
    """Endless training batches of a competition folder for a model, from its pack where there is
    one."""
    paths = [data_dir / path for path in read_train(data_dir)["gt_image_path"]]
    read = read or truth_reader(data_dir)
    needs = {
        "keys": model.batch_keys,
        "hole_every": model.hole_every,
        "holes": hole_reader(data_dir),
    }
    return training_batches(
        paths, image_size, batch_size, workers, seed=0, start=0, read=read, **needs
    )


def loader_speed(batches: Iterator[Batch], count: int) -> float:
    """Images a second of a loader on its own; the first batches, for which workers start, do not
    count."""
    for _ in range(cores() * 4):
        next(batches)
    start = time.perf_counter()
    images = sum(len(next(batches)["rgb"]) for _ in range(count))
    return images / (time.perf_counter() - start)


def step_seconds(
    name: str, batches: Iterator[Batch], steps: int, **options: object
) -> tuple[float, float]:
    """Median seconds of a model's training step on the CPU, and the share of the whole spent on
    waiting.

    The seconds are those of the step alone, without the waiting for its images. `options` are the
    model's.
    """
    torch.manual_seed(0)
    state, fabric = TrainingState(create_model(name, **options)), launch("cpu")
    times, waits = [], []
    for _ in range(steps + 1):  # the first is not counted
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        training_step(state, batch, LR, fabric)
        times.append(time.perf_counter() - start)
    alone = np.subtract(times, waits)[1:]
    return float(np.median(alone)), float(sum(waits[1:]) / sum(times[1:]))


def run(settings: TrainingSpeed) -> None:
    """Print the tables."""
    print(describe_machine())
    torch.set_num_threads(cores())
    Pack(settings.data_dir)  # refused when there is none
    alone = 0.0  # images a second of the restorer without a worker
    print(f"{'training step':44}{'images/s':>10}{'waiting':>10}")
    for name in ("restorer", "full_pipeline", "gan"):
        size = OPTIONS[name]().image_size
        for workers in (0, 1) if name == "restorer" else (0,):
            batches = read_batches(
                settings.data_dir, size, BATCH_SIZES[name], workers, model=MODELS[name]
            )
            steps = max(RUNS, settings.steps if name == "restorer" else settings.steps // 2)
            seconds, waiting = step_seconds(name, batches, steps)
            label = f"{name}, {size} px, {workers} workers"
            speed = BATCH_SIZES[name] / seconds
            print(f"{label:44}{speed:10.2f}{waiting:10.1%}")
            alone = alone or speed
    print(f"{'loader alone':44}{'images/s':>10}{'of the restorer':>17}")
    for size, workers, kind in (
        (512, 2, "pack"),
        (512, 2, "PNG"),
        (256, 1, "pack"),
        (256, 1, "PNG"),
    ):
        read = read_truth if kind == "PNG" else None
        batches = read_batches(settings.data_dir, size, BATCH_SIZES[DEFAULT_MODEL], workers, read)
        speed = loader_speed(batches, settings.batches)
        label = f"{size} px, {workers} workers, {kind}"
        print(f"{label:44}{speed:10.0f}{speed / alone:17.1f}")
