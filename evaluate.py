"""The competition's score of restored images: python evaluate.py --pred DIR --gt DIR --input DIR"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from lightning_fabric import Fabric

from src.checkpoints import fold_checkpoints, load_model, trained_or_shipped
from src.command_line import parse_settings, run_script
from src.datasets.folds import fingerprint, fold_files
from src.decode import Style
from src.distributed import launch
from src.files import InputError, file_hash, write_json, write_png
from src.inference import restore, restore_files
from src.report import read_curves, write_report
from src.scoring import Triple, matching_files, picture, score_table
from src.settings import ComputeSettings
from src.submission import unpacked


@dataclass(frozen=True)
class Settings(ComputeSettings):
    """Score a folder of restored PNGs, or with --fold a run's folds on the images they never saw."""

    pred: Path | None = None
    """Folder or zip of restored PNGs; needs gt and input as well."""
    gt: Path | None = None
    """Folder of the truth, the same names."""
    input: Path | None = None
    """Folder of the damaged inputs, the same names; the hole is found in them."""
    fold: int | Literal["all"] | None = None
    """Restore and score the held-out images of this fold, or of all trained folds."""
    folds: int = 5
    """Number of folds that the scenes were split into."""
    seed: int = 0
    """Seed of that split."""
    tta: Literal[1, 2, 8] = 1
    """With fold: views averaged for each image."""
    decode: Style = "score"
    """With fold: what restorer's colours are chosen for, see infer.py."""
    json: Path | None = None
    """Write means and every image's scores to this file as well."""
    report: bool = False
    """Write <output-dir>/<name>/report.html: scores, sliders, hue histograms and curves in one page."""
    picture: Path | None = None
    """Write input, result and truth of four images, from the worst to the best score, to this PNG."""


def out_of_fold(settings: Settings, checkpoint: Path, fabric: Fabric) -> tuple[str, list[Triple]]:
    """Restore the images that one fold's model was not trained on, into `<run>/fold<k>/oof/`.

    Returns the fold's name and its files.
    """
    model, description = load_model(checkpoint, fabric.device)
    fold = description.get("fold")
    if fold not in range(settings.folds):
        raise InputError(f"{checkpoint}: of fold {fold}, expected 0 to {settings.folds - 1}; see --folds")
    _, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, fold)
    if fingerprint(held_out) != description.get("held_out"):
        raise InputError(
            f"{settings.data_dir / 'folds.csv'}: not the split that {checkpoint} was trained on"
        )
    output = checkpoint.parent / "oof"
    jobs = [(source, output / f"{source.stem}.png") for source, _ in held_out]
    choices = {"tta": settings.tta, "style": settings.decode}
    recipe = {"checkpoint": file_hash(checkpoint), **choices}
    failures = restore_files(partial(restore, [model], **choices), jobs, recipe, output, fabric)
    if failures:
        raise InputError(failures[0])
    triples = [(target, truth, source) for (source, truth), (_, target) in zip(held_out, jobs, strict=True)]
    return checkpoint.parent.name, triples


def report(parts: dict[str, list[Triple]], settings: Settings) -> None:
    """Score the files of each part (a fold, or all), print and write what the settings ask for."""
    triples = [triple for part in parts.values() for triple in part]
    table, mean = score_table(triples)
    table.insert(1, "fold", [name for name, part in parts.items() for _ in part])
    means = table.groupby("fold", sort=False)[list(mean.as_dict())].mean()
    shown = {"images": table, "worst": table.sort_values("score").head(5), "folds": means.reset_index()}
    for title, rows in shown.items():
        print(f"{title}:\n" + rows.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print(f"{len(table)} images, mean: {mean}")
    if settings.json:
        folds, images = means.to_dict(orient="index"), table.to_dict(orient="records")
        write_json(settings.json, {"mean": mean.as_dict(), "folds": folds, "images": images})
    if settings.report:
        path = settings.run_dir / "report.html"
        own = settings.pred is None or settings.pred.resolve().is_relative_to(settings.run_dir.resolve())
        curves = read_curves(trained_or_shipped(settings.run_dir)) if own else []
        title = f"{settings.pred or settings.run_dir}: restored photos"
        write_report(path, title, triples, table, mean, curves)
        print(f"{path}: open it in a browser")
    if settings.picture:
        order = table["score"].argsort()
        shown = order.iloc[np.linspace(0, len(order) - 1, min(4, len(order))).astype(int)]
        write_png(settings.picture, picture([triples[i] for i in shown]))
        print(f"{settings.picture}: input, result and truth, the worst score on top")


def main() -> None:
    """Score what the command line asks for."""
    settings = parse_settings(Settings)
    folders = (settings.pred, settings.gt, settings.input)
    if settings.fold is None:
        if None in folders:
            raise InputError("name --pred, --gt and --input, or --fold for the out-of-fold score of a run")
        with nullcontext(settings.pred) if settings.pred.is_dir() else unpacked(settings.pred) as pred:
            report({"all": matching_files(pred, settings.gt, settings.input)}, settings)
    else:
        if folders != (None, None, None):
            raise InputError("--fold: scores a run's own folds; leave --pred, --gt and --input out")
        fold = None if settings.fold == "all" else settings.fold
        checkpoints = fold_checkpoints(settings.run_dir, fold)
        fabric = launch(settings.device, settings.devices)
        parts = dict(out_of_fold(settings, path, fabric) for path in checkpoints)
        if fabric.is_global_zero:
            report(parts, settings)


if __name__ == "__main__":
    run_script(main)
