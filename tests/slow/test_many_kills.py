"""Training that is killed twenty times, asked to stop, or finds the disk full; nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.models import create_model
from src.models.checkpoints import LAST, load_state, load_weights
from src.utils.files import PARTIAL
from tests.training import TINY, assert_same_training, train
from tests.trees import begin, wait_for

KILLS = 10  # of each of two runs
EPOCHS = (
    "--epochs",
    20,
    "--validate-every",
    5,
    "--save-minutes",
    0,
)  # a checkpoint after each step


def command(data_dir: Path, outputs: Path, *more: object) -> list[str]:
    folders = ["--data-dir", data_dir, "--output-dir", outputs, "--name", "run"]
    return list(map(str, ["train.py", *folders, *TINY, "--val-images", 1, *EPOCHS, *more]))


@pytest.fixture(scope="module")
def reference(sample_folder, tmp_path_factory) -> Path:
    """The folder of a training that nothing interrupted."""
    outputs = tmp_path_factory.mktemp("whole")
    train(*command(sample_folder, outputs)[1:])
    return outputs / "run" / "fold0"


def changed(path: Path, before: int):
    """Whether a file was written again, as a condition to wait for."""
    return lambda: path.exists() and path.stat().st_mtime_ns != before


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_change_no_bit(sample_folder, reference, tmp_path, seed):
    """At random moments after some steps, every third while a checkpoint is written; then it ends."""
    arguments, rng = command(sample_folder, tmp_path), random.Random(seed)
    model = create_model("restorer", color_size=64, encoder_weights="random")
    folder, log, torn = tmp_path / "run" / "fold0", tmp_path / "log", []
    while len(torn) < KILLS:
        before = (folder / LAST).stat().st_mtime_ns if torn else 0
        process = begin(arguments, log)
        for _ in range(rng.randint(1, 3)):  # steps
            wait_for(changed(folder / LAST, before), process)
            before = (folder / LAST).stat().st_mtime_ns
        if len(torn) % 3 == 2:
            wait_for(lambda: list(folder.glob(f".{LAST}*{PARTIAL}")), process)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
        torn.append(bool(list(folder.glob(f".*{PARTIAL}"))))
        assert load_state(folder / LAST)["step"] > 0
        for path in folder.glob("*.safetensors"):
            load_weights(model, path)
        assert all(json.loads(path.read_text()) for path in folder.glob("*.json"))
    assert load_state(folder / LAST)["step"] < load_state(reference / LAST)["step"]
    train(*arguments[1:])
    assert any(torn) and not list(folder.glob(f".*{PARTIAL}"))
    assert_same_training(folder, reference)


@pytest.mark.parametrize("moment", ["training", "validating"])
def test_sigterm_saves_and_leaves(sample_folder, reference, tmp_path, moment):
    """The whole process group gets the signal, as from a scheduler."""
    slow = ("--val-images", 0, "--validate-every", 2) if moment == "validating" else ()
    arguments = command(sample_folder, tmp_path)
    log, folder = tmp_path / "log", tmp_path / "run" / "fold0"
    process = begin([*arguments, *slow], log)
    wait_for((folder / LAST).exists, process)
    if moment == "validating":
        wait_for(lambda: "validating: " in log.read_text(), process)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, log.read_text()
    text, step = log.read_text(), load_state(folder / LAST)["step"]
    assert f"SIGTERM at step {step}" in text and f"saved in {folder / LAST}" in text
    assert "run the same command again" in text and "Traceback" not in text
    assert 0 < step < load_state(reference / LAST)["step"]
    if (
        moment == "training"
    ):  # the other run validates at other steps, which is another best checkpoint
        train(*arguments[1:])
        assert_same_training(folder, reference)


def test_second_training_of_a_fold_is_refused(sample_folder, tmp_path):
    arguments, log = command(sample_folder, tmp_path, "--epochs", 200), tmp_path / "log"
    process = begin(arguments, log)
    wait_for((tmp_path / "run" / "fold0" / LAST).exists, process)
    second = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300
    )
    process.kill()
    process.wait()
    assert second.returncode == 2 and "another process is working there" in second.stderr


def test_full_disk_keeps_the_last_checkpoint(
    sample_folder, reference, small_disk, script, tmp_path
):
    """Room for nothing at all, and room for the log but not for a checkpoint."""
    disk, log = small_disk(600_000_000), tmp_path / "log"
    arguments, folder = command(sample_folder, disk), disk / "run" / "fold0"
    process = begin(arguments, log)
    wait_for((folder / LAST).exists, process)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    kept = (folder / LAST).read_bytes()
    for left in (40_000_000, 0):
        facts = os.statvfs(disk)
        with open(disk / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, facts.f_bavail * facts.f_frsize - left)
        status, _, text = script("train", *arguments[1:])
        assert status == 2 and "Traceback" not in text
        assert str(folder) in text.strip().splitlines()[-1] and "free space" in text, text
        assert (folder / LAST).read_bytes() == kept and not list(folder.glob(f".*{PARTIAL}"))
        (disk / "filler").unlink()
    train(*arguments[1:])
    assert_same_training(folder, reference)
