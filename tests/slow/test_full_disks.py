"""Full disks: one line that names the file, nothing half-written, and it goes on once there is
room."""

import os
import shutil
import signal

import numpy as np

from src.datasets.bank import FOLDER, pack
from tests.disks import fill, refused
from tests.trees import begin, finished, hashes, wait_for


def test_build(small_disk, photos, small_folder, script):
    disk = small_disk(12 << 20)
    folder = disk / "data"
    arguments = ["build", "--photos", photos, "--data-dir", folder, "--crops-per-photo", 3]
    arguments += ["--test-photos", 0.3]
    for left in (0, 2 << 20):  # not even the record, then some of the images
        ballast = fill(disk, left)
        message = refused(script, "prepare_data", *arguments)
        assert f"{folder}/" in message and "No space left" in message
        before = finished(folder)
        assert bool(before) == (left > 0) and not list(folder.glob("*.csv"))
        assert not list(folder.rglob(".*.partial"))
        ballast.unlink()
    assert script("prepare_data", *arguments)[0] == 0
    assert hashes(folder) == hashes(small_folder)
    after = finished(folder)
    assert {path: after[path] for path in before} == before


def test_pack(small_disk, small_folder, script, tmp_path):
    """Too small from the beginning, and filled by another program half-way."""
    disk = small_disk(20 << 20)
    folder = shutil.copytree(small_folder, disk / "data")
    ballast = fill(disk, 6 << 20)
    arguments = ["pack", "--data-dir", folder]
    assert f"{folder / FOLDER}: 0.0 GB free" in refused(script, "prepare_data", *arguments)
    ballast.unlink()
    process = begin(["prepare_data.py", *arguments], tmp_path / "log")
    recipe, stamps = (folder / FOLDER / name for name in ("recipe.json", "stamps.npy"))
    wait_for(lambda: recipe.exists() and np.count_nonzero(np.load(stamps)[:, 0]) >= 2, process)
    os.killpg(process.pid, signal.SIGSTOP)
    ballast = fill(disk, 0)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(30) == 2
    log = (tmp_path / "log").read_text()
    assert "No space left" in log and f"error: {folder / FOLDER}" in log and "Traceback" not in log
    assert f"{folder / FOLDER}" in refused(script, "prepare_data", *arguments)
    ballast.unlink()
    assert script("prepare_data", *arguments)[0] == 0
    pack(shutil.copytree(small_folder, tmp_path / "data"))
    whole, wanted = (hashes(data / FOLDER) for data in (folder, tmp_path / "data"))
    del whole["stamps.npy"], wanted["stamps.npy"]  # times are part of it
    assert whole == wanted


def test_scoring_and_zipping(small_disk, small_folder, script, tmp_path):
    """make_submission and evaluate, with the disk of their results full."""
    disk = small_disk(8 << 20)
    scored = ["--pred", small_folder / "test_gt", "--gt", small_folder / "test_gt"]
    scored += ["--input", small_folder / "test_input", "--device", "cpu"]
    zipped = ["--data-dir", small_folder, "--pred", small_folder / "test_gt", "--zip"]
    good = {"zip": tmp_path / "a.zip", "json": tmp_path / "a.json", "picture": tmp_path / "a.png"}
    full = {kind: disk / "results" / path.name for kind, path in good.items()}
    calls = {
        "zip": ("make_submission", *zipped),
        "json": ("evaluate", *scored, "--json"),
        "picture": ("evaluate", *scored, "--picture"),
    }
    for kind, (name, *arguments) in calls.items():
        assert script(name, *arguments, good[kind])[0] == 0
        ballast = fill(disk, 0)
        message = refused(script, name, *arguments, full[kind])
        assert f"{full[kind]}: No space left" in message and not list((disk / "results").iterdir())
        ballast.unlink()
        assert script(name, *arguments, full[kind])[0] == 0
        assert full[kind].read_bytes() == good[kind].read_bytes()
        full[kind].unlink()
