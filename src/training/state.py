"""What a training run consists of: where it starts, its budget, its state, and a step of it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from timm.utils import ModelEmaV3
from torch import Tensor

from src.datasets.folds import decode_keys, encode_keys, image_keys
from src.models.base import Batch, TrainableModel
from src.models.checkpoints import (
    LAST,
    load_state,
    network_file,
    read_description,
    save_model,
    save_network,
    save_state,
)
from src.models.options import ModelOptions
from src.runs import SHIPPED
from src.training.settings import MAY_CHANGE
from src.utils.distributed import average
from src.utils.errors import InputError
from src.utils.files import begin, write_json

CONFIG = "config.json"  # the recipe of a fold's training
WARMUP = 0.03  # share of the run in which the learning rate rises
WARMUP_START = 0.05  # of the peak
MAX_SEEN = 0.01  # share of the validation images whose name and size may be known by chance


def begin_run(folder: Path, config: dict, trained: Sequence[str]) -> None:
    """Write `config.json` into a fold's folder, or check that it resumes the run there."""
    path = folder / CONFIG
    remedy = f"delete {folder} to start again"
    resumed = (folder / LAST).exists()
    if resumed and not path.exists():
        raise InputError(f"{path}: missing; {remedy}")
    if not resumed:  # nothing was saved, so other settings lose nothing
        path.unlink(missing_ok=True)
        for file in (network_file(folder, network) for network in trained):
            if file.exists():
                found = f"{file}: would be overwritten, as there is no {LAST} to resume from"
                raise InputError(f"{found}; move it away", "earlier run")
    begin(folder, config, MAY_CHANGE, CONFIG, remedy, "earlier run")


def finish_run(folder: Path, config: dict) -> None:
    """Mark a fold as finished, so that an ensemble may use it; `begin_run` takes the mark away."""
    write_json(folder / CONFIG, config | {"finished": True})


def check_initial(
    path: Path, options: ModelOptions, split_info: dict, val_truths: Sequence[Path]
) -> None:
    """Refuse a checkpoint to start from that has seen the validation images, or lacks a network."""
    descriptions = read_description(path)
    fold, val_keys = split_info["fold"], image_keys(val_truths)
    for network, description in descriptions.items():
        if "trained_on" in description:
            seen = np.isin(val_keys, decode_keys(description["trained_on"])).mean()
            unseen, found = seen <= MAX_SEEN, f"was trained on {seen:.0%} of the images"
        else:
            shipped = path.resolve().is_relative_to(SHIPPED) and description.get("fold") == fold
            unseen = shipped or description.get("held_out") == split_info["held_out"]
            found = "is of another split, and does not say whether it was trained on the images"
        if not unseen:
            remedy = "start from a checkpoint of the same fold, or without --init"
            raise InputError(
                f"{path}: its {network} {found} that fold {fold} is validated on; {remedy}"
            )
    missing = set(options.networks) - set(options.trained) - descriptions.keys()
    if missing:
        raise InputError(f"{path}: has no {missing.pop()}, and --parts does not train it either")


def describe_start(options: ModelOptions, init: Path | None, step: int) -> str:
    """Which weights a training starts from, for people."""
    if step:
        return f"at step {step}, where it was interrupted"
    if init:
        return f"from the weights of {init}"
    encoder, weights = (getattr(options, key, None) for key in ("encoder", "encoder_weights"))
    if weights == "pretrained":
        return f"from random weights, but for the encoder: {encoder}, pretrained on ImageNet"
    return "from random weights" + (f", the encoder ({encoder}) too" if encoder else "")


def keep_untrained(
    folder: Path, model: TrainableModel, name: str, loaded: dict[str, dict], split_info: dict
) -> None:
    """Write the networks that are not trained beside those that will be, as one checkpoint."""
    for network in loaded.keys() - set(model.options.trained):
        earlier = loaded[network]
        kept = {key: earlier[key] for key in ("step", "score", "trained_on") if key in earlier}
        save_network(folder, model, name, network, split_info | kept)


def trained_on(truths: Sequence[Path], starts: Sequence[dict]) -> str:
    """Encoded keys of a training's images, and of those that it starts from weights of."""
    own = image_keys(truths)
    earlier = [decode_keys(facts["trained_on"]) for facts in starts if "trained_on" in facts]
    return encode_keys(np.unique(np.concatenate([own, *earlier])))


@dataclass
class Budget:
    """What a run may take: optimizer steps, wall-clock seconds, or whichever ends first."""

    steps: int | None
    seconds: float | None
    validate_steps: int = 1  # steps between validations
    earlier: float = 0.0  # seconds that earlier sessions of the run took
    reserve: float = 0.0  # seconds kept for the last validation
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._start = self.clock() - self.earlier

    def elapsed(self) -> float:
        """Seconds since the run began, over all its sessions, by this process' clock."""
        return self.clock() - self._start

    def progress(self, step: int, elapsed: float) -> float:
        """Share of the run that is done, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed / max(1e-9, self.seconds - self.reserve) if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def validation_due(self, step: int, progress: float) -> bool:
        """Whether to validate after some steps: every `validate_steps`, and at the end."""
        return progress >= 1 or step % self.validate_steps == 0


def learning_rate(peak: float, progress: float) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov, Hutter 2017), by the share of the run."""
    warmup = min(1.0, WARMUP_START + (1 - WARMUP_START) * progress / WARMUP)
    return peak * warmup * 0.5 * (1 + math.cos(math.pi * progress))


class TrainingState:
    """A model in training with its averaged weights, its optimizers and how far it is.

    `facts` go into the checkpoint of each network: the fold, and what was held out and trained on.
    """

    def __init__(self, model: TrainableModel, seed: int = 0, facts: dict | None = None):
        # channels last: convolutions take half the time on a CPU
        self.model = model.to(memory_format=torch.channels_last)
        self.ema = ModelEmaV3(model, decay=model.options.ema_decay, use_warmup=True)
        self.optimizers = model.optimizers()
        self.seed = seed
        self.facts = facts or {}
        self.step = 0  # optimizer steps done
        self.validated = 0  # step of the last validation
        self.best = -math.inf  # best validation score
        self.elapsed = 0.0  # wall-clock seconds of the run at the last save

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs; a step seeds its own random numbers."""
        names = ("seed", "facts", "step", "validated", "best", "elapsed")
        state = {name: getattr(self, name) for name in names}
        state["model"] = self.model.state_dict()
        state["ema"] = self.ema.module.state_dict()
        state["optimizers"] = {name: opt.state_dict() for name, opt in self.optimizers.items()}
        save_state(path, state)

    def load(self, path: Path) -> None:
        """Take up what `save` wrote."""
        state = load_state(path)
        try:
            self.model.load_state_dict(state.pop("model"))
            self.ema.module.load_state_dict(state.pop("ema"))
            optimizers = state.pop("optimizers")
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(optimizers[name])
            for name in ("seed", "facts", "step", "validated", "best", "elapsed"):
                setattr(self, name, state[name])
        except (KeyError, AttributeError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            found = f"{path}: of another model or version ({reason})"
            raise InputError(f"{found}; delete it to start again") from None

    def keep_if_best(self, folder: Path, name: str, scores: dict[str, float], write: bool) -> None:
        """Write the averaged weights of the model called `name` if none had a better score."""
        if scores["score"] > self.best:
            self.best = scores["score"]
            if write:
                facts = self.facts | {"step": self.step, "score": scores}
                save_model(folder, self.ema.module, name, facts)


def training_step(
    state: TrainingState, batch: Batch, lr: float, fabric: Fabric
) -> dict[str, Tensor]:
    """One optimizer step of each network at a learning rate; returns the unweighted loss terms.

    `batch` is this process' share. Gradients are averaged over the processes, and the statistics
    of batch normalization as well, so that all keep the same weights.
    """
    # What losses draw at random depends on the seed and the step alone: a resumed run, and every
    # process of a run, draws the same.
    seed = np.random.SeedSequence([state.seed, state.step]).generate_state(1)[0]
    seed_everything(int(seed), verbose=False)
    batch = {key: value.to(fabric.device, non_blocking=True) for key, value in batch.items()}
    options = state.model.options
    found = {}
    for name, terms in forward_passes(state.model, batch, fabric):
        optimizer = state.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimizer.zero_grad()
        weighted_sum(terms, options.term_weights).backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        average(fabric, [p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(parameters, options.clip_norm)
        optimizer.step()
        found |= terms
    average(fabric, [buffer for buffer in state.model.buffers() if buffer.is_floating_point()])
    state.step += 1
    state.ema.update(state.model, step=state.step)
    return found


def forward_passes(
    model: TrainableModel, batch: Batch, fabric: Fabric
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """`model.losses(batch)` with the forward passes autocast; backward, in between, is not."""
    losses = model.losses(batch)
    while True:
        with fabric.autocast():
            result = next(losses, None)
        if result is None:
            return
        yield result


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The loss that is minimized."""
    for term in terms:
        if term not in weights:
            where = "add it to loss_terms of the model's options (src/models/options.py)"
            raise InputError(f"loss term {term} has no weight; {where}")
    return sum(weights[term] * value for term, value in terms.items())
