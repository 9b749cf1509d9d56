"""The shipped weights, the tools that make them, and the notebook that uses them."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from src.evaluation.report import read_curves
from src.models.checkpoints import load_model
from src.models.options import RestorerOptions
from src.runs import SHIPPED, fold_checkpoints, initial_checkpoint
from tests.training import TINY, train
from tools import ship_weights

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def test_five_folds_in_sixty_megabytes():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    folds = [load_model(path, CPU) for path in fold_checkpoints(SHIPPED, None)]
    card = (SHIPPED / "README.md").read_text()
    for network, decides in (("inpainter", "M"), ("colorizer", "score")):
        facts = [description["networks"][network] for _, description in folds]
        assert [fact["fold"] for fact in facts] == [0, 1, 2, 3, 4]
        assert len({fact["held_out"] for fact in facts}) == 5
        assert all(f"{fact['score'][decides]:.4f}" in card for fact in facts)


def test_defaults_are_the_settings_of_the_shipped_folds():
    """`train.py --init weights` without further options trains on as they were trained, but for
    the lower rate of their last epochs."""
    defaults = dataclasses.asdict(RestorerOptions())
    for fold in fold_checkpoints(SHIPPED, None):
        config = json.loads((fold / "colorizer_config.json").read_text())
        assert {name: config[name] for name in defaults} == defaults | {
            "parts": "colorizer",
            "lr": 0.0015,
            "loss_weights": RestorerOptions().term_weights,
        }


def test_a_network_is_shipped_alone_in_half_precision(
    sample_folder, random_run, monkeypatch, tmp_path
):
    """The other network's file, curves and settings stay as they are, byte by byte."""
    source = random_run / "random" / "fold0"
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    train(*folders, *TINY, "--epochs", 1, "--parts", "inpainter", "--init", random_run / "random")
    trained, shipped = tmp_path / "restorer" / "fold0", tmp_path / "weights" / "fold0"
    shutil.copytree(source, shipped)
    for name in ("config.json", "metrics.jsonl"):
        (shipped / name).write_text("{}\n")
    before = {path.name: path.read_bytes() for path in shipped.iterdir()}
    command = ["ship_weights", str(trained.parent), "--weights", str(shipped.parent)]
    monkeypatch.setattr(sys, "argv", command)
    ship_weights.main()
    after = {path.name: path.read_bytes() for path in shipped.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {
        "inpainter.safetensors",
        "inpainter_config.json",
        "inpainter_metrics.jsonl",
    }
    whole = (trained / "inpainter.safetensors").stat().st_size
    assert len(after["inpainter.safetensors"]) < 0.52 * whole
    assert after["inpainter_metrics.jsonl"] == (trained / "metrics.jsonl").read_bytes()
    config = json.loads(after["inpainter_config.json"])
    assert config["parts"] == "inpainter" and not config.keys() & set(ship_weights.MACHINE)
    (model, described), (rounded, wanted) = load_model(trained, CPU), load_model(shipped, CPU)
    assert described["networks"]["inpainter"] == wanted["networks"]["inpainter"]
    for one, other in zip(model.state_dict().values(), rounded.state_dict().values(), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-6)
    assert [curve.name for curve in read_curves(shipped.parent)] == ["fold0 inpainter", "fold0"]


def test_inference_without_training_uses_the_shipped_weights(small_folder, script, tmp_path):
    folders = ("--data-dir", small_folder, "--output-dir", tmp_path)
    status, output, stderr = script("infer", *folders, "--ensemble")
    assert status == 0 and f"5 fold(s) of {SHIPPED}" in output, stderr
    truth = ("--gt", small_folder / "test_gt", "--input", small_folder / "test_input")
    scores = tmp_path / "scores.json"
    pred = tmp_path / "restorer" / "test"
    assert script("evaluate", "--pred", pred, *truth, "--json", scores)[0] == 0
    assert json.loads(scores.read_text())["mean"]["score"] > 0.5


def test_training_starts_from_the_same_fold_of_the_shipped_weights():
    """The detector beside the folds does not make the folder a checkpoint."""
    assert initial_checkpoint(SHIPPED, 2) == SHIPPED / "fold2"
    assert initial_checkpoint(SHIPPED / "fold2", 0) == SHIPPED / "fold2"


@pytest.mark.parametrize("init", ["missing.safetensors", "."])
def test_nothing_to_start_from(sample_folder, script, tmp_path, init):
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    status, _, stderr = script("train", *folders, "--epochs", 1, "--init", tmp_path / init)
    assert status == 2 and "no" in stderr and str(tmp_path) in stderr


def test_the_notebook_holds_no_output():
    """No output and no path of the machine it was written on."""
    notebook = nbformat.read(ROOT / "notebooks" / "restore.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
