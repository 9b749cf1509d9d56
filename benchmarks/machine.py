"""The command, the machine and the versions that a table was measured with."""

import platform
import shlex
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import skimage
import torch
from tqdm import trange

from src.utils.processes import cores

RUNS = 5  # of each timing; the median counts


def describe_machine() -> str:
    """Two lines: the command; processor, cores and versions."""
    versions = {"torch": torch, "numpy": np, "OpenCV": cv2, "scikit-image": skimage}
    names = ", ".join(f"{name} {module.__version__}" for name, module in versions.items())
    processor = platform.machine()
    where = f"{processor}, {cores()} cores; Python {platform.python_version()}, {names}"
    return f"python -m benchmarks {shlex.join(sys.argv[1:])}\n{where}"


def median_seconds(work: dict[str, Callable[[], object]], runs: int = RUNS) -> dict[str, float]:
    """Median wall-clock seconds of each call; all are called in turns, so that they see the same
    machine.

    A first round, in which code is compiled and files enter the cache, does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in trange(runs + 1, desc="timing", dynamic_ncols=True):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds[1:])) for name, seconds in times.items()}
