"""What a training run consists of, saved and resumed, and a step of it."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric
from timm.utils import ModelEmaV3
from torch import Tensor

from src.models.base import Batch, TrainableModel
from src.models.checkpoints import LAST, load_state, save_model, save_state
from src.utils.distributed import average
from src.utils.errors import InputError
from src.utils.files import read_json, write_json
from src.utils.recipe import require_same


def begin_run(folder: Path, config: dict, free: set[str]) -> None:
    """Write `config.json` into the folder of a run, or check that it resumes the run that lies
    there.

    Raises `InputError` when the folder holds a run with other settings than those in `free`.
    """
    path, remedy = folder / "config.json", f"delete {folder} to start again"
    if (folder / LAST).exists():
        try:
            earlier = read_json(path, remedy)
        except FileNotFoundError:
            raise InputError(f"{path}: missing; {remedy}") from None
        require_same(path, earlier, config, remedy, free, hint="earlier run")
    write_json(path, config)


class TrainingState:
    """A model in training with its averaged weights, optimizers and place in the run."""

    def __init__(self, model: TrainableModel):
        self.model = model.to(
            memory_format=torch.channels_last
        )  # convolutions take half the time on a CPU
        self.ema = ModelEmaV3(model, decay=model.options.ema_decay, use_warmup=True)
        self.optimizers = model.optimizers()
        self.step = 0  # optimizer steps done
        self.validated = 0  # step of the last validation
        self.best = -math.inf  # best validation score
        self.spent = 0.0  # wall-clock seconds of the run at the last save

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        numbers = {key: getattr(self, key) for key in ("step", "validated", "best", "spent")}
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        weights = {"model": self.model.state_dict(), "ema": self.ema.module.state_dict()}
        save_state(
            path, numbers | weights | {"optimizers": optimizers, "rng": torch.get_rng_state()}
        )

    def keep_if_best(
        self, folder: Path, name: str, facts: dict, scores: dict[str, float], writes: bool
    ) -> None:
        """Write the averaged weights to `folder` if no validation had a better score; one process
        writes.

        `facts` and `scores` stand in the checkpoint, with the name of the model.
        """
        if scores["score"] > self.best:
            self.best = scores["score"]
            if writes:
                facts = facts | {"step": self.step, "score": scores}
                save_model(folder, self.ema.module, name, facts)

    def load(self, path: Path) -> None:
        """Take up what `save` wrote; raises `InputError` when the file is broken or of another
        model."""
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
            raise InputError(
                f"{path}: belongs to another model ({reason}); delete it to start again"
            ) from None

    def _check_optimizers(self, states: dict) -> None:
        """Raise `ValueError` for moments of other shapes than the weights', which torch does not
        notice."""
        for name, optimizer in self.optimizers.items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for index, moments in states[name]["state"].items():
                for key, value in moments.items():
                    if value.shape not in (parameters[index].shape, torch.Size()):
                        raise ValueError(f"{key} {index} of {name} is {tuple(value.shape)}")


def forward_passes(
    model: TrainableModel, batch: Batch, fabric: Fabric
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
    state: TrainingState, batch: Batch, lr: float, fabric: Fabric
) -> dict[str, Tensor]:
    """One optimizer step of each network at a learning rate; returns the unweighted loss terms.

    `batch` holds uint8 tensors, of each process its own share. Gradients are averaged over the
    processes, and what batch normalization remembers as well, so that all keep the same weights.
    """
    batch = {key: value.to(fabric.device, non_blocking=True) for key, value in batch.items()}
    options, found = state.model.options, {}
    for name, terms in forward_passes(state.model, batch, fabric):
        optimizer = state.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimizer.zero_grad()
        sum(options.term_weights[key] * term for key, term in terms.items()).backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        average(fabric, [p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(parameters, options.clip_norm)
        optimizer.step()
        found |= terms
    average(fabric, [buffer for buffer in state.model.buffers() if buffer.is_floating_point()])
    state.step += 1
    state.ema.update(state.model, step=state.step)
    return found
