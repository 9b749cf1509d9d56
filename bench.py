"""The figures behind docs/experiments.md: python bench.py damage --photos DIR"""

from typing import Annotated

import tyro

from src.benchmarks.check import Check
from src.benchmarks.damage import Damage
from src.benchmarks.data import Data
from src.benchmarks.detector import Detector
from src.benchmarks.inference import Inference
from src.benchmarks.parts import Parts
from src.benchmarks.preparation import Preparation
from src.benchmarks.scenes import Scenes
from src.benchmarks.score import Score
from src.benchmarks.size import Size
from src.benchmarks.time_to_score import TimeToScore
from src.benchmarks.training import Training
from src.command_line import parse_settings, run_script

Command = (
    Annotated[Damage, tyro.conf.subcommand("damage")]
    | Annotated[Detector, tyro.conf.subcommand("detector")]
    | Annotated[Scenes, tyro.conf.subcommand("scenes")]
    | Annotated[Parts, tyro.conf.subcommand("parts")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Training, tyro.conf.subcommand("training")]
    | Annotated[Inference, tyro.conf.subcommand("inference")]
    | Annotated[Size, tyro.conf.subcommand("size")]
    | Annotated[Preparation, tyro.conf.subcommand("preparation")]
    | Annotated[TimeToScore, tyro.conf.subcommand("time-to-score")]
    | Annotated[Check, tyro.conf.subcommand("check")]
)


def main() -> int | None:
    """Measure what the command line names."""
    return parse_settings(Command, __doc__).run()


if __name__ == "__main__":
    run_script(main)
