"""Scores of whole folders of restored images, over all cores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.damage.hole import lost_pixels
from src.metrics import SSIM_WINDOW, Score, mean_score, score_image
from src.utils.errors import InputError
from src.utils.images import open_image, read_image
from src.utils.processes import parallel_map

Triple = tuple[Path, Path, Path]  # restored, truth, damaged input


def score_files(triple: Triple) -> Score:
    """Score one restored PNG; raises `InputError` when a file is unreadable or sizes differ."""
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
    return score_image(true, pred, lost_pixels(gray, true))


def picture(triples: Sequence[Triple]) -> np.ndarray:
    """Input, result and truth of a few images, a row each, (H, W, 3) uint8; rows at most 512 px
    high."""
    rows = []
    for pred, true, gray in triples:
        images = [open_image(path).convert("RGB") for path in (gray, pred, true)]
        for image in images:
            image.thumbnail((512, 512))
        rows.append(np.hstack([np.asarray(image) for image in images]))
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def score_table(triples: Sequence[Triple]) -> tuple[pd.DataFrame, Score]:
    """Scores of each image (columns name, S, M, C, score; in the given order) and their mean."""
    scores = list(parallel_map(score_files, triples, "scoring"))
    rows = [
        {"name": pred.name, **s.as_dict()} for (pred, _, _), s in zip(triples, scores, strict=True)
    ]
    return pd.DataFrame(rows), mean_score(scores)


def matching_files(pred: Path, gt: Path, inputs: Path) -> list[Triple]:
    """(restored, truth, input) files of the same name for every PNG in `pred`.

    Raises `InputError` when a folder is missing, `pred` holds no PNG, a partner is missing, or `gt`
    holds an image that `pred` lacks, since a mean over some images is not the score.
    """
    for folder in (pred, gt, inputs):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    names = sorted(path.name for path in pred.glob("*.png"))
    if not names:
        raise InputError(f"{pred}: holds no PNG", "restored")
    for folder in (pred, gt, inputs):
        for name in names:
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: no such file, but {pred / name} is there")
    lacking = sorted({path.name for path in gt.glob("*.png")} - set(names))
    if lacking:
        found = f"missing, {len(lacking)} of {gt} in all"
        raise InputError(f"{pred / lacking[0]}: {found}", "restored")
    return [(pred / name, gt / name, inputs / name) for name in names]
