"""train.py detector: trained, validated, resumed, shipped, and found again by who restores old
photos."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from src.damage.aging import age
from src.models.checkpoints import load_model, load_state
from src.models.detector import DamageDetector
from src.pipeline import load_finder
from tests.training import metrics, train
from tools import ship_weights

SMALL = [
    "--image-size",
    "64",
    "--batch-size",
    "4",
    "--val-images",
    "2",
    "--workers",
    "0",
    "--ema-decay",
    "0.5",
]


@pytest.fixture(scope="module")
def outputs(sample_folder, tmp_path_factory):
    """The output folder with two epochs of a detector, in two sessions."""
    outputs = tmp_path_factory.mktemp("outputs")
    for epochs in (1, 2):
        folders = ("--data-dir", sample_folder, "--output-dir", outputs)
        train("detector", *folders, *SMALL, "--epochs", epochs)
    return outputs


def test_run_folder(outputs):
    folder = outputs / "detector" / "fold0"
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == config["name"] == "detector" and config["lr"] == 1e-3
    assert config["loss_weights"] == {"cross_entropy": 1, "dice": 1}
    steps = load_state(folder / "last.pt")["step"]
    validations = metrics(folder, "val/score")
    assert [line["step"] for line in validations] == [steps // 2, steps]
    for line in validations:
        precision, recall = line["val/precision"], line["val/recall"]
        harmonic = 2 * precision * recall / max(1e-9, precision + recall)
        assert 0 <= precision <= 1 and 0 <= recall <= 1
        assert line["val/score"] == pytest.approx(harmonic)
    assert all(np.isfinite(line["loss/dice"]) for line in metrics(folder, "loss/dice"))
    assert Image.open(folder / "validation" / f"step{steps:07d}.png").size == (3 * 512, 2 * 512)
    model, description = load_model(folder, torch.device("cpu"))
    assert isinstance(model, DamageDetector) and description["model"] == "detector"
    assert description["networks"]["best"]["score"]["score"] == max(
        line["val/score"] for line in validations
    )


def test_training_finds_damage(sample_folder, tmp_path):
    """After some steps on the photos themselves, damage is likelier than the rest."""
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path, "--epochs", 24)
    train("detector", *folders, *SMALL, "--val-images", 1, "--validate-every", 24)
    finder = load_finder("auto", detector=tmp_path / "detector" / "fold0" / "best.safetensors")
    aged = [age(data.coffee(), np.random.default_rng(seed)) for seed in range(4)]
    mask = np.stack([mask for _, mask in aged])
    probability = np.stack([finder.probability(gray) for gray, _ in aged])
    assert probability[mask].mean() > 1.5 * probability[~mask].mean()


def test_shipped_and_loaded(outputs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        sys, "argv", ["ship_weights", str(outputs / "detector"), "--weights", str(tmp_path)]
    )
    ship_weights.main()
    path = tmp_path / "detector.safetensors"
    assert f"{path}: step" in capsys.readouterr().out
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [path.name]
    trained = outputs / "detector" / "fold0" / "best.safetensors"
    assert path.stat().st_size < 0.55 * trained.stat().st_size
    gray = data.camera()[:100, :90]
    found = load_finder("auto", detector=path)(gray).mask
    assert found.shape == gray.shape and found.dtype == bool
    shipped, kept = (
        load_finder("auto", detector=file).probability(gray) for file in (path, trained)
    )
    assert np.abs(shipped - kept).max() < 0.01  # float16
