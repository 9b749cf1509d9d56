"""How much sooner the restorer reaches the best score that full_pipeline ever has."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.machine import describe_machine
from benchmarks.settings import TimeToScore
from src.utils.errors import InputError, SettingError
from src.utils.files import atomic_write

PEER, OURS = "full_pipeline", "restorer"
TRAIN = Path(__file__).parents[1] / "train.py"


def score_curve(metrics: Path) -> pd.DataFrame:
    """Validations of a `metrics.jsonl`: columns minutes (of the run, when it began), S, M, C and
    score."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [line for line in lines if "val/score" in line]
    return pd.DataFrame(rows).rename(columns=lambda name: name.removeprefix("val/"))


def sooner(peer: pd.DataFrame, ours: pd.DataFrame) -> tuple[float, float, float]:
    """The peer's best score, the minutes at which it had it, and those at which ours was above it.

    The last is infinite when ours never was. Arguments as `score_curve` returns them.
    """
    best = peer.loc[peer["score"].idxmax()]
    above = ours.loc[ours["score"] > best["score"], "minutes"]
    return (
        float(best["score"]),
        float(best["minutes"]),
        float(above.min()) if len(above) else float("inf"),
    )


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
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=100)


def train_command(settings: TimeToScore, model: str) -> list[str]:
    """The command line that trains a model as the benchmark's settings say."""
    command = [sys.executable, TRAIN, model, "--data-dir", settings.data_dir]
    command += ["--output-dir", settings.output_dir, "--fold", settings.fold, "--workers", 0]
    command += ["--max-minutes", settings.minutes, "--val-images", settings.val_images]
    command += ["--validate-at", *settings.validate_at]
    extra = settings.full_pipeline if model == PEER else settings.restorer
    command += [part for setting in extra for part in f"--{setting}".split("=", 1)]
    return list(map(str, command))


def run(settings: TimeToScore) -> None:
    """Train both, print the table and the ratio, write `curves.csv` and `curves.png`."""
    print(describe_machine())
    curves = {}
    for model in (PEER, OURS):
        if subprocess.run(train_command(settings, model)).returncode:
            raise InputError(f"{model}: the training failed, see above; mend it and run this again")
        curves[model] = score_curve(
            settings.output_dir / model / f"fold{settings.fold}" / "metrics.jsonl"
        )
        if curves[model].empty:
            raise SettingError("minutes", settings.minutes, f"too few: {model} was never validated")
    table = pd.concat(curves, names=["model", "validation"])[["minutes", "S", "M", "C", "score"]]
    print(table.to_string(float_format=lambda value: f"{value:.4f}"))
    table.to_csv(settings.output_dir / "curves.csv")
    plot(curves, settings.output_dir / "curves.png")
    best, minutes, passed = sooner(curves[PEER], curves[OURS])
    print(f"best score of {PEER}: {best:.4f} after {minutes:.2f} minutes")
    print(f"{OURS} above it after {passed:.2f} minutes: {minutes / passed:.1f} times sooner")
