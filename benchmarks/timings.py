"""CPU seconds of what must not get slower, as JSON: python -m benchmarks.timings DATA_DIR [NAME
...]

`benchmarks.check` starts this module in two versions of the repository, so its arguments and its
output must stay as they are; measurements may come and go.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.inference import FOLDS, TTA, untrained
from benchmarks.score import filled_images
from benchmarks.size import damaged_photo
from src.damage.hole import find_hole, punch_hole
from src.datasets.bank import Pack, ReadTruth
from src.datasets.competition import read_input, read_train, read_truth
from src.datasets.loader import TrainingImages, training_batches
from src.metrics import score_image
from src.models.registry import create_model
from src.pipeline import Pipeline
from src.training.state import TrainingState, training_step
from src.utils.distributed import launch

IMAGES = 4  # that a quick measurement goes over, since images differ
BATCH = 2  # images in a training step
ENCODER = "lite0"  # full_pipeline's own, and its image size, would take seconds a step
SIDES = {"restorer": 512, "full_pipeline": 128}  # px of the training images
RUNS, SECONDS = 2, 0.5  # calls: at least so many, and as many as fit into so many seconds

Work = Callable[[], object]


def pairs(data_dir: Path) -> list[tuple[Path, Path]]:
    """(input, truth) files of the first training images."""
    table = read_train(data_dir).head(IMAGES)
    return [tuple(data_dir / path for path in row) for row in table.itertuples(index=False)]


def score_work(data_dir: Path) -> Work:
    """The competition's score of images."""
    images = filled_images(pairs(data_dir))
    return lambda: [score_image(*image) for image in images]


def training_image_work(data_dir: Path, read: ReadTruth) -> Work:
    """Training images of 512 px: read, augmented and damaged."""
    images = TrainingImages([truth for _, truth in pairs(data_dir)], 512, 0, read)
    return lambda: [images[0, index, False] for index in range(IMAGES)]


def damage_work(data_dir: Path) -> Work:
    """The competition's damage, drawn."""
    photos = [read_truth(truth) for _, truth in pairs(data_dir)]
    return lambda: [punch_hole(photo, np.random.default_rng(i)) for i, photo in enumerate(photos)]


def finder_work(data_dir: Path) -> Work:
    """The competition's damage, found."""
    grays = [read_input(source) for source, _ in pairs(data_dir)]
    return lambda: [find_hole(gray) for gray in grays]


def training_work(data_dir: Path, name: str) -> Work:
    """A training step of a model on the same batch again and again."""
    torch.manual_seed(0)
    model = create_model(name, encoder=ENCODER, encoder_weights="none")
    state, fabric = TrainingState(model), launch("cpu")
    torch.set_num_threads(1)  # which launch has raised
    paths = [truth for _, truth in pairs(data_dir)]
    needs = {"keys": model.batch_keys, "hole_every": model.hole_every}
    batch = next(training_batches(paths, SIDES[name], BATCH, workers=0, seed=0, start=0, **needs))

    def step() -> None:
        torch.manual_seed(0)  # the random crops of a step differ in size
        training_step(state, batch, 1e-4, fabric)

    return step


def restoring_work(data_dir: Path) -> Work:
    """A 512 px image restored by five folds and two views."""
    pipeline, gray = (
        Pipeline([untrained("restorer") for _ in range(FOLDS)], tta=TTA),
        first_input(data_dir),
    )
    return lambda: pipeline(gray)


def large_photo_work(data_dir: Path) -> Work:
    """A photo of 4 megapixels restored by one fold and one view."""
    pipeline, gray = Pipeline([untrained("restorer")]), damaged_photo(4)
    return lambda: pipeline(gray)


def decode_work(data_dir: Path) -> Work:
    """Hues chosen for a 512 px image."""
    pipeline, gray = Pipeline([untrained("restorer")]), first_input(data_dir)
    mask = find_hole(gray)
    estimate = pipeline.estimate(gray, mask)
    return lambda: pipeline.decode(estimate, gray, mask)


def first_input(data_dir: Path) -> np.ndarray:
    """(512, 512) uint8, the first damaged training image."""
    return read_input(pairs(data_dir)[0][0])


MEASUREMENTS: dict[str, Callable[[Path], Work]] = {
    "score of an image": score_work,
    "training image from PNG": lambda data_dir: training_image_work(data_dir, read_truth),
    "training image from a pack": lambda data_dir: training_image_work(data_dir, Pack(data_dir)),
    "damage synthesis": damage_work,
    "hole finder": finder_work,
    "training step, restorer": lambda data_dir: training_work(data_dir, "restorer"),
    "training step, full_pipeline": lambda data_dir: training_work(data_dir, "full_pipeline"),
    "restoring 512 px, five folds, two views": restoring_work,
    "restoring 4 megapixels": large_photo_work,
    "decode": decode_work,
}


def least_seconds(work: Work, runs: int = RUNS, seconds: float = SECONDS) -> float:
    """The least CPU seconds of several calls: the first may compile code, and others may be
    disturbed."""
    times: list[float] = []
    while len(times) < runs or sum(times) < seconds:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print a JSON object, CPU seconds by name, of all measurements or of those named."""
    data_dir, names = Path(sys.argv[1]), sys.argv[2:] or list(MEASUREMENTS)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(json.dumps({name: least_seconds(MEASUREMENTS[name](data_dir)) for name in names}))


if __name__ == "__main__":
    main()
