"""Command lines become typed settings; errors become an exit status and one line."""

import dataclasses
import errno
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import tyro

from src.utils.errors import LARGE_IMAGE, InputError, SettingError, Stopped

T = TypeVar("T")

Style = Literal["score", "visual"]
Tta = Literal[1, 2]
DamageKind = Literal["auto", "hole", "none"]

# The commands that fix a kind of problem, which library code cannot know.
HINTS = {
    "data folder": "name the competition folder with --data-dir, or make one: "
    "python prepare_data.py build --sample --data-dir data",
    "checkpoint": "train it first (python train.py), or name another run or folder",
    "earlier run": "or choose another --name",
    "folds": "or choose another number with --folds",
    "pack": "or make it again: python prepare_data.py pack",
    "restored": "restore the images first: python infer.py --ensemble",
    "detector": "fetch weights/ again, or train one: python train.py detector, "
    "python -m tools.ship_weights",
    "learning rate": "lower --lr",
    "time budget": "raise --max-minutes or lower --val-images",
    "output": "choose another output folder",
    "ray": "pip install -r requirements/ray.txt",
}

# OSErrors that the user can fix; others are bugs or broken machines.
REMEDIES = {
    "free some space": {errno.ENOSPC, errno.EDQUOT, errno.EFBIG},
    "check its permissions": {errno.EACCES, errno.EPERM, errno.EROFS},
    "check the path": {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG},
}


@dataclass(frozen=True)
class RunFolder:
    """Where a run's results are."""

    name: str | None = None
    """Name of the run's folder in output-dir; by default the model's in train.py, else restorer."""
    output_dir: Path = Path("outputs")
    """The folder that holds all runs."""

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        name = "restorer" if self.name is None else self.name
        if not name or Path(name).name != name or name == "..":
            raise SettingError("name", name, "must be one plain folder name, such as first_try")
        return self.output_dir / name


@dataclass(frozen=True)
class Folders(RunFolder):
    """Where the data is, and where results go."""

    data_dir: Path = Path("data")
    """The competition folder: train.csv, test.csv, train_input/, train_gt/, test_input/."""


@dataclass(frozen=True)
class Compute:
    """The hardware to use."""

    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""
    devices: int | None = None
    """Processes that share the work on this machine, one device each; torchrun overrides it. By
    default one, but infer.py restores many photos with all cores of a CPU."""


def as_json(settings: object) -> dict:
    """A settings dataclass as one flat dict that JSON can hold; groups are merged into it."""
    values = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        values |= as_json(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return json.loads(json.dumps(values, default=str))


def parse_settings(
    settings: type[T],
    description: str | None = None,
    arguments: Sequence[str] | None = None,
    program: str | None = None,
    default: T | None = None,
) -> T:
    """Parse `arguments` (the script's own) to a settings dataclass, one per subcommand.

    Flags that are left out keep their `default`; `program` is the name in `--help`.
    """
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    defaults = {} if default is None else {"default": default}
    return tyro.cli(
        settings, prog=program, description=description, args=arguments, config=config, **defaults
    )


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status.

    An `InputError`, a full disk or a missing permission becomes one line on stderr and status 2;
    Ctrl-C exits with 130, and other signals with 128 plus their number, as shells expect.
    """
    warnings.filterwarnings("ignore", LARGE_IMAGE)
    for stream in (sys.stdout, sys.stderr):  # its encoding may lack a character of a file name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main() or 0
        sys.stdout.flush()
        sys.exit(status)
    except Stopped as stop:
        print(f"\n{stop}; run the same command again to resume", file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt:
        print("\ninterrupted; everything written so far is kept", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError):  # the reader has quit, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed at exit
            sys.exit(141)  # as if SIGPIPE had ended the program
        message = _explanation(error)
        if message is None:
            raise
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _explanation(error: Exception) -> str | None:
    """One line on an error that the user can fix, else None."""
    if isinstance(error, SettingError):
        return f"--{error.setting.replace('_', '-')} {error.value}: {error.reason}"
    if isinstance(error, InputError):
        return f"{error}; {HINTS[error.hint]}" if error.hint else str(error)
    if isinstance(error, OSError) and error.filename:
        for remedy, numbers in REMEDIES.items():
            if error.errno in numbers:
                return f"{error.filename}: {error.strerror}; {remedy}"
    # by name: scripts that need no torch should not wait for its import
    names = {kind.__name__ for kind in type(error).__mro__}
    if "DistError" in names or (isinstance(error, RuntimeError) and "by peer" in str(error)):
        return "another process of this run died; fix the cause and run the same command again"
    if isinstance(error, RuntimeError) and "shared memory" in str(error):
        found = "/dev/shm: too small for the batches of the worker processes"
        return f"{found}; enlarge it (docker run --shm-size 1g), or use --workers 0"
    return None
