"""Each benchmark once, on a small folder: a table comes out."""

import shutil
from pathlib import Path

import pytest
import torch

from src.datasets.bank import pack
from src.models import create_model
from src.models.checkpoints import save_model


@pytest.fixture(autouse=True)
def threads():
    """Benchmarks set the number of threads; tests after them see the old one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def packed(sample_folder, tmp_path_factory) -> Path:
    """A packed copy of the sample folder."""
    folder = Path(shutil.copytree(sample_folder, tmp_path_factory.mktemp("packed") / "data"))
    pack(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    """Two folds with random weights."""
    folders = [tmp_path_factory.mktemp("run") / f"fold{fold}" for fold in range(2)]
    for fold, folder in enumerate(folders):
        torch.manual_seed(fold)
        model = create_model("restorer")
        save_model(folder, model, "restorer", {"fold": fold})
    return folders


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("parts --images test --count 2 --checkpoints", "average of the models' RGB"),
        ("fills --count 2 --checkpoints", "inpainters, two views"),
        ("colors --count 4 --checkpoints", "delta E of grey"),
        ("detector --count 2", "at most 0.5 %"),
    ],
)
def test_quality(sample_folder, checkpoints, script, command, expected):
    named = checkpoints[: 2 if "test" in command else 1] if "checkpoints" in command else []
    arguments = [*command.split(), *named, "--data-dir", sample_folder]
    status, out, err = script("benchmarks.quality", *arguments)
    assert status == 0 and expected in out, err
    if "checkpoints" in command and "test" not in command:  # nothing is measured in fold
        status, _, err = script("benchmarks.quality", *arguments, "--fold", 1)
        assert status == 2 and "fold0: trained on images of --fold 1" in err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("score --count 2", "ms per image"),
        ("data --count 3", "256 px, pack"),
        ("training --steps 1 --batch-size 2", "gan, 512 px"),
        ("inference", "ratio"),
    ],
)
def test_speed(packed, script, command, expected):
    status, out, err = script("benchmarks.speed", *command.split(), "--data-dir", packed)
    assert status == 0 and expected in out, err


def test_size(script):
    status, out, err = script("benchmarks.speed", "size", "--megapixels", 0.1, 0.05)
    assert status == 0 and "\n      0.05" in out, err


def test_time_to_score(data_dir, script, tmp_path):
    arguments = ["--data-dir", data_dir, "--output-dir", tmp_path, "--minutes", 1]
    options = "image-size=64 batch-size=2"
    arguments += ["--full-pipeline", f"encoder=lite0 {options}", "--val-images", 1]
    arguments += ["--restorer", options]
    status, out, err = script("benchmarks.time_to_score", *arguments)
    assert status == 0 and "restorer" in out, err
