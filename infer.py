"""Restore the test images of the competition, or any photo: python infer.py --ensemble"""

import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from src.checkpoints import fold_checkpoints, load_model
from src.command_line import parse_settings, run_script
from src.datasets.competition import read_test
from src.decode import Style
from src.distributed import launch
from src.files import InputError, exclusive, file_hash, list_images
from src.inference import BASELINES, Restore, restore, restore_files, unrestored
from src.ray_engine import restore_with_ray
from src.settings import ComputeSettings


@dataclass(frozen=True)
class Settings(ComputeSettings):
    """Restore the images of test.csv, or any photo with --input. The same command again goes on."""

    ensemble: bool = False
    """Average all trained folds of the run."""
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
    engine: Literal["fabric", "ray"] = "fabric"
    """What spreads the work over devices: this program's own processes, or a Ray cluster."""


def make_restorer(settings: Settings, device: torch.device) -> tuple[Restore, dict]:
    """The function from (gray, mask) to RGB that the settings ask for, and what it depends on."""
    if settings.baseline:
        if settings.baseline not in BASELINES:
            known = ", ".join(BASELINES)
            raise InputError(f"--baseline {settings.baseline}: unknown; choose one of {known}")
        return BASELINES[settings.baseline], {"baseline": settings.baseline}
    paths = fold_checkpoints(settings.run_dir, None if settings.ensemble else settings.fold)
    loaded = [load_model(path, device) for path in paths]
    names = {description["model"] for _, description in loaded}
    if len(names) > 1:
        raise InputError(f"{settings.run_dir}: folds of different models ({', '.join(sorted(names))})")
    choices = {"tta": settings.tta, "style": settings.decode}
    recipe = {
        "model": names.pop(),
        "checkpoints": {str(path): file_hash(path) for path in paths},
        **choices,
    }
    return partial(restore, [model for model, _ in loaded], **choices), recipe


def make_jobs(settings: Settings) -> tuple[list[tuple[Path, Path]], Path]:
    """(photo, PNG to write) pairs and the output folder; raises `InputError` for missing input."""
    output = settings.output or settings.run_dir / "test"
    if settings.input is None:
        paths = [settings.data_dir / path for path in read_test(settings.data_dir)["input_image_path"]]
        return [(path, output / f"{path.stem}.png") for path in paths], output
    if settings.output is None:
        raise InputError("--input: needs --output as well, the folder for the restored PNGs")
    root = settings.input.parent if settings.input.is_file() else settings.input
    paths = [settings.input] if settings.input.is_file() else list_images(settings.input)
    if output.absolute() != root.absolute():  # results in a folder inside the photos are no photos
        paths = [path for path in paths if not path.absolute().is_relative_to(output.absolute())]
    if not paths:
        raise InputError(f"{settings.input}: no image file found; name a photo or a folder of photos")
    plain = [output / path.relative_to(root).with_suffix(".png") for path in paths]
    shared = {target for target, count in Counter(plain).items() if count > 1}  # a.jpg beside a.png
    jobs = []
    for path, target in zip(paths, plain, strict=True):
        if target in shared:
            target = target.with_name(path.name + ".png")
        if target.resolve() == path.resolve():
            raise InputError(f"--output {output}: would overwrite {path}; name another folder")
        jobs.append((path, target))
    return jobs, output


def main() -> int:
    """Restore what the command line asks for; 2 when some photo could not be read."""
    settings = parse_settings(Settings)
    jobs, output = make_jobs(settings)
    fabric = launch(settings.device, settings.devices if settings.engine == "fabric" else 1)
    restorer, recipe = make_restorer(settings, fabric.device)
    if fabric.is_global_zero:
        what = ", ".join(f"{key} {value}" for key, value in recipe.items() if key != "checkpoints")
        print(f"{len(recipe.get('checkpoints', ()))} fold(s), {what}, {fabric.device.type}")
    if settings.engine == "fabric":
        failures = restore_files(restorer, jobs, recipe, output, fabric)
    else:
        anywhere = replace(
            settings, output_dir=settings.output_dir.absolute()
        )  # whatever an actor's folder
        make = partial(make_restorer, anywhere, torch.device(fabric.device.type))
        gpus = int(fabric.device.type == "cuda")
        with exclusive(output):
            waiting = unrestored(jobs, recipe, output)
            failures = restore_with_ray(make, waiting, settings.devices, gpus)
    if not fabric.is_global_zero:
        return 0
    print(f"{len(jobs) - len(failures)} images in {output}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


if __name__ == "__main__":
    run_script(main)
