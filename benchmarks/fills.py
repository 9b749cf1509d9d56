"""What every fill of a hole, and the inpainter that mixes them, is worth."""

from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks.settings import FillQuality
from src.color.luma import luma
from src.damage.hole import lost_pixels
from src.datasets.competition import read_input, read_truth
from src.datasets.folds import evenly_spaced, fold_files
from src.fills.all import all_fills
from src.fills.copies import copy_texture
from src.fills.costly import costly_fills
from src.fills.simple import DIRECTIONS
from src.metrics import masked_ssim
from src.models.checkpoints import load_weights, network_file
from src.models.inpainter import Inpainter, inpaint
from src.models.registry import create_model
from src.pipeline import telea
from src.utils.images import gray_to_rgb
from src.utils.processes import cores, parallel_map

SIMPLE = [f"line {down},{right}" for down, right in DIRECTIONS] + ["smooth"]
COSTLY = ["frequency", "exemplar"]


@cache  # one of each in each process that measures
def load_inpainter(folder: Path) -> Inpainter:
    """The inpainter of a fold's folder."""
    model = create_model("restorer", encoder_weights="none")
    load_weights(model, network_file(folder, "inpainter"))
    return model.inpainter.eval()


@torch.inference_mode()
def measure(checkpoints: tuple[Path, ...], pair: tuple[Path, Path]) -> dict[str, float]:
    """M of each fill of an image."""
    torch.set_num_threads(1)
    gray, rgb = read_input(pair[0]), read_truth(pair[1])
    lost, true = lost_pixels(gray, rgb), luma(rgb)

    def m(pred: np.ndarray) -> float:
        if pred.dtype != np.uint8:
            pred = (pred.clip(0, 1) * 255).round().astype(np.uint8)
        return masked_ssim(gray_to_rgb(true), gray_to_rgb(np.where(lost, pred, true)), lost)

    unit = gray.astype(np.float32) / 255
    image, mask, costly = (
        torch.from_numpy(a.astype(np.float32))[None]
        for a in (unit[None], lost[None], costly_fills(unit, ~lost))
    )
    fills = all_fills(image, mask, costly)[0].numpy()
    row = {"telea": m(telea(gray, lost))}
    row |= {
        name: m(fill) for name, fill in zip(SIMPLE + COSTLY, fills[: len(SIMPLE) + 2], strict=True)
    }
    row["best of all fills"] = max(row.values())
    row["mean of both costly"] = m(fills[-4:-2].mean(axis=0))
    for share in (0.1, 0.2, 0.3):
        row[f"and {share:g} of the rows"] = m(
            (1 - share) * fills[-4:-2].mean(axis=0) + share * fills[0]
        )
    inpainters = [load_inpainter(path) for path in checkpoints]
    for path, inpainter in zip(checkpoints, inpainters, strict=True):
        row[f"inpainter {path.name}"] = m(inpaint([inpainter], image, mask, 1)[0, 0].numpy())
    if inpainters:
        mixed = inpaint(inpainters, image, mask, 2)[0, 0].numpy()
        row["inpainters, two views"] = m(mixed)
        row["copies"] = m(copy_texture(np.where(lost, mixed, unit), ~lost, lost))
    return row


def run(settings: FillQuality) -> None:
    """Print the table."""
    cv2.setNumThreads(cores())
    _, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, settings.fold)
    pairs = evenly_spaced(held_out, settings.count)
    rows = pd.DataFrame(
        list(parallel_map(partial(measure, settings.checkpoints), pairs, "measuring"))
    )
    if settings.table:
        rows.to_csv(settings.table, index=False)
    means = pd.DataFrame({"M": rows.mean(), "std error": rows.sem()})
    gain = rows.sub(rows["telea"], axis=0)
    means["over telea"], means["its std error"] = gain.mean(), gain.sem()
    print(f"{len(rows)} images")
    print(means.to_string(float_format=lambda value: f"{value:.4f}"))
