"""What the detector finds of the damage of old photos, and what it takes for damage in undamaged
ones."""

import zlib

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.settings import DetectorQuality
from src.color.luma import luma
from src.damage.aging import KINDS, age
from src.damage.finders import clean_mask
from src.damage.prints import LOOKS
from src.datasets.competition import read_truth
from src.datasets.folds import evenly_spaced, fold_files
from src.evaluation.detection import detection_rates, hit_counts
from src.pipeline import load_detector
from src.runs import DETECTOR
from src.utils.errors import SettingError
from src.utils.processes import cores

HARMLESS = 0.005  # share of a photo
METHODS = {
    "probability above 0.5": lambda probability: probability > 0.5,
    "after the post-processing": clean_mask,
}


def run(settings: DetectorQuality) -> None:
    """Print precision and recall, of all kinds of damage and of each alone; and what is found
    undamaged."""
    torch.set_num_threads(cores())
    detector = load_detector(settings.checkpoint or DETECTOR)
    _, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, settings.fold)
    if not held_out:
        raise SettingError(
            "fold", settings.fold, f"holds no image; choose 0 to {settings.folds - 1}"
        )
    shown = evenly_spaced(held_out, settings.count)
    drawn = {"all": KINDS} | {kind: {kind: mean} for kind, mean in KINDS.items()}
    rows, false, looks = [], [], list(LOOKS)
    for number, (_, path) in enumerate(tqdm(shown, "detecting", dynamic_ncols=True)):
        rgb = read_truth(path)
        seed = zlib.crc32(path.name.encode())
        for name, kinds in drawn.items():
            gray, true = age(rgb, np.random.default_rng([settings.seed, seed]), kinds=kinds)
            probability = detector.probability(gray)
            for method, mask in METHODS.items():
                rows.append(
                    {"kinds": name, "method": method, **hit_counts(mask(probability), true)}
                )
        gray, look = luma(rgb), looks[number % len(looks)]
        undamaged = {
            "as it is": gray,
            look: LOOKS[look](gray, np.random.default_rng([settings.seed, seed])),
        }
        false += [
            {"photo": name, "found": detector.examine(photo).share}
            for name, photo in undamaged.items()
        ]
    table = pd.DataFrame(rows).groupby(["kinds", "method"], sort=False)
    print(table.apply(detection_rates).to_string(float_format=lambda value: f"{value:.3f}"))
    damaged = np.mean([row["true"] > 0 for row in rows if row["kinds"] == "all"])
    print(f"{len(shown)} photos, {damaged:.1%} of them damaged in the rows of all kinds")
    print("found in undamaged photos:")
    print(false_table(pd.DataFrame(false)).to_string(float_format=lambda value: f"{value:.3%}"))


def false_table(false: pd.DataFrame) -> pd.DataFrame:
    """How much of undamaged photos is found: a row for each `photo` (as it is, or a look), and all
    looks."""
    looks = false[false["photo"] != "as it is"].assign(photo="all looks")
    found = pd.concat([false, looks]).groupby("photo", sort=False)["found"]
    return pd.DataFrame(
        {
            "mean": found.mean(),
            "largest": found.max(),
            f"at most {HARMLESS:.1%}": found.agg(lambda shares: (shares <= HARMLESS).mean()),
            "nothing": found.agg(lambda shares: (shares == 0).mean()),
        }
    )
