"""From a command line to typed settings, and from an error to one line and an exit status."""

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from src.files import InputError
from src.stopping import Stopped

T = TypeVar("T")


def parse_settings(settings: type[T], description: str | None = None) -> T:
    """An instance of a settings dataclass (or of one of several, as subcommands) from the command line.

    Unknown flags are refused with exit status 2; `--help` explains every field by its docstring.
    """
    return tyro.cli(settings, description=description, config=(tyro.conf.FlagCreatePairsOff,))


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave with its exit status; 2 and one line for bad input.

    An `InputError`, a full disk or a missing permission becomes one line on stderr instead of a
    traceback; Ctrl-C leaves with 130 and another signal with 128 and its number, as shells expect.
    """
    try:
        sys.exit(main() or 0)
    except InputError as error:
        message = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = "check the path, its permissions and the free space of the disk"
        message = f"{where}{error.strerror or error}; {remedy}"
    except RuntimeError as error:
        if not _lost_peer(error):
            raise
        message = "another process of this run ended; after its cause is mended, the same command goes on"
    except Stopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved or written before is kept", file=sys.stderr)
        sys.exit(130)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another process of a distributed run is gone."""
    # by name, since scripts that need no torch should not wait for its import
    names = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in names or "by peer" in str(error)
