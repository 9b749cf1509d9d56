"""Training that is killed, asked to stop, or finds the disk full: real processes, and nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
import torch

from src.models.checkpoints import load_model, load_state
from src.files import PARTIAL
from tests.trees import begin, wait_for

KILLS = 10  # of each of two runs side by side
TINY = ("--color-size", 64, "--image-size", 64, "--batch-size", 4, "--val-images", 1, "--workers", 0)
EPOCHS = ("--epochs", 8, "--validate-every", 4)


def command(data_dir: Path, outputs: Path, *more: object) -> list[str]:
    folders = ["--data-dir", data_dir, "--output-dir", outputs, "--name", "run"]
    return list(map(str, ["train.py", *folders, *TINY, *EPOCHS, *more]))


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    """A training on one core."""
    return begin(arguments, log, LOKY_MAX_CPU_COUNT="1", OMP_NUM_THREADS="1")


def finish(arguments: list[str], log: Path) -> Path:
    """Let a training end; its folder."""
    assert start(arguments, log).wait() == 0, log.read_text()
    return Path(arguments[arguments.index("--output-dir") + 1]) / "run" / "fold0"


def assert_same_training(folder: Path, reference: Path) -> None:
    """Equal weights, averages, moments and random state, bit by bit, and an equal best checkpoint."""
    first, second = (load_state(path / "last.pt") for path in (folder, reference))
    assert first["step"] == second["step"] and torch.equal(first["rng"], second["rng"])
    for key in ("model", "ema"):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())
    for name, optimizer in first["optimizers"].items():
        for index, moments in optimizer["state"].items():
            others = second["optimizers"][name]["state"][index]
            assert all(torch.equal(value, others[key]) for key, value in moments.items())
    assert (folder / "best.safetensors").read_bytes() == (reference / "best.safetensors").read_bytes()


@pytest.fixture(scope="module")
def reference(sample_folder, tmp_path_factory) -> Path:
    """The folder of a training that nothing interrupted."""
    outputs = tmp_path_factory.mktemp("whole")
    return finish(command(sample_folder, outputs), outputs / "log")


def kill_again_and_again(sample_folder: Path, outputs: Path, seed: int) -> list[bool]:
    """Kill a training at random times, every third while it writes a checkpoint, then let it end.

    Returns, for each kill, whether it left a half-written file.
    """
    arguments, rng = command(sample_folder, outputs, "--save-minutes", 0), random.Random(seed)
    folder, log, torn = outputs / "run" / "fold0", outputs / "log", []
    while len(torn) < KILLS:
        process = start(arguments, log)
        if len(torn) % 3 == 2:
            wait_for(lambda: list(folder.glob(f".*{PARTIAL}")), process)
            time.sleep(rng.uniform(0, 0.05))
        elif len(torn) % 3 == 1:
            wait_for(lambda: "fold 0:" in log.read_text(), process)
            time.sleep(rng.uniform(0, 1))
        else:
            time.sleep(rng.uniform(0, 8))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
        torn.append(bool(list(folder.glob(f".*{PARTIAL}"))))
        for path in folder.glob("last.pt"):
            assert load_state(path)["step"] > 0
        for path in folder.glob("*.safetensors"):
            load_model(path, torch.device("cpu"))
        assert all(json.loads(path.read_text()) for path in folder.glob("*.json"))
    finish(arguments, log)
    assert not list(folder.glob(f".*{PARTIAL}"))
    return torn


def test_twenty_kills_change_no_bit(sample_folder, reference, tmp_path):
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        run.mkdir()
    with ThreadPoolExecutor() as pool:
        torn = list(chain(*pool.map(kill_again_and_again, [sample_folder] * 2, runs, [1, 2])))
    assert len(torn) == 20 and sum(torn) >= 3, torn
    for run in runs:
        assert_same_training(run / "run" / "fold0", reference)


@pytest.mark.parametrize(
    ("number", "moment", "workers"),
    [
        (signal.SIGTERM, "training", 0),
        (signal.SIGINT, "training", 1),
        (signal.SIGTERM, "validating", 0),
    ],
)
def test_signals_save_and_leave(sample_folder, reference, tmp_path, number, moment, workers):
    """The whole process group gets the signal, as from a terminal or a scheduler."""
    slow = ("--val-images", 0, "--validate-every", 2) if moment == "validating" else ()
    arguments = command(sample_folder, tmp_path, "--workers", workers)
    log, folder = tmp_path / "log", tmp_path / "run" / "fold0"
    process = start([*arguments, *map(str, slow)], log)
    if moment == "validating":
        wait_for(lambda: "validating: " in log.read_text(), process)
    else:
        wait_for(lambda: "images/s" in log.read_text(), process)
        time.sleep(0.5)
    asked = time.monotonic()
    os.killpg(process.pid, number)
    assert process.wait() == 128 + number, log.read_text()
    assert time.monotonic() - asked < 30
    text, step = log.read_text(), load_state(folder / "last.pt")["step"]
    assert f"{number.name} at step {step}, all is saved in {folder / 'last.pt'}" in text
    assert "the same command goes on" in text and "Traceback" not in text
    assert 0 < step < load_state(reference / "last.pt")["step"]
    if moment == "training":  # the other run validates at other steps, which is another best checkpoint
        finish(arguments, log)
        assert_same_training(folder, reference)


def test_second_training_of_a_fold_is_refused(sample_folder, tmp_path):
    arguments, log = command(sample_folder, tmp_path, "--epochs", 200), tmp_path / "log"
    process = start(arguments, log)
    wait_for(lambda: "images/s" in log.read_text(), process)
    second = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    process.kill()
    process.wait()
    assert second.returncode == 2 and "another process works there" in second.stderr


def test_full_disk_keeps_the_last_checkpoint(sample_folder, reference, small_disk, tmp_path):
    """Room for nothing at all, and room for the log but not for a checkpoint."""
    disk, log = small_disk(600_000_000), tmp_path / "log"
    arguments = command(sample_folder, disk, "--save-minutes", 0)
    process, folder = start(arguments, log), disk / "run" / "fold0"
    wait_for(lambda: (folder / "last.pt").exists(), process)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    kept = (folder / "last.pt").read_bytes()
    for left in (40_000_000, 0):
        facts = os.statvfs(disk)
        with open(disk / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, facts.f_bavail * facts.f_frsize - left)
        assert start(arguments, log).wait() == 2
        text = log.read_text()
        assert str(folder) in text.strip().splitlines()[-1] and "free space" in text, text
        assert "Traceback" not in text
        assert (folder / "last.pt").read_bytes() == kept and not list(folder.glob(f".*{PARTIAL}"))
        (disk / "filler").unlink()
    finish(arguments, log)
    assert_same_training(folder, reference)
