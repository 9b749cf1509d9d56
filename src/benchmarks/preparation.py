"""How the cost of preparing a competition folder grows with its pairs."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.benchmarks.machine import describe_machine
from src.datasets.build import build, photos_below
from src.datasets.check import check_folder
from src.datasets.competition import read_train
from src.datasets.folds import load_folds
from src.datasets.pack import pack
from src.files import InputError, write_text

CROPS = 12  # of each photo: about as many as the competition's 29,603 pairs of 2,400 scenes


@dataclass(frozen=True)
class Preparation:
    """Seconds of building, checking, packing and splitting folders of growing size; each runs once."""

    photos: Path
    """Folder of colour photos; twelve crops of each are used, so 29,603 pairs need 2,667 photos."""
    pairs: tuple[int, ...] = (1000, 5000, 29603)
    """Training pairs of the folders to make."""
    work_dir: Path = Path(tempfile.gettempdir())
    """Where the folders are made, and removed again; 29,603 pairs take 40 GB."""

    def run(self) -> None:
        """Print the table."""
        print(describe_machine())
        stages = ("build", "check", "pack", "scenes and folds")
        print(f"{'pairs':>8}" + "".join(f"{name:>18}" for name in stages) + "  seconds", flush=True)
        for pairs in sorted(self.pairs):
            print(self.stages(pairs), flush=True)

    def stages(self, pairs: int) -> str:
        """Seconds of each stage for a folder of that many training pairs, as a line of the table."""
        photos = photos_below(self.photos)
        needed = round(1.08 * pairs / CROPS) + 3  # some photos are grey or tiny, or of one crop only
        if needed > len(photos):
            raise InputError(f"--pairs {pairs}: {needed} photos needed, {len(photos)} found")
        chosen = [photos[i] for i in np.linspace(0, len(photos) - 1, needed).astype(int)]
        folder = Path(tempfile.mkdtemp(dir=self.work_dir))
        try:
            times = [time.perf_counter()]
            build(chosen, self.photos, folder, CROPS, 0.01, seed=0)
            times.append(time.perf_counter())
            table = read_train(folder)
            made = len(table)
            write_text(folder / "train.csv", table.head(pairs).to_csv(index=False))
            times[0] += (times[1] - times[0]) * (
                1 - min(pairs, made) / made
            )  # only the pairs that are kept
            for stage in (check_folder, pack, load_folds):
                stage(folder)
                times.append(time.perf_counter())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return f"{min(pairs, made):8}" + "".join(f"{seconds:18.1f}" for seconds in np.diff(times))
