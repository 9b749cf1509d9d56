"""Command lines: which model, which options, and how quick the start is."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from skimage import data

from src.models.options import MODELS
from src.training.settings import MAY_CHANGE
from src.utils.images import write_png

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "timm", "lightning_fabric", "segmentation_models_pytorch", "skimage", "numba"}


@pytest.fixture
def config(script):
    """The settings that a command line of train.py is resolved to."""

    def resolve(*arguments: object) -> dict:
        status, out, err = script("train", *arguments, "--dry-run")
        assert status == 0, err
        return json.loads(out)

    return resolve


def test_the_model_is_the_first_word(config):
    found = config("gan", "--fold", 1)
    assert (found["model"], found["fold"], found["name"]) == ("gan", 1, "gan")
    assert found["lr"] != config("--fold", 1)["lr"]
    assert config("--fold", 1) == config("restorer", "--fold", 1)
    assert config("--name", "first_try")["name"] == "first_try"


@pytest.mark.parametrize("name", MODELS)
def test_the_config_is_flat(config, name):
    """Each setting under its own name, whatever group it is of; loss weights are one setting."""
    found = config(name)
    assert not [
        key for key, value in found.items() if isinstance(value, dict) and key != "loss_weights"
    ]
    assert found["loss_weights"] == MODELS[name].loss_terms
    own = {field.name for field in fields(MODELS[name])}
    assert own | MAY_CHANGE - {"finished"} | {"model", "fold", "seed", "name"} < set(found)


def test_values_arrive(config):
    found = config("--image-size", 64, "--lr", 0.5, "--loss-weights", "hue", 0)
    assert (found["image_size"], found["lr"]) == (64, 0.5)
    assert found["loss_weights"] == MODELS["restorer"].loss_terms | {"hue": 0.0}
    assert found["epochs"] == 20 and config("--max-minutes", 3)["epochs"] is None
    assert config("--max-minutes", 3, "--epochs", 2)["epochs"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unet", "--fold", 0), "--model unet: unknown; choose one of restorer, full_pipeline,"),
        (("gan", "--parts", "both"), "parts"),
        (("gan", "--encoder", "lite0"), "encoder"),
        (("--loss-weights", "hues", 1), "--loss-weights hues: unknown; the terms are inpaint_l1 2"),
        (("gan", "--image-size", 256), "--image-size 256: must be a multiple of 512"),
        (("--fold", 5), "--fold 5: out of range; choose 0 to 4, or all"),
        (("--folds", 0), "--folds 0: at least 2"),
        (("--lr", "nan"), "--lr nan: must be above 0"),
    ],
)
def test_what_is_impossible_is_refused(script, arguments, message):
    status, _, err = script("train", *arguments, "--dry-run")
    assert status == 2 and message in err and "Traceback" not in err


def test_a_run_stays_below_the_output_folder(script, tmp_path):
    for name in ("..", "a/b"):
        status, _, err = script("make_submission", "--name", name, "--output-dir", tmp_path)
        assert status == 2 and f"--name {name}: must be one plain folder name" in err


def loaded_by(*command: object) -> set[str]:
    """Top-level modules that a script has imported when it ends, run in a process of its own."""
    code = (
        "import runpy, sys\nscript, *arguments = sys.argv[1:]\nsys.argv = [script, *arguments]\n"
        "sys.path.insert(0, '.')\n"
        "try:\n    runpy.run_path(script, run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\nloaded:', *{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code, *map(str, command)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("loaded:")[1].split())


@pytest.mark.parametrize(
    "name", ["train", "infer", "evaluate", "make_submission", "prepare_data", "app"]
)
def test_help_waits_for_nothing(name):
    assert not loaded_by(f"{name}.py", "--help") & HEAVY


def test_a_submission_needs_no_torch(tmp_path):
    (tmp_path / "test.csv").write_text("input_image_path\n./test_input/TEST_000.png\n")
    write_png(tmp_path / "restored" / "TEST_000.png", data.astronaut())
    target = tmp_path / "submission.zip"
    given = ("--data-dir", tmp_path, "--pred", tmp_path / "restored", "--zip", target)
    assert not loaded_by("make_submission.py", *given) & HEAVY
    assert target.exists()


def test_workers_on_images_need_no_torch():
    """Building, checking and scoring begin a process a core, and torch takes 600 MB of each."""
    modules = [f"src.datasets.{name}" for name in ("build", "check", "scenes")]
    modules = ", ".join([*modules, "src.evaluation.scoring"])
    code = f"import sys, {modules}\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
