"""The score by the published calls and by ours, on the same images."""

import timeit
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.benchmarks.machine import describe_machine
from src.damage import detect, lost_pixels
from src.datasets.competition import read_input, read_train, read_truth
from src.inference import telea
from src.metrics import WEIGHTS, published_score, score_image
from src.parallel import one_thread
from src.scoring import score_table

RUNS = 7  # of each timing; the median counts
FOLD = 6000  # images of one fold of the competition


@dataclass(frozen=True)
class Score:
    """The score of an image by the published calls and by ours, and of a whole fold."""

    data_dir: Path
    """A competition folder; its first training pairs are used, filled in by Telea."""
    count: int = 20
    """Images to time one by one."""
    files: int = 600
    """Files to score with all cores; those images again and again."""

    def run(self) -> None:
        """Print milliseconds an image on one core, their ratio, the largest difference; a fold's time."""
        print(describe_machine())
        table = read_train(self.data_dir).head(self.count)
        pairs = [tuple(self.data_dir / path for path in row) for row in table.itertuples(index=False)]
        one_thread()
        images = []
        for source, target in pairs:
            gray, true = read_input(source), read_truth(target)
            images.append((true, telea(gray, detect(gray)), lost_pixels(gray, true)))
        calls = {"published": published_score, "ours": score_image}
        seconds, scores = {}, {}
        for name, call in calls.items():
            scores[name] = [call(*image) for image in images]  # the first call compiles
            runs = timeit.repeat(
                lambda call=call: [call(*image) for image in images], number=1, repeat=RUNS
            )
            seconds[name] = np.median(runs) / len(images)
            print(f"{name:10} {1000 * seconds[name]:8.2f} ms an image, one core")
        print(f"{'ratio':10} {seconds['published'] / seconds['ours']:8.1f}")
        published, ours = (pd.DataFrame([s.as_dict() for s in scores[name]]) for name in calls)
        largest = (published - ours).abs().max()
        print("largest difference: " + "  ".join(f"{key} {largest[key]:.1e}" for key in WEIGHTS))
        triples = [(target, target, source) for source, target in pairs]
        triples *= max(1, self.files // len(triples))
        whole = timeit.timeit(lambda: score_table(triples), number=1) / len(triples)
        print(f"files, all cores: {1000 * whole:.1f} ms an image, {whole * FOLD:.0f} s for {FOLD} images")
