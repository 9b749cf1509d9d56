"""How the cost of preparing a competition folder grows with its pairs."""

import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.settings import PreparationTime
from src.datasets.bank import pack
from src.datasets.build import build, photos_below
from src.datasets.check import check_folder
from src.datasets.competition import read_train
from src.datasets.folds import evenly_spaced, load_folds
from src.utils.errors import SettingError
from src.utils.files import write_text

# after building; the folds need the scenes, which are found there
STAGES = {"check": check_folder, "pack": pack, "folds": load_folds}
CROPS = 12  # of each photo: about as many as the competition's 29,603 pairs of 2,400 scenes


def run(settings: PreparationTime) -> None:
    """Print the table."""
    print(describe_machine())
    names = ("build", *(name for name in STAGES if name not in settings.skip))
    print(f"{'pairs':>8}" + "".join(f"{name:>10}" for name in names) + "  seconds", flush=True)
    for pairs in sorted(settings.pairs):
        print(stages(settings, pairs), flush=True)


def stages(settings: PreparationTime, pairs: int) -> str:
    """Seconds of each stage for a folder of that many training pairs, as a line of the table.

    Raises `SettingError` when there are too few photos for them.
    """
    photos = photos_below(settings.photos)
    needed = round(1.08 * pairs / CROPS) + 3  # some photos are grey or tiny, or of one crop only
    if needed > len(photos):
        raise SettingError("pairs", pairs, f"{needed} photos needed, {len(photos)} found")
    place = Path(tempfile.mkdtemp(dir=settings.work_dir))
    folder = place / "data"
    try:
        start = time.perf_counter()
        build(evenly_spaced(photos, needed), settings.photos, folder, CROPS, 0.01, seed=0)
        made = read_train(folder)
        kept = made.head(pairs)
        seconds = [(time.perf_counter() - start) * len(kept) / len(made)]
        write_text(folder / "train.csv", kept.to_csv(index=False))
        for name, stage in STAGES.items():
            if name not in settings.skip:
                start = time.perf_counter()
                stage(folder)
                seconds.append(time.perf_counter() - start)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return f"{len(kept):8}" + "".join(f"{value:10.1f}" for value in seconds)
