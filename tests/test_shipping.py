"""The shipped weights, and where they are used."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src.evaluation.report import read_curves
from src.models.checkpoints import load_model, network_files, save_model
from src.models.options import RestorerOptions
from src.runs import SHIPPED, fold_checkpoints
from tests.training import TINY, metrics, train
from tools import ship_weights, weigh

CPU = torch.device("cpu")
FACTS = {"fold": 0, "step": 7, "score": {"M": 0.25, "score": 0.5}}


def test_five_folds_in_sixty_megabytes():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    folds = [load_model(path, CPU) for path in fold_checkpoints(SHIPPED, None)]
    card = (SHIPPED / "README.md").read_text()
    for network in ("inpainter", "colorizer"):
        facts = [description["networks"][network] for _, description in folds]
        assert [fact["fold"] for fact in facts] == [0, 1, 2, 3, 4]
        assert len({fact["held_out"] for fact in facts}) == 5
        for fact in facts:
            decides = "M" if network == "inpainter" else "score"
            assert f"{fact['score'][decides]:.4f}" in card  # of the validation


def test_training_goes_on_as_the_shipped_folds_were_trained():
    """`train.py --init weights` without further options."""
    defaults = dataclasses.asdict(RestorerOptions())
    for fold in fold_checkpoints(SHIPPED, None):
        config = json.loads((fold / "colorizer_config.json").read_text())
        trained = {name: config[name] for name in defaults}
        assert trained == defaults | {
            "parts": "colorizer",
            "loss_weights": RestorerOptions().term_weights,
        }


def test_shipping_rounds_to_half(random_run, monkeypatch, tmp_path, capsys):
    model, _ = load_model(random_run / "random" / "fold0", CPU)
    source = tmp_path / "run" / "fold0"
    save_model(source, model, "restorer", FACTS)
    _, description = load_model(source, CPU)
    (source / "metrics.jsonl").write_text("{}\n")
    (source / "config.json").write_text('{"lr": 0.001, "data_dir": "/here", "init": "/there"}')
    command = ["ship_weights", str(source.parent), "--weights", str(tmp_path / "weights")]
    monkeypatch.setattr(sys, "argv", command)
    ship_weights.main()
    assert "step 7, score 0.5000" in capsys.readouterr().out
    half = tmp_path / "weights" / "fold0"
    assert [file.name for file in network_files(half)] == [
        file.name for file in network_files(source)
    ]
    for file in network_files(half):
        assert file.stat().st_size < 0.52 * (source / file.name).stat().st_size
    rounded, described = load_model(half, CPU)
    assert described == description
    assert json.loads((half / "config.json").read_text()) == {"lr": 0.001}  # and no folder of here
    assert (half / "metrics.jsonl").read_text() == "{}\n"
    for one, other in zip(model.state_dict().values(), rounded.state_dict().values(), strict=True):
        assert one.dtype == other.dtype and torch.allclose(
            one.float(), other.float(), rtol=1e-3, atol=1e-6
        )


@pytest.fixture(scope="module")
def inpainter_run(sample_folder, random_run, tmp_path_factory):
    """A run that trained the inpainter alone, and took the colorizer of the run `random`."""
    outputs = tmp_path_factory.mktemp("inpainter")
    folders = (
        "--data-dir",
        sample_folder,
        "--output-dir",
        outputs,
        "--init",
        random_run / "random",
    )
    train(*folders, *TINY, "--epochs", 1, "--parts", "inpainter", "--validate-every", 1)
    return outputs / "restorer"


def test_a_network_is_shipped_alone(inpainter_run, random_run, monkeypatch, tmp_path, capsys):
    """The other one's file, curves and settings stay as they are, byte by byte."""
    trained, weights = inpainter_run / "fold0", tmp_path / "weights"
    network, other = "inpainter.safetensors", "colorizer.safetensors"
    source = random_run / "random" / "fold0"
    assert (trained / other).read_bytes() == (source / other).read_bytes()
    assert (trained / network).read_bytes() != (source / network).read_bytes()
    shutil.copytree(source, weights / "fold0")
    for name in ("config.json", "metrics.jsonl"):
        (weights / "fold0" / name).write_text("{}\n")
    before = {path.name: path.read_bytes() for path in (weights / "fold0").iterdir()}
    monkeypatch.setattr(
        sys, "argv", ["ship_weights", str(inpainter_run), "--weights", str(weights)]
    )
    ship_weights.main()
    assert other not in capsys.readouterr().out
    after = {path.name: path.read_bytes() for path in (weights / "fold0").iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {
        network,
        "inpainter_config.json",
        "inpainter_metrics.jsonl",
    }
    assert after.keys() > before.keys()
    assert after["inpainter_metrics.jsonl"] == (trained / "metrics.jsonl").read_bytes()
    config = json.loads(after["inpainter_config.json"])
    assert config["parts"] == "inpainter" and not config.keys() & set(ship_weights.MACHINE)
    model, description = load_model(weights / "fold0", CPU)
    whole, wanted = load_model(trained, CPU)
    assert description == wanted
    for key, value in whole.state_dict().items():
        assert torch.allclose(value.float(), model.state_dict()[key].float(), rtol=1e-3, atol=1e-6)
    assert [curve.name for curve in read_curves(weights)] == ["fold0 inpainter", "fold0"]


@pytest.mark.parametrize("parts", ["inpainter", "colorizer"])
def test_the_network_that_stays_is_copied_from_a_file_of_any_name(
    sample_folder, random_run, tmp_path, parts
):
    """So that the fold is whole, and nothing else lies in it."""
    (other,) = {"inpainter", "colorizer"} - {parts}
    source = random_run / "random" / "fold0" / f"{other}.safetensors"
    shutil.copy(source, tmp_path / "mine.safetensors")
    folders = (
        "--data-dir",
        sample_folder,
        "--output-dir",
        tmp_path,
        "--init",
        tmp_path / "mine.safetensors",
    )
    train(*folders, *TINY, "--epochs", 1, "--val-images", 1, "--parts", parts)
    fold = tmp_path / "restorer" / "fold0"
    assert {path.stem for path in fold.glob("*.safetensors")} == {"inpainter", "colorizer"}
    assert (fold / source.name).read_bytes() == source.read_bytes()
    load_model(fold, CPU)


def test_green_and_red_photos_weigh_more(sample_folder, monkeypatch, tmp_path, capsys):
    """A quarter of vivid green and a quarter of vivid red count; pale ones, blue and grey do not."""
    data = tmp_path / "data"
    shutil.copytree(sample_folder, data)
    rgb = np.full((512, 512, 3), 128, np.uint8)
    rgb[:256, :256], rgb[:256, 256:], rgb[256:, :128] = (
        (60, 160, 60),
        (160, 60, 60),
        (110, 140, 110),
    )
    rgb[256:, 128:256] = (60, 60, 160)
    Image.fromarray(rgb).save(data / "train_gt" / "TRAIN_00000.png")
    crops = pd.read_csv(data / "crops.csv", dtype=str)
    crops.loc[crops["name"] == "TRAIN_00000", "photo"] = "more/korea_streets-1234.jpg"
    crops.to_csv(data / "crops.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["weigh", "--data-dir", str(data)])
    weigh.main()
    weights = pd.read_csv(data / "folds.csv").set_index("gt_image_path")["weight"]
    assert weights["train_gt/TRAIN_00000.png"] == 3 * (1 + 10 / 4 + 5 / 4)
    assert (weights >= 1).all() and "korea_streets" in capsys.readouterr().out


def test_a_run_of_an_inpainter_alone_restores_nothing(sample_folder, script, tmp_path):
    """Without --init its fold lacks the colorizer, and whoever needs it is told."""
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    train(*folders, *TINY, "--epochs", 1, "--parts", "inpainter")
    assert [path.name for path in network_files(tmp_path / "restorer" / "fold0")] == [
        "inpainter.safetensors"
    ]
    assert not metrics(tmp_path / "restorer" / "fold0", "loss/hue")
    for name, extra in (("infer", []), ("evaluate", ["--fold", 0])):
        status, _, stderr = script(name, *folders, *extra)
        message = f"{tmp_path / 'restorer' / 'fold0'}: lacks colorizer.safetensors"
        assert status == 2 and message in stderr and "Traceback" not in stderr, stderr


def test_inference_without_training_uses_them(small_folder, script, tmp_path):
    folders = ("--data-dir", small_folder, "--output-dir", tmp_path)
    status, output, stderr = script("infer", *folders, "--ensemble")
    assert status == 0 and f"5 fold(s) of {SHIPPED}" in output, stderr
    truth = ("--gt", small_folder / "test_gt", "--input", small_folder / "test_input")
    scores = tmp_path / "scores.json"
    status, *_ = script(
        "evaluate", "--pred", tmp_path / "restorer" / "test", *truth, "--json", scores
    )
    assert status == 0 and json.loads(scores.read_text())["mean"]["score"] > 0.5
    # a run that was begun hides them only when it has a checkpoint, and until then a line says so
    status, *_ = script("train", "--data-dir", tmp_path / "none", "--output-dir", tmp_path)
    assert status == 2 and (tmp_path / "restorer" / "fold0").is_dir()  # nothing was begun
    status, output, _ = script("infer", *folders, "--ensemble")
    assert status == 0 and f"5 fold(s) of {SHIPPED}" in output
    (tmp_path / "restorer" / "fold0" / "config.json").write_text("{}")
    status, output, _ = script("infer", *folders, "--ensemble")
    assert (
        status == 0
        and f"{SHIPPED} (no fold of {tmp_path / 'restorer'} was validated yet)" in output
    )


@pytest.mark.parametrize("init", ["missing.safetensors", "."])
def test_nothing_to_start_from(sample_folder, script, tmp_path, init):
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    status, _, stderr = script("train", *folders, "--epochs", 1, "--init", tmp_path / init)
    assert status == 2 and "no" in stderr and str(tmp_path) in stderr
