"""Restore the test images of the competition, or any photo: python infer.py --ensemble"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from src.utils.cli import Compute, DamageKind, Folders, Style, Tta, parse_settings, run_script
from src.utils.errors import InputError


@dataclass(frozen=True)
class Settings:
    """Restore the images of test.csv, or any photo with --input. Run the same command again to
    resume."""

    ensemble: bool = False
    """Average all trained folds of the run, or the shipped ones where nothing was trained."""
    fold: int = 0
    """The fold to use without --ensemble."""
    tta: Tta = 1
    """Views averaged for each image: 1, 2 (mirrored) or 8 (mirrored and turned)."""
    decode: Style = "score"
    """What the restorer's colours are chosen for: the competition's score, or "visual": what looks
    best."""
    input: Path | None = None
    """A photo or a folder of photos to restore instead of the test images."""
    output: Path | None = None
    """The folder for the restored PNGs; <output-dir>/<name>/test when left out."""
    damage: DamageKind = "auto"
    """With --input, the damage to find: "hole" is one region of one constant value; "auto" is a
    hole or, if there is none, scratches, cracks, stains and tears; "none" finds nothing."""
    mask: Path | None = None
    """With --input, instead of finding damage: a mask file (white is lost), or a folder of masks
    named like the photos."""
    overlap: bool = False
    """Look for test images that share pixels with training images or with one another (minutes);
    take lost pixels from there, and colours from training truths, as they are. prepare_data.py
    overlap shows them."""
    baseline: Literal["input", "telea", "frequency", "exemplar"] | None = None
    """Use no model: "input" is the image unchanged; the others fill the hole and leave it grey:
    "telea" with OpenCV, "frequency" with the waves of its surroundings, "exemplar" with similar
    pieces of the photo."""
    engine: Literal["fabric", "ray"] = "fabric"
    """How the work is spread over devices: fabric (this program's own processes) or ray (a Ray
    cluster)."""
    folders: Folders = field(default_factory=Folders)
    compute: Compute = field(default_factory=Compute)


def make_pipeline(settings: Settings, run_dir: Path, detector: Path, device: str):
    """What the command line asks for, a `Pipeline` or a `Baseline`; also called in the actors of
    Ray."""
    from src.pipeline import Baseline, Pipeline

    damage = settings.damage if settings.input else "hole"
    if settings.mask:
        damage = "none"  # in the photos without a mask
    if settings.baseline:
        return Baseline(settings.baseline, damage)
    folds = None if settings.ensemble else [settings.fold]
    return Pipeline.load(run_dir, folds, settings.tta, settings.decode, damage, device, detector)


def main() -> int:
    """Restore what the command line asks for; 2 when some photo could not be read."""
    settings = parse_settings(Settings)
    if settings.input is None and (settings.mask or settings.damage != "auto"):
        raise InputError(
            "--mask and --damage need --input; the hole of a test image is found automatically"
        )
    if settings.overlap and (settings.input or settings.engine == "ray"):
        raise InputError("--overlap works on the test images alone, and not with --engine ray")
    if settings.input and settings.output is None:
        raise InputError("--input: needs --output as well, the folder for the restored PNGs")
    from src.datasets.competition import read_test
    from src.datasets.overlap import find_overlaps
    from src.restoring import (
        Job,
        passed_over,
        photo_jobs,
        restore_files,
        restore_with_ray,
        unrestored,
        with_overlaps,
    )
    from src.runs import DETECTOR, trained_or_shipped
    from src.utils.distributed import launch
    from src.utils.files import lock_folder

    run_dir, data_dir = settings.folders.run_dir, settings.folders.data_dir
    output = settings.output or run_dir / "test"
    if settings.input:
        jobs = photo_jobs(settings.input, output, settings.mask)
    else:
        paths = [data_dir / path for path in read_test(data_dir)["input_image_path"]]
        jobs = [Job(path, output / f"{path.stem}.png") for path in paths]
    ray = settings.engine == "ray"
    fabric = launch(settings.compute.device, 1 if ray else settings.compute.devices)
    used = trained_or_shipped(run_dir).absolute()  # whatever the folder of a process elsewhere
    pipeline = make_pipeline(settings, used, DETECTOR, fabric.device.type if ray else fabric.device)
    if fabric.is_global_zero:
        if settings.overlap:
            jobs = with_overlaps(jobs, find_overlaps(data_dir))
        for line in (
            passed_over(settings.input, output, jobs, settings.mask) if settings.input else []
        ):
            print(line)
        print(describe(pipeline.recipe, used, run_dir, fabric.device.type))
    if ray:
        make = partial(make_pipeline, settings, used, DETECTOR, fabric.device.type)
        gpus = int(fabric.device.type == "cuda")
        with lock_folder(output):
            waiting = unrestored(jobs, pipeline.recipe, output)
            failures = restore_with_ray(make, waiting, settings.compute.devices, gpus)
    else:
        failures = restore_files(pipeline, jobs, output, fabric)
    if not fabric.is_global_zero:
        return 0
    print(f"{len(jobs) - len(failures)} images in {output}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


def describe(recipe: dict, used: Path, run_dir: Path, device: str) -> str:
    """One line: which folds restore, how, and on what."""
    files = ("checkpoints", "detector")
    facts = ", ".join(f"{key} {value}" for key, value in recipe.items() if key not in files)
    if "checkpoints" not in recipe:
        return f"{facts}, {device}"
    begun = any(run_dir.glob("fold*/config.json"))
    why = (
        f"no fold of {run_dir} was validated yet" if begun else f"nothing was trained in {run_dir}"
    )
    where = "" if used == run_dir.absolute() else f" ({why})"
    return f"{len(recipe['checkpoints'])} fold(s) of {used}{where}, {facts}, {device}"


if __name__ == "__main__":
    run_script(main)
