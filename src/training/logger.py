"""Progress, curves and pictures of a training run, on screen and in files."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from src.utils.distributed import average
from src.utils.errors import InputError
from src.utils.files import append_text, write_text
from src.utils.images import write_png

LOG_EVERY = 20  # steps between lines of metrics.jsonl
BAR = "{desc}: {percentage:5.1f}%|{bar}| {elapsed} < {remaining}{postfix}"


class RunLogger:
    """Progress bar, `metrics.jsonl`, TensorBoard curves and validation pictures of a fold.

    Only the first process writes. Lines of `metrics.jsonl` beyond `step` are dropped: an
    interrupted session wrote them after its last checkpoint.
    """

    def __init__(self, folder: Path, step: int, fabric: Fabric):
        self.folder = folder
        self.fabric = fabric
        self.path = folder / "metrics.jsonl"
        if fabric.is_global_zero:
            lines = self.path.read_text().splitlines() if self.path.exists() else []
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))
            self.writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        looks = {"bar_format": BAR, "dynamic_ncols": True, "disable": not fabric.is_global_zero}
        self.bar = tqdm(desc=folder.name, total=100.0, **looks)
        self._sums: dict[str, Tensor] = {}
        self._flushed = step
        self._told = False  # how long it will take
        self.restart_clock()

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.fabric.is_global_zero:
            self.writer.close()

    def show(self, progress: float) -> None:
        """Move the bar to `progress`, a share of the run."""
        if self.bar.n == 0:
            self.bar.initial = 100 * progress  # a resumed run needs it to estimate the time left
        self.bar.update(100 * progress - self.bar.n)

    def add(self, terms: dict[str, Tensor]) -> None:
        """Collect the loss terms of a step; they stay on their device until `flush`."""
        for key, value in terms.items():
            self._sums[key] = self._sums.get(key, 0) + value.detach()

    def flush(self, step: int, lr: float, batch_size: int) -> None:
        """Write the mean losses since the last call, with learning rate and images per second."""
        steps = step - self._flushed
        if not steps:
            return
        average(self.fabric, list(self._sums.values()))
        values = {f"loss/{key}": float(value) / steps for key, value in self._sums.items()}
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        if bad:
            found = f"{self.path}: {', '.join(bad)} is not finite at step {step}"
            raise InputError(f"{found}; delete {self.folder} and start again", "learning rate")
        text = "  ".join(f"{key[5:]} {value:.3f}" for key, value in values.items())
        speed = steps * batch_size / (time.monotonic() - self._since)
        self.write(step, values | {"lr": lr, "images_per_second": speed})
        self.bar.set_postfix_str(f"{speed:.2f} images/s  {text}")
        rate = self.bar.format_dict["rate"]  # per cent per second; of the first process only
        if rate and not self._told:
            self.bar.write(f"expected: {(100 - self.bar.n) / rate / 60:.0f} more minutes")
            self._told = True
        self._sums = {}
        self._flushed = step
        self.restart_clock()

    def restart_clock(self) -> None:
        """Exclude the time until now from the images per second."""
        self._since = time.monotonic()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one line to `metrics.jsonl` and one point to each curve."""
        if self.fabric.is_global_zero:
            append_text(self.path, json.dumps({"step": step, **values}) + "\n")
            for key, value in values.items():
                self.writer.add_scalar(key, value, step)
            self.writer.flush()

    def validation(
        self, step: int, minutes: float, scores: dict[str, float], pictures: Sequence[np.ndarray]
    ) -> None:
        """Write the scores of a validation, and its pictures as one PNG and to TensorBoard."""
        self.write(step, {f"val/{key}": v for key, v in scores.items()} | {"minutes": minutes})
        if self.fabric.is_global_zero:
            text = "  ".join(f"{key} {value:.4f}" for key, value in scores.items())
            self.bar.write(f"step {step}: {text}")
            picture = np.vstack(pictures)
            write_png(self.folder / "validation" / f"step{step:07d}.png", picture)
            self.writer.add_image("input, result, truth", picture, step, dataformats="HWC")


def _step_of(line: str) -> float:
    """The step of a line of `metrics.jsonl`; infinite for a truncated line."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
