"""Precision and recall of the detector of scratches, creases, stains and tears."""

import zlib

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.settings import DetectorQuality
from src.color.luma import luma
from src.damage.aging import KINDS, age
from src.damage.finders import clean_mask
from src.datasets.competition import read_truth
from src.datasets.folds import evenly_spaced, fold_files
from src.evaluation.detection import detection_rates, hit_counts
from src.models.checkpoints import DETECTOR
from src.pipeline import load_detector
from src.runtime.errors import SettingError
from src.runtime.processes import cores

METHODS = {
    "probability above 0.5": lambda probability: probability > 0.5,
    "after the post-processing": clean_mask,
}


def run(settings: DetectorQuality) -> None:
    """Print the table, all kinds of damage together and each alone; and what is found undamaged."""
    torch.set_num_threads(cores())
    detector = load_detector(settings.checkpoint or DETECTOR)
    _, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, settings.fold)
    if not held_out:
        raise SettingError("fold", settings.fold, f"holds no image; choose 0 to {settings.folds - 1}")
    shown = evenly_spaced(held_out, settings.count)
    drawn = {"all": KINDS} | {kind: {kind: mean} for kind, mean in KINDS.items()}
    rows, false = [], []
    for _, path in tqdm(shown, "detecting", dynamic_ncols=True):
        rgb = read_truth(path)
        for name, kinds in drawn.items():
            rng = np.random.default_rng([settings.seed, zlib.crc32(path.name.encode())])
            gray, true = age(rgb, rng, kinds=kinds)
            probability = detector.probability(gray)
            for method, mask in METHODS.items():
                rows.append({"kinds": name, "method": method, **hit_counts(mask(probability), true)})
        false.append(clean_mask(detector.probability(luma(rgb))).mean())
    table = pd.DataFrame(rows).groupby(["kinds", "method"], sort=False)
    print(table.apply(detection_rates).to_string(float_format=lambda value: f"{value:.4f}"))
    damaged = np.mean([row["true"] > 0 for row in rows if row["kinds"] == "all"])
    print(f"{len(shown)} photos, {damaged:.1%} of them damaged in the rows of all kinds")
    wrong = np.array(false)
    share, clean = wrong.mean(), (wrong == 0).mean()
    print(f"undamaged: {share:.4%} of the pixels are found, and nothing in {clean:.1%} of the photos")
