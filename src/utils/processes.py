"""Work spread over the cores, with a progress bar, and work started before it is needed."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache

import cv2
import joblib
import numpy as np
from tqdm import tqdm

from src.utils.errors import LARGE_IMAGE, InputError
from src.utils.signals import StopSignals, block_signals

MAX_CHUNK = (
    4  # items sent to a process at once; after Ctrl-C those that were sent are still worked off
)


def cores() -> int:
    """CPU cores that this process may use, a container's quota included."""
    return joblib.cpu_count()


def one_thread(*_: int) -> None:
    """Let OpenCV use one thread in this process; for processes that share the cores."""
    cv2.setNumThreads(1)


def on_threads(function: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
    """`function` of consecutive parts of `items`, each on a thread of its own; the results, joined.

    For functions that release the interpreter's lock. Uses as many threads as OpenCV does, see
    `one_thread`.
    """
    threads = min(cv2.getNumThreads(), len(items))
    if threads <= 1:
        return function(items)
    return np.concatenate(list(_threads(threads).map(function, np.array_split(items, threads))))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "fill")


def parallel_map(function: Callable, items: Sequence, label: str) -> Iterator:
    """Results of `function` over `items` in their order, computed by one process a core.

    The processes end with this one, even if it is killed; joblib's would outlive it (tried with
    1.6.0), which is why this is not `joblib.Parallel`. `function` comes from a module, not from the
    script that runs, see `main_unseen`. `label` names the progress bar on stderr.

    Raises what `function` raises, and `InputError` when a process was ended from outside.
    """
    chunk = max(1, min(MAX_CHUNK, len(items) // (8 * cores())))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(cores(), mp_context=context, initializer=_begin_worker)
    try:
        with (
            _postponed(),
            block_signals(signal.SIGINT),
            main_unseen(),
        ):  # Ctrl-C reaches all processes, and this one alone answers
            results = pool.map(function, items, chunksize=chunk)
        yield from tqdm(
            results, label, len(items), unit="image", dynamic_ncols=True, disable=not len(items)
        )
    except BrokenProcessPool:
        found = "a worker process was killed, perhaps because memory ran out"
        raise InputError(f"{label}: {found}; free memory and run the same command again") from None
    finally:
        with _postponed():
            pool.shutdown(cancel_futures=True)


@contextmanager
def main_unseen() -> Iterator[None]:
    """Processes that are spawned in this block do not import the script that runs.

    They would run a script without a main guard again, and would not find one that came through a
    pipe. What they are sent comes from modules, not from the script.
    """
    main = sys.modules["__main__"]
    seen = {name: vars(main).pop(name) for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(seen)


@contextmanager
def _postponed() -> Iterator[None]:
    """Ctrl-C and SIGTERM count after this block, or processes just starting or ending would stay."""
    with StopSignals() as stop:
        yield
    if stop.number:
        signal.raise_signal(stop.number)


def _begin_worker() -> None:
    one_thread()
    warnings.filterwarnings("ignore", LARGE_IMAGE)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker of a killed process would wait for work for ever, and meanwhile write what it had
    # begun.
    multiprocessing.parent_process().join()
    os._exit(1)


def prefetch(pool: Executor, function: Callable, items: Iterable, ahead: int) -> Iterator[Future]:
    """Futures of `function` over `items` in order; at most `ahead` of them run beyond the one
    yielded."""
    started: deque[Future] = deque()
    for item in items:
        started.append(pool.submit(function, item))
        if len(started) > ahead:
            yield started.popleft()
    yield from started
