"""How fast each part is, beside a peer in the same run: python -m benchmarks.speed inference"""

import platform
import shlex
import subprocess
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
from src.evaluation.scoring import score_table
from src.metrics import published_score, score_image
from src.models import create_model
from src.models.base import RestorationModel
from src.models.options import MODELS
from src.pipeline import Pipeline, telea
from src.restoring import Job, restore_jobs
from src.training.state import TrainingState, training_step
from src.utils.cli import run_script
from src.utils.distributed import launch
from src.utils.errors import InputError
from src.utils.images import gray_to_rgb, write_png
from src.utils.processes import cores, limit_threads

LR = 1e-4  # any: what a step costs does not depend on it


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
    """Median wall-clock seconds of each call; they take turns, so that all see the same machine.

    A first round, in which code is compiled and files enter the cache, does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in trange(runs + 1, desc="timing", dynamic_ncols=True):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds[1:])) for name, seconds in times.items()}


def untrained(name: str) -> RestorationModel:
    """A model with random weights, which take as long as trained ones."""
    torch.manual_seed(0)
    return create_model(name).to(memory_format=torch.channels_last).eval()


def score(data_dir: Path = Path("data"), count: int = 20, files: int = 6000) -> None:
    """The score of an image, against the published calls; and of a whole fold on all cores.

    Args:
        data_dir: a competition folder; its training images are filled by Telea and scored.
        count: images to time one by one.
        files: files to score with all cores; the first ones again if there are fewer.
    """
    describe_machine()
    limit_threads()
    rows = read_train(data_dir).itertuples(index=False)
    pairs = [tuple(data_dir / path for path in row) for row in rows]
    images = []
    for source, target in pairs[:count]:
        gray, true = read_input(source), read_truth(target)
        images.append((true, gray_to_rgb(telea(gray, find_hole(gray))), lost_pixels(gray, true)))
    calls = {"published": published_score, "ours": score_image}
    work = {
        name: lambda call=call: [call(*image) for image in images] for name, call in calls.items()
    }
    seconds = median_seconds(work)
    for name in calls:
        print(f"{name:10} {1000 * seconds[name] / len(images):8.2f} ms per image, one core")
    print(f"{'ratio':10} {seconds['published'] / seconds['ours']:8.1f}")
    tables = [pd.DataFrame([call(*i).as_dict() for i in images]) for call in calls.values()]
    print(f"largest difference: {(tables[0] - tables[1]).abs().max().max():.1e}")
    triples = [(target, target, source) for source, target in pairs]
    triples = (triples * (files // len(triples) + 1))[:files]
    start = time.perf_counter()
    score_table(triples)
    whole = time.perf_counter() - start
    print(f"{files} files, all cores: {whole:.0f} s, {1000 * whole / files:.1f} ms per image")


def data(data_dir: Path = Path("data"), count: int = 100) -> None:
    """Preparing a training image on one core: read and augmented, from the pack and from PNG files.

    Args:
        data_dir: a competition folder, packed by prepare_data.py pack.
        count: images per run.
    """
    describe_machine()
    limit_threads()
    paths = [data_dir / path for path in read_train(data_dir)["gt_image_path"]][:count]
    bank, work = Bank(data_dir), {}
    for size in (512, 256):
        for name, source in (("PNG", None), ("pack", bank)):
            images = TrainingImages(paths, size, 0, BatchSpec(), source)
            work[f"training image of {size} px, {name}"] = lambda images=images: [
                images[Sample(index, 0, index, False)] for index in range(len(paths))
            ]
    for name, seconds in median_seconds(work).items():
        print(f"{name:32} {1000 * seconds / len(paths):8.3f} ms")


def training(data_dir: Path = Path("data"), steps: int = 10, batch_size: int | None = None) -> None:
    """Training steps of each model at its own batch size, and how long they wait for images.

    Args:
        data_dir: a competition folder; its pack is used if there is one.
        steps: steps of each model; the median counts.
        batch_size: instead of each model's own.
    """
    describe_machine()
    torch.set_num_threads(cores())
    print(f"{'training step':32}{'images/s':>10}{'waiting':>10}")
    for name in ("restorer", "full_pipeline", "gan"):
        options = MODELS[name]()
        size = batch_size or options.batch_size
        batches = read_batches(data_dir, name, options.image_size, size)
        seconds, waiting = step_seconds(name, batches, steps)
        print(f"{f'{name}, {options.image_size} px':32}{size / seconds:10.2f}{waiting:10.1%}")


def read_batches(data_dir: Path, model: str, image_size: int, batch_size: int) -> Iterator[dict]:
    """Endless training batches for a model, prepared between the steps."""
    paths = [data_dir / path for path in read_train(data_dir)["gt_image_path"]]
    spec = create_model(model).batch_spec
    images = TrainingImages(paths, image_size, 0, spec, load_bank(data_dir))
    sampler = EndlessSampler(np.ones(len(paths)), batch_size, 0, hole_every=spec.hole_every)
    return training_batches(images, sampler, 0)


def step_seconds(name: str, batches: Iterator[dict], steps: int) -> tuple[float, float]:
    """Median seconds of a step without its loading, and the share of the time spent on loading."""
    torch.manual_seed(0)
    state, fabric = TrainingState(create_model(name)), launch("cpu")
    times, waits = [], []
    for _ in range(steps + 1):  # the first is not counted
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        training_step(state, batch, LR, fabric)
        times.append(time.perf_counter() - start)
    alone = np.subtract(times, waits)[1:]
    return float(np.median(alone)), float(sum(waits[1:]) / sum(times[1:]))


def inference(data_dir: Path = Path("data")) -> None:
    """Restoring 512×512 with five folds and two views, against a forward pass of full_pipeline.

    Args:
        data_dir: a competition folder; infer.py restores all its test images.
    """
    describe_machine()
    infer = Path(__file__).parents[1] / "infer.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, infer, "--data-dir", data_dir, "--output-dir", folder]
        start = time.perf_counter()
        subprocess.run([*command, "--ensemble", "--tta", "2"], check=True)
        print(f"infer.py --ensemble --tta 2, once: {time.perf_counter() - start:.1f} s")
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
        seconds = median_seconds(work)
    for name, value in seconds.items():
        print(f"{name:32} {1000 * value:8.1f} ms")
    ratio = seconds["full_pipeline, forward"] / seconds["restorer, 5 folds, 2 views"]
    print(f"{'ratio':32} {ratio:8.2f}")


def size(megapixels: tuple[float, ...] = (0.25, 1, 4, 12, 48)) -> None:
    """Seconds and peak memory of restoring 4:3 PNG files of growing size, one fold and one view.

    Args:
        megapixels: sizes to restore.
    """
    import resource  # not on Windows

    describe_machine()
    torch.set_num_threads(cores())
    pipeline = Pipeline([untrained("restorer")])
    print(f"{'megapixels':>10}{'seconds':>10}{'peak GiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for number in sorted(megapixels):
            job = Job(Path(folder, f"{number}.png"), Path(folder, f"{number}.restored.png"), None)
            write_png(job.photo, damaged_photo(number))

            def restore(job: Job = job) -> None:
                job.output.unlink(missing_ok=True)
                if failures := restore_jobs(pipeline, [job], shown=False):
                    raise InputError(failures[0])

            seconds = median_seconds({"restore": restore})["restore"]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"{number:10g}{seconds:10.2f}{peak:10.2f}", flush=True)


def damaged_photo(megapixels: float) -> np.ndarray:
    """scikit-image's astronaut, enlarged to 4:3 with grain and a hole, (H, W) uint8."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    shape = (height * 4 // 3, height)
    rgb = np.array(Image.fromarray(samples.astronaut()).resize(shape, Image.Resampling.BICUBIC))
    rng = np.random.default_rng(0)
    for rows in np.array_split(rgb, max(1, height // 256)):  # in strips, for the memory
        grain = rng.integers(-4, 5, rows.shape, np.int16)
        rows[:] = np.clip(rows + grain, 0, 255)
    return punch_hole(rgb, np.random.default_rng(0))[0]


COMMANDS = {
    "score": score,
    "data": data,
    "training": training,
    "inference": inference,
    "size": size,
}


def main() -> None:
    """Measure what the command line names."""
    subcommand_cli_from_dict(COMMANDS, prog="python -m benchmarks.speed", description=__doc__)


if __name__ == "__main__":
    run_script(main)
