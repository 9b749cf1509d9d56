"""train.py on real photographs, end to end: what a run leaves, resuming, starts, errors."""

import json
import random
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src.datasets.folds import load_folds
from src.datasets.loader import TrainingImages
from src.models import create_model
from src.models.base import TrainableModel
from src.models.checkpoints import load_model, load_state, save_model
from src.models.options import ModelOptions
from src.runs import SHIPPED
from src.training.logger import RunLogger
from src.training.settings import begin_run
from src.training.state import (
    Budget,
    TrainingState,
    learning_rate,
    load_initial,
    training_step,
    weighted_sum,
)
from src.utils.distributed import launch
from src.utils.errors import InputError
from tests.training import TINY, metrics, train


@pytest.fixture(scope="module")
def run_folder(sample_folder, tmp_path_factory):
    """Two trained folds of one run: (data folder, output folder, run name)."""
    outputs = tmp_path_factory.mktemp("outputs")
    folders = ("--data-dir", sample_folder, "--output-dir", outputs, "--name", "tiny")
    for fold in (0, 3):
        train(*folders, "--fold", fold, "--epochs", 2, *TINY)
    return sample_folder, outputs, "tiny"


def flags(run_folder) -> list:
    data_dir, outputs, name = run_folder
    return ["--data-dir", data_dir, "--output-dir", outputs, "--name", name]


def test_run_folder(run_folder):
    data_dir, outputs, name = run_folder
    folder = outputs / name / "fold0"
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == "restorer" and config["lr"] == 2e-3 and config["fold"] == 0
    table = pd.read_csv(data_dir / "folds.csv")
    steps = 2 * ((table["fold"] != 0).sum() // 4)
    scores = [line["val/score"] for line in metrics(folder, "val/score")]
    assert len(scores) == 2 and all(np.isfinite(scores))
    state = load_state(folder / "last.pt")
    assert state["step"] == steps and state["best"] == pytest.approx(max(scores))
    _, description = load_model(folder, torch.device("cpu"))
    assert set(description["networks"]) == {"inpainter", "colorizer"}
    for facts in description["networks"].values():
        assert facts["score"]["score"] == pytest.approx(max(scores))
    assert config["finished"] is True
    assert list((folder / "tensorboard").glob("events*"))
    assert Image.open(folder / "validation" / f"step{steps:07d}.png").size == (3 * 512, 2 * 512)


def test_same_command_again_does_nothing(run_folder, script):
    before = (run_folder[1] / "tiny" / "fold0" / "last.pt").stat().st_mtime_ns
    status, stdout, stderr = script("train", *flags(run_folder), "--fold", 0, "--epochs", 2, *TINY)
    assert status == 0, stderr
    assert "best validation score" in stdout
    assert (run_folder[1] / "tiny" / "fold0" / "last.pt").stat().st_mtime_ns == before


def test_precision(run_folder, tmp_path):
    """The same steps in bfloat16: nearly the same losses, and weights that are float32."""
    found = {}
    for precision in ("fp32", "bf16"):
        arguments = ["--data-dir", run_folder[0], "--output-dir", tmp_path, "--name", precision]
        train(*arguments, *TINY, "--epochs", 1, "--precision", precision)
        found[precision] = metrics(tmp_path / precision / "fold0", "loss/hue")[-1]
        model, _ = load_model(tmp_path / precision / "fold0", torch.device("cpu"))
        assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
    keys = [key for key in found["fp32"] if key.startswith("loss/")]
    for key in keys:
        assert found["bf16"][key] == pytest.approx(found["fp32"][key], rel=0.1)
    assert any(found["bf16"][key] != found["fp32"][key] for key in keys)


def test_the_clock_ends_a_run(run_folder, monkeypatch, tmp_path):
    """By a clock that advances by four seconds whenever it is read."""
    monkeypatch.setattr("src.training.state.monotonic", count(0.0, 4.0).__next__)
    folders = ["--data-dir", run_folder[0], "--output-dir", tmp_path]
    train(*folders, "--max-minutes", 1, *TINY)
    lines = metrics(tmp_path / "restorer" / "fold0", "step")
    minutes = [line["minutes"] for line in lines if "val/score" in line]
    assert "val/score" in lines[-1] and minutes[-1] <= 1
    state = load_state(tmp_path / "restorer" / "fold0" / "last.pt")
    assert 1 < state["step"] < 15 and state["elapsed"] >= 60 * minutes[-1]


def test_parts_and_weights_of_the_losses(run_folder, tmp_path):
    """The colorizer alone, without its histogram loss: the inpainter stays as it was."""
    folders = ["--data-dir", run_folder[0], "--output-dir", tmp_path]
    init = ["--init", run_folder[1] / "tiny"]
    train(
        *folders,
        *init,
        "--epochs",
        1,
        *TINY,
        "--parts",
        "colorizer",
        "--loss-weights",
        "histogram",
        0,
    )
    assert not metrics(tmp_path / "restorer" / "fold0", "loss/inpaint_l1")
    config = json.loads((tmp_path / "restorer" / "fold0" / "config.json").read_text())
    assert config["loss_weights"]["histogram"] == 0 and config["loss_weights"]["chroma"] == 20
    cpu = torch.device("cpu")
    first, _ = load_model(run_folder[1] / "tiny" / "fold0", cpu)
    second, _ = load_model(tmp_path / "restorer" / "fold0", cpu)
    for name, value in first.state_dict().items():
        if name.startswith("inpainter."):
            assert torch.allclose(value.float(), second.state_dict()[name].float(), atol=1e-6), name
    weight = "colorizer.hue.weight"
    assert not torch.equal(first.state_dict()[weight], second.state_dict()[weight])


def test_a_start_must_not_have_seen_the_validation_images(run_folder, script, tmp_path):
    """Another fold's checkpoint has, and one that does not say may have."""
    model = create_model("restorer")
    save_model(tmp_path / "old", model, "restorer", {"fold": 0, "held_out": "another split"})
    arguments = ["--data-dir", run_folder[0], "--output-dir", run_folder[1], "--name", "leak"]
    for fold, init in ((1, run_folder[1] / "tiny" / "fold0"), (0, tmp_path / "old")):
        status, _, stderr = script("train", *arguments, *TINY, "--fold", fold, "--init", init)
        message = f"may have seen the images that fold {fold} is validated on"
        assert status == 2 and message in stderr, stderr
    assert not list((run_folder[1] / "leak").rglob("*.safetensors"))


def test_the_shipped_weights_are_a_start_for_the_same_fold(run_folder):
    pairs = [(path, path) for path in sorted((run_folder[0] / "train_gt").iterdir())]
    facts = {"fold": 1, "held_out": "that of other photos"}
    model = create_model("restorer", parts="colorizer")
    keys = np.array([3], np.uint32)
    # the colorizer keeps what it was trained on; the inpainter, of 2.0, does not
    assert len(load_initial(model, SHIPPED / "fold1", facts, pairs, keys)) > 6000
    for path, message in (
        ("fold0", "its inpainter may have seen"),
        ("fold1/colorizer.safetensors", "has no inpainter, and --parts does not train it"),
    ):
        with pytest.raises(InputError, match=message):
            load_initial(model, SHIPPED / path, facts, pairs, keys)


def test_a_resumed_run_is_not_finished(tmp_path):
    config = {"epochs": 2, "lr": 1.0}
    for name in ("last.pt", "best.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text(json.dumps(config | {"finished": True}))
    begin_run(tmp_path, config | {"epochs": 3})
    assert json.loads((tmp_path / "config.json").read_text()) == config | {"epochs": 3}
    (tmp_path / "last.pt").unlink()
    with pytest.raises(InputError, match="would be overwritten"):
        begin_run(tmp_path, config)


class Drawing(TrainableModel):
    """Draws from every global generator."""

    def __init__(self):
        super().__init__(ModelOptions())
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.drawn = []

    def losses(self, batch):
        self.drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
        yield "model", {"l1": self.weight**2}


def test_a_resumed_training_draws_the_same_random_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(ModelOptions, "loss_terms", {"l1": 1.0})
    fabric, whole, resumed = launch("cpu"), TrainingState(Drawing()), TrainingState(Drawing())
    training_step(whole, {}, 0.1, fabric)
    whole.save(tmp_path / "last.pt")
    training_step(whole, {}, 0.1, fabric)
    random.random(), np.random.rand(), torch.rand(())
    resumed.load(tmp_path / "last.pt")
    training_step(resumed, {}, 0.1, fabric)
    assert resumed.model.drawn == whole.model.drawn[1:] != whole.model.drawn[:1]


def test_a_loss_term_without_weight_is_named():
    with pytest.raises(InputError, match="loss term hues has no weight; add it to loss_terms"):
        weighted_sum({"hue": torch.ones(()), "hues": torch.ones(())}, {"hue": 1.0})


def test_other_settings_are_refused(run_folder, script):
    status, _, stderr = script("train", *flags(run_folder), "--fold", 0, "--lr", 0.5, *TINY)
    assert status == 2 and "lr was 0.002 and is 0.5" in stderr


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", [*TINY, "--max-minutes", 0.001], "raise --max-minutes"),
        ("train", ["--device", "abacus"], "--device abacus"),
        ("train", ["detector", "--encoder", "vgg"], "--encoder vgg: unknown; choose lite0"),
        (
            "train",
            ["detector", "--encoder", "convnext_tiny"],
            "no package has those of convnext_tiny",
        ),
        ("train", ["--parts", "colorizer"], "the inpainter must come from --init"),
        ("train", ["--ema-decay", 1], "must be at least 0 and below 1"),
        ("train", ["--loss-weights", "hue", -1], "must be 0 or more"),
        ("train", ["--val-images", -1], "must be 0 or more"),
        ("train", ["--data-dir", "/proc/none"], "prepare_data.py build --sample"),
        ("train", ["--output-dir", "/proc/none", *TINY], "/proc/none"),
        ("infer", ["--fold", 7], "trained folds: 0, 1, 2, 3, 4"),  # the shipped ones
        ("infer", ["--fold", 7, "--name", "x"], "trained folds: none"),
        ("evaluate", ["--fold", 0], "trained folds: none"),
        ("evaluate", ["--fold", "all"], "train it first"),
        ("infer", ["--input", "/proc/none", "--output", "/tmp/none"], "no such photo or folder"),
        ("infer", ["--input", "/proc/none"], "needs --output as well"),
        ("infer", ["--damage", "none"], "need --input"),
        ("evaluate", [], "--pred, --gt and --input"),
        ("evaluate", ["--fold", 0, "--pred", "/proc"], "leave --pred, --gt and --input out"),
    ],
)
def test_bad_settings_are_one_line(run_folder, script, tmp_path, name, arguments, message):
    model = arguments[:1] if arguments and not str(arguments[0]).startswith("-") else []
    where = ["--data-dir", run_folder[0], "--output-dir", tmp_path]
    status, _, stderr = script(name, *model, *where, *arguments[len(model) :])
    assert status == 2 and message in stderr, stderr
    assert "Traceback" not in stderr
    assert len(stderr[stderr.index("error:") :].strip().splitlines()) == 1


@pytest.fixture
def broken_folder(data_dir):
    """The sample folder with every truth cut off; the scene search has seen the whole images."""
    load_folds(data_dir)
    for path in (data_dir / "train_gt").glob("*.png"):
        path.write_bytes(path.read_bytes()[:5000])
    return data_dir


def test_broken_training_image_is_one_line(broken_folder, script, tmp_path):
    arguments = ["--data-dir", broken_folder, "--output-dir", tmp_path, *TINY]
    status, _, stderr = script("train", *arguments)
    last = stderr.strip().splitlines()[-1]
    assert status == 2 and "Traceback" not in stderr, stderr
    assert last.startswith(f"error: {broken_folder / 'train_gt'}") and "broken image" in last


def test_broken_training_image_ends_the_workers(broken_folder, tmp_path):
    """A real process, since one that does not end is what workers can cause."""
    arguments = ["--data-dir", broken_folder, "--output-dir", tmp_path, *TINY, "--workers", 1]
    command = [sys.executable, "train.py", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stderr.strip().splitlines() if line and "fold0:" not in line]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert "broken image" in lines[0] and str(broken_folder / "train_gt") in lines[0]


def test_a_training_sees_images_by_their_weights(run_folder, monkeypatch, tmp_path):
    """Those of folds.csv; nine in ten samples are of one image that weighs as much as that."""
    data_dir = Path(shutil.copytree(run_folder[0], tmp_path / "data"))
    table = pd.read_csv(data_dir / "folds.csv")
    heavy = table["gt_image_path"][table["fold"] != 0].iloc[0]
    table["weight"] = np.where(table["gt_image_path"] == heavy, 9.0 * (table["fold"] != 0).sum(), 1)
    table.to_csv(data_dir / "folds.csv", index=False)
    seen = []

    class Noted(TrainingImages):
        def __getitem__(self, key):
            seen.append(self.paths[key.image])
            return super().__getitem__(key)

    monkeypatch.setattr("src.datasets.loader.TrainingImages", Noted)
    folders = ["--data-dir", data_dir, "--output-dir", tmp_path / "outputs"]
    train(*folders, "--epochs", 1, *TINY)
    assert len(seen) > 8 and np.mean([path == data_dir / heavy for path in seen]) > 0.8


def test_learning_rate():
    assert 0 < learning_rate(1.0, 0.0) < 0.1  # the first step counts
    assert learning_rate(1.0, 0.03) == pytest.approx(1, abs=0.01)
    assert learning_rate(1.0, 0.5) == pytest.approx(0.5) and learning_rate(1.0, 1.0) == 0


def test_budget_ends_with_its_steps_or_its_seconds(monkeypatch):
    monkeypatch.setattr("src.training.state.monotonic", iter([1000.0, 1010.0, 1095.0]).__next__)
    budget = Budget(steps=10, seconds=100, validate_steps=7, earlier=30)
    assert budget.elapsed() == 40
    assert budget.progress(1, 40) == 0.4 and budget.progress(9, 40) == 0.9
    budget.reserve = 20  # seconds, for the last validation
    assert budget.progress(1, 40) == 0.5 and budget.progress(1, 80) == 1
    assert budget.progress(10, 0) == 1 and budget.progress(1, budget.elapsed()) == 1
    due = [step for step in range(1, 30) if budget.validation_due(step, 0.5)]
    assert due == [7, 14, 21, 28] and budget.validation_due(1, 1.0)


def test_log_survives_a_cut_off_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 20, "x": 1}\n{"step": 40, "x": 2}\n{"step": 60, "x"')
    logger = RunLogger(tmp_path, 20, launch("cpu"))
    with logger:
        pass
    assert logger.writer.all_writers is None  # closed
    logger = RunLogger(tmp_path, 20, launch("cpu"))
    assert path.read_text() == '{"step": 20, "x": 1}\n'
    for _ in range(5):
        logger.add({"l1": torch.tensor(3.0)})
    logger.flush(25, lr=0.1, batch_size=4)
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["step"] == 25 and last["loss/l1"] == 3.0 and last["images_per_second"] > 0
    logger.add({"l1": torch.tensor(float("nan"))})
    with pytest.raises(InputError, match=f"not finite at step 26; delete {tmp_path}"):
        logger.flush(26, lr=0.1, batch_size=4)


def test_a_learning_rate_that_is_too_high_is_one_line(run_folder, script, tmp_path):
    folders = ["--data-dir", run_folder[0], "--output-dir", tmp_path]
    status, _, stderr = script("train", *folders, *TINY, "--lr", 1e30, "--epochs", 50)
    assert status == 2 and "is not finite at step" in stderr and "lower --lr" in stderr, stderr
