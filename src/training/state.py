"""A training run: where it may start, its budget, its state, and one step."""

import math
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from timm.utils import ModelEmaV3
from torch import Tensor

from src.datasets.folds import Pairs, decode_keys, image_keys
from src.models.base import Batch, TrainableModel
from src.models.checkpoints import load_state, load_weights, save_model, save_state
from src.runs import SHIPPED
from src.utils.distributed import average
from src.utils.errors import InputError

WARMUP = 0.03  # share of the run in which the learning rate rises
WARMUP_START = 0.05  # relative to the peak
MAX_SEEN = 0.01  # share of validation images whose name and size may match by chance


def load_initial(
    model: TrainableModel, path: Path, facts: dict, val_pairs: Pairs, keys: np.ndarray
) -> np.ndarray:
    """Load a checkpoint's networks; refuse those that may have seen the validation images. Returns
    `keys`, and the `image_keys` of all that they were trained on."""
    loaded = load_weights(model, path)
    missing = set(model.options.networks) - set(model.options.trained) - loaded.keys()
    if missing:
        raise InputError(f"{path}: has no {missing.pop()}, and --parts does not train it either")
    val_keys = image_keys([truth for _, truth in val_pairs])
    for network, earlier in loaded.items():
        trained_on = decode_keys(earlier.get("trained_on", ""))
        keys = np.union1d(keys, trained_on)
        seen = np.isin(val_keys, trained_on).mean()
        if "trained_on" not in earlier:  # of version 2.0
            same = "fold" if path.resolve().is_relative_to(SHIPPED) else "held_out"
            seen = earlier.get(same) != facts[same]
        if seen > MAX_SEEN:
            found = f"may have seen the images that fold {facts['fold']} is validated on"
            remedy = "start from a checkpoint of the same fold, or without --init"
            raise InputError(f"{path}: its {network} {found}; {remedy}")
    return keys


@dataclass
class Budget:
    """The limit of a run: optimizer steps, wall-clock seconds, or whichever is reached first."""

    steps: int | None
    seconds: float | None
    validate_steps: int = 1  # steps between validations
    earlier: float = 0.0  # seconds that earlier sessions of the run took
    reserve: float = 0.0  # seconds kept for the last validation

    def __post_init__(self) -> None:
        self._start = monotonic() - self.earlier

    def elapsed(self) -> float:
        """Seconds since the run began, over all its sessions, by this process' clock."""
        return monotonic() - self._start

    def progress(self, step: int, elapsed: float) -> float:
        """Completed share of the run, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed / max(1e-9, self.seconds - self.reserve) if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def validation_due(self, step: int, progress: float) -> bool:
        """Whether to validate now: every `validate_steps`, and at the end."""
        return progress >= 1 or step % self.validate_steps == 0


def learning_rate(peak: float, progress: float) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov, Hutter 2017), by the share of the run."""
    warmup = min(1.0, WARMUP_START + (1 - WARMUP_START) * progress / WARMUP)
    return peak * warmup * 0.5 * (1 + math.cos(math.pi * progress))


class TrainingState:
    """A model in training with its averaged weights, optimizers and progress."""

    SAVED = ("seed", "facts", "step", "validated", "best", "elapsed")

    def __init__(self, model: TrainableModel, seed: int = 0, facts: dict | None = None):
        # channels last: convolutions take half the time on a CPU
        self.model = model.to(memory_format=torch.channels_last)
        self.ema = ModelEmaV3(model, decay=model.options.ema_decay, use_warmup=True)
        self.optimizers = model.optimizers()
        self.seed = seed
        self.facts = facts or {}  # metadata of checkpoints: fold, held_out, trained_on
        self.step = 0  # optimizer steps done
        self.validated = 0  # step of the last validation
        self.best = -math.inf  # best validation score
        self.elapsed = 0.0  # wall-clock seconds of the run at the last save

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs; a step seeds its own random numbers."""
        state = {name: getattr(self, name) for name in self.SAVED}
        state["model"] = self.model.state_dict()
        state["ema"] = self.ema.module.state_dict()
        state["optimizers"] = {name: opt.state_dict() for name, opt in self.optimizers.items()}
        save_state(path, state)

    def load(self, path: Path) -> None:
        """Resume from what `save` wrote."""
        state = load_state(path)
        self.model.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name in self.SAVED:
            setattr(self, name, state[name])

    def keep_if_best(self, folder: Path, name: str, scores: dict[str, float], write: bool) -> None:
        """Write the averaged weights of the model `name` unless earlier ones scored better."""
        self.validated = self.step
        if scores["score"] > self.best:
            self.best = scores["score"]
            if write:
                facts = self.facts | {"step": self.step, "score": scores}
                save_model(folder, self.ema.module, name, facts)


def training_step(
    state: TrainingState, batch: Batch, lr: float, fabric: Fabric
) -> dict[str, Tensor]:
    """One optimizer step of each network at a learning rate; returns the unweighted loss terms.

    `batch` is this process' share. Gradients and batch-normalization statistics are averaged over
    the processes, so that all keep the same weights.
    """
    # a resumed run, and every process of a run, draws the same random numbers in `losses`
    seed = np.random.SeedSequence([state.seed, state.step]).generate_state(1)[0]
    seed_everything(int(seed), verbose=False)
    batch = {key: value.to(fabric.device, non_blocking=True) for key, value in batch.items()}
    losses = state.model.losses(batch)
    found = {}
    while True:
        with fabric.autocast():  # the forward pass only
            name, terms = next(losses, (None, {}))
        if name is None:
            break
        optimizer = state.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        weighted_sum(terms, state.model.options.term_weights).backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        average(fabric, [p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(parameters, state.model.options.clip_norm)
        optimizer.step()
        found |= terms
    average(fabric, [buffer for buffer in state.model.buffers() if buffer.is_floating_point()])
    state.step += 1
    state.ema.update(state.model, step=state.step)
    return found


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The loss that is minimized."""
    for term in terms.keys() - weights.keys():
        where = "add it to loss_terms of the model's options (src/models/options.py)"
        raise InputError(f"loss term {term} has no weight; {where}")
    return sum(weights[term] * value for term, value in terms.items())
