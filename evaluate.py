"""The competition's score of restored images: python evaluate.py --pred DIR --gt DIR --input DIR"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from src.utils.cli import Compute, Folders, Style, Tta, parse_settings, run_script
from src.utils.errors import InputError

MAX_SEEN = 0.01  # share of held-out images whose names and sizes may match by chance


@dataclass(frozen=True)
class Settings:
    """Score a folder of restored PNGs or, with --fold, a run's folds on their held-out images."""

    pred: Path | None = None
    """Folder of restored PNGs; needs --gt and --input as well."""
    gt: Path | None = None
    """Folder of the ground truth, with the same file names."""
    input: Path | None = None
    """Folder of the damaged inputs, with the same file names; the hole is found in them."""
    fold: int | Literal["all"] | None = None
    """Restore and score the held-out images of this fold, or of all trained folds."""
    report: bool = False
    """Write the page <output-dir>/<name>/report.html: scores, sliders, histograms and curves."""
    json: Path | None = None
    """Write the means and every image's scores to this file as well."""
    picture: Path | None = None
    """Write input, result and truth of four images, worst to best, to this PNG."""
    tta: Tta = 1
    """With --fold: views averaged for each image."""
    decode: Style = "score"
    """With --fold: colours for the score, or "visual"; see infer.py."""
    folds: int = 5
    """With --fold: number of folds that the scenes were split into."""
    seed: int = 0
    """With --fold: seed of that split."""
    folders: Folders = field(default_factory=Folders)
    compute: Compute = field(default_factory=Compute)


def out_of_fold(settings: Settings, checkpoint: Path, fabric) -> list:
    """Restore the images a fold held out into its folder `oof`; (restored, truth, input) files."""
    from src.pipeline import Pipeline
    from src.restoring import Job, restore_files

    number = int(checkpoint.name.removeprefix("fold"))
    held_out = held_out_pairs(settings, checkpoint, number)
    how = (settings.tta, settings.decode, "hole", fabric.device)
    pipeline = Pipeline.load(checkpoint.parent, [number], *how)
    # one folder per decode and number of views, so only a new training overwrites results
    views = "" if settings.tta == 1 else f"_tta{settings.tta}"
    output = checkpoint / f"oof{'' if settings.decode == 'score' else '_visual'}{views}"
    triples = [(output / f"{source.stem}.png", truth, source) for source, truth in held_out]
    jobs = [Job(source, target) for target, _, source in triples]
    failures = restore_files(pipeline, jobs, output, fabric, overwrite=True)
    if failures:
        raise InputError(failures[0])
    return triples


def held_out_pairs(settings: Settings, checkpoint: Path, number: int) -> list:
    """The (input, truth) files of a fold; an error unless every network held out exactly these."""
    import numpy as np

    from src.datasets.folds import decode_keys, fingerprint, fold_files, image_keys
    from src.models.checkpoints import read_description

    data_dir, run_dir = settings.folders.data_dir, settings.folders.run_dir
    if number >= settings.folds:
        raise InputError(f"{checkpoint}: is not one of {settings.folds} folds", "folds")
    _, held_out, _ = fold_files(data_dir, settings.folds, settings.seed, number, run_dir)
    keys = image_keys([truth for _, truth in held_out])
    for network, facts in read_description(checkpoint).items():
        if facts.get("fold") != number:
            found = f"the {network} held out fold {facts.get('fold')}, so it has seen this one"
            raise InputError(f"{checkpoint}: {found}; train it on the other folds")
        if facts.get("held_out") != fingerprint(held_out):
            found = f"not the split that the {network} of {checkpoint} was trained on"
            raise InputError(f"folds.csv of {data_dir} or {run_dir}: {found}")
        seen = np.isin(keys, decode_keys(facts.get("trained_on", ""))).mean()
        if seen > MAX_SEEN:
            found = f"the {network} was trained on {seen:.0%} of the images to be scored"
            raise InputError(f"{checkpoint}: {found}; train it again without --init")
    return held_out


def report(parts: dict[str, list], settings: Settings) -> None:
    """Score the files of each part (a fold, or all), then print and write the results."""
    from src.datasets.folds import evenly_spaced
    from src.evaluation.report import read_curves, write_report
    from src.evaluation.scoring import picture, score_table
    from src.runs import trained_or_shipped
    from src.utils.files import write_json
    from src.utils.images import write_png

    triples = [triple for part in parts.values() for triple in part]
    table, mean = score_table(triples)
    table.insert(1, "fold", [name for name, part in parts.items() for _ in part])
    means = table.groupby("fold", sort=False)[list(mean.as_dict())].mean()
    worst = table.sort_values("score").head(5)
    tables = {"images": table, "worst": worst, "folds": means.reset_index()}
    for title, rows in tables.items():
        print(f"{title}:\n{rows.to_string(index=False, float_format='{:.4f}'.format)}")
    print(f"{len(table)} images, mean: {mean}")
    limits = (f"{score:.4f} if {name} were 1" for name, score in mean.perfected().items())
    print(f"the score would be {', '.join(limits)}")
    if settings.json:
        scores = {"mean": mean.as_dict(), "folds": means.to_dict(orient="index")}
        write_json(settings.json, scores | {"images": table.to_dict(orient="records")})
    if settings.report:
        run_dir = settings.folders.run_dir
        own = settings.pred is None or settings.pred.resolve().is_relative_to(run_dir.resolve())
        curves = read_curves(trained_or_shipped(settings.folders)) if own else []
        title = f"{settings.pred or run_dir}: restored photos"
        write_report(run_dir / "report.html", title, triples, table, mean, curves)
        print(f"{run_dir / 'report.html'}: open it in a browser")
    if settings.picture:
        chosen = evenly_spaced(list(table["score"].argsort()), 4)
        write_png(settings.picture, picture([triples[i] for i in chosen]))
        print(f"{settings.picture}: input, result and truth, the worst score on top")


def main() -> None:
    """Score a folder or the folds of a run."""
    settings = parse_settings(Settings)
    given = (settings.pred, settings.gt, settings.input)
    if settings.fold is None:
        if None in given:
            raise InputError("name --pred, --gt and --input, or a run's --fold")
        if (settings.tta, settings.decode) != (1, "score"):
            raise InputError("--tta and --decode need --fold; --pred holds results as they are")
        from src.evaluation.scoring import matching_files

        report({"all": matching_files(*given)}, settings)
        return
    if given != (None, None, None):
        raise InputError("--fold: scores a run's own folds; leave --pred, --gt and --input out")
    from src.runs import fold_checkpoints
    from src.utils.distributed import launch

    folds = None if settings.fold == "all" else [settings.fold]
    checkpoints = fold_checkpoints(settings.folders.run_dir, folds)
    fabric = launch(settings.compute.device, settings.compute.devices)
    parts = {path.name: out_of_fold(settings, path, fabric) for path in checkpoints}
    if fabric.is_global_zero:
        report(parts, settings)


if __name__ == "__main__":
    run_script(main)
