"""One process or many, on one machine or several, with Lightning Fabric.

Every process takes the same steps with the same random numbers on its share of each batch, and
gradients are averaged. So a run may be resumed with another number of processes.
"""

import atexit
import logging
import os
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import Tensor

from src.utils.errors import SettingError
from src.utils.processes import cores

T = TypeVar("T")

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def pick_device(name: str) -> torch.device:
    """The torch device of this name; "auto" prefers CUDA, then MPS, then the CPU."""
    if name == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else mps
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError("device", name, f"{reason}; choose auto or cpu") from None
    return device


def launch(device: str = "auto", devices: int | None = None, precision: str = "fp32") -> Fabric:
    """Start the other processes, which run this script from its beginning, and connect to them.

    Under torchrun the processes are already there, and `devices`, their number on this machine, is
    ignored; it is 1 by default. `precision` is "fp32", "bf16", or "auto": bf16 on a GPU that
    supports it.
    """
    devices, nodes = 1 if devices is None else devices, 1
    chosen = pick_device(device)
    torchrun = torch.distributed.is_torchelastic_launched()
    if torchrun:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(chosen.type, devices)
    if chosen.index is not None:
        available = 1
    if not 1 <= devices <= available:
        reason = f"there are {available} of {chosen}; choose fewer, and a device without a number"
        raise SettingError("devices", devices, reason)
    if precision == "auto":
        half = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if half else "fp32"
    fabric = Fabric(
        accelerator=chosen.type,
        devices=devices if chosen.index is None else [chosen.index],
        num_nodes=nodes,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        plugins=[] if torchrun else [LightningEnvironment()],
    )
    fabric.launch()
    if torch.distributed.is_initialized():
        # gloo's threads abort the process if it exits while they run
        atexit.register(torch.distributed.destroy_process_group)
    torch.set_num_threads(max(1, cores() // devices))
    return fabric


def average(fabric: Fabric, tensors: Sequence[Tensor]) -> None:
    """Replace float tensors by their mean over all processes, in one message."""
    if fabric.world_size == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    parts = fabric.all_reduce(flat, reduce_op="mean").split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def all_reduce_max(fabric: Fabric, *values: float) -> list[float]:
    """Element-wise maximum over all processes."""
    if fabric.world_size == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    return fabric.all_reduce(tensor, reduce_op="max").tolist()


def share(fabric: Fabric, items: Sequence[T]) -> Sequence[T]:
    """This process' share of a list: every n-th item of it."""
    return items[fabric.global_rank :: fabric.world_size]


def gather(fabric: Fabric, shared: Sequence[T]) -> list[T]:
    """The results of all processes for their `share`, in the order of the whole list."""
    if fabric.world_size == 1:
        return list(shared)
    lists = [None] * fabric.world_size
    torch.distributed.all_gather_object(lists, list(shared))
    missing = object()
    return [item for item in chain(*zip_longest(*lists, fillvalue=missing)) if item is not missing]
