"""What the colours are worth: to the score, and to people."""

from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from benchmarks.settings import ColorQuality
from src.color.luma import luma
from src.datasets.competition import read_truth
from src.datasets.folds import evenly_spaced, fold_files
from src.metrics import hue_correlation
from src.models.base import Ensemble
from src.models.checkpoints import load_weights, network_file, read_description
from src.models.registry import create_model
from src.models.restorer import RestorerEnsemble
from src.utils.images import gray_to_rgb, write_png
from src.utils.processes import parallel_map

STEP = 2  # of so many pixels along each side one is compared in CIELAB, which is slow
SHEET_SIDE, SHEET_COLUMNS = 240, 4  # pixels of a picture, and photos in a row of the sheet


def colorfulness(rgb: np.ndarray) -> float:
    """Of (H, W, 3) uint8: M3 of Hasler and Süsstrunk, "Measuring Colourfulness in Natural Images",
    2003."""
    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    return float(
        np.linalg.norm(opponents.std(axis=1)) + 0.3 * np.linalg.norm(opponents.mean(axis=1))
    )


@cache  # one in each process that measures
def ensemble(checkpoints: tuple[Path, ...], tta: int) -> Ensemble:
    """The colorizers of some folds' folders; they need no inpainters, since nothing is lost."""
    members = []
    for folder in checkpoints:
        options = read_description(network_file(folder, "colorizer"))["colorizer"]["arguments"]
        members.append(create_model("restorer", **options | {"encoder_weights": "none"}).eval())
        load_weights(members[-1], network_file(folder, "colorizer"))
    return RestorerEnsemble(members, tta)


@torch.inference_mode()
def measure(
    checkpoints: tuple[Path, ...], tta: int, pair: tuple[Path, Path]
) -> tuple[dict[str, float], np.ndarray]:
    """The figures of one photo, and it in grey, restored for people, and as it is, side by side."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    restorers, truth = ensemble(checkpoints, tta), read_truth(pair[1])
    gray, nothing = luma(truth), np.zeros(truth.shape[:2], bool)
    image = torch.from_numpy(gray / np.float32(255))[None, None]
    estimate = restorers.estimate(image, torch.zeros_like(image))
    score, visual = (
        restorers.decode(estimate, gray, nothing, style) for style in ("score", "visual")
    )
    true_lab, *labs = (rgb2lab(rgb[::STEP, ::STEP]) for rgb in (truth, gray_to_rgb(gray), visual))
    row = {
        "C": hue_correlation(truth, score),
        "C visual": hue_correlation(truth, visual),
        "colourfulness": colorfulness(visual) / max(colorfulness(truth), 1.0),
        "delta E": float(deltaE_ciede2000(true_lab, labs[1]).mean()),
        "delta E of grey": float(deltaE_ciede2000(true_lab, labs[0]).mean()),
    }
    size = (SHEET_SIDE, SHEET_SIDE)
    pictures = (
        cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        for rgb in (gray_to_rgb(gray), visual, truth)
    )
    return row, np.hstack(list(pictures))


def sources(data_dir: Path) -> pd.Series:
    """Source of each image by its name, where `crops.csv` tells: the photo's path up to a last
    hyphen."""
    path = data_dir / "crops.csv"
    if not path.exists():
        return pd.Series(dtype=str)
    crops = pd.read_csv(path, dtype=str)
    return (
        crops["photo"].str.replace(r"(-[^-/]*)?\.[^./]*$", "", regex=True).set_axis(crops["name"])
    )


def run(settings: ColorQuality) -> None:
    """Print the tables and write the sheet."""
    _, held_out = fold_files(settings.data_dir, settings.folds, settings.seed, settings.fold)
    pairs = evenly_spaced(held_out, settings.count)
    work = partial(measure, settings.checkpoints, settings.tta)
    rows, strips = zip(*parallel_map(work, pairs, "measuring"), strict=True)
    names = [source.stem for source, _ in pairs]
    table = pd.DataFrame(rows, index=pd.Index(names, name="image"))
    table.insert(0, "source", sources(settings.data_dir).reindex(names, fill_value="").to_numpy())
    if settings.table:
        table.to_csv(settings.table)
    numbers = table.drop(columns="source")
    by_source = numbers.groupby(table["source"]).mean()
    by_source.insert(0, "images", table.groupby("source").size())
    print(by_source.to_string(float_format=lambda value: f"{value:.4f}"))
    facts = pd.DataFrame(
        {"mean": numbers.mean(), "std error": numbers.sem(), "median": numbers.median()}
    )
    print(facts.to_string(float_format=lambda value: f"{value:.4f}"))
    if settings.sheet:
        count = len(strips) // SHEET_COLUMNS * SHEET_COLUMNS
        lines = [np.hstack(strips[n : n + SHEET_COLUMNS]) for n in range(0, count, SHEET_COLUMNS)]
        write_png(settings.sheet, np.vstack(lines))
