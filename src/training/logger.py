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


def progress_bar(label: str, done: float, visible: bool) -> tqdm:
    """A bar in per cent of the run, with the time left."""
    style = "{desc}: {percentage:5.1f}%|{bar}| {elapsed} < {remaining}{postfix}"
    return tqdm(
        desc=label,
        total=100.0,
        initial=100 * done,
        bar_format=style,
        dynamic_ncols=True,
        disable=not visible,
    )


class RunLogger:
    """`metrics.jsonl`, TensorBoard curves and validation pictures of a fold, by the first process.

    Lines beyond `step` are dropped: an interrupted session wrote them after its last checkpoint.
    """

    def __init__(self, folder: Path, step: int, fabric: Fabric):
        self.folder, self.fabric = folder, fabric
        self.path = folder / "metrics.jsonl"
        if fabric.is_global_zero:
            lines = (
                read_text(self.path, f"delete {folder}").splitlines() if self.path.exists() else []
            )
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))
            self.writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        self._sums: dict[str, Tensor] = {}
        self._flushed, self._since = step, time.monotonic()
        self._waited = 0.0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; how long training waits for them becomes `data_wait`, a share of its
        time."""
        while True:
            start = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - start
            yield batch

    def add(self, terms: dict[str, Tensor]) -> None:
        """Gather the loss terms of a step; they stay on their device until `flush`."""
        for key, value in terms.items():
            self._sums[key] = self._sums.get(key, 0) + value.detach()

    def flush(self, step: int, lr: float, batch_size: int) -> str:
        """Write mean losses since the last call, with lr and images a second; returns them as a
        short text.

        Raises `InputError` when a loss is not finite.
        """
        steps, now = step - self._flushed, time.monotonic()
        if self._sums:
            average(self.fabric, list(self._sums.values()))
        losses = {f"loss/{key}": float(value) / steps for key, value in self._sums.items()}
        bad = [key for key, value in losses.items() if not math.isfinite(value)]
        if bad:
            found = f"{', '.join(bad)} is not finite at step {step}"
            raise InputError(
                f"{self.path}: {found}; delete {self.folder} and start again", "learning rate"
            )
        speed, wait = steps * batch_size / (now - self._since), self._waited / (now - self._since)
        self._sums, self._flushed, self._since, self._waited = {}, step, now, 0.0
        if steps:
            self.write(step, losses | {"lr": lr, "images_per_second": speed, "data_wait": wait})
        return f"{speed:.2f} images/s  " + "  ".join(f"{k[5:]} {v:.3f}" for k, v in losses.items())

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
        """Write the scores of a validation, and its pictures as one PNG of the step, and to
        TensorBoard."""
        self.write(
            step, {f"val/{key}": value for key, value in scores.items()} | {"minutes": minutes}
        )
        if self.fabric.is_global_zero:
            picture = np.vstack(pictures)
            write_png(self.folder / "validation" / f"step{step:07d}.png", picture)
            self.writer.add_image("input, result, truth", picture, step, dataformats="HWC")

    def pause(self, seconds: float) -> None:
        """Leave seconds that were not spent on training out of the images a second."""
        self._since += seconds


def _step_of(line: str) -> float:
    """The step of a line of `metrics.jsonl`; infinite for a line that a full disk or a kill cut
    off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
