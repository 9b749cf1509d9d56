"""How far a run is, what it may still spend, and the learning rate that follows from it."""

import math
import time
from collections.abc import Callable, Sequence

WARMUP = 0.03  # share of the run in which the learning rate rises


class Budget:
    """How much of a run is done, by steps, by wall-clock, or by whichever ends first.

    Args:
        steps: optimizer steps of the whole run, or None.
        seconds: wall-clock of the whole run, validation included, or None.
        spent: seconds that earlier sessions of the run took.
        validate_at: minutes of the run at which to validate.
        validate_steps: steps between validations where `validate_at` is empty.
        clock: seconds that only grow, whatever their zero.
    """

    def __init__(
        self,
        steps: int | None,
        seconds: float | None,
        spent: float,
        validate_at: Sequence[float] = (),
        validate_steps: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.steps, self.seconds = steps, seconds
        self.reserve = 0.0  # seconds kept for the last validation
        self._by_time, self._validate_steps = bool(validate_at), validate_steps
        self._marks = sorted(60 * minutes for minutes in validate_at if 60 * minutes > spent)
        self._clock = clock
        self._start = clock() - spent

    def spent(self) -> float:
        """Seconds since the run began, over all its sessions, by this process' clock."""
        return self._clock() - self._start

    def validation_due(self, step: int, spent: float) -> bool:
        """Whether to validate after `step` steps and `spent` seconds.

        With `validate_at`: whether one of these minutes lies between the last call's `spent` and
        this one's.
        """
        if not self._by_time:
            return step % self._validate_steps == 0
        waiting = [mark for mark in self._marks if mark > spent]
        passed, self._marks = len(waiting) < len(self._marks), waiting
        return passed

    def done(self, step: int, spent: float) -> float:
        """Share of the run that is done after `step` steps and `spent` seconds, 0 to 1; it ends at
        1."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(step / self.steps)
        if self.seconds is not None:
            shares.append(spent / max(1e-9, self.seconds - self.reserve))
        return min(1.0, max(shares))


def learning_rate(peak: float, done: float) -> float:
    """Linear warm-up, then a cosine to zero, over the share `done` of the run (Loshchilov, Hutter
    2017)."""
    return peak * min(1.0, done / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
