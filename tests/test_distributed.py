"""What several processes share of the work; tests/slow runs them on one machine and under torchrun."""

from itertools import islice

import pytest

from src.datasets.loader import EndlessSampler
from tests.training import assert_batches_of_one


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_see_the_batches_of_one(sample_folder, processes):
    assert_batches_of_one(sample_folder, processes, workers=0)


def test_an_epoch_is_shared_out_whole():
    samplers = [iter(EndlessSampler(7, seed=1, start=3, process=n, processes=3)) for n in range(3)]
    together = [next(samplers[i % 3]) for i in range(25)]
    assert together == list(islice(EndlessSampler(7, seed=1, start=3), 25))


def test_bad_numbers_of_devices(sample_folder, script, tmp_path):
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    status, _, stderr = script("train", *folders, "--devices", 0)
    assert status == 2 and "--devices 0" in stderr
    photo = (
        "--baseline",
        "telea",
        "--input",
        sample_folder / "test_input",
        "--output",
        tmp_path / "out",
    )
    status, _, stderr = script("infer", *photo, "--engine", "ray", "--devices", 0)
    assert status == 2 and "--devices 0" in stderr
