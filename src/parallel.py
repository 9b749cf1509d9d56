"""One way to spread work over the cores, with a progress bar."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor

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


def begun_ahead(pool: Executor, function: Callable, items: Iterable, ahead: int) -> Iterator[Future]:
    """Futures of `function` over `items` in their order; at most `ahead` run besides the next."""
    begun: deque[Future] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > ahead:
            yield begun.popleft()
    yield from begun
