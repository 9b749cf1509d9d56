"""How much sooner the restorer reaches the best score that full_pipeline ever has."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from src.benchmarks.machine import describe_machine
from src.files import InputError, replacing

PEER, OURS = "full_pipeline", "restorer"
TRAIN = Path(__file__).parents[2] / "train.py"


def score_curve(metrics: Path) -> pd.DataFrame:
    """Validations of a `metrics.jsonl`: columns minutes (of the run, when it began), S, M, C and score."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [line for line in lines if "val/score" in line]
    return pd.DataFrame(rows).rename(columns=lambda name: name.removeprefix("val/"))


def sooner(peer: pd.DataFrame, ours: pd.DataFrame) -> tuple[float, float, float]:
    """The peer's best score, the minutes at which it had it, and those at which ours was above it.

    The last is infinite when ours never was. Arguments as `score_curve` returns them.
    """
    best = peer.loc[peer["score"].idxmax()]
    above = ours.loc[ours["score"] > best["score"], "minutes"]
    return float(best["score"]), float(best["minutes"]), float(above.min()) if len(above) else float("inf")


def plot(curves: dict[str, pd.DataFrame], path: Path) -> None:
    """Score against minutes of training, on a logarithmic scale, as a PNG."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve["minutes"], curve["score"], marker="o", label=name)
    axes.axhline(curves[PEER]["score"].max(), color="grey", linestyle=":")
    axes.set(xscale="log", xlabel="minutes of wall-clock", ylabel="score of held-out images")
    axes.legend()
    axes.grid(alpha=0.3)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=100)


@dataclass(frozen=True)
class TimeToScore:
    """Train full_pipeline, then the restorer, for the same wall-clock; how much sooner ours is as good.

    The schedule of each is fitted to the budget, and both times are known no finer than the minutes at
    which both are validated. Called again, it goes on where it was interrupted.
    """

    data_dir: Path
    """The competition folder."""
    output_dir: Path = Path("outputs/time-to-score")
    """Where both runs, the table and the plot go."""
    minutes: float = 30.0
    """Wall-clock budget of each, validations included."""
    validate_at: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8, 16)
    """Minutes at which both are validated, besides the end."""
    val_images: int = 50
    """Held-out images that both are validated on."""
    fold: int = 0
    """The fold held out."""
    full_pipeline: tuple[str, ...] = ("encoder=lite0", "image-size=128")
    """Settings of full_pipeline's training; these gave it its best half hour."""
    restorer: tuple[str, ...] = ()
    """Settings of the restorer's training."""

    def run(self) -> None:
        """Train both, print the table and the ratio, write `curves.csv` and `curves.png`."""
        print(describe_machine())
        curves = {}
        for model, settings in ((PEER, self.full_pipeline), (OURS, self.restorer)):
            command = [sys.executable, TRAIN, "--model", model, "--data-dir", self.data_dir]
            command += ["--output-dir", self.output_dir, "--fold", self.fold, "--workers", 0]
            command += ["--max-minutes", self.minutes, "--val-images", self.val_images]
            command += ["--validate-at", *self.validate_at]
            command += [part for setting in settings for part in f"--{setting}".split("=", 1)]
            if subprocess.run(list(map(str, command))).returncode:
                raise InputError(f"{model}: the training failed, see above; mend it and run this again")
            curves[model] = score_curve(self.output_dir / model / f"fold{self.fold}" / "metrics.jsonl")
        table = pd.concat(curves, names=["model", "validation"])[["minutes", "S", "M", "C", "score"]]
        print(table.to_string(float_format=lambda value: f"{value:.4f}"))
        table.to_csv(self.output_dir / "curves.csv")
        plot(curves, self.output_dir / "curves.png")
        best, minutes, passed = sooner(curves[PEER], curves[OURS])
        print(f"best score of {PEER}: {best:.4f} after {minutes:.2f} minutes")
        print(f"{OURS} above it after {passed:.2f} minutes: {minutes / passed:.1f} times sooner")
