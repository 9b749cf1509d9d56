"""How the cost of preparing a competition folder grows with its pairs."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from src.benchmarks.machine import describe_machine
from src.datasets.build import build, photos_below
from src.datasets.check import check_folder
from src.datasets.competition import read_train
from src.datasets.folds import load_folds
from src.datasets.pack import pack
from src.files import InputError, write_text

# after building; the folds need the scenes, which are found there
STAGES = {"check": check_folder, "pack": pack, "folds": load_folds}
CROPS = 12  # of each photo: about as many as the competition's 29,603 pairs of 2,400 scenes


@dataclass(frozen=True)
class Preparation:
    """Seconds of building, checking, packing and splitting folders of growing size; each runs once."""

    photos: Path
    """Folder of colour photos; twelve crops of each are used, so 29,603 pairs need 2,667 photos."""
    pairs: tuple[int, ...] = (1000, 5000, 29603)
    """Training pairs of the folders to make."""
    skip: tuple[Literal["check", "pack"], ...] = ()
    """Stages to leave out; neither is needed by another."""
    work_dir: Path = Path(tempfile.gettempdir())
    """Where the folders are made, and removed again; 29,603 pairs take 40 GB."""

    def run(self) -> None:
        """Print the table."""
        print(describe_machine())
        names = ("build", *(name for name in STAGES if name not in self.skip))
        print(f"{'pairs':>8}" + "".join(f"{name:>10}" for name in names) + "  seconds", flush=True)
        for pairs in sorted(self.pairs):
            print(self.stages(pairs), flush=True)

    def stages(self, pairs: int) -> str:
        """Seconds of each stage for a folder of that many training pairs, as a line of the table."""
        photos = photos_below(self.photos)
        needed = round(1.08 * pairs / CROPS) + 3  # some photos are grey or tiny, or of one crop only
        if needed > len(photos):
            raise InputError(f"--pairs {pairs}: {needed} photos needed, {len(photos)} found")
        chosen = [photos[i] for i in np.linspace(0, len(photos) - 1, needed).astype(int)]
        place = Path(tempfile.mkdtemp(dir=self.work_dir))
        folder = place / "data"
        try:
            start = time.perf_counter()
            build(chosen, self.photos, folder, CROPS, 0.01, seed=0)
            made = read_train(folder)
            kept = made.head(pairs)
            seconds = [(time.perf_counter() - start) * len(kept) / len(made)]
            write_text(folder / "train.csv", kept.to_csv(index=False))
            for name, stage in STAGES.items():
                if name not in self.skip:
                    start = time.perf_counter()
                    stage(folder)
                    seconds.append(time.perf_counter() - start)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return f"{len(kept):8}" + "".join(f"{value:10.1f}" for value in seconds)
