"""Building, packing and restoring in real processes that are killed, and taken up by the same
command."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image
from skimage import data

from src.damage.hole import punch_hole
from src.datasets.bank import FOLDER, pack
from src.datasets.build import RECORD
from tests.trees import begin, finished, hashes, interrupt, wait_for

KILL, CTRL_C, TERMINATE = signal.SIGKILL, signal.SIGINT, signal.SIGTERM


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Sixty damaged grey photos of 200 px."""
    folder = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(0)
    for number in range(60):
        top, left = rng.integers(0, 200, 2)
        gray, _ = punch_hole(data.coffee()[top : top + 200, left : left + 200], rng)
        Image.fromarray(gray).save(folder / f"{number:03d}.png")
    return folder


def advanced(progress, begun, more):
    now = progress()
    assert now >= begun, "finished work was thrown away"
    return now >= begun + more


def interrupted_until_done(command, folder, progress, signals, script, tmp_path):
    """Run a command, interrupted by each of the signals after a random amount of work, then to its
    end.

    After each interruption every finished file is whole, and none of them is written again later.
    """
    rng, log, before = np.random.default_rng(len(command)), tmp_path / "log", {}
    cores = (
        "2" if command[0] == "prepare_data.py" else "1"
    )  # two threads of a network round differently
    for number in signals:
        begun, more = progress(), rng.integers(1, 4)
        process = begin(command, log, LOKY_MAX_CPU_COUNT=cores)
        wait_for(partial(advanced, progress, begun, more), process)
        os.killpg(process.pid, signal.SIGSTOP)  # so that it does not finish meanwhile
        status, _, err = script(str(command[0]).removesuffix(".py"), *command[1:])
        assert status == 2 and f"{folder}: another process is working there" in err, err
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(rng.uniform(0, 0.03))
        status = interrupt(process, number)
        assert status == (130 if number == CTRL_C else -number)
        if number == CTRL_C:  # the others give no time to say anything
            assert "interrupted" in log.read_text() and "Traceback" not in log.read_text(), (
                log.read_text()
            )
        after = finished(folder.parent)
        assert progress() >= begun + more
        assert {path: after.get(path) for path in before} == before
        before = after
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    after = finished(folder.parent)
    assert {path: after.get(path) for path in before} == before
    assert not list(folder.parent.rglob(".*.partial"))
    return done.stdout


def test_build(photos, small_folder, script, tmp_path):
    folder = tmp_path / "where" / "data"
    command = ["prepare_data.py", "build", "--photos", photos, "--data-dir", folder]
    command += ["--crops-per-photo", 3, "--test-photos", 0.3]

    def progress():  # photos inspected and images written
        record = folder / RECORD
        lines = record.read_text().count("\n") if record.exists() else 0
        return lines + len(list(folder.rglob("[A-Z]*.png")))

    out = interrupted_until_done(
        command, folder, progress, (KILL, CTRL_C, TERMINATE), script, tmp_path
    )
    assert hashes(folder) == hashes(small_folder)
    before = finished(folder)
    status, again, _ = script("prepare_data", *command[1:])
    assert status == 0 and "already complete, nothing to do" in again and finished(folder) == before
    assert again.splitlines()[-1] == out.splitlines()[-1] and again.count("skipped") == 2


def test_pack(small_folder, script, tmp_path):
    folder = tmp_path / "where" / "data"
    folder.mkdir(parents=True)
    reference = shutil.copytree(small_folder, tmp_path / "reference")
    # 24 rows of nine images, so that there is enough to interrupt
    rows = (reference / "train.csv").read_text().splitlines()
    table = [rows[0]]
    for number in range(24):
        source = rows[1 + number % 9].split(",")
        names = [path.replace(path[-9:-4], f"{number:05d}") for path in source]
        table.append(",".join(names))
        for old, new in zip(source, names, strict=True):
            if number >= 9:
                shutil.copy2(reference / old, reference / new)
    (reference / "train.csv").write_text("\n".join(table) + "\n")
    shutil.copytree(reference, folder, dirs_exist_ok=True)
    pack(reference)
    command = ["prepare_data.py", "pack", "--data-dir", folder]

    def progress() -> int:
        ready = (folder / FOLDER / "recipe.json").exists()
        return np.count_nonzero(np.load(folder / FOLDER / "stamps.npy")[:, 0]) if ready else 0

    interrupted_until_done(
        command, folder, progress, (KILL, CTRL_C, KILL, CTRL_C), script, tmp_path
    )
    assert hashes(folder) == hashes(reference)


@pytest.mark.parametrize(
    ("baseline", "signals"),
    [(True, (KILL, CTRL_C)), (False, (KILL, TERMINATE))],
    ids=["telea", "restorer"],
)
def test_restoring(damaged, random_run, script, tmp_path, baseline, signals):
    folder, alone, photos = tmp_path / "where" / "out", tmp_path / "alone", tmp_path / "photos"
    count = 60 if baseline else 24
    photos.mkdir()
    for path in sorted(damaged.iterdir())[:count]:
        shutil.copy2(path, photos)
    which = (
        ["--baseline", "telea"] if baseline else ["--output-dir", random_run, "--name", "random"]
    )
    command = ["infer.py", *which, "--device", "cpu", "--input", photos, "--output"]
    status, _, err = script("infer", *command[1:], alone)
    assert status == 0, err

    def progress():
        return len(list(folder.glob("[0-9]*.png")))

    out = interrupted_until_done([*command, folder], folder, progress, signals, script, tmp_path)
    assert f"of {count} images are already restored" in out
    restored, whole = (
        {path.name: path.read_bytes() for path in place.glob("[0-9]*.png")}
        for place in (folder, alone)
    )
    assert restored == whole and len(whole) == count
