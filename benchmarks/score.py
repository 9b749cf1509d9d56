"""The score by the published calls and by ours, on the same images."""

import timeit
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.benchmarks.machine import describe_machine, median_seconds
from src.damage import detect, lost_pixels
from src.datasets.competition import read_input, read_train, read_truth
from src.inference import telea
from src.metrics import WEIGHTS, published_score, score_image
from src.parallel import one_thread
from src.scoring import score_table

FOLD = 6000  # images of one fold of the competition
CALLS = {"published": published_score, "ours": score_image}

Image = tuple[np.ndarray, np.ndarray, np.ndarray]  # true, pred, mask


def filled_images(pairs: list[tuple[Path, Path]]) -> list[Image]:
    """(true, pred, mask) of (input, truth) files; the prediction is Telea's fill, left grey."""
    images = []
    for source, target in pairs:
        gray, true = read_input(source), read_truth(target)
        images.append((true, telea(gray, detect(gray)), lost_pixels(gray, true)))
    return images


def time_score(images: list[Image]) -> dict[str, float]:
    """Seconds an image on one core, by the names of `CALLS`."""
    one_thread()
    work = {name: lambda call=call: [call(*image) for image in images] for name, call in CALLS.items()}
    return {name: seconds / len(images) for name, seconds in median_seconds(work).items()}


@dataclass(frozen=True)
class Score:
    """The score of an image by the published calls and by ours, and of a whole fold."""

    data_dir: Path
    """A competition folder; its first training pairs are used, filled in by Telea."""
    count: int = 20
    """Images to time one by one."""
    files: int = FOLD
    """Files to score with all cores, of different images as far as there are as many."""

    def run(self) -> None:
        """Print milliseconds an image on one core, their ratio, the largest difference; a fold's time."""
        print(describe_machine())
        table = read_train(self.data_dir)
        pairs = [tuple(self.data_dir / path for path in row) for row in table.itertuples(index=False)]
        images = filled_images(pairs[: self.count])
        seconds = time_score(images)
        for name in CALLS:
            print(f"{name:10} {1000 * seconds[name]:8.2f} ms an image, one core")
        print(f"{'ratio':10} {seconds['published'] / seconds['ours']:8.1f}")
        published, ours = (
            pd.DataFrame([call(*image).as_dict() for image in images]) for call in CALLS.values()
        )
        largest = (published - ours).abs().max()
        print("largest difference: " + "  ".join(f"{key} {largest[key]:.1e}" for key in WEIGHTS))
        triples = [(target, target, source) for source, target in pairs]
        triples = (triples * (self.files // len(triples) + 1))[: self.files]
        whole = timeit.timeit(lambda: score_table(triples), number=1)
        print(f"{self.files} files, all cores: {whole:.0f} s, {1000 * whole / self.files:.1f} ms an image")
