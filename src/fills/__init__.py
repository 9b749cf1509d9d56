"""Ways to fill a hole, from milliseconds to tenths of a second; some are compiled by numba."""

import multiprocessing
import os
import sys

from numba.core import event
from tqdm import tqdm


class _Notice(event.Listener):
    """Says once why the first photo takes longer: nothing was compiled on this machine before."""

    shown = multiprocessing.parent_process() is not None or os.environ.get("LOCAL_RANK", "0") != "0"

    def on_start(self, _: event.Event) -> None:
        if not self.shown:
            tqdm.write("compiling the fills, once on this machine: up to a minute", sys.stderr)
        self.shown = True

    def on_end(self, _: event.Event) -> None:
        pass


event.register("numba:compile", _Notice())
