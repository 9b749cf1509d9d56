"""Is anything slower than it was? Ratios within one run against those of `benchmarks/baseline.json`."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from src.benchmarks.data import time_data
from src.benchmarks.inference import OURS, PEER, inference_work, untrained
from src.benchmarks.machine import RUNS, describe_machine, median_seconds
from src.benchmarks.score import filled_images, time_score
from src.benchmarks.size import size_work
from src.benchmarks.training import BATCH_SIZE, loader_speed, read_batches, step_seconds
from src.datasets.build import build, sample_photos
from src.datasets.competition import read_input, read_train
from src.datasets.pack import pack
from src.files import InputError, write_json
from src.parallel import cores

BASELINE = Path(__file__).parents[2] / "benchmarks" / "baseline.json"
Ratios = dict[str, float]  # each a time of ours against another of the same run; more is better


def measure_ratios(data_dir: Path) -> Ratios:
    """All ratios, on a packed competition folder of at least 16 pairs."""
    torch.set_num_threads(cores())
    table = read_train(data_dir)
    pairs = [tuple(data_dir / path for path in row) for row in table.itertuples(index=False)]
    score = time_score(filled_images(pairs[:5]))
    data = time_data(data_dir, 16)
    cv2.setNumThreads(cores())
    steps = {}
    for name, size in (("restorer", 512), ("full_pipeline", 256)):
        steps[name], waiting = step_seconds(name, read_batches(data_dir, size, 0), RUNS)
        if name == "restorer":
            waited = waiting
    loader = loader_speed(read_batches(data_dir, 512, cores()), 120)
    with torch.inference_mode():
        work = inference_work(read_input(pairs[0][0]))
        inference = median_seconds({name: work[name] for name in (PEER, OURS)})
    models = [untrained("restorer")]
    sizes = median_seconds({f"{size}": size_work(models, size, data_dir) for size in (1, 4)})
    return {
        "score: published / ours": score["published"] / score["ours"],
        "training image, 512 px: PNG / pack": (
            data["training image of 512 px, PNG"] / data["training image of 512 px, pack"]
        ),
        "damage synthesis: PNG decoding / damage": data["read, PNG"] / data["damage"],
        "images a second: loader / restorer": loader * steps["restorer"] / BATCH_SIZE,
        "training step: time / time waited for data": 1 / max(waited, 1e-3),
        "training step: full_pipeline / restorer": steps["full_pipeline"] / steps["restorer"],
        "inference: full_pipeline / five folds, two views": inference[PEER] / inference[OURS],
        "seconds a megapixel: 1 megapixel / 4 megapixels": 4 * sizes["1"] / sizes["4"],
    }


def regressions(baseline: Ratios, found: Ratios, tolerance: float) -> list[str]:
    """Names of the ratios that are missing or lower than the baseline by more than `tolerance`, 0 to 1."""
    return [name for name, value in baseline.items() if not found.get(name, 0) >= value * (1 - tolerance)]


def read_baseline(path: Path) -> Ratios:
    """The ratios of a baseline file; raises `InputError` when it is missing or broken."""
    try:
        return {name: float(value) for name, value in json.loads(path.read_text())["ratios"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no readable baseline ({error}); write one with --update") from None


@dataclass(frozen=True)
class Check:
    """Compare the ratios of this run with the baseline; exit status 1 when one got worse."""

    baseline: Path = BASELINE
    """The file of the ratios to compare with."""
    tolerance: float = 0.3
    """Share by which a ratio may fall: shared machines are noisy."""
    update: bool = False
    """Write this run's ratios to the baseline instead."""

    def run(self) -> int:
        """Print baseline and ratio of this run; 1 if any got worse."""
        machine = describe_machine()
        print(machine)
        baseline = {} if self.update else read_baseline(self.baseline)
        photos = sample_photos()
        with tempfile.TemporaryDirectory() as folder:
            data_dir = Path(folder, "data")
            build(photos, photos[0].parent, data_dir, crops_per_photo=6, test_photos=0.1, seed=0)
            pack(data_dir)
            found = measure_ratios(data_dir)
        worse = regressions(baseline, found, self.tolerance)
        print(f"{'ratio':52}{'baseline':>10}{'now':>10}")
        for name in baseline | found:
            before, now = (f"{ratios[name]:.2f}" if name in ratios else "-" for ratios in (baseline, found))
            print(f"{name:52}{before:>10}{now:>10}{'  WORSE' if name in worse else ''}")
        if self.update:
            write_json(self.baseline, {"machine": machine.splitlines()[-1], "ratios": found})
            print(f"{self.baseline}: written")
        return 1 if worse else 0
