"""The parts of a training run: state, budget and schedule, validation, records."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from src.batch_metrics import score_images
from src.checkpoints import LAST, load_state, save_state
from src.damage import detect, lost_pixels
from src.datasets.competition import read_input, read_truth
from src.distributed import agree, average, gather, share
from src.files import InputError, append_text, read_json, read_text, write_json, write_png, write_text
from src.inference import restore
from src.metrics import Score, mean_score
from src.models import RestorationModel
from src.models.base import Batch
from src.stopping import StopSignals

WARMUP = 0.03  # share of the run in which the learning rate rises
LOG_EVERY = 20  # steps between lines of metrics.jsonl
PICTURES = 4  # validation images that are shown
SCORED = 16  # validation images that are scored at once


def begin_run(folder: Path, config: dict, changeable: set[str]) -> None:
    """Write `config.json` into the folder of a run, or check that it resumes the run that lies there.

    Raises `InputError` when the folder holds a run with other settings than the `changeable` ones.
    """
    path = folder / "config.json"
    if (folder / LAST).exists():
        remedy = f"delete {folder} to begin anew"
        try:
            earlier = read_json(path, remedy)
        except FileNotFoundError:
            raise InputError(f"{path}: missing; {remedy}") from None
        differing = [k for k in config if k not in changeable and config[k] != earlier.get(k)]
        if differing:
            found = ", ".join(f"{k} was {earlier.get(k)!r:.80} and is {config[k]!r}" for k in differing)
            raise InputError(f"{path}: other settings ({found}); take another --name or delete {folder}")
    write_json(path, config)


class TrainingState:
    """A model in training with its averaged weights, optimizers and place in the run."""

    def __init__(self, model: RestorationModel, lr: float, weight_decay: float, ema_decay: float):
        self.model = model.to(memory_format=torch.channels_last)  # convolutions take half the time on a CPU
        self.ema = ModelEmaV3(model, decay=ema_decay, use_warmup=True)
        self.optimizers = model.optimizers(lr, weight_decay)
        self.step = 0  # optimizer steps done
        self.validated = 0  # step of the last validation
        self.best = -math.inf  # best validation score
        self.spent = 0.0  # wall-clock seconds of the run at the last save

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        numbers = {key: getattr(self, key) for key in ("step", "validated", "best", "spent")}
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        weights = {"model": self.model.state_dict(), "ema": self.ema.module.state_dict()}
        save_state(path, numbers | weights | {"optimizers": optimizers, "rng": torch.get_rng_state()})

    def load(self, path: Path) -> None:
        """Take up what `save` wrote; raises `InputError` when the file is broken or of another model."""
        state = load_state(path)
        try:
            self._check_optimizers(state["optimizers"])
            self.model.load_state_dict(state["model"])
            self.ema.module.load_state_dict(state["ema"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            torch.set_rng_state(state["rng"])
            for key in ("step", "validated", "best", "spent"):
                setattr(self, key, state[key])
        except (KeyError, IndexError, AttributeError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: of another model ({reason}); delete it to begin anew") from None

    def _check_optimizers(self, states: dict) -> None:
        """Raise `ValueError` for moments of other shapes than the weights', which torch does not notice."""
        for name, optimizer in self.optimizers.items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for index, moments in states[name]["state"].items():
                for key, value in moments.items():
                    if value.shape not in (parameters[index].shape, torch.Size()):
                        raise ValueError(f"{key} {index} of {name} is {tuple(value.shape)}")


class Budget:
    """How much of a run is done, by steps, by wall-clock, or by whichever ends first.

    Args:
        steps: optimizer steps of the whole run, or None.
        seconds: wall-clock of the whole run, validation included, or None.
        spent: seconds that earlier sessions of the run took.
        validate_at: minutes of the run that `mark_passed` tells of.
    """

    def __init__(
        self, steps: int | None, seconds: float | None, spent: float, validate_at: Sequence[float] = ()
    ):
        self.steps, self.seconds = steps, seconds
        self.reserve = 0.0  # seconds kept for the last validation
        self._marks = sorted(60 * minutes for minutes in validate_at if 60 * minutes > spent)
        self._start = time.monotonic() - spent

    def spent(self) -> float:
        """Seconds since the run began, over all its sessions, by this process' clock."""
        return time.monotonic() - self._start

    def reserve_validation(
        self, model: RestorationModel, pairs: Sequence[tuple[Path, Path]], fabric: Fabric
    ) -> None:
        """Keep the time that a validation of `pairs` takes, judged by two images a process.

        Raises `InputError` when nothing would be left for training.
        """
        few = pairs[: 2 * fabric.world_size]
        validate(model, few[: fabric.world_size], fabric)
        start = time.monotonic()
        validate(model, few, fabric)
        (self.reserve,) = agree(fabric, (time.monotonic() - start) / len(few) * len(pairs))
        if self.reserve >= self.seconds:
            found = f"validation alone takes {self.reserve / 60:.2g}"
            raise InputError(
                f"--max-minutes {self.seconds / 60:g}: {found}; raise it or lower --val-images"
            )

    def mark_passed(self, spent: float) -> bool:
        """Whether a minute of `validate_at` lies between the last call's `spent` seconds and this one's."""
        waiting = [mark for mark in self._marks if mark > spent]
        passed, self._marks = len(waiting) < len(self._marks), waiting
        return passed

    def done(self, step: int, spent: float) -> float:
        """Share of the run that is done after `step` steps and `spent` seconds, 0 to 1; it ends at 1."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(step / self.steps)
        if self.seconds is not None:
            shares.append(spent / max(1e-9, self.seconds - self.reserve))
        return min(1.0, max(shares))


def learning_rate(peak: float, done: float) -> float:
    """Linear warm-up, then a cosine to zero, over the share `done` of the run (Loshchilov, Hutter 2017)."""
    return peak * min(1.0, done / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))


def validate(
    model: RestorationModel,
    pairs: Sequence[tuple[Path, Path]],
    fabric: Fabric,
    stop: StopSignals | None = None,
) -> tuple[Score, list[np.ndarray]] | None:
    """The competition's score over (input, truth) files, and pictures of the first four; None when stopped.

    The damage is the one that lies in the input files, so it is the same in every run; the view is the
    plain one, as in `infer.py --tta 1`.
    A picture is (512, 1536, 3) uint8: input, result and truth side by side. The processes share the files;
    each returns the whole.
    """
    scores, pictures, waiting = [], [], []
    shared = share(fabric, list(enumerate(pairs)))
    for index, (source, target) in tqdm(
        shared,
        "validating",
        unit="image",
        leave=False,
        dynamic_ncols=True,
        disable=not fabric.is_global_zero,
    ):
        gray, true = read_input(source), read_truth(target)
        pred = restore([model], gray, detect(gray))
        waiting.append((true, pred, lost_pixels(gray, true)))
        if len(waiting) == SCORED:
            scores += score_images(waiting, fabric.device)
            waiting.clear()
        if index < PICTURES:
            pictures.append(np.hstack([np.repeat(gray[..., None], 3, axis=2), pred, true]))
        if stop and stop.number:
            break
    if waiting:
        scores += score_images(waiting, fabric.device)
    scores, pictures = gather(fabric, scores), gather(fabric, pictures)
    return (mean_score(scores), pictures) if len(scores) == len(pairs) else None


def forward_passes(
    model: RestorationModel, batch: Batch, fabric: Fabric
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """`model.losses(batch)` with the forward passes autocast; backward, in between, is not."""
    losses = model.losses(batch)
    while True:
        with fabric.autocast():
            found = next(losses, None)
        if found is None:
            return
        yield found


def training_step(
    state: TrainingState,
    batch: Batch,
    loss_weights: dict[str, float],
    clip_norm: float,
    lr: float,
    fabric: Fabric,
) -> dict[str, Tensor]:
    """One optimizer step of each network; returns the unweighted loss terms.

    `batch` holds uint8 tensors, of each process its own share. Gradients are averaged over the processes,
    and what batch normalization remembers as well, so that all keep the same weights.
    """
    batch = {key: value.to(fabric.device, non_blocking=True).float() / 255 for key, value in batch.items()}
    found = {}
    for name, terms in forward_passes(state.model, batch, fabric):
        optimizer = state.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimizer.zero_grad()
        sum(loss_weights[key] * term for key, term in terms.items()).backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        average(fabric, [p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        found |= terms
    average(fabric, [buffer for buffer in state.model.buffers() if buffer.is_floating_point()])
    state.step += 1
    state.ema.update(state.model, step=state.step)
    return found


def progress_bar(label: str, done: float, shown: bool) -> tqdm:
    """A bar in per cent of the run, with the time left."""
    style = "{desc}: {percentage:5.1f}%|{bar}| {elapsed} < {remaining}{postfix}"
    return tqdm(
        desc=label, total=100.0, initial=100 * done, bar_format=style, dynamic_ncols=True, disable=not shown
    )


class Records:
    """`metrics.jsonl`, TensorBoard curves and validation pictures of a fold, by the first process.

    Lines beyond `step` are dropped: an interrupted session wrote them after its last checkpoint.
    """

    def __init__(self, folder: Path, step: int, fabric: Fabric):
        self.folder, self.fabric = folder, fabric
        self.path = folder / "metrics.jsonl"
        if fabric.is_global_zero:
            lines = read_text(self.path, f"delete {folder}").splitlines() if self.path.exists() else []
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))
            self.writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        self._sums: dict[str, Tensor] = {}
        self._flushed, self._since = step, time.monotonic()
        self._waited = 0.0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; how long training waits for them becomes `data_wait`, a share of its time."""
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
        """Write mean losses since the last call, with lr and images a second; returns them as a short text.

        Raises `InputError` when a loss is not finite.
        """
        steps, now = step - self._flushed, time.monotonic()
        if self._sums:
            average(self.fabric, list(self._sums.values()))
        losses = {f"loss/{key}": float(value) / steps for key, value in self._sums.items()}
        bad = [key for key, value in losses.items() if not math.isfinite(value)]
        if bad:
            remedy = f"lower --lr and take another --name, or delete {self.folder}"
            raise InputError(f"{self.path}: {', '.join(bad)} is not finite at step {step}; {remedy}")
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

    def show(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        """Write validation pictures as one PNG of the step, and to TensorBoard."""
        if not self.fabric.is_global_zero:
            return
        picture = np.vstack(pictures)
        write_png(self.folder / "validation" / f"step{step:07d}.png", picture)
        self.writer.add_image("input, result, truth", picture, step, dataformats="HWC")

    def pause(self, seconds: float) -> None:
        """Leave seconds that were not spent on training out of the images a second."""
        self._since += seconds


def _step_of(line: str) -> float:
    """The step of a line of `metrics.jsonl`; infinite for a line that a full disk or a kill cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
