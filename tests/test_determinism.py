"""The same seed gives the same bytes, whatever the number of cores; another seed gives others."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage import data

from src.models.checkpoints import save_model
from src.damage.hole import punch_hole
from src.datasets.folds import assign_folds, load_folds
from src.datasets.pack import INDEX, PACK, pack
from src.runtime.images import read_image
from src.models.registry import create_model
from tests.trees import hashes


@pytest.fixture(scope="module")
def on_one_core(photos, tmp_path_factory):
    """What `build`, `pack` and `check` make of `photos` in processes that are given a single core."""
    folder = tmp_path_factory.mktemp("one_core") / "data"
    environment = os.environ | {"LOKY_MAX_CPU_COUNT": "1"}
    build = ["build", "--photos", photos, "--crops-per-photo", 3, "--test-photos", 0.3]
    for arguments in (build, ["pack"], ["check", "--folds", 2]):
        command = [sys.executable, "prepare_data.py", *map(str, arguments), "--data-dir", str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def test_data_folder(small_folder, on_one_core, monkeypatch, tmp_path):
    """Built, packed and split with one core in three processes, and with two in this one."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    folder = shutil.copytree(small_folder, tmp_path / "data")
    pack(folder)
    load_folds(folder, folds=2, seed=0)
    # times are part of the index, and the copy keeps those of the files that were packed here
    names = {PACK, INDEX, "folds.csv"}
    found, wanted = hashes(folder), hashes(on_one_core)
    assert names < set(found) == set(wanted) and len(found) == 2 * 12 + 4 + len(names)
    assert {n: found[n] for n in found if n != INDEX} == {n: wanted[n] for n in wanted if n != INDEX}


def test_other_seed(small_folder, photos, script, tmp_path):
    arguments = ["--photos", photos, "--data-dir", tmp_path / "data", "--crops-per-photo", 3]
    status, _, err = script("prepare_data", "build", *arguments, "--test-photos", 0.3, "--seed", 1)
    assert status == 0, err
    one, other = hashes(small_folder), hashes(tmp_path / "data")
    pictures = [name for name in one if name.endswith(".png")]
    assert len(pictures) == 24 and set(one) == set(other)
    assert not [name for name in pictures if one[name] == other[name]]
    assert one["crops.csv"] != other["crops.csv"]
    scenes = np.repeat(np.arange(30), 3)
    assert np.array_equal(assign_folds(scenes, 5, 7), assign_folds(scenes, 5, 7))
    assert not np.array_equal(assign_folds(scenes, 5, 7), assign_folds(scenes, 5, 8))


def test_damage():
    """In this process and in another one."""
    code = (
        "import hashlib, numpy as np\nfrom skimage import data\nfrom src.damage.hole import punch_hole\n"
        "for seed in range(20):\n"
        "    gray, _ = punch_hole(data.coffee(), np.random.default_rng(seed))\n"
        "    print(hashlib.sha256(gray).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    lines = runs[0].stdout.splitlines()
    assert len(set(lines)) == 20 and runs[0].stdout == runs[1].stdout, runs[0].stderr
    one, two = (punch_hole(data.coffee(), np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_submission(small_folder, random_run, script, tmp_path, monkeypatch):
    """Two whole runs: in this process and in processes of their own; other weights give another zip.

    Another number of threads sums in another order: a few pixels get the next chroma or hue, and no more.
    """
    runs = {}
    for name, cores in (("here", 1), ("processes", 1), ("threads", 2), ("other", 1)):
        outputs = shutil.copytree(random_run, tmp_path / name)
        if name == "other":
            torch.manual_seed(1)
            model = create_model("restorer", color_size=64)
            save_model(outputs / "random" / "fold0" / "best.safetensors", model, "restorer", {"fold": 0})
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", str(cores))
        arguments = ["--data-dir", small_folder, "--output-dir", outputs, "--name", "random"]
        for number, extra in (("infer", ["--device", "cpu"]), ("make_submission", [])):
            if name == "processes":
                command = [sys.executable, f"{number}.py", *map(str, [*arguments, *extra])]
                assert subprocess.run(command, capture_output=True).returncode == 0
            else:
                status, _, err = script(number, *arguments, *extra)
                assert status == 0, err
        found = hashes(outputs / "random")
        runs[name] = {key: found[key] for key in found if not key.startswith(".")}  # those hold paths
    assert runs["here"] == runs["processes"] and len(runs["here"]) == 5
    assert runs["here"]["submission.zip"] != runs["other"]["submission.zip"]
    names = sorted(path.name for path in (tmp_path / "here" / "random" / "test").iterdir())
    for name in names:
        one, two = (read_image(tmp_path / n / "random" / "test" / name, "RGB") for n in ("here", "threads"))
        assert (one != two).any(axis=2).mean() < 1e-3
