"""Whole runs in processes of their own, on one core and on two: the same bytes."""

import os
import shutil
import subprocess
import sys

from src.datasets.bank import FOLDER, pack
from src.datasets.folds import load_folds
from src.utils.images import read_image
from tests.test_determinism import visible


def run(name: str, *arguments: object, cores: int = 1) -> None:
    """A script in a process of its own."""
    environment = os.environ | {"LOKY_MAX_CPU_COUNT": str(cores)}
    command = [sys.executable, f"{name}.py", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_data_folder(photos, small_folder, monkeypatch, tmp_path):
    """Built, packed and split with one core in three processes, and with two in this one."""
    one = ("--data-dir", tmp_path / "one")
    run(
        "prepare_data",
        "build",
        "--photos",
        photos,
        "--crops-per-photo",
        3,
        "--test-photos",
        0.3,
        *one,
    )
    run("prepare_data", "pack", *one)
    run("prepare_data", "check", "--folds", 2, *one)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    folder = shutil.copytree(small_folder, tmp_path / "two")
    pack(folder)
    load_folds(folder, folds=2, seed=0)
    found, wanted = visible(folder), visible(tmp_path / "one")
    stamps = f"{FOLDER}/stamps.npy"
    assert {stamps, f"{FOLDER}/holes.npy", "folds.csv"} < set(found) == set(wanted)
    del found[stamps], wanted[stamps]  # times are part of it
    assert found == wanted


def test_submission(small_folder, random_run, script, monkeypatch, tmp_path):
    """In this process, in processes of their own, and by two threads.

    Another number of threads sums in another order: a few pixels get the next chroma or hue, and no
    more.
    """
    runs = {}
    for name, cores in (("here", 1), ("processes", 1), ("threads", 2)):
        outputs = shutil.copytree(random_run, tmp_path / name)
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", str(cores))
        arguments = ["--data-dir", small_folder, "--output-dir", outputs, "--name", "random"]
        for script_name, extra in (("infer", ["--device", "cpu"]), ("make_submission", [])):
            if name == "processes":
                run(script_name, *arguments, *extra)
            else:
                status, _, err = script(script_name, *arguments, *extra)
                assert status == 0, err
        runs[name] = visible(outputs / "random")
    assert runs["here"] == runs["processes"] and len(runs["here"]) == 6
    for path in (tmp_path / "here" / "random" / "test").glob("*.png"):
        one, two = (
            read_image(tmp_path / n / "random" / "test" / path.name, "RGB")
            for n in ("here", "threads")
        )
        assert (one != two).any(axis=2).mean() < 1e-3
