"""What a training run shows and writes down: progress, curves, pictures."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from src.models.base import Batch
from src.utils.distributed import average
from src.utils.errors import InputError
from src.utils.files import append_text, read_text, write_text
from src.utils.images import write_png

LOG_EVERY = 20  # steps between lines of metrics.jsonl


class RunLogger:
    """Progress bar, `metrics.jsonl`, TensorBoard curves and validation pictures of a fold.

    Only the first process writes. Lines of `metrics.jsonl` beyond `step` are dropped: an
    interrupted session wrote them after its last checkpoint.
    """

    def __init__(self, folder: Path, step: int, fabric: Fabric, label: str = ""):
        self.folder = folder
        self.fabric = fabric
        self.path = folder / "metrics.jsonl"
        if fabric.is_global_zero:
            remedy = f"delete {folder}"
            lines = read_text(self.path, remedy).splitlines() if self.path.exists() else []
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))
            self.writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        self.bar = tqdm(
            desc=label,
            total=100.0,
            bar_format="{desc}: {percentage:5.1f}%|{bar}| {elapsed} < {remaining}{postfix}",
            dynamic_ncols=True,
            disable=not (label and fabric.is_global_zero),
        )
        self._sums: dict[str, Tensor] = {}
        self._flushed = step
        self._since = time.monotonic()
        self._waited = 0.0

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.fabric.is_global_zero:
            self.writer.close()

    def show(self, progress: float) -> None:
        """Move the bar to a share of the run."""
        if self.bar.n == 0:
            self.bar.initial = 100 * progress  # a resumed run: for the estimate of what is left
        self.bar.update(100 * progress - self.bar.n)

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the share of the time that training waits for them is logged."""
        while True:
            start = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - start
            yield batch

    def add(self, terms: dict[str, Tensor]) -> None:
        """Gather the loss terms of a step; they stay on their device until `flush`."""
        for key, value in terms.items():
            self._sums[key] = self._sums.get(key, 0) + value.detach()

    def flush(self, step: int, lr: float, batch_size: int) -> None:
        """Write the mean losses since the last call, with learning rate and images per second."""
        steps, seconds = step - self._flushed, time.monotonic() - self._since
        if not steps:
            return
        average(self.fabric, list(self._sums.values()))
        losses = {f"loss/{key}": float(value) / steps for key, value in self._sums.items()}
        bad = [key for key, value in losses.items() if not math.isfinite(value)]
        if bad:
            found = f"{self.path}: {', '.join(bad)} is not finite at step {step}"
            raise InputError(f"{found}; delete {self.folder} and start again", "learning rate")
        speed = {
            "images_per_second": steps * batch_size / seconds,
            "data_wait": self._waited / seconds,
        }
        self._sums = {}
        self._flushed = step
        self.write(step, losses | {"lr": lr} | speed)
        values = "  ".join(f"{key[5:]} {value:.3f}" for key, value in losses.items())
        self.bar.set_postfix_str(f"{speed['images_per_second']:.2f} images/s  {values}")
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure images per second from now on, not what was done beside training."""
        self._since = time.monotonic()
        self._waited = 0.0

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one line to `metrics.jsonl` and one point to each curve."""
        if not self.fabric.is_global_zero:
            return
        append_text(self.path, json.dumps({"step": step, **values}) + "\n")
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def validation(
        self, step: int, minutes: float, scores: dict[str, float], pictures: Sequence[np.ndarray]
    ) -> None:
        """Write the scores of a validation, and its pictures as one PNG and to TensorBoard."""
        values = {f"val/{key}": value for key, value in scores.items()}
        self.write(step, values | {"minutes": minutes})
        if self.fabric.is_global_zero:
            text = "  ".join(f"{key} {value:.4f}" for key, value in scores.items())
            self.bar.write(f"step {step}: {text}")
            picture = np.vstack(pictures)
            write_png(self.folder / "validation" / f"step{step:07d}.png", picture)
            self.writer.add_image("input, result, truth", picture, step, dataformats="HWC")


def _step_of(line: str) -> float:
    """The step of a line of `metrics.jsonl`; infinite for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
