"""How fast training images are prepared, from PNG files and from a pack."""

import timeit
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import trange

from src.benchmarks.machine import describe_machine
from src.damage import synthesize
from src.datasets.competition import read_train, read_truth
from src.datasets.pack import Pack
from src.datasets.training import TrainingImages
from src.parallel import one_thread

RUNS = 5


@dataclass(frozen=True)
class Data:
    """Milliseconds an image, one core: reading, damage, and whole training images; PNG files and pack."""

    data_dir: Path
    """A competition folder, packed: prepare_data.py pack."""
    count: int = 100
    """Images of each run; the median of the runs' means counts."""

    def run(self) -> None:
        """Print the table."""
        print(describe_machine())
        one_thread()
        pack = Pack(self.data_dir)
        paths = [self.data_dir / path for path in read_train(self.data_dir)["gt_image_path"]][: self.count]
        photos = [read_truth(path) for path in paths]
        work = {
            "read, PNG": lambda i: read_truth(paths[i]),
            "read, pack": lambda i: pack(paths[i]).copy(),
            "damage": lambda i: synthesize(photos[i], np.random.default_rng(i)),
        }
        for size in (512, 256):
            for name, read in (("PNG", read_truth), ("pack", pack)):
                images = TrainingImages(paths, size, 0, read)
                work[f"training image of {size} px, {name}"] = lambda i, images=images: images[0, i]
        times = {name: [] for name in work}
        for _ in trange(RUNS, desc="timing"):  # in turns, so that all see the same machine
            for name, call in work.items():
                run = timeit.timeit(lambda call=call: [call(i) for i in range(len(paths))], number=1)
                times[name].append(run / len(paths))
        for name, runs in times.items():
            seconds = float(np.median(runs))
            print(f"{name:30} {1000 * seconds:8.3f} ms {1 / seconds:10.0f} a second")
