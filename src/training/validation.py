"""Scores a model in training on held-out images."""

import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from lightning_fabric import Fabric
from tqdm import tqdm

from src.damage.aging import age
from src.damage.finders import Detector, clean_mask
from src.damage.hole import lost_pixels
from src.datasets.competition import read_input, read_truth
from src.datasets.folds import Pairs
from src.evaluation.scoring import detection_rates, hit_counts, side_by_side
from src.metrics import score_image
from src.models.base import TrainableModel
from src.models.detector import DamageDetector
from src.pipeline import Pipeline
from src.training.state import Budget
from src.utils.distributed import all_reduce_max, gather, share
from src.utils.errors import InputError
from src.utils.processes import StopSignals

PICTURES = 4  # validation images in the picture


def validate(
    model: TrainableModel, pairs: Pairs, fabric: Fabric, stop: StopSignals | None = None
) -> tuple[dict[str, float], list[np.ndarray]] | None:
    """Scores over (input, truth) files, `score` among them, and pictures of the first four.

    A model that restores is scored as in the competition, with one view; the detector by the
    harmonic mean of precision and recall. A picture is (512, 1536, 3) uint8: input, result and
    truth side by side. The processes share the files; each returns all results, or None
    if a signal came meanwhile.
    """
    detects = isinstance(model, DamageDetector)
    examine = _detect if detects else _restore
    user = Detector(model.probability) if detects else Pipeline([model])
    mine = share(fabric, list(enumerate(pairs)))
    off = not fabric.is_global_zero
    rows, pictures = [], []
    for index, pair in tqdm(mine, "validating", unit="image", leave=False, disable=off):
        row, picture = examine(user, *pair)
        rows.append(row)
        if index < PICTURES:
            pictures.append(picture)
        if stop and stop.number:
            break
    rows, pictures = gather(fabric, rows), gather(fabric, pictures)
    if len(rows) < len(pairs):
        return None
    table = pd.DataFrame(rows)
    return _detection_scores(table) if detects else table.mean().to_dict(), pictures


def _restore(pipeline: Pipeline, source: Path, target: Path) -> tuple[dict, np.ndarray]:
    """S, M, C and score of a restored pair, and its picture."""
    gray, true = read_input(source), read_truth(target)
    pred = pipeline(gray)
    score = score_image(true, pred, lost_pixels(gray, true))
    return score.as_dict(), side_by_side(gray, pred, true)


def _detect(finder: Detector, _: Path, target: Path) -> tuple[dict, np.ndarray]:
    """Hits on an aged photo, whose damage depends on the file name alone, and its picture."""
    rng = np.random.default_rng(zlib.crc32(target.name.encode()))
    gray, true = age(read_truth(target), rng)
    found = clean_mask(finder.probability(gray))
    masks = (mask.astype(np.uint8) * 255 for mask in (found, true))
    return hit_counts(found, true), side_by_side(gray, *masks)


def _detection_scores(rows: pd.DataFrame) -> dict[str, float]:
    """Precision and recall within two pixels over all images, and their harmonic mean."""
    rates = detection_rates(rows)
    precision, recall = float(rates["precision, 2 px"]), float(rates["recall, 2 px"])
    score = 2 * precision * recall / max(1e-9, precision + recall)
    return {"precision": precision, "recall": recall, "score": score}


def reserve_time(budget: Budget, model: TrainableModel, pairs: Pairs, fabric: Fabric) -> None:
    """Reserve the time of the last validation, estimated from two images per process."""
    few = pairs[: 2 * fabric.world_size]
    validate(model, few[: fabric.world_size], fabric)
    start = time.monotonic()
    validate(model, few, fabric)
    (budget.reserve,) = all_reduce_max(fabric, (time.monotonic() - start) / len(few) * len(pairs))
    if budget.reserve >= budget.seconds:
        found = f"{budget.reserve / 60:.2g} minutes, the budget is {budget.seconds / 60:g}"
        raise InputError(f"validation alone takes {found}", "time budget")
