"""The same seed gives the same bytes, whatever the number of cores; another seed gives others."""

import shutil
from pathlib import Path

import numpy as np
import torch

from src.datasets.build import build
from src.datasets.folds import assign_folds
from src.models import create_model
from src.models.checkpoints import save_model
from tests.trees import hashes


def test_data_folder(small_folder, photos, monkeypatch, tmp_path):
    """The folder that one core built is built again by two."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    build(sorted(photos.iterdir()), photos, tmp_path / "data", 3, 0.3, 0)
    found, wanted = visible(tmp_path / "data"), visible(small_folder)
    for files in (found, wanted):
        files.pop("recipe.json")  # holds times
    assert len(found) == 2 * 12 + 3 and found == wanted


def visible(folder: Path) -> dict[str, str]:
    """`hashes` of the files that are not hidden; those hold paths and times. `folds.csv` is left
    out, since another test may have trained in the folder."""
    found = hashes(folder)
    found.pop("folds.csv", None)
    return {name: value for name, value in found.items() if not Path(name).name.startswith(".")}


def test_other_seed(small_folder, photos, script, tmp_path):
    arguments = ["--photos", photos, "--data-dir", tmp_path / "data", "--crops-per-photo", 3]
    status, _, err = script("prepare_data", "build", *arguments, "--test-photos", 0.3, "--seed", 1)
    assert status == 0, err
    one, other = visible(small_folder), visible(tmp_path / "data")
    pictures = [name for name in one if name.endswith(".png")]
    assert len(pictures) == 24 and set(one) == set(other)
    assert not [name for name in pictures if one[name] == other[name]]
    assert one["crops.csv"] != other["crops.csv"]
    scenes = np.repeat(np.arange(30), 3)
    assert np.array_equal(assign_folds(scenes, 5, 7), assign_folds(scenes, 5, 7))
    assert not np.array_equal(assign_folds(scenes, 5, 7), assign_folds(scenes, 5, 8))


def test_submission(small_folder, random_run, script, tmp_path):
    """Two whole runs give the same zip; other weights give another one."""
    runs = {}
    for name in ("one", "two", "other"):
        outputs = shutil.copytree(random_run, tmp_path / name)
        if name == "other":
            torch.manual_seed(1)
            model = create_model("restorer")
            save_model(outputs / "random" / "fold0", model, "restorer", {"fold": 0})
        arguments = ["--data-dir", small_folder, "--output-dir", outputs, "--name", "random"]
        for script_name, extra in (("infer", ["--device", "cpu"]), ("make_submission", [])):
            status, _, err = script(script_name, *arguments, *extra)
            assert status == 0, err
        runs[name] = visible(outputs / "random")
    assert runs["one"] == runs["two"] and len(runs["one"]) == 6
    assert runs["one"]["submission.zip"] != runs["other"]["submission.zip"]
