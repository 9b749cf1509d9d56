"""Restore the test images of the competition, or any photo: python infer.py --ensemble"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from src.checkpoints import fold_checkpoints, trained_or_shipped
from src.command_line import parse_settings, run_script
from src.datasets.competition import read_test
from src.decode import Style
from src.distributed import launch
from src.files import InputError, exclusive
from src.inference import (
    BASELINES,
    Job,
    Restore,
    by_folds,
    by_rule,
    photo_jobs,
    restore_files,
    unrestored,
)
from src.old_photos import Damage, make_finder
from src.ray_engine import restore_with_ray
from src.settings import ComputeSettings


@dataclass(frozen=True)
class Settings(ComputeSettings):
    """Restore the images of test.csv, or any photo with --input. The same command again goes on."""

    ensemble: bool = False
    """Average all trained folds of the run, or the shipped ones where nothing was trained."""
    fold: int = 0
    """The fold to use without --ensemble."""
    tta: Literal[1, 2, 8] = 1
    """Views averaged for each image: 1, 2 (mirrored) or 8 (mirrored and turned)."""
    decode: Style = "score"
    """What restorer's colours are chosen for: the competition's score, or "visual": what looks best."""
    baseline: str = ""
    """Use no model but "telea" (OpenCV's inpainting, left grey) or "input" (the input as it is)."""
    input: Path | None = None
    """A photo or a folder of photos to restore instead of the test images."""
    output: Path | None = None
    """The folder for the restored PNGs; <output-dir>/<name>/test when left out."""
    damage: Damage = "auto"
    """With input, what is looked for: one flat and else scratches, stains and tears; one flat; nothing."""
    mask: Path | None = None
    """With input, instead: a mask file (white is lost), or a folder of masks named like the photos."""
    engine: Literal["fabric", "ray"] = "fabric"
    """What spreads the work over devices: this program's own processes, or a Ray cluster."""


def make_restorer(settings: Settings, run_dir: Path, device: torch.device) -> tuple[Restore, dict]:
    """The function from (gray, mask) to RGB by the folds of `run_dir`, and what it depends on."""
    if not settings.baseline:
        paths = fold_checkpoints(run_dir, None if settings.ensemble else settings.fold)
        return by_folds(paths, device, settings.tta, settings.decode)
    if settings.baseline not in BASELINES:
        known = ", ".join(BASELINES)
        raise InputError(f"--baseline {settings.baseline}: unknown; choose one of {known}")
    return BASELINES[settings.baseline], {"baseline": settings.baseline}


def make_jobs(settings: Settings) -> tuple[list[Job], Path]:
    """(photo, PNG to write) pairs and the output folder; raises `InputError` for missing input."""
    output = settings.output or settings.run_dir / "test"
    if settings.input is None:
        paths = [settings.data_dir / path for path in read_test(settings.data_dir)["input_image_path"]]
        return [(path, output / f"{path.stem}.png") for path in paths], output
    if settings.output is None:
        raise InputError("--input: needs --output as well, the folder for the restored PNGs")
    return photo_jobs(settings.input, output), output


def main() -> int:
    """Restore what the command line asks for; 2 when some photo could not be read."""
    settings = parse_settings(Settings)
    jobs, output = make_jobs(settings)
    fabric = launch(settings.device, settings.devices if settings.engine == "fabric" else 1)
    if settings.input:
        find, found = make_finder(settings.damage, settings.mask, settings.input, jobs)
    elif settings.mask or settings.damage != "auto":
        raise InputError("--mask, --damage: only with --input; the hole of a test image is found by rule")
    else:
        find, found = by_rule, {}
    run_dir = trained_or_shipped(settings.run_dir).absolute()  # whatever the folder of a process elsewhere
    restorer, recipe = make_restorer(settings, run_dir, fabric.device)
    recipe |= found
    if fabric.is_global_zero:
        files = ("checkpoints", "masks")
        what = ", ".join(f"{key} {value}" for key, value in recipe.items() if key not in files)
        folds = [Path(path) for path in recipe.get("checkpoints", ())]
        where = f" of {run_dir}" if folds else ""
        if folds and run_dir != settings.run_dir.absolute():
            where += f" (nothing was trained in {settings.run_dir})"
        print(f"{len(folds)} fold(s){where}, {what}, {fabric.device.type}")
    if settings.engine == "fabric":
        failures = restore_files(restorer, jobs, recipe, output, fabric, find)
    else:
        make = partial(make_restorer, settings, run_dir, torch.device(fabric.device.type))
        gpus = int(fabric.device.type == "cuda")
        with exclusive(output):
            waiting = unrestored(jobs, recipe, output)
            failures = restore_with_ray(make, find, waiting, settings.devices, gpus)
    if not fabric.is_global_zero:
        return 0
    print(f"{len(jobs) - len(failures)} images in {output}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


if __name__ == "__main__":
    run_script(main)
