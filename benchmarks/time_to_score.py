"""Train the restorer and full_pipeline equally long: how much sooner is ours as good?

Both are validated after each of their epochs; run the same command again to resume.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import tyro

from benchmarks.speed import describe_machine
from src.utils.cli import run_script
from src.utils.errors import InputError

PEER, OURS = "full_pipeline", "restorer"


def time_to_score(
    data_dir: Path = Path("data"),
    output_dir: Path = Path("outputs/time-to-score"),
    minutes: float = 30.0,
    val_images: int = 50,
    full_pipeline: str = "encoder=lite0 encoder-weights=pretrained image-size=128",
    restorer: str = "",
) -> None:
    """Train both models, print their curves and how much sooner ours beats the peer's best.

    Args:
        minutes: wall-clock budget of each, validations included.
        val_images: held-out images that both are validated on.
        full_pipeline: options of its training; these gave it its best half hour.
        restorer: options of the restorer's training.
    """
    describe_machine()
    train = str(Path(__file__).parents[1] / "train.py")
    common = f"--workers 0 --max-minutes {minutes} --val-images {val_images}".split()
    common += ["--data-dir", str(data_dir), "--output-dir", str(output_dir)]
    curves = {}
    for model, options in ((PEER, full_pipeline), (OURS, restorer)):
        flags = [f"--{option}" for option in options.split()]
        if subprocess.run([sys.executable, train, model, *common, *flags]).returncode:
            raise InputError(f"{model}: the training failed, see above")
        lines = pd.read_json(output_dir / model / "fold0" / "metrics.jsonl", lines=True)
        lines = lines.dropna(subset="val/score", ignore_index=True)
        curves[model] = lines.rename(columns=lambda name: name.removeprefix("val/"))
    table = pd.concat(curves, names=["model", "validation"])
    print(table[["minutes", "S", "M", "C", "score"]].to_string(float_format="{:.4f}".format))
    best = curves[PEER].loc[curves[PEER]["score"].idxmax()]
    above = curves[OURS].loc[curves[OURS]["score"] > best["score"], "minutes"]
    print(f"best score of {PEER}: {best['score']:.4f} after {best['minutes']:.2f} minutes")
    if above.empty:
        print(f"{OURS} was never above it")
    else:
        ratio = best["minutes"] / above.min()
        print(f"{OURS} above it after {above.min():.2f} minutes: {ratio:.1f} times sooner")


def main() -> None:
    tyro.cli(time_to_score, prog="python -m benchmarks.time_to_score", description=__doc__)


if __name__ == "__main__":
    run_script(main)
