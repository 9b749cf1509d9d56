"""How fast training images are prepared, from PNG files and from a pack."""

from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine, median_seconds
from benchmarks.settings import DataSpeed
from src.damage.hole import punch_hole
from src.datasets.bank import Pack
from src.datasets.competition import read_train, read_truth
from src.datasets.loader import TrainingImages
from src.utils.processes import one_thread

WORKERS = 16  # of the GPU machine that is projected


def time_data(data_dir: Path, count: int) -> dict[str, float]:
    """Seconds an image on one core of each step, over the first `count` images of a packed folder."""
    one_thread()
    pack = Pack(data_dir)
    paths = [data_dir / path for path in read_train(data_dir)["gt_image_path"]][:count]
    photos = [read_truth(path) for path in paths]
    work = {
        "read, PNG": lambda i: read_truth(paths[i]),
        "read, pack": lambda i: pack(paths[i]).copy(),
        "damage": lambda i: punch_hole(photos[i], np.random.default_rng(i)),
    }
    for size in (512, 256):
        for name, read in (("PNG", read_truth), ("pack", pack)):
            images = TrainingImages(paths, size, 0, read)
            work[f"training image of {size} px, {name}"] = lambda i, images=images: images[
                0, i, False
            ]
    calls = {
        name: lambda call=call: [call(i) for i in range(len(paths))] for name, call in work.items()
    }
    return {name: seconds / len(paths) for name, seconds in median_seconds(calls).items()}


def run(settings: DataSpeed) -> None:
    """Print the table and, from its last line, what 16 workers deliver."""
    print(describe_machine())
    seconds = time_data(settings.data_dir, settings.count)
    for name, value in seconds.items():
        print(f"{name:30} {1000 * value:8.3f} ms {1 / value:10.0f} a second")
    crops = WORKERS / seconds["training image of 256 px, pack"]
    print(f"{WORKERS} workers, 256 px, pack, projected: {crops:.0f} a second")
