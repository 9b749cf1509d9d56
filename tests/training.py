"""Small trainings in this process, and what a training leaves."""

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from src.datasets.loader import BatchSpec, EndlessSampler, TrainingImages, training_batches
from src.models.checkpoints import load_state, network_files
from src.runs import LAST

TINY = ("--image-size", "64", "--batch-size", "4", "--val-images", "2")
TINY += ("--workers", "0")


def train(*arguments: object) -> None:
    """`python train.py …` in this process; an error of it is raised here."""
    import train as script

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        script.main()


def metrics(folder: Path, key: str) -> list[dict]:
    """The lines of a fold's `metrics.jsonl` that hold `key`."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if key in line]


def assert_same_training(folder: Path, reference: Path) -> None:
    """Equal weights, averages and moments, bit by bit, and an equal best checkpoint."""
    first, second = (load_state(path / LAST) for path in (folder, reference))
    assert first["step"] == second["step"] and first["facts"] == second["facts"]
    for key in ("model", "ema"):
        assert first[key].keys() == second[key].keys()
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())
    for name, optimizer in first["optimizers"].items():
        for index, moments in optimizer["state"].items():
            others = second["optimizers"][name]["state"][index]
            assert all(torch.equal(value, others[key]) for key, value in moments.items())
    for file in network_files(reference):
        assert (folder / file.name).read_bytes() == file.read_bytes()


def assert_batches_of_one(sample_folder: Path, processes: int, workers: int) -> None:
    """Each of several processes gets its part of the batches that one process would get."""
    paths = sorted((sample_folder / "train_gt").glob("*.png"))[:6]
    images, weights = TrainingImages(paths, 64, 3, BatchSpec()), np.ones(len(paths))
    whole = list(islice(training_batches(images, EndlessSampler(weights, 4, 3, 1), 0), 3))
    parts = []
    for process in range(processes):
        sampler = EndlessSampler(weights, 4, 3, 1, process, processes)
        parts.append(list(islice(training_batches(images, sampler, workers), 3)))
    for number, batch in enumerate(whole):
        for key, values in batch.items():
            for process in range(processes):
                assert torch.equal(values[process::processes], parts[process][number][key])
