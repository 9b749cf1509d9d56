"""The score by the published calls and by ours, on the same images."""

import timeit
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import describe_machine, median_seconds
from benchmarks.settings import ScoreSpeed
from src.damage.hole import find_hole, lost_pixels
from src.datasets.competition import read_input, read_train, read_truth
from src.evaluation.scoring import score_table
from src.metrics import WEIGHTS, published_score, score_image
from src.pipeline import telea
from src.utils.images import gray_to_rgb
from src.utils.processes import one_thread

CALLS = {"published": published_score, "ours": score_image}

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]  # true, pred, mask


def filled_images(pairs: list[tuple[Path, Path]]) -> list[Scored]:
    """(true, pred, mask) of (input, truth) files; the prediction is Telea's fill, left grey."""
    images = []
    for source, target in pairs:
        gray, true = read_input(source), read_truth(target)
        images.append((true, gray_to_rgb(telea(gray, find_hole(gray))), lost_pixels(gray, true)))
    return images


def time_score(images: list[Scored]) -> dict[str, float]:
    """Seconds an image on one core, by the names of `CALLS`."""
    one_thread()
    work = {
        name: lambda call=call: [call(*image) for image in images] for name, call in CALLS.items()
    }
    return {name: seconds / len(images) for name, seconds in median_seconds(work).items()}


def run(settings: ScoreSpeed) -> None:
    """Print milliseconds an image on one core, their ratio, the largest difference; a fold's time."""
    print(describe_machine())
    table = read_train(settings.data_dir)
    pairs = [
        tuple(settings.data_dir / path for path in row) for row in table.itertuples(index=False)
    ]
    images = filled_images(pairs[: settings.count])
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
    triples = (triples * (settings.files // len(triples) + 1))[: settings.files]
    whole = timeit.timeit(lambda: score_table(triples), number=1)
    each = 1000 * whole / len(triples)
    print(f"{len(triples)} files, all cores: {whole:.0f} s, {each:.1f} ms an image")
