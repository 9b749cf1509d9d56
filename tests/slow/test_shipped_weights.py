"""What the shipped weights are worth to a training, and the installed command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from src.color.lattice import luma
from src.damage.hole import find_hole, punch_hole
from src.runs import SHIPPED
from tests.training import metrics, train

ROOT = Path(__file__).parents[2]


def test_a_warm_start_beats_a_cold_one(sample_folder, tmp_path):
    """The same steps on photos that the shipped folds never saw."""
    best = {}
    for name, flags in (("cold", ()), ("warm", ("--init", SHIPPED))):
        folders = ("--data-dir", sample_folder, "--output-dir", tmp_path, "--name", name)
        train(
            *folders, "--epochs", 2, "--image-size", 256, "--val-images", 4, "--workers", 0, *flags
        )
        best[name] = max(
            line["val/score"] for line in metrics(tmp_path / name / "fold0", "val/score")
        )
    assert best["warm"] > best["cold"] + 0.02, best


def test_installed_command(tmp_path):
    """`pip install .` in a folder of its own; then `restore-photo` far away from this repository."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    build = tmp_path / "source"
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():  # not one that was deleted and is not committed
            (build / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, build / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", tmp_path / "site", build], check=True)
    gray, mask = punch_hole(data.chelsea(), np.random.default_rng(0))
    Image.fromarray(gray).save(tmp_path / "cat.png")
    command = [sys.executable, tmp_path / "site" / "bin" / "restore-photo", tmp_path / "cat.png"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [*command, "--output", tmp_path / "out"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "1 photos in" in done.stdout, done.stderr
    restored = np.asarray(Image.open(tmp_path / "out" / "cat.png"))
    assert (luma(restored) == gray)[~find_hole(gray)].all() and np.ptp(restored, axis=2).mean() > 5
    assert (luma(restored) != gray)[mask].mean() > 0.9
