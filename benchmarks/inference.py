"""How long restoring an image takes, against one forward pass of full_pipeline."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe_machine, median_seconds
from benchmarks.settings import InferenceSpeed
from src.damage.hole import find_hole
from src.datasets.competition import read_input, read_test
from src.models.base import RestorationModel
from src.models.checkpoints import save_model
from src.models.inpainter import inpaint
from src.models.registry import create_model
from src.pipeline import Pipeline
from src.utils.errors import InputError
from src.utils.processes import cores

INFER = Path(__file__).parents[1] / "infer.py"
FOLDS, TTA = 5, 2
PEER, OURS = "full_pipeline, one forward pass", f"restorer, {FOLDS} folds, {TTA} views"


def untrained(name: str) -> RestorationModel:
    """A model of random weights, which take as long as trained ones, as `load_model` lays it out."""
    torch.manual_seed(0)
    return create_model(name).to(memory_format=torch.channels_last).eval()


def inference_work(gray: np.ndarray) -> dict[str, Callable[[], object]]:
    """What restores one damaged (H, W) uint8 photo: the peer's forward pass, ours whole, ours in
    parts."""
    mask = find_hole(gray)
    peer, models = untrained("full_pipeline"), [untrained("restorer") for _ in range(FOLDS)]
    whole, single = Pipeline(models, tta=TTA), Pipeline(models[:1])
    image, lost = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (gray / 255, mask))
    estimate = single.estimate(gray, mask)
    small = models[0].shrink(image).repeat(TTA, 1, 1, 1)
    inpainters = [model.inpainter for model in models]
    return {
        PEER: lambda: peer(image * 2 - 1),
        OURS: lambda: whole(gray),
        "  finding the hole": lambda: find_hole(gray),
        "  inpainters": lambda: inpaint(inpainters, image, lost, TTA),
        "  colorizers": lambda: [model.colors(small) for model in models],
        "  decode": lambda: whole.decode(estimate, gray, mask),
        "restorer, 1 fold, 1 view": lambda: single(gray),
    }


def time_infer(photos: list[Path]) -> str:
    """One line: the time and peak memory of infer.py on some photos, with five folds and two views."""
    import resource  # not on Windows

    with tempfile.TemporaryDirectory() as folder:
        for fold in range(FOLDS):
            save_model(Path(folder, "run", f"fold{fold}"), untrained("restorer"), "restorer", {})
        copies = Path(folder, "photos")
        copies.mkdir()
        for path in photos:
            shutil.copy(path, copies)
        command = [sys.executable, INFER, "--input", copies, "--output", Path(folder, "restored")]
        command += ["--output-dir", folder, "--name", "run", "--ensemble", "--tta", TTA]
        start = time.perf_counter()
        if subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL).returncode:
            raise InputError("infer.py failed, see above; mend it and run this again")
        whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    called = f"infer.py --ensemble --tta {TTA}, once: {len(photos)} files in {whole:.1f} s, start included"
    return f"{called}; {whole / len(photos):.3f} s a file; peak memory {peak:.2f} GiB"


def run(settings: InferenceSpeed) -> None:
    """Print time and peak memory of infer.py on the test images, then the table."""
    print(describe_machine())
    paths = [settings.data_dir / path for path in read_test(settings.data_dir)["input_image_path"]]
    # first, because a child inherits the peak memory of its parent
    print(time_infer(paths[: settings.count]))
    torch.set_num_threads(cores())
    with torch.inference_mode():
        seconds = median_seconds(inference_work(read_input(paths[0])))
    for name, value in seconds.items():
        print(f"{name:40} {1000 * value:8.1f} ms")
    print(f"{'ratio':40} {seconds[PEER] / seconds[OURS]:8.2f}")
