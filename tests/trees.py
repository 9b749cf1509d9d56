"""Folders compared as a whole, and real processes that are interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from src.utils.files import file_hash


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too, by its path in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): file_hash(path) for path in files}


def finished(folder: Path) -> dict[Path, int]:
    """The time (ns) of each file below a folder that has its final name; each is read whole."""
    times = {}
    for path in folder.rglob("*"):
        if path.name.startswith(".") or path.suffix == ".npy" or not path.is_file():
            continue
        times[path] = path.stat().st_mtime_ns
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".csv":
            assert len(pd.read_csv(path)) and path.read_text().endswith("\n")
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    return times


def begin(command: Sequence[object], log: Path) -> subprocess.Popen:
    """A script of this repository in a process group of its own; stderr goes to `log`."""
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
            # ignored where the tests run in the background, and then by their children as well
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120
) -> None:
    """Wait until something holds while a process runs; fails when the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def interrupt(process: subprocess.Popen, number: int) -> int:
    """Send a signal as it comes in life: Ctrl-C to the whole group, others to the process alone.

    Returns the exit status, once no process of the group is left.
    """
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    status = process.wait(30)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return status
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("processes outlived the one that began them")
