"""How long restoring an image takes, against one forward pass of full_pipeline."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from src.benchmarks.machine import describe_machine, median_seconds
from src.checkpoints import BEST, save_model
from src.damage import detect
from src.datasets.competition import read_input, read_test
from src.files import InputError
from src.inference import restore
from src.models import RestorationModel, create_model
from src.models.restorer import inpaint
from src.parallel import cores

INFER = Path(__file__).parents[2] / "infer.py"
FOLDS, TTA = 5, 2
PEER, OURS = "full_pipeline, one forward pass", f"restorer, {FOLDS} folds, {TTA} views"


def untrained(name: str) -> RestorationModel:
    """A model of random weights, which take as long as trained ones, as `load_model` lays it out."""
    torch.manual_seed(0)
    return create_model(name).to(memory_format=torch.channels_last).eval()


def inference_work(gray: np.ndarray) -> dict[str, Callable[[], object]]:
    """What restores one damaged (H, W) uint8 photo: the peer's forward pass, ours whole, ours in parts."""
    mask = detect(gray)
    peer, models = untrained("full_pipeline"), [untrained("restorer") for _ in range(FOLDS)]
    image, lost = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (gray / 255, mask))
    estimate = models[0].predict(models[:1], image, lost, 1)
    small = models[0].shrink(image).repeat(TTA, 1, 1, 1)
    inpainters = [model.inpainter for model in models]
    return {
        PEER: lambda: peer(image * 2 - 1),
        OURS: lambda: restore(models, gray, detect(gray), TTA),
        "  detector": lambda: detect(gray),
        "  inpainters": lambda: inpaint(inpainters, image, lost, TTA),
        "  colorizers": lambda: [model.colors(small) for model in models],
        "  decode": lambda: models[0].decode(estimate, image, lost, "score"),
        "restorer, 1 fold, 1 view": lambda: restore(models[:1], gray, detect(gray), 1),
    }


@dataclass(frozen=True)
class Inference:
    """Restoring one 512×512 image with five folds and two views against full_pipeline's forward pass."""

    data_dir: Path
    """A competition folder; its test images are restored."""
    count: int = 100
    """Test images that infer.py restores."""

    def run(self) -> None:
        """Print time and peak memory of infer.py on the test images, then the table."""
        import resource  # which Windows has not

        print(describe_machine())
        paths = [self.data_dir / path for path in read_test(self.data_dir)["input_image_path"]]
        # first, because a child inherits the peak memory of its parent
        with tempfile.TemporaryDirectory() as folder:
            for fold in range(FOLDS):
                save_model(Path(folder, "run", f"fold{fold}", BEST), untrained("restorer"), "restorer", {})
            photos = Path(folder, "photos")
            photos.mkdir()
            for path in paths[: self.count]:
                shutil.copy(path, photos)
            command = [sys.executable, INFER, "--input", photos, "--output", Path(folder, "restored")]
            command += ["--output-dir", folder, "--name", "run", "--ensemble", "--tta", TTA]
            start = time.perf_counter()
            if subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL).returncode:
                raise InputError("infer.py failed, see above; mend it and run this again")
            whole, count = time.perf_counter() - start, len(list(photos.iterdir()))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(
            f"infer.py --ensemble --tta {TTA}, once: {count} files in {whole:.1f} s, start included; ",
            end="",
        )
        print(f"{whole / count:.3f} s a file; peak memory {peak:.2f} GiB")
        torch.set_num_threads(cores())
        with torch.inference_mode():
            seconds = median_seconds(inference_work(read_input(paths[0])))
        for name, value in seconds.items():
            print(f"{name:40} {1000 * value:8.1f} ms")
        print(f"{'ratio':40} {seconds[PEER] / seconds[OURS]:8.2f}")
