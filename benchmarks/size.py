"""How the cost of restoring a photo grows with its pixels."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from benchmarks.inference import untrained
from benchmarks.machine import describe_machine, median_seconds
from benchmarks.settings import PhotoSizes
from src.damage.hole import punch_hole
from src.pipeline import Pipeline
from src.restoring import Job, restore_jobs
from src.utils.errors import InputError
from src.utils.images import write_png
from src.utils.processes import cores


def damaged_photo(megapixels: float) -> np.ndarray:
    """A damaged photo of 4:3, (H, W) uint8: scikit-image's astronaut, enlarged and with grain."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    photo = Image.fromarray(data.astronaut()).resize(
        (height * 4 // 3, height), Image.Resampling.BICUBIC
    )
    rng = np.random.default_rng(0)
    rgb = np.array(photo)
    for rows in np.array_split(np.arange(height), max(1, height // 256)):
        grain = rng.integers(-4, 5, (len(rows), *rgb.shape[1:]), np.int8)
        rgb[rows] = np.clip(rgb[rows].astype(np.int16) + grain, 0, 255)
    return punch_hole(rgb, np.random.default_rng(0))[0]


def size_work(pipeline: Pipeline, megapixels: float, folder: Path) -> Callable[[], object]:
    """What infer.py does with a photo of that size: reads a PNG, finds the hole, restores, writes a
    PNG."""
    job = Job(folder / f"{megapixels}.png", folder / f"{megapixels}.restored.png", None)
    write_png(job.photo, damaged_photo(megapixels))

    def work() -> None:
        job.output.unlink(missing_ok=True)
        if restore_jobs(pipeline, [job], shown=False):
            raise InputError(f"{job.photo}: not restored; make room in {folder}")

    return work


def run(settings: PhotoSizes) -> None:
    """Print the table, sizes in ascending order."""
    import resource  # not on Windows

    print(describe_machine())
    torch.set_num_threads(cores())
    pipeline = Pipeline([untrained("restorer")])
    print(f"{'megapixels':>10}{'seconds':>10}{'s/megapixel':>13}{'peak GiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in sorted(settings.megapixels):
            work = {"restore": size_work(pipeline, megapixels, Path(folder))}
            seconds = median_seconds(work)["restore"]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"{megapixels:10g}{seconds:10.2f}{seconds / megapixels:13.3f}{peak:10.2f}",
                flush=True,
            )
