"""The pipeline from Python: a grey photo in, a colour photo out."""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from src.color.lattice import luma
from src.damage.hole import find_hole, punch_hole
from src.models import create_model
from src.models.checkpoints import save_model
from src.pipeline import BASELINES, Baseline, Pipeline, load_finder, telea
from src.runs import SHIPPED
from src.utils.errors import InputError, SettingError
from src.utils.images import read_gray, write_png


@pytest.fixture(scope="module")
def models() -> list:
    """Three small restorers of random weights."""
    torch.manual_seed(0)
    found = [create_model("restorer").eval() for _ in range(3)]
    # as loaded ones are: another order in memory rounds otherwise
    return [model.to(memory_format=torch.channels_last) for model in found]


@pytest.fixture(scope="module")
def run_dir(models, tmp_path_factory) -> Path:
    """A run with the folds 0, 1 and 3."""
    folder = tmp_path_factory.mktemp("outputs") / "mine"
    for fold, model in zip((0, 1, 3), models, strict=True):
        save_model(folder / f"fold{fold}", model, "restorer", {"fold": fold})
    return folder


@pytest.fixture(scope="module")
def damaged() -> tuple[np.ndarray, np.ndarray]:
    """(gray, mask) of a small photo."""
    return punch_hole(data.coffee()[100:240, 100:301], np.random.default_rng(0))


@pytest.mark.parametrize(("tta", "style"), [(1, "score"), (2, "visual")])
def test_the_ways_to_call_it_agree(run_dir, damaged, tta, style):
    gray, _ = damaged
    pipeline = Pipeline.load(run_dir, [0, 3], tta=tta, style=style)
    found = pipeline.find(gray).mask
    assert found.any() and np.array_equal(found, find_hole(gray))
    rgb = pipeline(gray)
    assert rgb.shape == (*gray.shape, 3) and rgb.dtype == np.uint8
    assert np.array_equal(luma(rgb)[~found], gray[~found])
    assert np.array_equal(pipeline(gray, found), rgb)
    estimate = pipeline.estimate(gray, found)
    assert np.array_equal(pipeline.decode(estimate, gray, found), rgb)
    other = {"score": "visual", "visual": "score"}[style]
    wanted = Pipeline(pipeline.ensemble.members, tta=tta, style=other)(gray, found)
    assert np.array_equal(pipeline.decode(estimate, gray, found, other), wanted)
    assert not np.array_equal(wanted, rgb)


def test_an_estimate_says_what_is_known(models, damaged):
    """The documented names and ranges, which the app relies on."""
    estimate = Pipeline(models).estimate(*damaged)
    maps = {"p", "chroma_mass"}
    assert set(estimate) == maps | {"luma"}
    assert all(estimate[name].dtype == np.float32 for name in maps)
    gray, mask = damaged
    assert estimate["luma"].dtype == np.uint8 and estimate["luma"].shape == gray.shape
    assert np.array_equal(estimate["luma"][~mask], gray[~mask])
    assert estimate["p"].shape == estimate["chroma_mass"].shape and len(estimate["p"]) == 180
    assert np.allclose(estimate["p"].sum(axis=0), 1, atol=1e-4)


def test_masks_and_photos_as_cv2_and_pil_give_them(models, damaged):
    """All say the same, so all give the same picture, in the visual style as well."""
    gray, mask = damaged
    for pipeline in (Pipeline(models[:1], style="visual"), Baseline("telea")):
        wanted = pipeline(gray, mask)
        same_masks = [
            mask.astype(np.uint8),
            mask.astype(np.uint8) * 255,
            mask[..., None],
            np.asfortranarray(mask),
            Image.fromarray(mask),
            Image.fromarray(mask.astype(np.uint8) * 255),
            torch.from_numpy(mask),
        ]
        for number, same in enumerate(same_masks):
            assert np.array_equal(pipeline(gray, same), wanted), number
        for same in (gray[..., None], Image.fromarray(gray), np.asfortranarray(gray)):
            assert np.array_equal(pipeline(same, mask), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, m: (g[..., None].repeat(3, 2), m), "found (140, 201, 3) uint8"),
        (lambda g, m: (g.astype(np.uint16), m), "gray must be (H, W) uint8, found (140, 201) ui"),
        (lambda g, m: (g / np.float32(255), m), "gray must be (H, W) uint8, found (140, 201) fl"),
        (lambda g, m: (g > 99, m), "gray must be (H, W) uint8, found (140, 201) bool"),
        (lambda g, m: (Image.fromarray(g).convert("P"), m), "found a PIL image of mode P"),
        (lambda g, m: (g[:0], m), "found (0, 201) uint8"),
        (lambda g, m: (g, m[:1]), "mask is (1, 201), gray is (140, 201)"),
        (lambda g, m: (g, m | True), "True everywhere"),
        (lambda g, m: (g, g), "found uint8 from"),
        (lambda g, m: (g, m / 1), "mask must be bool, or uint8 of 0 and 1 or 255, found float64"),
    ],
)
def test_other_photos_and_masks_are_named(models, damaged, change, message):
    gray, mask = change(*damaged)
    pipeline = Pipeline(models[:1])
    estimate = pipeline.estimate(*damaged)
    for call in (
        pipeline,
        Baseline("input"),
        pipeline.estimate,
        partial(pipeline.decode, estimate),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            call(gray, mask)


def test_what_would_give_another_picture_without_a_word(models, run_dir, damaged):
    pipeline = Pipeline(models[:1])
    estimate = pipeline.estimate(*damaged)
    with pytest.raises(SettingError, match="style vivid: unknown"):
        pipeline.decode(estimate, *damaged, "vivid")
    with pytest.raises(InputError, match="evaluation mode"):
        Pipeline([create_model("restorer")])
    with pytest.raises(InputError, match="one is listed twice"):
        Pipeline.load(run_dir, [1, 1, 3])


def test_folds_are_chosen(run_dir, models, damaged):
    every = Pipeline.load(run_dir)
    assert len(every.ensemble.members) == 3
    assert list(every.recipe["checkpoints"]) == ["fold0", "fold1", "fold3"]
    for folds, members in (([3], models[2:]), ([0, 1], models[:2]), (None, models)):
        loaded = Pipeline.load(run_dir, folds, damage="hole")
        assert np.array_equal(loaded(*damaged), Pipeline(members)(*damaged))
    with pytest.raises(
        InputError, match=r"no checkpoint of fold 2 \(trained folds: 0, 1, 3; runs: mine\)"
    ):
        Pipeline.load(run_dir, [0, 2])
    with pytest.raises(InputError, match=r"no checkpoint of any fold .*runs: mine"):
        Pipeline.load(run_dir.with_name("other"))


def test_the_recipe_tells_what_the_result_depends_on(run_dir, tmp_path):
    """Other weights, views, colours, folds or damage are another recipe; the same call is the same
    one."""
    recipe = Pipeline.load(run_dir, [0]).recipe
    assert recipe == Pipeline.load(run_dir, [0]).recipe and recipe["model"] == "restorer"
    copy = shutil.copytree(run_dir, tmp_path / "mine")
    shutil.copytree(copy / "fold1", copy / "fold0", dirs_exist_ok=True)
    others = [
        Pipeline.load(run_dir, [0], tta=2),
        Pipeline.load(run_dir, [0], style="visual"),
        Pipeline.load(run_dir, [1]),
        Pipeline.load(run_dir, [0], damage="none"),
        Pipeline.load(copy, [0]),
    ]
    recipes = [recipe, *(other.recipe for other in others)]
    assert len({repr(found) for found in recipes}) == len(recipes)
    hashes = (list(recipes[i]["checkpoints"].values()) for i in (0, 3, 5))
    one, other, copied = hashes
    assert one != other == copied


def test_folds_of_different_models_are_refused(run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "mixed")
    other = create_model("full_pipeline", encoder="mobilenetv3_small_050")
    shutil.rmtree(folder / "fold1")
    save_model(folder / "fold1", other, "full_pipeline", {})
    with pytest.raises(
        InputError, match=r"^\S+mixed: folds of different models \(full_pipeline, restorer\)$"
    ):
        Pipeline.load(folder)


def test_a_run_of_the_detector_is_refused(tmp_path, script):
    save_model(tmp_path / "found" / "fold0", create_model("detector"), "detector", {})
    message = "holds a detector, expected a model that restores photos"
    with pytest.raises(InputError, match=rf"^\S+fold0: {message}$"):
        Pipeline.load(tmp_path / "found")
    (tmp_path / "photos").mkdir()
    Image.fromarray(data.camera()[:50, :60]).save(tmp_path / "photos" / "a.png")
    folders = (
        "--input",
        tmp_path / "photos",
        "--output",
        tmp_path / "out",
        "--output-dir",
        tmp_path,
    )
    status, _, err = script("infer", "--name", "found", *folders)
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1


def test_what_restores_is_no_detector(run_dir, tmp_path):
    other = create_model("full_pipeline", encoder="mobilenetv3_small_050")
    save_model(tmp_path, other, "full_pipeline", {})
    path = tmp_path / "best.safetensors"
    for given, message in (
        (path, "holds a FullPipeline, expected a detector"),
        (run_dir / "fold0" / "inpainter.safetensors", r"lacks colorizer\.safetensors"),
        (run_dir / "fold0", "no such detector"),
    ):
        with pytest.raises(InputError, match=f"^{given}: {message}"):
            load_finder("auto", detector=given)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_called_the_same_way(name, damaged):
    gray, mask = damaged
    baseline = Baseline(name)
    assert np.array_equal(baseline.find(gray).mask, find_hole(gray))
    rgb = baseline(gray)
    assert rgb.shape == (*gray.shape, 3) and rgb.dtype == np.uint8
    assert (
        np.array_equal(rgb, baseline(gray, find_hole(gray))) and baseline.recipe["baseline"] == name
    )
    assert np.array_equal(luma(rgb)[~mask], gray[~mask])
    wanted = telea(gray, mask) if name == "telea" else gray
    assert (baseline(gray, mask) == wanted[..., None]).all()
    assert (wanted != gray)[mask].any() == (name == "telea")


def test_the_five_lines_of_the_readme(tmp_path, monkeypatch):
    (tmp_path / "weights").symlink_to(SHIPPED)
    gray, _ = punch_hole(data.coffee()[:200, :260], np.random.default_rng(3))
    Image.fromarray(gray).save(tmp_path / "old.jpg", quality=100)
    monkeypatch.chdir(tmp_path)
    pipeline = Pipeline.load("weights", tta=2, style="visual")
    gray = read_gray("old.jpg")
    write_png("restored.png", pipeline(gray))

    with Image.open("restored.png") as image:
        rgb = np.asarray(image)
    found = pipeline.find(gray).mask
    assert image.mode == "RGB" and rgb.shape == (*gray.shape, 3)
    assert np.array_equal(luma(rgb)[~found], gray[~found])
    assert len(pipeline.ensemble.members) == 5
    assert (rgb.max(axis=2).astype(int) - rgb.min(axis=2)).mean() > 5  # in colour


@pytest.mark.parametrize("first", [True, False])
def test_a_fork_restores_too(run_dir, first):
    """Before and after its parent has restored a photo with several threads, which it lacks."""
    code = (
        "import os, signal, sys\nimport cv2\nimport numpy as np\nimport torch\n"
        "torch.set_num_threads(2)\ncv2.setNumThreads(2)\n"
        "from src.pipeline import Pipeline\n"
        "gray = (np.add.outer(np.arange(200), np.arange(300)) % 200).astype(np.uint8)\n"
        "mask = np.zeros(gray.shape, bool)\nmask[60:120, 100:200] = True\n"
        "pipeline = Pipeline.load(sys.argv[1], [0], damage='none')\n"
        f"wanted = pipeline(gray, mask) if {first} else None\n"
        "child = os.fork()\n"
        "if not child:\n    signal.alarm(100)\n    rgb = pipeline(gray, mask)\n"
        "    os._exit(int(wanted is not None and (rgb != wanted).mean() > 0.01))\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, run_dir], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
