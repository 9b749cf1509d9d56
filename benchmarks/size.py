"""How the cost of restoring a photo grows with its pixels."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from src.benchmarks.inference import untrained
from src.benchmarks.machine import describe_machine, median_seconds
from src.damage import synthesize
from src.files import InputError, write_png
from src.inference import restore, restore_all
from src.models import RestorationModel
from src.parallel import cores


def damaged_photo(megapixels: float) -> np.ndarray:
    """A damaged photo of 4:3, (H, W) uint8: scikit-image's astronaut, enlarged and with grain."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    photo = Image.fromarray(data.astronaut()).resize((height * 4 // 3, height), Image.Resampling.BICUBIC)
    rng = np.random.default_rng(0)
    rgb = np.array(photo)
    for rows in np.array_split(np.arange(height), max(1, height // 256)):
        grain = rng.integers(-4, 5, (len(rows), *rgb.shape[1:]), np.int8)
        rgb[rows] = np.clip(rgb[rows].astype(np.int16) + grain, 0, 255)
    return synthesize(rgb, np.random.default_rng(0))[0]


def size_work(models: list[RestorationModel], megapixels: float, folder: Path) -> Callable[[], object]:
    """What infer.py does with a photo of that size: reads a PNG, finds the hole, restores, writes a PNG."""
    source, target = folder / f"{megapixels}.png", folder / f"{megapixels}.restored.png"
    write_png(source, damaged_photo(megapixels))

    def work() -> None:
        target.unlink(missing_ok=True)
        if restore_all(partial(restore, models), [(source, target)], shown=False):
            raise InputError(f"{source}: not restored; make room in {folder}")

    return work


@dataclass(frozen=True)
class Size:
    """Seconds a megapixel of PNG files of growing size, one fold and one view, and the peak memory."""

    megapixels: tuple[float, ...] = (0.25, 1, 4, 12, 48)
    """Sizes to restore, in ascending order."""

    def run(self) -> None:
        """Print the table."""
        import resource  # which Windows has not

        print(describe_machine())
        torch.set_num_threads(cores())
        models = [untrained("restorer")]
        print(f"{'megapixels':>10}{'seconds':>10}{'s/megapixel':>13}{'peak GiB':>10}")
        with tempfile.TemporaryDirectory() as folder:
            for megapixels in sorted(self.megapixels):
                work = {"restore": size_work(models, megapixels, Path(folder))}
                seconds = median_seconds(work)["restore"]
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
                print(
                    f"{megapixels:10g}{seconds:10.2f}{seconds / megapixels:13.3f}{peak:10.2f}", flush=True
                )
