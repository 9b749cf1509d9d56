"""What each part of the restorer is worth."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.ablation import RESTORED, best_constant, measure, strip, true_histogram
from benchmarks.settings import PartsAblation
from src.datasets.competition import read_test
from src.datasets.folds import evenly_spaced, fingerprint, fold_files
from src.models.checkpoints import load_model
from src.pipeline import Pipeline
from src.utils.errors import InputError
from src.utils.images import write_png
from src.utils.processes import cores, parallel_map


def built_test_pairs(data_dir: Path) -> list[tuple[Path, Path]]:
    """(input, truth) files of the test images of a folder made by `prepare_data.py build`."""
    names = [Path(path).name for path in read_test(data_dir)["input_image_path"]]
    if not (data_dir / "test_gt").is_dir():
        raise InputError(
            f"{data_dir / 'test_gt'}: no such folder; use one made by prepare_data.py build"
        )
    return [(data_dir / "test_input" / name, data_dir / "test_gt" / name) for name in names]


def run(settings: PartsAblation) -> None:
    """Print mean scores of every variant, differences to the whole, and facts."""
    torch.set_num_threads(cores())
    loaded = [load_model(path, torch.device("cpu")) for path in settings.checkpoints]
    for path, (_, description) in zip(settings.checkpoints, loaded, strict=True):
        if description["model"] != "restorer":
            raise InputError(
                f"{path}: holds {description['model']}; the parts are those of restorer"
            )
    facts = [next(iter(description["networks"].values())) for _, description in loaded]
    fold = facts[0]["fold"]
    train, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, fold)
    for path, fact in zip(settings.checkpoints, facts, strict=True):
        if settings.images == "held-out" and fingerprint(held_out) != fact["held_out"]:
            raise InputError(f"{path}: held other images out than the first; use --images test")
    pairs = built_test_pairs(settings.data_dir) if settings.images == "test" else held_out
    pairs = evenly_spaced(pairs, settings.count)
    pipeline = Pipeline([model for model, _ in loaded])
    constant = best_constant(
        list(parallel_map(true_histogram, [t for _, t in train], "histograms"))
    )
    rows = [
        measure(pipeline, pair, constant) for pair in tqdm(pairs, "measuring", dynamic_ncols=True)
    ]
    table = pd.concat({i: pd.DataFrame(scores).T for i, (scores, _) in enumerate(rows)})
    means = table.groupby(level=1, sort=False).mean()
    scores = table["score"].unstack()
    gain = scores.sub(scores[RESTORED], axis=0)
    means["difference"], means["std error"] = gain.mean(), gain.sem()
    print(means.to_string(float_format=lambda value: f"{value:.4f}"))
    facts = pd.DataFrame([facts for _, facts in rows]).mean()
    facts["parameters"] = sum(p.numel() for p in loaded[0][0].parameters())
    if settings.picture:
        write_png(
            settings.picture, np.vstack([strip(pipeline, pair, constant) for pair in pairs[:4]])
        )
    print(facts.to_string(float_format=lambda value: f"{value:.6g}"))
