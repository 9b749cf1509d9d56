"""Scores of folders of restored images on all cores; accuracy of detected damage; pictures."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src.damage.hole import lost_pixels
from src.metrics import SSIM_WINDOW, Score, mean_score, score_image
from src.utils.errors import InputError
from src.utils.images import gray_to_rgb, open_image, pngs_by_name, read_image
from src.utils.processes import parallel_map

NEAR = 2  # px of tolerance between found and true damage

Triple = tuple[Path, Path, Path]  # restored, truth, damaged input


def score_files(triple: Triple) -> tuple[Score, bool]:
    """The score of one restored PNG, and whether its input has a hole."""
    true = read_image(triple[1], "RGB")
    size = true.shape[1::-1]
    pred, gray = read_image(triple[0], "RGB", size), read_image(triple[2], "L", size)
    if min(size) < SSIM_WINDOW:
        raise InputError(f"{triple[1]}: smaller than the {SSIM_WINDOW} px window of the score")
    mask = lost_pixels(gray, true)
    return score_image(true, pred, mask), bool(mask.any())


def score_table(triples: Sequence[Triple]) -> tuple[pd.DataFrame, Score]:
    """Scores of each image (columns name, S, M, C, score; in the given order) and their mean."""
    found = list(parallel_map(score_files, triples, "scoring"))
    whole = sum(not has_hole for _, has_hole in found)
    if whole:
        print(f"{whole} of {len(found)} inputs have no hole, so their M counts as 1")
    scores = [score for score, _ in found]
    table = pd.DataFrame([score.as_dict() for score in scores])
    table.insert(0, "name", [pred.name for pred, _, _ in triples])
    return table, mean_score(scores)


def matching_files(pred: Path, gt: Path, inputs: Path) -> list[Triple]:
    """(restored, truth, input) PNGs of the same name; an error if `pred` lacks any of `gt`."""
    names = {}
    for folder in (pred, gt, inputs):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        names[folder] = pngs_by_name(folder)
    if not names[pred]:
        raise InputError(f"{pred}: holds no PNG", "restored")
    for folder, needed in ((gt, pred), (inputs, pred), (pred, gt)):
        if missing := sorted(names[needed].keys() - names[folder].keys()):
            found = f"missing, as are {len(missing)} of {needed} in all"
            hint = "restored" if folder == pred else None
            raise InputError(f"{folder / missing[0]}: {found}", hint)
    return [tuple(names[f][name] for f in (pred, gt, inputs)) for name in sorted(names[pred])]


def side_by_side(*images: np.ndarray) -> np.ndarray:
    """Images (H, W) or (H, W, 3) uint8 of one size in a row, (H, n * W, 3) uint8."""
    return np.hstack([gray_to_rgb(image) if image.ndim == 2 else image for image in images])


def picture(triples: Sequence[Triple]) -> np.ndarray:
    """Input, result and truth per row, (H, W, 3) uint8; each at most 512 px a side."""
    rows = []
    for pred, true, gray in triples:
        images = [open_image(path) for path in (gray, pred, true)]
        for image in images:
            image.thumbnail((512, 512))
        rows.append(side_by_side(*map(np.asarray, images)))
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def hit_counts(found: np.ndarray, true: np.ndarray) -> dict[str, int]:
    """Pixels of two (H, W) bool masks: `found`, `true`, `hit` (both), and hits within `NEAR` px."""
    square = np.ones((2 * NEAR + 1,) * 2, np.uint8)
    near_true, near_found = (cv2.dilate(m.astype(np.uint8), square) > 0 for m in (true, found))
    masks = {"found": found, "true": true, "hit": found & true}
    masks |= {"found near": found & near_true, "true near": true & near_found}
    return {name: int(mask.sum()) for name, mask in masks.items()}


def detection_rates(table: pd.DataFrame) -> pd.Series:
    """Precision, recall and F1 over the pixels of all photos, a row of `hit_counts` each."""
    sums = table.sum()
    found, true = (max(1, sums[name]) for name in ("found", "true"))
    exact = {"precision": sums["hit"] / found, "recall": sums["hit"] / true}
    near = {"precision, 2 px": sums["found near"] / found, "recall, 2 px": sums["true near"] / true}
    return pd.Series(exact | near | {"F1": 2 * sums["hit"] / (found + true)})
