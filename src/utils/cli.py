"""From a command line to typed settings, and from an error to one line and an exit status."""

import argparse
import dataclasses
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, TypeVar

import tyro

from src.utils.errors import LARGE_IMAGE, InputError, SettingError, Stopped

T = TypeVar("T")

Style = Literal["score", "visual"]
Tta = Literal[1, 2, 8]
DamageKind = Literal["auto", "hole", "none"]

CLOSED_PIPE = 141  # exit status, as of a program that SIGPIPE ends

# What library code cannot know: the command that mends a kind of problem.
HINTS = {
    "data folder": "name the competition folder with --data-dir, or make one: "
    "python prepare_data.py build --sample --data-dir data",
    "checkpoint": "train it first (python train.py), or name another run or folder",
    "earlier run": "or choose another --name",
    "folds": "or choose another number with --folds",
    "pack": "or make it again: python prepare_data.py pack",
    "restored": "restore the images first: python infer.py --ensemble",
    "submission": "make it again: python make_submission.py",
    "detector": "fetch weights/ again, or train one: python train.py detector, python -m tools.ship_weights",
    "learning rate": "lower --lr",
    "time budget": "raise --max-minutes or lower --val-images",
    "output": "choose another output folder",
    "ray": "pip install -r requirements/ray.txt",
}


@dataclass(frozen=True)
class RunFolder:
    """Where a run's results are."""

    name: str = "restorer"
    """Name of the run and of its folder in output-dir; when training, the model's name."""
    output_dir: Path = Path("outputs")
    """The folder that holds all runs."""

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        if not self.name or Path(self.name).name != self.name or self.name == "..":
            reason = "must be one plain folder name, such as first_try"
            raise SettingError("name", self.name, reason)
        return self.output_dir / self.name


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
    devices: int = 1
    """Processes that share the work on this machine, one device each. Under torchrun, torchrun
    decides."""


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
    """An instance of a settings dataclass (or of one of several, as subcommands) from the command
    line.

    Unknown flags are refused with exit status 2; `--help` explains every field by its docstring.

    Args:
        arguments: instead of those that the script was called with.
        program: the script's name in `--help`.
        default: the values of flags that are left out, instead of the dataclass' own.
    """
    arguments = _current(sys.argv[1:] if arguments is None else arguments)
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    defaults = {} if default is None else {"default": default}
    return tyro.cli(
        settings, prog=program, description=description, args=arguments, config=config, **defaults
    )


def _current(arguments: Sequence[str]) -> list[str]:
    """A command line as version 1.0 took it, in today's words; `--output=~/x` as `--output ~/x`."""
    found = ["--damage=hole" if argument == "--damage=flat" else argument for argument in arguments]
    # a shell replaces the tilde at the beginning of a word alone
    found = [re.sub(r"^(--[\w-]+=)(~.*)", _at_home, argument) for argument in found]
    for index, argument in enumerate(found[1:], 1):
        if argument == "flat" and found[index - 1] == "--damage":
            found[index] = "hole"
    return found


def _at_home(found: re.Match) -> str:
    return found[1] + os.path.expanduser(found[2])


def _has_no_reader(stream: TextIO) -> bool:
    """Whether who read the output has enough, as `head` has; then nothing more is written to it."""
    try:
        stream.flush()
        stream.write("\n")
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes at its end
        return True
    return False


def split_model(arguments: Sequence[str], default: str) -> tuple[str, list[str]]:
    """The model that a command line names, and its other arguments.

    `gan --fold 0`, `--fold 0 --model gan` and `--model=gan --fold 0` are the same.
    """
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], list(arguments[1:])
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", default=default)
    found, rest = parser.parse_known_args(arguments)
    return found.model, rest


def flag(setting: str) -> str:
    """The flag of a setting: `--color-size` for color_size."""
    return f"--{setting.replace('_', '-')}"


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave with its exit status; 2 and one line for bad input.

    An `InputError`, a full disk or a missing permission becomes one line on stderr instead of a
    traceback; Ctrl-C leaves with 130 and another signal with 128 and its number, as shells expect.
    """
    warnings.filterwarnings("ignore", LARGE_IMAGE)
    for stream in (sys.stdout, sys.stderr):  # whose encoding may lack a letter of a file's name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main() or 0
        sys.stdout.flush()
        sys.exit(status)
    except SettingError as error:
        message = f"{flag(error.setting)} {error.value}: {error.reason}"
    except InputError as error:
        message = f"{error}; {HINTS[error.hint]}" if error.hint else str(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
            sys.exit(CLOSED_PIPE)
        where = f"{error.filename}: " if error.filename else ""
        remedy = "check the path, its permissions and the free space of the disk"
        message = f"{where}{error.strerror or error}; {remedy}"
    except RuntimeError as error:
        if not _lost_peer(error):
            raise
        message = "another process of this run died; fix the cause and run the same command again"
    except Stopped as stop:
        print(f"\n{stop}; run the same command again to resume", file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt:
        print("\ninterrupted; everything written so far is kept", file=sys.stderr)
        sys.exit(130)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another process of a distributed run is gone."""
    # by name, since scripts that need no torch should not wait for its import
    names = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in names or "by peer" in str(error)
