"""The shipped weights, and where they are used."""

import json
import sys

import pytest
import torch

from src.models.checkpoints import SHIPPED, fold_checkpoints, load_model, network_files, save_model
from tools import ship_weights

CPU = torch.device("cpu")


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
            assert f"{fact['score']['score']:.4f}" in card  # of the validation


def test_shipping_rounds_to_half(random_run, monkeypatch, tmp_path, capsys):
    model, _ = load_model(random_run / "random" / "fold0", CPU)
    source = tmp_path / "run" / "fold0"
    save_model(source, model, "restorer", {"fold": 0, "step": 7, "score": {"score": 0.5}})
    _, description = load_model(source, CPU)
    (source / "metrics.jsonl").write_text("{}\n")
    (source / "config.json").write_text('{"lr": 0.001, "data_dir": "/here", "init": "/there"}')
    command = ["ship_weights", str(source.parent), "--weights", str(tmp_path / "weights")]
    monkeypatch.setattr(sys, "argv", command)
    ship_weights.main()
    assert "step 7, score 0.5000" in capsys.readouterr().out
    half = tmp_path / "weights" / "fold0"
    assert [file.name for file in network_files(half)] == [file.name for file in network_files(source)]
    for file in network_files(half):
        assert file.stat().st_size < 0.52 * (source / file.name).stat().st_size
    rounded, described = load_model(half, CPU)
    assert described == description
    assert json.loads((half / "config.json").read_text()) == {"lr": 0.001}  # and no folder of here
    assert (half / "metrics.jsonl").read_text() == "{}\n"
    for one, other in zip(model.state_dict().values(), rounded.state_dict().values(), strict=True):
        assert one.dtype == other.dtype and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-6)


def test_inference_without_training_uses_them(small_folder, script, tmp_path):
    folders = ("--data-dir", small_folder, "--output-dir", tmp_path)
    status, output, stderr = script("infer", *folders, "--ensemble")
    assert status == 0 and f"5 fold(s) of {SHIPPED}" in output, stderr
    truth = ("--gt", small_folder / "test_gt", "--input", small_folder / "test_input")
    scores = tmp_path / "scores.json"
    status, *_ = script("evaluate", "--pred", tmp_path / "restorer" / "test", *truth, "--json", scores)
    assert status == 0 and json.loads(scores.read_text())["mean"]["score"] > 0.5
    # a run that was begun is never replaced silently
    status, *_ = script("train", "--data-dir", tmp_path / "none", "--output-dir", tmp_path)
    assert status == 2 and (tmp_path / "restorer" / "fold0").is_dir()  # nothing was begun
    status, output, _ = script("infer", *folders, "--ensemble")
    assert status == 0 and f"5 fold(s) of {SHIPPED}" in output
    (tmp_path / "restorer" / "fold0" / "config.json").write_text("{}")
    status, _, stderr = script("infer", *folders, "--ensemble", "--output", tmp_path / "other")
    assert status == 2 and "no checkpoint of any fold" in stderr


@pytest.mark.parametrize("init", ["missing.safetensors", "."])
def test_nothing_to_start_from(sample_folder, script, tmp_path, init):
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    status, _, stderr = script("train", *folders, "--epochs", 1, "--init", tmp_path / init)
    assert status == 2 and "no" in stderr and str(tmp_path) in stderr
