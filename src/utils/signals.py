"""Ctrl-C and pre-emption: a run is asked to save and leave, not cut off."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, the first Ctrl-C or SIGTERM only sets `number`; a second Ctrl-C stops at once."""

    def __init__(self):
        self.number = 0  # of the signal that came, 0 before

    def __enter__(self) -> "StopSignals":
        self._earlier = {n: signal.signal(n, self._note) for n in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def block_signals(*numbers: int) -> Iterator[None]:
    """Signals wait for the end of this block; processes begun in it never get them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # begun with the first process otherwise, it lets the signals through
    resource_tracker.ensure_running()
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
