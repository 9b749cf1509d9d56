"""The figures behind docs/experiments.md: python bench.py damage --photos DIR"""

from typing import Annotated

import tyro

from src.benchmarks.damage import Damage
from src.benchmarks.data import Data
from src.benchmarks.parts import Parts
from src.benchmarks.scenes import Scenes
from src.benchmarks.score import Score
from src.benchmarks.time_to_score import TimeToScore
from src.command_line import parse_settings, run_script

Command = (
    Annotated[Damage, tyro.conf.subcommand("damage")]
    | Annotated[Scenes, tyro.conf.subcommand("scenes")]
    | Annotated[Parts, tyro.conf.subcommand("parts")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[TimeToScore, tyro.conf.subcommand("time-to-score")]
)


def main() -> None:
    """Measure what the command line names."""
    parse_settings(Command, __doc__).run()


if __name__ == "__main__":
    run_script(main)
