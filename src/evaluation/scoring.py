"""Scores of whole folders of restored images, over all cores; hits of detected damage; pictures."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src.damage.hole import lost_pixels
from src.metrics import SSIM_WINDOW, Score, mean_score, score_image
from src.utils.errors import InputError
from src.utils.images import gray_to_rgb, open_image, read_image
from src.utils.processes import parallel_map

NEAR = 2  # px; a pixel this close to the true damage, or to the found, counts as a hit

Triple = tuple[Path, Path, Path]  # restored, truth, damaged input


def score_files(triple: Triple) -> tuple[Score, bool]:
    """The score of one restored PNG, and whether its input has a hole."""
    pred, true, gray = (
        read_image(path, mode) for path, mode in zip(triple, ("RGB", "RGB", "L"), strict=True)
    )
    for path, array in zip(triple[::2], (pred, gray), strict=True):
        if array.shape[:2] != true.shape[:2]:
            found, wanted = (f"{a.shape[1]}x{a.shape[0]}" for a in (array, true))
            raise InputError(
                f"{path}: size is {found}, the truth's is {wanted}; restore the original file"
            )
    if min(true.shape[:2]) < SSIM_WINDOW:
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
    rows = [
        {"name": pred.name, **s.as_dict()} for (pred, _, _), s in zip(triples, scores, strict=True)
    ]
    return pd.DataFrame(rows), mean_score(scores)


def matching_files(pred: Path, gt: Path, inputs: Path) -> list[Triple]:
    """(restored, truth, input) files of the same name for every PNG in `pred`.

    Raises `InputError` if a folder or a partner is missing, or if `gt` holds an image that `pred`
    lacks, since a mean over some images is not the score.
    """
    found = []
    for folder in (pred, gt, inputs):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
        found.append({path.stem: path for path in files})
    if not found[0]:
        raise InputError(f"{pred}: holds no PNG", "restored")
    for folder, files in zip((gt, inputs), found[1:], strict=True):
        for stem in found[0].keys() - files.keys():
            name = found[0][stem].name
            raise InputError(f"{folder / name}: no such file, but {found[0][stem]} is there")
    lacking = sorted(found[1].keys() - found[0].keys())
    if lacking:
        missing = f"missing, {len(lacking)} of {gt} in all"
        raise InputError(f"{pred / found[1][lacking[0]].name}: {missing}", "restored")
    return [(path, found[1][stem], found[2][stem]) for stem, path in found[0].items()]


def side_by_side(*images: np.ndarray) -> np.ndarray:
    """Images (H, W) or (H, W, 3) uint8 of one size in a row, (H, n * W, 3) uint8."""
    return np.hstack([gray_to_rgb(image) if image.ndim == 2 else image for image in images])


def picture(triples: Sequence[Triple]) -> np.ndarray:
    """Input, result and truth of a few images, a row each, (H, W, 3) uint8; rows at most 512 px
    high."""
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
    near_true, near_found = (
        cv2.dilate(mask.astype(np.uint8), square) > 0 for mask in (true, found)
    )
    return {
        "found": int(found.sum()),
        "true": int(true.sum()),
        "hit": int((found & true).sum()),
        "found near": int((found & near_true).sum()),
        "true near": int((true & near_found).sum()),
    }


def detection_rates(table: pd.DataFrame) -> pd.Series:
    """Precision, recall and F1 over the pixels of all photos, a row of `hit_counts` each."""
    sums = table.sum()
    return pd.Series(
        {
            "precision": sums["hit"] / max(1, sums["found"]),
            "recall": sums["hit"] / max(1, sums["true"]),
            "precision, 2 px": sums["found near"] / max(1, sums["found"]),
            "recall, 2 px": sums["true near"] / max(1, sums["true"]),
            "F1": 2 * sums["hit"] / max(1, sums["found"] + sums["true"]),
        }
    )
