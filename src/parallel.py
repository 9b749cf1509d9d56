"""One way to spread work over the cores, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def parallel_map(function: Callable, items: Sequence, label: str) -> Iterator:
    """Results of `function` over `items` in their order, computed by one process a core.

    An exception of a worker is raised here. `label` names the progress bar on stderr.
    """
    chunk = max(1, min(32, len(items) // (8 * cores())))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=context, initializer=_one_thread) as pool:
        results = pool.map(function, items, chunksize=chunk)
        yield from tqdm(results, total=len(items), desc=label, unit="image", dynamic_ncols=True)
