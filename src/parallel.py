"""One way to spread work over the cores, with a progress bar."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import cv2
import joblib
from tqdm import tqdm


def cores() -> int:
    """CPU cores that this process may use, a container's quota included."""
    return joblib.cpu_count()


def one_thread(*_: int) -> None:
    """Let OpenCV use one thread in this process; for processes that share the cores."""
    cv2.setNumThreads(1)


def parallel_map(function: Callable, items: Sequence, label: str) -> Iterator:
    """Results of `function` over `items` in their order, computed by one process a core.

    An exception of a worker is raised here. `label` names the progress bar on stderr.
    """
    chunk = max(1, min(32, len(items) // (8 * cores())))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=context, initializer=one_thread) as pool:
        results = pool.map(function, items, chunksize=chunk)
        yield from tqdm(results, total=len(items), desc=label, unit="image", dynamic_ncols=True)
