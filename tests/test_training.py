"""train.py, infer.py, evaluate.py and make_submission.py on real photographs, end to end."""

import json
import random
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage import data

from src.color.lattice import luma
from src.datasets.folds import load_folds
from src.datasets.loader import TrainingImages
from src.models import create_model
from src.models.base import TrainableModel
from src.models.checkpoints import load_model, load_state, read_description, save_model
from src.models.options import ModelOptions, RestorerOptions
from src.runs import SHIPPED
from src.training.logger import RunLogger
from src.training.state import (
    Budget,
    TrainingState,
    begin_run,
    check_initial,
    keep_untrained,
    learning_rate,
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


def test_another_split_is_no_out_of_fold_score(run_folder, script, tmp_path):
    data_dir = shutil.copytree(run_folder[0], tmp_path / "data")
    (data_dir / "folds.csv").unlink()
    arguments = ["--data-dir", data_dir, *flags(run_folder)[2:], "--fold", 0, "--seed", 5]
    status, _, stderr = script("evaluate", *arguments)
    assert status == 2 and "not the split that" in stderr


def test_folds_of_different_models_are_refused(run_folder, script, tmp_path):
    shutil.copytree(run_folder[1] / "tiny", tmp_path / "mixed")
    (tmp_path / "mixed" / "fold1").mkdir()
    save_model(tmp_path / "mixed" / "fold1", create_model("detector"), "detector", {})
    arguments = [*flags(run_folder)[:2], "--output-dir", tmp_path, "--name", "mixed", "--ensemble"]
    status, _, stderr = script("infer", *arguments)
    assert status == 2 and "folds of different models (detector, restorer)" in stderr


def test_other_photos_are_restored_anew(run_folder, script, tmp_path):
    """The same names with other contents: nothing of the first may pass as a result of the second."""
    two, out = tmp_path / "two", tmp_path / "out"
    two.mkdir()
    results = []
    for image in (data.camera()[:64, :64], 255 - data.camera()[:64, :64], None):
        if image is not None:
            Image.fromarray(image).save(two / "a.png")
        status, stdout, stderr = script(
            "infer", *flags(run_folder), "--input", two, "--output", out, "--overwrite"
        )
        assert status == 0, stderr
        results.append((out / "a.png").read_bytes())
    assert results[0] != results[1] == results[2] and "1 of 1 images are already restored" in stdout
    # Another recipe for another file of the same folder: the first file's result is of the old
    # recipe.
    Image.fromarray(data.camera()[64:128, :64]).save(two / "b.png")
    arguments = [*flags(run_folder), "--output", out, "--ensemble", "--overwrite"]
    assert script("infer", *arguments, "--input", two / "b.png")[0] == 0
    assert script("infer", *arguments, "--input", two / "a.png")[0] == 0
    assert (out / "a.png").read_bytes() != results[2]


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
    assert 0 < found["fp32"]["data_wait"] < 1


def test_the_clock_ends_a_run(run_folder, monkeypatch, tmp_path):
    """By a clock that advances by four seconds whenever it is read."""
    clock = count(0.0, 4.0).__next__
    monkeypatch.setattr("src.training.state.Budget", partial(Budget, clock=clock))
    folders = ["--data-dir", run_folder[0], "--output-dir", tmp_path]
    train(*folders, "--max-minutes", 1, *TINY)
    lines = metrics(tmp_path / "restorer" / "fold0", "step")
    minutes = [line["minutes"] for line in lines if "val/score" in line]
    assert "val/score" in lines[-1] and minutes[-1] <= 1
    state = load_state(tmp_path / "restorer" / "fold0" / "last.pt")
    assert 1 < state["step"] < 15 and state["elapsed"] >= 60 * minutes[-1]


def test_parts_and_weights_of_the_losses(run_folder, tmp_path):
    """The colorizer alone, without its histogram loss: the inpainter stays as it was."""
    folders = [
        "--data-dir",
        run_folder[0],
        "--output-dir",
        tmp_path,
        "--init",
        run_folder[1] / "tiny",
    ]
    train(*folders, "--epochs", 1, *TINY, "--parts", "colorizer", "--loss-weights", "histogram", 0)
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
    model = create_model("restorer", color_size=64, encoder_weights="random")
    save_model(tmp_path / "old", model, "restorer", {"fold": 0, "held_out": "another split"})
    arguments = ["--data-dir", run_folder[0], "--output-dir", run_folder[1], "--name", "leak"]
    for fold, init, message in (
        (1, run_folder[1] / "tiny" / "fold0", "was trained on 100% of the images that fold 1 is"),
        ("all", run_folder[1] / "tiny" / "fold0", "of the images that fold 1 is validated on"),
        (0, tmp_path / "old", "does not say whether it was trained on the images"),
    ):
        status, _, stderr = script("train", *arguments, *TINY, "--fold", fold, "--init", init)
        assert status == 2 and message in stderr, stderr
    assert not list((run_folder[1] / "leak").rglob("*.safetensors"))


def test_the_shipped_weights_are_a_start_for_the_same_fold(run_folder):
    truths = sorted((run_folder[0] / "train_gt").iterdir())
    split_info = {"fold": 1, "held_out": "that of other photos"}
    check_initial(SHIPPED / "fold1", RestorerOptions(), split_info, truths)
    with pytest.raises(InputError, match="fold0: its colorizer is of another split"):
        check_initial(SHIPPED / "fold0", RestorerOptions(), split_info, truths)
    options = RestorerOptions(parts="colorizer")
    with pytest.raises(InputError, match="has no inpainter, and --parts does not train it"):
        check_initial(SHIPPED / "fold1" / "colorizer.safetensors", options, split_info, truths)


def test_what_is_not_trained_is_kept_as_it_is_validated(tmp_path):
    """A colorizer that was trained at another size is kept with the size of this training."""
    model = create_model("restorer", color_size=96, parts="inpainter", encoder_weights="random")
    loaded = {"colorizer": {"fold": 0, "arguments": {"color_size": 64}, "trained_on": "AAAA"}}
    keep_untrained(tmp_path, model, "restorer", loaded, {"fold": 1, "held_out": "x"})
    (facts,) = read_description(tmp_path).values()
    assert facts["arguments"]["color_size"] == 96
    assert (facts["fold"], facts["held_out"], facts["trained_on"]) == (1, "x", "AAAA")


def test_a_run_that_goes_on_is_not_finished(tmp_path):
    config = {"epochs": 2, "lr": 1.0}
    for name in ("last.pt", "best.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text(json.dumps(config | {"finished": True}))
    begin_run(tmp_path, config | {"epochs": 3}, ["best"])
    assert json.loads((tmp_path / "config.json").read_text()) == config | {"epochs": 3}
    (tmp_path / "last.pt").unlink()
    with pytest.raises(InputError, match="would be overwritten"):
        begin_run(tmp_path, config, ["best"])


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


def test_submission_of_the_ensemble(run_folder, script, tmp_path):
    data_dir, outputs, name = run_folder
    status, stdout, stderr = script("infer", *flags(run_folder), "--ensemble", "--tta", 2)
    assert status == 0 and stdout.startswith(f"2 fold(s) of {outputs / name}, model restorer"), (
        stderr
    )
    assert ", tta 2," in stdout
    names = [f"TEST_{number:03d}.png" for number in range(3)]
    assert sorted(p.name for p in (outputs / name / "test").glob("[!.]*")) == names
    # Once more: only what is missing is restored.
    kept = outputs / name / "test" / names[0]
    before = kept.stat().st_mtime_ns
    pixels = np.asarray(Image.open(outputs / name / "test" / names[1]))
    (outputs / name / "test" / names[1]).unlink()
    status, stdout, _ = script("infer", *flags(run_folder), "--ensemble", "--tta", 2)
    assert status == 0 and "2 of 3 images are already restored" in stdout
    assert kept.stat().st_mtime_ns == before
    assert np.array_equal(np.asarray(Image.open(outputs / name / "test" / names[1])), pixels)
    # The zip: names, decodable RGB, the same bytes again.
    status, stdout, stderr = script("make_submission", *flags(run_folder))
    assert status == 0, stderr
    target = outputs / name / "submission.zip"
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == names and archive.testzip() is None
        for entry in names:
            image = Image.open(archive.open(entry))
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (512, 512))
    status, _, _ = script("make_submission", *flags(run_folder), "--zip", tmp_path / "again.zip")
    assert status == 0 and (tmp_path / "again.zip").read_bytes() == target.read_bytes()
    # The score of the test images, per image and mean.
    status, stdout, stderr = script(
        "evaluate", "--pred", outputs / name / "test", "--gt", data_dir / "test_gt",
        "--input", data_dir / "test_input", "--json", tmp_path / "s.json", "--picture", tmp_path / "p.png",
    )  # fmt: skip
    assert status == 0 and "worst:" in stdout, stderr
    scores = json.loads((tmp_path / "s.json").read_text())
    means = pd.DataFrame(scores["images"])[["S", "M", "C", "score"]].mean()
    assert [row["name"] for row in scores["images"]] == names
    assert dict(means) == pytest.approx(scores["mean"])
    assert Image.open(tmp_path / "p.png").size == (3 * 512, 3 * 512)


def test_out_of_fold_scores(run_folder, script, tmp_path):
    status, _, stderr = script(
        "evaluate", *flags(run_folder), "--fold", "all", "--json", tmp_path / "s.json"
    )
    assert status == 0, stderr
    table = pd.read_csv(run_folder[0] / "folds.csv")
    held_out = table[table["fold"].isin([0, 3])]["input_image_path"]
    names = {row["name"] for row in json.loads((tmp_path / "s.json").read_text())["images"]}
    assert names == {path.split("/")[-1] for path in held_out}


def test_any_photo(run_folder, script, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    (photos / "deep").mkdir(parents=True)
    Image.fromarray(data.coffee()).save(photos / "deep" / "colour.jpg")
    Image.fromarray(data.camera()[:101, :77]).save(photos / "odd.png")
    Image.fromarray(data.camera()[:90, :90].astype(np.uint16) * 257).save(photos / "deep16.png")
    Image.fromarray(data.camera()[:1, :1]).save(photos / "pixel.png")
    Image.fromarray(data.camera()[:64, :64]).save(photos / "odd.webp")
    (photos / "broken.png").write_text("no picture")
    status, stdout, stderr = script("infer", *flags(run_folder), "--input", photos, "--output", out)
    assert status == 2 and "broken.png" in stderr and "5 images" in stdout
    sizes = {str(p.relative_to(out)): Image.open(p).size for p in out.rglob("*.png")}
    assert sizes == {
        "deep/colour.png": (600, 400),
        "odd.png.png": (77, 101),
        "odd.webp.png": (64, 64),
        "deep16.png": (90, 90),
        "pixel.png": (1, 1),
    }
    assert all(Image.open(p).mode == "RGB" for p in out.rglob("*.png"))
    for output, message in (
        (photos, "would overwrite"),
        (tmp_path / "own", "does not list it"),
    ):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / "odd.png").write_bytes(b"mine")
        before = {p: p.read_bytes() for p in (*photos.rglob("*.*"), tmp_path / "own" / "odd.png")}
        source = photos / "odd.png"
        status, _, stderr = script(
            "infer", *flags(run_folder), "--input", source, "--output", output
        )
        assert status == 2 and message in stderr
        assert before == {p: p.read_bytes() for p in before}
    status, _, stderr = script(
        "infer", *flags(run_folder), "--input", photos / "odd.png", "--output", tmp_path / "one"
    )
    assert status == 0 and [p.name for p in (tmp_path / "one").glob("[!.]*")] == ["odd.png"], stderr
    # Another decode: other colours of the same luma, and the old result is not taken for it.
    pictures = [np.asarray(Image.open(tmp_path / "one" / "odd.png"))]
    arguments = [*flags(run_folder), "--input", photos / "odd.png", "--output", tmp_path / "one"]
    assert script("infer", *arguments, "--decode", "visual")[0] == 2  # looking destroys nothing
    assert script("infer", *arguments, "--decode", "visual", "--overwrite")[0] == 0
    pictures.append(np.asarray(Image.open(tmp_path / "one" / "odd.png")))
    assert not np.array_equal(*pictures)
    assert all(np.array_equal(luma(rgb), data.camera()[:101, :77]) for rgb in pictures)


def test_baselines_need_no_checkpoint(sample_folder, script, tmp_path):
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    for name in ("telea", "input"):
        assert script("infer", *folders, "--name", name, "--baseline", name)[0] == 0
    gray = np.asarray(Image.open(sample_folder / "test_input" / "TEST_000.png"))
    as_is = np.asarray(Image.open(tmp_path / "input" / "test" / "TEST_000.png"))
    filled = np.asarray(Image.open(tmp_path / "telea" / "test" / "TEST_000.png"))
    assert np.array_equal(as_is, np.repeat(gray[..., None], 3, axis=2))
    changed = (filled[..., 0] != gray).mean()
    assert 0.004 < changed < 0.2


def test_submission_refuses(run_folder, script, tmp_path):
    data_dir, _, _ = run_folder
    good = np.asarray(Image.open(data_dir / "test_gt" / "TEST_000.png"))
    pred, target = tmp_path / "pred", tmp_path / "out.zip"
    pred.mkdir()

    def refused(message: str) -> None:
        status, _, stderr = script(
            "make_submission", *flags(run_folder), "--pred", pred, "--zip", target
        )
        assert status == 2 and message in stderr and len(stderr.strip().splitlines()[-1:]) == 1, (
            stderr
        )
        assert not target.exists()

    refused("TEST_000.png: missing, like 2 more")
    for number in range(3):
        Image.fromarray(good).save(pred / f"TEST_{number:03d}.png")
    Image.fromarray(good).save(pred / "TEST_003.png")
    refused("TEST_003.png: not in test.csv")
    (pred / "TEST_003.png").unlink()
    Image.fromarray(good).convert("L").save(pred / "TEST_001.png")
    refused("TEST_001.png: mode is L, expected RGB")
    Image.fromarray(good[:400]).save(pred / "TEST_001.png")
    refused("TEST_001.png: size is 512x400, expected 512x512")
    (pred / "TEST_001.png").write_text("text")
    refused("TEST_001.png: not an image")
    Image.fromarray(good).save(pred / "TEST_001.png", format="JPEG")
    refused("TEST_001.png: not an image of type PNG")
    Image.fromarray(good).save(pred / "TEST_001.png", compress_level=1)
    assert script("make_submission", *flags(run_folder), "--pred", pred, "--zip", target)[0] == 0
    first = target.read_bytes()
    Image.fromarray(good).save(pred / "TEST_001.png", compress_level=9)
    assert script("make_submission", *flags(run_folder), "--pred", pred, "--zip", target)[0] == 0
    assert target.read_bytes() == first


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", ["gan", "--batch-size", 1], "at least 2"),
        ("train", ["detector", "--loss-weights", "hue", 0], "the terms are cross_entropy"),
        ("train", [*TINY, "--max-minutes", 0.001], "raise --max-minutes"),
        ("train", ["--name", ".."], "plain folder name"),
        ("train", ["--device", "abacus"], "--device abacus"),
        ("train", ["--encoder", "vgg"], "--encoder vgg: unknown; choose lite0"),
        ("train", ["--encoder", "convnext_tiny"], "no package has those of convnext_tiny"),
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
    lines = [line for line in done.stderr.strip().splitlines() if line and "fold 0:" not in line]
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


def test_budget_ends_with_its_steps_or_its_seconds():
    times = iter([1000.0, 1010.0, 1095.0])
    budget = Budget(steps=10, seconds=100, validate_steps=7, earlier=30, clock=times.__next__)
    assert budget.elapsed() == 40
    assert budget.progress(1, 40) == 0.4 and budget.progress(9, 40) == 0.9
    budget.reserve = 20  # seconds, for the last validation
    assert budget.progress(1, 40) == 0.5 and budget.progress(1, 80) == 1
    assert budget.progress(10, 0) == 1 and budget.progress(1, budget.elapsed()) == 1
    assert Budget(None, 60.0).progress(1000, 30) == 0.5
    assert Budget(10, None).progress(5, 1e9) == 0.5
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
