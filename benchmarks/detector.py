"""Precision and recall of the detector of scratches, stains and tears."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from src.aging import KINDS, age
from src.color import luma
from src.datasets.competition import read_truth
from src.datasets.folds import fold_files
from src.files import InputError
from src.old_photos import DETECTOR, clean_mask, load_detector, probability
from src.parallel import cores

NEAR = np.ones((5, 5), np.uint8)  # a pixel within two of the true damage, or of the found, counts as hit


def counts(found: np.ndarray, true: np.ndarray) -> dict[str, int]:
    """Pixels of two (H, W) bool masks: `found`, `true`, `hit` (both), and hits within two pixels."""
    near_true, near_found = (cv2.dilate(mask.astype(np.uint8), NEAR) > 0 for mask in (true, found))
    return {
        "found": int(found.sum()),
        "true": int(true.sum()),
        "hit": int((found & true).sum()),
        "found near": int((found & near_true).sum()),
        "true near": int((true & near_found).sum()),
    }


def rates(table: pd.DataFrame) -> pd.Series:
    """Precision, recall and F1 over the pixels of all photos, exact and within two pixels."""
    sums = table.sum()
    rows = {
        "precision": sums["hit"] / max(1, sums["found"]),
        "recall": sums["hit"] / max(1, sums["true"]),
        "precision, 2 px": sums["found near"] / max(1, sums["found"]),
        "recall, 2 px": sums["true near"] / max(1, sums["true"]),
    }
    rows["F1"] = 2 * sums["hit"] / max(1, sums["found"] + sums["true"])
    return pd.Series(rows)


@dataclass(frozen=True)
class Detector:
    """The detector on aged photos that it was not trained on, before and after the post-processing."""

    data_dir: Path
    """The competition folder that it was trained on."""
    checkpoint: Path = DETECTOR
    """What train_detector.py wrote."""
    fold: int = 0
    """The fold that was held out."""
    folds: int = 5
    """Number of folds that the scenes were split into."""
    seed: int = 0
    """Seed of the split and of the damage."""
    count: int = 200
    """Images to measure on, spread evenly over the fold; 0 takes all."""

    def run(self) -> None:
        """Print the table, all kinds of damage together and each alone; and what is found undamaged."""
        torch.set_num_threads(cores())
        detector = load_detector(self.checkpoint)
        _, held_out = fold_files(self.data_dir, self.folds, self.seed, self.fold)
        shown = np.linspace(0, len(held_out) - 1, min(self.count or len(held_out), len(held_out)))
        if not len(shown):
            raise InputError(f"{self.data_dir}: fold {self.fold} holds no image; choose another --fold")
        methods = {
            "probability above 0.5": lambda found: found > 0.5,
            "after the post-processing": clean_mask,
        }
        drawn = {"all": KINDS} | {kind: {kind: mean} for kind, mean in KINDS.items()}
        rows, false = [], []
        for index in tqdm(shown.astype(int), "detecting", dynamic_ncols=True):
            path = held_out[index][1]
            rgb = read_truth(path)
            for name, kinds in drawn.items():
                rng = np.random.default_rng([self.seed, zlib.crc32(path.name.encode())])
                gray, true = age(rgb, rng, kinds=kinds)
                found = probability(detector, gray)
                for method, mask in methods.items():
                    rows.append({"kinds": name, "method": method, **counts(mask(found), true)})
            false.append(clean_mask(probability(detector, luma(rgb))).mean())
        table = pd.DataFrame(rows).groupby(["kinds", "method"], sort=False)
        print(table.apply(rates).to_string(float_format=lambda value: f"{value:.4f}"))
        damaged = np.mean([row["true"] > 0 for row in rows if row["kinds"] == "all"])
        print(f"{len(shown)} photos, {damaged:.1%} of them damaged in the rows of all kinds")
        wrong = np.array(false)
        share, clean = wrong.mean(), (wrong == 0).mean()
        print(f"undamaged: {share:.4%} of the pixels are found, and nothing in {clean:.1%} of the photos")
