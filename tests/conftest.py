"""A competition folder of real photographs, and scripts run in this process."""

import os

# One thread a process, here and in every process that a test begins: on few cores more threads wait
# for each other. This has to stand before torch, OpenCV and numba are imported.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys((*ONE_THREAD, "LOKY_MAX_CPU_COUNT"), "1"))

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch
from PIL import Image
from skimage import data

from src.datasets.build import build, sample_photos
from src.models import create_model
from src.models.checkpoints import save_model
from src.utils.cli import run_script

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory) -> Path:
    """Folder built from scikit-image's photographs with 3 crops each; tests must not change it."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    photos = sample_photos()
    build(photos, photos[0].parent, folder, crops_per_photo=3, test_photos=0.1, seed=0)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Four colour photographs, a grey one and a broken one; tests must not change them."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sample_photos():
        if path.stem in ("astronaut", "chelsea", "coffee", "rocket"):
            shutil.copy(path, folder)
    Image.fromarray(data.camera()).save(folder / "grey.png")
    (folder / "text.png").write_text("no picture")
    return folder


@pytest.fixture(scope="session")
def small_folder(photos, tmp_path_factory) -> Path:
    """Folder built from `photos` with 3 crops each, 9 pairs and 3 test images; tests must not
    change it."""
    folder = tmp_path_factory.mktemp("small") / "data"
    build(sorted(photos.iterdir()), photos, folder, crops_per_photo=3, test_photos=0.3, seed=0)
    return folder


@pytest.fixture(scope="session")
def random_run(tmp_path_factory) -> Path:
    """Output folder with the run `random`: one fold of a restorer of random weights."""
    outputs = tmp_path_factory.mktemp("random")
    torch.manual_seed(0)
    model = create_model("restorer")
    facts = {"fold": 0, "trained_on": ""}
    save_model(outputs / "random" / "fold0", model, "restorer", facts)
    return outputs


@pytest.fixture
def small_disk(tmp_path_factory) -> Iterator[Callable[[int], Path]]:
    """`small_disk(size)` is a folder on a disk of `size` bytes; skips where mounting is not
    permitted."""
    mounted = []

    def mount(size: int) -> Path:
        folder = tmp_path_factory.mktemp("disk")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        done = shutil.which("mount") and subprocess.run(command, capture_output=True, text=True)
        if not done or done.returncode:
            reason = done.stderr.strip() if done else "no mount command"
            pytest.skip(f"a small disk cannot be mounted here: {reason}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def data_dir(sample_folder, tmp_path) -> Path:
    """A copy of the sample folder as it was built, that a test may damage."""
    unsplit = shutil.ignore_patterns("folds.csv")  # which the first training of a session leaves
    return Path(shutil.copytree(sample_folder, tmp_path / "data", ignore=unsplit))


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script in this process: `script("train", "--fold", 0)` gives (exit status, stdout,
    stderr).

    `script("benchmarks.speed", "score", …)` is `python -m benchmarks.speed score …`.
    """

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module = importlib.import_module(name)
        capsys.readouterr()  # what the test itself printed before
        with pytest.raises(SystemExit) as stop:
            run_script(module.main)
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run
