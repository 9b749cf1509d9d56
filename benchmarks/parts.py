"""What each part of the restorer is worth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from src.ablation import RESTORED, best_constant, measure, strip, true_histogram
from src.checkpoints import load_model
from src.datasets.competition import read_test
from src.datasets.folds import fingerprint, fold_files
from src.files import InputError, write_png
from src.parallel import cores, parallel_map


def test_files(data_dir: Path) -> list[tuple[Path, Path]]:
    """(input, truth) files of the test images of a folder made by `prepare_data.py build`."""
    names = [Path(path).name for path in read_test(data_dir)["input_image_path"]]
    if not (data_dir / "test_gt").is_dir():
        raise InputError(f"{data_dir / 'test_gt'}: no such folder; use one made by prepare_data.py build")
    return [(data_dir / "test_input" / name, data_dir / "test_gt" / name) for name in names]


@dataclass(frozen=True)
class Parts:
    """What each part of the restorer is worth: the same model with a part left out or replaced."""

    data_dir: Path
    """The competition folder that it was trained on."""
    checkpoints: tuple[Path, ...]
    """best.safetensors of one fold, or of several, measured together."""
    images: Literal["held-out", "test"] = "held-out"
    """The fold's held-out images, or the test images of a folder made by `prepare_data.py build`."""
    count: int = 100
    """Images to measure on, spread evenly; 0 takes all."""
    folds: int = 5
    """Number of folds that the scenes were split into."""
    seed: int = 0
    """Seed that the scenes were split with."""
    picture: Path | None = None
    """Write four of the images to this PNG: input, both decodes, most likely hues, and truth."""

    def run(self) -> None:
        """Print mean scores of every variant, differences to the whole, and facts."""
        torch.set_num_threads(cores())
        loaded = [load_model(path, torch.device("cpu")) for path in self.checkpoints]
        models = [model for model, _ in loaded]
        train, held_out = fold_files(self.data_dir, self.folds, self.seed, loaded[0][1]["fold"])
        for path, (_, description) in zip(self.checkpoints, loaded, strict=True):
            if description["model"] != "restorer":
                raise InputError(f"{path}: holds {description['model']}; the parts are those of restorer")
            if self.images == "held-out" and fingerprint(held_out) != description["held_out"]:
                raise InputError(f"{path}: held other images out than the first; use --images test")
        pairs = test_files(self.data_dir) if self.images == "test" else held_out
        shown = np.linspace(0, len(pairs) - 1, min(self.count or len(pairs), len(pairs))).astype(int)
        pairs = [pairs[i] for i in shown]
        constant = best_constant(list(parallel_map(true_histogram, [t for _, t in train], "histograms")))
        rows = [measure(models, pair, constant) for pair in tqdm(pairs, "measuring", dynamic_ncols=True)]
        table = pd.concat({i: pd.DataFrame(scores).T for i, (scores, _) in enumerate(rows)})
        means = table.groupby(level=1, sort=False).mean()
        scores = table["score"].unstack()
        gain = scores.sub(scores[RESTORED], axis=0)
        means["difference"], means["std error"] = gain.mean(), gain.sem()
        print(means.to_string(float_format=lambda value: f"{value:.4f}"))
        facts = pd.DataFrame([facts for _, facts in rows]).mean()
        facts["parameters"] = sum(p.numel() for p in models[0].parameters())
        if self.picture:
            write_png(self.picture, np.vstack([strip(models, pair, constant) for pair in pairs[:4]]))
        print(facts.to_string(float_format=lambda value: f"{value:.6g}"))
