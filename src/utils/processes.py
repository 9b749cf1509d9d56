"""Worker processes, threads and signals: a signal makes a run save and exit."""

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
from multiprocessing import resource_tracker
from types import FrameType

import cv2
import joblib
import numpy as np
from tqdm import tqdm

from src.utils.errors import LARGE_IMAGE, InputError

DELAY = 5  # seconds before `progress` shows anything
MAX_CHUNK = 4  # items sent to a process at once; after Ctrl-C those already sent are finished


class StopSignals:
    """While entered, Ctrl-C or SIGTERM only sets `number`; a second Ctrl-C interrupts at once."""

    def __init__(self):
        self.number = 0  # the signal's, 0 before any

    def __enter__(self) -> "StopSignals":
        both = (signal.SIGINT, signal.SIGTERM)
        self._earlier = {number: signal.signal(number, self._note) for number in both}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def workers_ignore(*numbers: int) -> Iterator[None]:
    """Shield processes started in this block from these signals, which a run's whole group gets."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # if it started with the first worker, it would unblock them
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def cores() -> int:
    """CPU cores that this process may use, a container's quota included."""
    return joblib.cpu_count()


def limit_threads(*_: int) -> None:
    """Let OpenCV use one thread in this process; for processes that share the cores."""
    cv2.setNumThreads(1)


def on_threads(function: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
    """`function` of parts of `items` on as many threads as OpenCV uses, concatenated."""
    threads = min(cv2.getNumThreads(), len(items))
    if threads <= 1:
        return function(items)
    return np.concatenate(list(_threads(threads).map(function, np.array_split(items, threads))))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "fill")


def _after_fork() -> None:
    # the threads of the parent are not in a fork, which would wait for them forever
    _threads.cache_clear()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def progress(parts: Sequence, label: str) -> Iterable:
    """The parts of one photo, with a bar if they take long; one of several processes shows it."""
    shown = os.environ.get("LOCAL_RANK", "0") == "0"
    look = {"leave": False, "delay": DELAY, "dynamic_ncols": True, "disable": not shown}
    return tqdm(parts, label, unit="part", **look)


def parallel_map(function: Callable, items: Sequence, label: str) -> Iterator:
    """Results of `function` over `items` in order, computed by one process per core.

    The processes end with this one, even if it is killed; joblib's would outlive it. Scripts need
    an `if __name__ == "__main__"` guard. `InputError` if a process was killed.
    """
    chunk = max(1, min(MAX_CHUNK, len(items) // (8 * cores())))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(cores(), mp_context=context, initializer=_begin_worker)
    try:
        with workers_ignore(signal.SIGINT):
            results = pool.map(function, items, chunksize=chunk)
        yield from tqdm(
            results, label, len(items), unit="image", dynamic_ncols=True, disable=not len(items)
        )
    except BrokenProcessPool:
        found = "a worker process was killed, perhaps because memory ran out"
        raise InputError(f"{label}: {found}; free memory and run the same command again") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    limit_threads()
    warnings.filterwarnings("ignore", LARGE_IMAGE)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # otherwise the worker of a killed process would wait for work forever
    multiprocessing.parent_process().join()
    os._exit(1)


def prefetch(pool: Executor, function: Callable, items: Iterable, ahead: int) -> Iterator[Future]:
    """Futures of `function` over `items` in order; up to `ahead` run beyond the one yielded."""
    started: deque[Future] = deque()
    for item in items:
        started.append(pool.submit(function, item))
        if len(started) > ahead:
            yield started.popleft()
    yield from started
