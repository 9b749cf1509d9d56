"""The shipped weights, where they are used, and the installed command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from src.models.checkpoints import BEST, SHIPPED, fold_checkpoints, load_model, save_model
from src.color.lattice import luma
from src.damage.hole import find_hole, punch_hole
from tools import ship_weights

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


def test_five_folds_in_sixty_megabytes():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    folds = [load_model(path, CPU) for path in fold_checkpoints(SHIPPED, None)]
    assert [description["fold"] for _, description in folds] == [0, 1, 2, 3, 4]
    assert len({description["held_out"] for _, description in folds}) == 5
    card = (SHIPPED / "README.md").read_text()
    for _, description in folds:
        assert f"{description['score']['score']:.4f}" in card  # of the validation


def test_shipping_rounds_to_half(random_run, monkeypatch, tmp_path, capsys):
    model, facts = load_model(random_run / "random" / "fold0" / BEST, CPU)
    facts |= {"step": 7, "score": {"score": 0.5}}
    source = tmp_path / "run" / "fold0"
    save_model(source / BEST, model, "restorer", {k: facts[k] for k in ("fold", "step", "score")})
    for name in ("metrics.jsonl", "config.json"):
        (source / name).write_text("{}\n")
    monkeypatch.setattr(ship_weights, "SHIPPED", tmp_path / "weights")
    monkeypatch.setattr(sys, "argv", ["ship_weights", str(source.parent)])
    ship_weights.main()
    assert "step 7, score 0.5000" in capsys.readouterr().out
    half = tmp_path / "weights" / "fold0" / BEST
    assert half.stat().st_size < 0.51 * (source / BEST).stat().st_size
    rounded, described = load_model(half, CPU)
    assert described == facts
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
    (tmp_path / "restorer" / "fold0").mkdir()
    status, _, stderr = script("infer", *folders, "--ensemble", "--output", tmp_path / "other")
    assert status == 2 and "no checkpoint of any fold" in stderr


def test_a_warm_start_beats_a_cold_one(sample_folder, tmp_path):
    """The same seconds on photos that the shipped folds never saw."""
    best = {}
    for name, flags in (("cold", ()), ("warm", ("--init", SHIPPED))):
        command = [sys.executable, "train.py", "--data-dir", sample_folder, "--output-dir", tmp_path]
        command += ["--name", name, "--max-minutes", 0.3, "--val-images", 4, "--workers", 0]
        done = subprocess.run(list(map(str, [*command, *flags])), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "fold0" / "metrics.jsonl").read_text().splitlines()
        best[name] = max(json.loads(line).get("val/score", 0) for line in lines)
    assert best["warm"] > best["cold"] + 0.02, best


@pytest.mark.parametrize("init", ["missing.safetensors", "."])
def test_nothing_to_start_from(sample_folder, script, tmp_path, init):
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    status, _, stderr = script("train", *folders, "--epochs", 1, "--init", tmp_path / init)
    assert status == 2 and "no" in stderr and str(tmp_path) in stderr


def test_installed_command(tmp_path):
    """`pip install .` in a folder of its own; then `restore-photo` far away from this repository."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    build = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, build], check=True)
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
    )
    assert done.returncode == 0 and "1 photos in" in done.stdout, done.stderr
    restored = np.asarray(Image.open(tmp_path / "out" / "cat.png"))
    assert (luma(restored) == gray)[~find_hole(gray)].all() and np.ptp(restored, axis=2).mean() > 5
    assert (luma(restored) != gray)[mask].mean() > 0.9
