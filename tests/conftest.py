"""A competition folder of real photographs, and scripts run in this process."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from src.command_line import run_script
from src.datasets.build import build, sample_photos


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory) -> Path:
    """Folder built from scikit-image's photographs with 3 crops each; tests must not change it."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    photos = sample_photos()
    build(photos, photos[0].parent, folder, crops_per_photo=3, test_photos=0.1, seed=0)
    return folder


@pytest.fixture
def data_dir(sample_folder, tmp_path) -> Path:
    """A copy of the sample folder that a test may damage."""
    return Path(shutil.copytree(sample_folder, tmp_path / "data"))


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script in this process: `script("train", "--fold", 0)` gives (exit status, stdout, stderr)."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module = importlib.import_module(name)
        with pytest.raises(SystemExit) as stop:
            run_script(module.main)
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run
