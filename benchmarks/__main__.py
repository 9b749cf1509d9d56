"""The measurements behind docs/experiments.md: python -m benchmarks score --data-dir data"""

from functools import reduce
from importlib import import_module
from operator import or_
from typing import Annotated

import tyro

from benchmarks.settings import BENCHMARKS
from src.utils.cli import parse_settings, run_script

Command = reduce(
    or_, (Annotated[kind, tyro.conf.subcommand(name)] for name, kind in BENCHMARKS.items())
)


def main() -> int | None:
    """Measure what the command line names."""
    settings = parse_settings(Command, __doc__, program="python -m benchmarks")
    name = next(name for name, kind in BENCHMARKS.items() if kind is type(settings))
    return import_module(f"benchmarks.{name.replace('-', '_')}").run(settings)


if __name__ == "__main__":
    run_script(main)
