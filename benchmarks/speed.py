"""Time each part beside its peer in the same run: python -m benchmarks.speed inference"""

import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage
import torch
from PIL import Image
from skimage import data as samples
from tqdm import trange
from tyro.extras import subcommand_cli_from_dict

from src.damage.hole import find_hole, lost_pixels, punch_hole
from src.datasets.bank import Bank, load_bank
from src.datasets.competition import read_input, read_test, read_train, read_truth
from src.datasets.loader import BatchSpec, EndlessSampler, Sample, TrainingImages, training_batches
from src.metrics import published_score, score_image
from src.models import create_model
from src.models.base import RestorationModel
from src.models.options import MODELS
from src.pipeline import Pipeline, telea
from src.training.state import TrainingState, training_step
from src.utils.cli import run_script
from src.utils.distributed import launch
from src.utils.images import gray_to_rgb, read_gray, write_png
from src.utils.processes import cores, limit_threads


def describe_machine() -> None:
    """Print the command, the processor and the versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    modules = (torch, np, cv2, skimage)
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in modules)
    print(f"{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}")
    print(f"{(names or [platform.machine()])[0]}, {cores()} cores; {versions}")


def median_seconds(work: dict[str, Callable[[], object]], runs: int = 5) -> dict[str, float]:
    """Median wall-clock seconds of each call; they alternate, for equal conditions.

    A first round, in which code is compiled and files enter the cache, does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in trange(runs + 1, desc="timing", dynamic_ncols=True):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds[1:])) for name, seconds in times.items()}


def compare(work: dict[str, Callable[[], object]], images: int = 1) -> None:
    """Print the milliseconds per image of each call, and how many times the second is faster."""
    seconds = median_seconds(work)
    for name, value in seconds.items():
        print(f"{name:32} {1000 * value / images:8.2f} ms per image")
    peer, ours = list(seconds.values())[:2]
    print(f"{'ratio':32} {peer / ours:8.2f}")


def untrained(name: str) -> RestorationModel:
    """A model with random weights, which take as long as trained ones."""
    torch.manual_seed(0)
    return create_model(name).to(memory_format=torch.channels_last).eval()


def score(data_dir: Path = Path("data"), count: int = 20) -> None:
    """The score of training images filled by Telea on one core, against the published calls."""
    limit_threads()
    images = []
    for source, target in read_train(data_dir)[:count].itertuples(index=False):
        gray, true = read_input(data_dir / source), read_truth(data_dir / target)
        images.append((true, gray_to_rgb(telea(gray, find_hole(gray))), lost_pixels(gray, true)))
    pairs = [(published_score(*image).as_dict(), score_image(*image).as_dict()) for image in images]
    work = {
        "published": lambda: [published_score(*image) for image in images],
        "ours": lambda: [score_image(*image) for image in images],
    }
    compare(work, len(images))
    difference = pd.DataFrame(pair[0] for pair in pairs) - pd.DataFrame(pair[1] for pair in pairs)
    print(f"largest difference: {difference.abs().max().max():.1e}")


def data(data_dir: Path = Path("data"), count: int = 100) -> None:
    """Preparing training images on one core, from PNG files and from the pack of `data_dir`."""
    limit_threads()
    paths = [data_dir / path for path in read_train(data_dir)["gt_image_path"]][:count]
    for size in (512, 256):
        work = {}
        for name, bank in (("PNG", None), ("pack", Bank(data_dir))):
            images = TrainingImages(paths, size, 0, BatchSpec(), bank)
            work[f"training image of {size} px, {name}"] = lambda images=images: [
                images[Sample(index, 0, index, False)] for index in range(len(paths))
            ]
        compare(work, len(paths))


def training(data_dir: Path = Path("data"), steps: int = 10, batch_size: int | None = None) -> None:
    """Training steps of each model at its own batch size, and how long they wait for images."""
    torch.set_num_threads(cores())
    paths = [data_dir / path for path in read_train(data_dir)["gt_image_path"]]
    print(f"{'training step':32}{'images/s':>10}{'waiting':>10}")
    for name in ("restorer", "full_pipeline", "gan"):
        options = MODELS[name]()
        size, spec = batch_size or options.batch_size, create_model(name).batch_spec
        images = TrainingImages(paths, options.image_size, 0, spec, load_bank(data_dir))
        sampler = EndlessSampler(np.ones(len(paths)), size, 0, hole_every=spec.hole_every)
        seconds, waiting = step_seconds(name, training_batches(images, sampler, 0), steps)
        print(f"{f'{name}, {options.image_size} px':32}{size / seconds:10.2f}{waiting:10.1%}")


def step_seconds(name: str, batches: Iterator[dict], steps: int) -> tuple[float, float]:
    """Median seconds of a step without its loading, and the share of the time spent on loading."""
    torch.manual_seed(0)
    state, fabric = TrainingState(create_model(name)), launch("cpu")
    times, waits = [], []
    for _ in range(steps + 1):  # the first is not counted
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        training_step(state, batch, 1e-4, fabric)
        times.append(time.perf_counter() - start)
    alone = np.subtract(times, waits)[1:]
    return float(np.median(alone)), float(sum(waits[1:]) / sum(times[1:]))


def inference(data_dir: Path = Path("data")) -> None:
    """Restoring a test image with five folds and two views, against full_pipeline's forward."""
    torch.set_num_threads(cores())
    gray = read_input(data_dir / read_test(data_dir)["input_image_path"][0])
    image = torch.from_numpy(gray / np.float32(127.5) - 1)[None, None]
    peer, models = untrained("full_pipeline"), [untrained("restorer") for _ in range(5)]
    whole, single = Pipeline(models, tta=2), Pipeline(models[:1])
    work = {
        "full_pipeline, forward": lambda: peer(image),
        "restorer, 5 folds, 2 views": lambda: whole(gray),
        "restorer, 1 fold, 1 view": lambda: single(gray),
    }
    with torch.inference_mode():
        compare(work)


def size(megapixels: tuple[float, ...] = (0.25, 1, 4, 12, 48)) -> None:
    """Seconds and peak memory of restoring 4:3 PNG files of growing size, one fold, one view."""
    import resource  # not on Windows

    torch.set_num_threads(cores())
    pipeline, rng = Pipeline([untrained("restorer")]), np.random.default_rng(0)
    print(f"{'megapixels':>10}{'seconds':>10}{'peak GiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        photo, restored = Path(folder, "photo.png"), Path(folder, "restored.png")
        for number in sorted(megapixels):
            height = round((number * 1e6 * 3 / 4) ** 0.5)
            scene = Image.fromarray(samples.astronaut()).resize((height * 4 // 3, height))
            grain = rng.integers(8, size=(height, height * 4 // 3, 3), dtype=np.uint8)
            write_png(photo, punch_hole(np.asarray(scene) ^ grain, rng)[0])
            work = {"restore": lambda: write_png(restored, pipeline(read_gray(photo)))}
            seconds = median_seconds(work)["restore"]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"{number:10g}{seconds:10.2f}{peak:10.2f}", flush=True)


def main() -> None:
    describe_machine()
    commands = {call.__name__: call for call in (score, data, training, inference, size)}
    subcommand_cli_from_dict(commands, prog="python -m benchmarks.speed", description=__doc__)


if __name__ == "__main__":
    run_script(main)
