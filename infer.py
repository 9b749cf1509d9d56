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
    """Restore the images of test.csv, or any photo with --input; run it again to resume."""

    ensemble: bool = False
    """Average all finished folds; the shipped ones if none is trained and no --name is given."""
    fold: int = 0
    """The fold to use without --ensemble."""
    tta: Tta = 1
    """Views averaged per image: 1, or 2 (mirrored)."""
    decode: Style = "score"
    """Colours: "score" suits the competition's score, "visual" looks best."""
    input: Path | None = None
    """A photo or a folder of photos, instead of the test images; needs --output as well."""
    output: Path | None = None
    """The folder for the restored PNGs, or with one photo a PNG; <output-dir>/<name>/test when left
    out."""
    overwrite: bool = False
    """Replace results made with other settings, weights, photos or masks."""
    damage: DamageKind = "auto"
    """With --input, the damage to find: "hole" is one region of one constant value; "auto" is a
    hole or, if there is none, scratches, cracks, stains and tears; "none" finds nothing."""
    mask: Path | None = None
    """With --input, instead of finding damage: a mask file (white is lost), or a folder of masks
    named like the photos."""
    baseline: Literal["input", "telea"] | None = None
    """Use no model: "input" is the image unchanged, "telea" fills the damage with OpenCV."""
    engine: Literal["fabric", "ray"] = "fabric"
    """How to use several devices: one process each (fabric) or a Ray cluster."""
    folders: Folders = field(default_factory=Folders)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        if self.input is None and (self.mask or self.damage != "auto"):
            raise InputError("--mask and --damage need --input; test images have a hole each")
        if self.mask and self.damage != "auto":
            raise InputError("--mask says where the damage is, --damage to find it; leave one out")
        if self.ensemble and self.fold:
            raise InputError("--ensemble averages all folds, --fold names one; leave one out")
        if self.input and self.output is None:
            raise InputError("--input needs --output as well, the folder for the restored PNGs")


def make_pipeline(settings: Settings, run_dir: Path, detector: Path, device: str):
    """The `Pipeline` or `Baseline` of the settings; Ray's actors import a copy of `src`."""
    from src.pipeline import Baseline, Pipeline

    damage = settings.damage if settings.input else "hole"
    damage = "none" if settings.mask else damage  # photos without a mask are only colourized
    if settings.baseline:
        return Baseline(settings.baseline, damage)
    folds = None if settings.ensemble else [settings.fold]
    return Pipeline.load(run_dir, folds, settings.tta, settings.decode, damage, device, detector)


def make_jobs(settings: Settings, output: Path) -> list:
    """The photos to restore; a line is printed for each file that is skipped."""
    from src.datasets.competition import read_test, require_files
    from src.restoring import Job, is_file_name, photo_jobs, skipped_files

    if settings.input:
        jobs = photo_jobs(settings.input, output, settings.mask)
        if is_file_name(output) and output.exists() and not settings.overwrite:
            raise InputError(f"{output}: exists already; add --overwrite to replace it")
        for line in skipped_files(settings.input, output, jobs, settings.mask):
            print(line)
        return jobs
    data_dir = settings.folders.data_dir
    table = read_test(data_dir)
    require_files(data_dir, table)
    paths = [data_dir / path for path in table["input_image_path"]]
    return [Job(path, output / f"{path.stem}.png") for path in paths]


def default_devices(settings: Settings) -> int:
    """One process per core of a CPU, if each has so many photos that starting it is worth while."""
    from src.datasets.competition import read_test
    from src.utils.distributed import pick_device
    from src.utils.images import list_images
    from src.utils.processes import cores

    if pick_device(settings.compute.device).type != "cpu" or settings.engine == "ray":
        return 1
    if settings.input is None:
        count = len(read_test(settings.folders.data_dir))
    else:
        count = len(list_images(settings.input)) if settings.input.is_dir() else 1
    return min(cores(), max(1, count // 16))


def main() -> int:
    """Restore the photos; returns 2 if one could not be read or written."""
    settings = parse_settings(Settings)
    import torch

    from src import restoring
    from src.runs import DETECTOR, describe_recipe, folds_in_training, trained_or_shipped
    from src.utils.distributed import launch
    from src.utils.processes import limit_threads

    output = settings.output or settings.folders.run_dir / "test"
    ray = settings.engine == "ray"
    devices = settings.compute.devices
    devices = default_devices(settings) if devices is None else devices
    fabric = launch(settings.compute.device, 1 if ray else devices)
    if fabric.device.type == "cpu":  # the same bytes on any number of cores
        torch.set_num_threads(1)
    if fabric.world_size > 1:
        limit_threads()
    run_dir = trained_or_shipped(settings.folders).absolute()  # Ray's actors run elsewhere
    device = fabric.device.type if ray else fabric.device
    pipeline = make_pipeline(settings, run_dir, DETECTOR, device)
    jobs = []
    if fabric.is_global_zero:
        jobs = make_jobs(settings, output)
        used = describe_recipe(pipeline.recipe)
        used += "" if settings.baseline else f" of {run_dir}"
        averaged = settings.ensemble and not settings.baseline
        if averaged and (training := folds_in_training(run_dir)):
            used += f" without fold {', '.join(map(str, training))}, still in training"
        print(f"{used}, {fabric.world_size} x {fabric.device.type}")
    if settings.input and restoring.is_file_name(output):
        failures = restoring.restore_jobs(pipeline, jobs)  # by process 0, which has the only job
    elif ray:
        make = partial(make_pipeline, settings, run_dir, DETECTOR, device)
        work = restoring.results_folder(jobs, pipeline.recipe, output, settings.overwrite)
        with work as pending:
            failures = restoring.restore_with_ray(make, pending, devices, int(device == "cuda"))
    else:
        failures = restoring.restore_files(pipeline, jobs, output, fabric, settings.overwrite)
    if not fabric.is_global_zero:
        return 0
    print(f"{len(jobs) - len(failures)} images in {output}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


if __name__ == "__main__":
    run_script(main)
