"""Training that is killed or asked to stop, in real processes."""

import os
import random
import signal
import time

import pytest

from src.models.checkpoints import load_state
from src.runs import LAST
from src.utils.files import lock_folder
from tests.training import TINY, assert_same_training, train
from tests.trees import begin, wait_for

EPOCHS = ("--epochs", 2, "--save-minutes", 0)  # a checkpoint after each step


def flags(data_dir, outputs) -> list:
    """The run that the tests interrupt."""
    return ["--data-dir", data_dir, "--output-dir", outputs, "--name", "run", *TINY, *EPOCHS]


@pytest.fixture(scope="module")
def reference(sample_folder, tmp_path_factory):
    """The folder of a training that nothing interrupted."""
    outputs = tmp_path_factory.mktemp("whole")
    train(*flags(sample_folder, outputs))
    return outputs / "run" / "fold0"


def test_a_kill_changes_no_bit(sample_folder, reference, tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run" / "fold0"
    arguments = flags(sample_folder, tmp_path)
    process = begin(["train.py", *arguments], log)
    wait_for((folder / LAST).exists, process)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, log.read_text()
    assert 0 < load_state(folder / LAST)["step"] < load_state(reference / LAST)["step"]
    train(*arguments)
    assert_same_training(folder, reference)


def test_ctrl_c_saves_and_leaves(sample_folder, reference, tmp_path):
    """The whole process group gets the signal, the process that prepares images too."""
    log, folder = tmp_path / "log", tmp_path / "run" / "fold0"
    arguments = flags(sample_folder, tmp_path)
    process = begin(["train.py", *arguments, "--workers", 1], log)
    wait_for((folder / LAST).exists, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT, log.read_text()
    text, step = log.read_text(), load_state(folder / LAST)["step"]
    assert f"SIGINT at step {step}" in text and f"saved in {folder / LAST}" in text
    assert "run the same command again" in text and "Traceback" not in text
    assert 0 < step < load_state(reference / LAST)["step"]
    train(*arguments)
    assert_same_training(folder, reference)


def test_a_training_where_another_works_is_refused(sample_folder, script, tmp_path):
    with lock_folder(tmp_path / "run" / "fold0"):
        status, _, stderr = script("train", *flags(sample_folder, tmp_path))
    assert status == 2 and "another process is working there" in stderr
    assert not (tmp_path / "run" / "fold0" / "config.json").exists()
