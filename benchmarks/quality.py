"""Measure the worth of each part: python -m benchmarks.quality parts --checkpoints weights/fold0"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.segmentation import felzenszwalb
from tqdm import tqdm
from tyro.conf import OmitArgPrefixes
from tyro.extras import subcommand_cli_from_dict

from src.color.decode import MIN_P, decode, expected_color, histogram_fit, plausibility, render
from src.color.lattice import luma
from src.damage.aging import KINDS, age
from src.damage.finders import clean_mask
from src.damage.hole import find_hole, lost_pixels
from src.damage.prints import LOOKS
from src.datasets.competition import read_input, read_truth
from src.datasets.folds import evenly_spaced, fold_files, photo_sources
from src.evaluation.scoring import detection_rates, hit_counts
from src.fills.copies import copy_texture
from src.fills.exemplar import costly_fills
from src.fills.simple import DIRECTIONS, all_fills
from src.metrics import HUE_BINS, hue_correlation, hue_histogram, masked_ssim, score_image
from src.models.checkpoints import load_model, read_description
from src.models.inpainter import inpaint
from src.pipeline import Pipeline, load_finder, telea
from src.utils.cli import Tta, run_script
from src.utils.errors import InputError
from src.utils.images import gray_to_rgb
from src.utils.processes import cores, parallel_map

Pair = tuple[Path, Path]  # damaged input and truth
FOLDS, SEED = 5, 0  # as for the shipped folds


@dataclass(frozen=True)
class HeldOut:
    """Held-out images of a fold."""

    data_dir: Path = Path("data")
    """The competition folder."""
    fold: int = 0
    """The fold whose held-out images are measured."""
    count: int = 300
    """Images to measure, spread evenly; 0 takes all."""

    def pairs(self, checkpoints: Sequence[Path] = ()) -> list[Pair]:
        """(input, truth) files; `InputError` if a checkpoint is not of this fold."""
        for path in checkpoints:
            folds = {network.get("fold") for network in read_description(path).values()}
            if folds != {self.fold}:
                found = f"trained on images of --fold {self.fold}"
                raise InputError(f"{path}: {found}; name checkpoints of this fold only")
        return evenly_spaced(fold_files(self.data_dir, FOLDS, SEED, self.fold)[1], self.count)


@cache  # once per worker process
def restorers(checkpoints: tuple[Path, ...]) -> tuple:
    """The models of checkpoints, on the CPU."""
    return tuple(load_model(path, torch.device("cpu"))[0] for path in checkpoints)


def show(table: pd.DataFrame, digits: int = 4) -> None:
    """Print a table."""
    print(table.to_string(float_format=f"{{:.{digits}f}}".format))


def means(rows: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Mean of each column and its difference from a reference, with standard errors."""
    gain = rows.sub(rows[reference], axis=0)
    columns = {"mean": rows.mean(), "std error": rows.sem()}
    return pd.DataFrame(columns | {f"over {reference}": gain.mean(), "its std error": gain.sem()})


def parts(
    chosen: HeldOut, checkpoints: tuple[Path, ...], images: Literal["held-out", "test"] = "held-out"
) -> None:
    """S, M, C and score of the restorer with a part left out or replaced.

    Args:
        checkpoints: folders of folds, such as weights/fold0, measured together.
        images: which; a built folder has truths of its test images, too.
    """
    torch.set_num_threads(cores())
    if images == "held-out":
        pairs = chosen.pairs(checkpoints)
    else:
        truths = evenly_spaced(sorted((chosen.data_dir / "test_gt").iterdir()), chosen.count)
        pairs = [(chosen.data_dir / "test_input" / path.name, path) for path in truths]
    training, _, _ = fold_files(chosen.data_dir, FOLDS, SEED, chosen.fold)
    histograms = list(parallel_map(true_histogram, [truth for _, truth in training], "histograms"))
    # the highest mean correlation with all histograms, see docs/restorer.md
    centred = np.array(histograms) - 1 / HUE_BINS
    constant = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).mean(axis=0)
    constant -= constant.min()
    pipeline, rows = Pipeline(restorers(checkpoints)), {}
    for source, target in tqdm(pairs, "measuring", dynamic_ncols=True):
        gray, true = read_input(source), read_truth(target)
        lost = lost_pixels(gray, true)
        made = variants(pipeline, gray, true, constant / constant.sum())
        scores = {name: score_image(true, rgb, lost).as_dict() for name, rgb in made.items()}
        rows[source.name] = pd.DataFrame(scores).T
    table = pd.concat(rows)
    gain = means(table["score"].unstack(), "restored").iloc[:, 2:]
    show(table.groupby(level=1, sort=False).mean().join(gain))


def true_histogram(path: Path) -> np.ndarray:
    """(180,) hue histogram of a truth file, sums to 1."""
    counts = hue_histogram(read_truth(path)).ravel()
    return counts / counts.sum()


def variants(
    pipeline: Pipeline, gray: np.ndarray, true: np.ndarray, constant: np.ndarray
) -> dict[str, np.ndarray]:
    """One image restored in many ways, (H, W, 3) uint8 by name; `true` is for the oracles."""
    mask = find_hole(gray)
    estimate = pipeline.estimate(gray, mask)
    maps = estimate["p"], estimate["chroma_mass"]
    p, chroma_mass = (torch.from_numpy(values) for values in maps)
    inpainted, filled = estimate["luma"], telea(gray, mask)
    color, oracle = expected_color(p, chroma_mass), hue_histogram(true).ravel()
    log_p = p.clamp(min=MIN_P).log()
    gumbel = -torch.empty_like(p).exponential_(generator=torch.Generator().manual_seed(0)).log()
    fits = {"most likely hue (argmax)": log_p, "hue sampled cell by cell": log_p + gumbel}
    histograms = {"histogram: best constant": constant}
    histograms["oracle: true histogram"] = oracle / oracle.sum()
    for name, histogram in histograms.items():
        target = torch.from_numpy(histogram).float()
        fits[name] = histogram_fit(plausibility(p, color), target, inpainted)
    made = {
        "restored": pipeline.decode(estimate, gray, mask),
        "left grey": gray_to_rgb(inpainted),
        "Telea, left grey": gray_to_rgb(filled),
        "Telea": decode(filled, *maps, "score"),
        "decode visual": decode(inpainted, *maps, "visual"),
        "oracle: true luma": decode(luma(true), *maps, "score"),
    }
    made |= {name: render(inpainted, color.numpy(), fit.numpy()) for name, fit in fits.items()}
    members = pipeline.ensemble.members
    if len(members) > 1:
        singles = [Pipeline([member])(gray, mask) for member in members]
        made["first model alone"] = singles[0]
        made["average of the models' RGB"] = np.mean(singles, axis=0).round().astype(np.uint8)
    return made


def fills(chosen: HeldOut, checkpoints: tuple[Path, ...] = ()) -> None:
    """M of the grey images: every fill, their mean, inpainters, and the copies people are shown.

    Args:
        checkpoints: folders; inpainters are measured alone (one view) and together (two views).
    """
    pairs = chosen.pairs(checkpoints)
    rows = list(parallel_map(partial(fill_scores, checkpoints), pairs, "measuring"))
    show(means(pd.DataFrame(rows), "Telea"))


@torch.inference_mode()
def fill_scores(checkpoints: tuple[Path, ...], pair: Pair) -> dict[str, float]:
    """M of each fill of one image."""
    torch.set_num_threads(1)
    gray, rgb = read_input(pair[0]), read_truth(pair[1])
    lost, true = lost_pixels(gray, rgb), luma(rgb)

    def m(pred: np.ndarray) -> float:
        filled = (pred.clip(0, 1) * 255).round().astype(np.uint8)
        return masked_ssim(gray_to_rgb(true), gray_to_rgb(np.where(lost, filled, true)), lost)

    unit = gray.astype(np.float32) / 255
    maps = unit[None], lost[None].astype(np.float32), costly_fills(unit, lost)
    names = [f"line {down},{right}" for down, right in DIRECTIONS]
    names += ["smooth", "frequency", "exemplar"]
    filled = all_fills(*(torch.from_numpy(values)[None] for values in maps))[0].numpy()
    made = dict(zip(names, filled, strict=False))
    row = {"Telea": m(telea(gray, lost) / 255)} | {name: m(fill) for name, fill in made.items()}
    row["best of all fills"] = max(row.values())
    row["mean of frequency, exemplar"] = m((made["frequency"] + made["exemplar"]) / 2)
    inpainters = [model.inpainter for model in restorers(checkpoints)]
    for path, inpainter in zip(checkpoints, inpainters, strict=True):
        row[f"inpainter {path}"] = m(inpaint([inpainter], unit, lost))
    if inpainters:
        mixed = inpaint(inpainters, unit, lost, 2)
        row["inpainters, two views"] = m(mixed)
        row["copies"] = m(copy_texture(np.where(lost, mixed, unit), lost, lost))
    return row


def colors(chosen: HeldOut, checkpoints: tuple[Path, ...], tta: Tta = 1) -> None:
    """Colours by source: of undamaged photos, and in and around the holes of damaged ones."""
    pairs = chosen.pairs(checkpoints)
    rows = list(parallel_map(partial(color_figures, checkpoints, tta), pairs, "measuring"))
    names = [source.stem for source, _ in pairs]
    table = pd.DataFrame(rows, index=names)
    source = photo_sources(chosen.data_dir).reindex(names, fill_value="").to_numpy()
    show(table.groupby(source).mean().assign(images=table.groupby(source).size()))
    show(table.agg(["mean", "sem", "median"]).T)


def color_figures(checkpoints: tuple[Path, ...], tta: Tta, pair: Pair) -> dict[str, float]:
    """The figures of one photo; all but C are those of the visual style."""
    torch.set_num_threads(1)
    pipeline, truth = Pipeline(restorers(checkpoints), tta=tta), read_truth(pair[1])
    gray, nothing = luma(truth), np.zeros(truth.shape[:2], bool)
    estimate = pipeline.estimate(gray, nothing)
    score, visual = (pipeline.decode(estimate, gray, nothing, s) for s in ("score", "visual"))
    damaged = read_input(pair[0])
    lost = lost_pixels(damaged, truth)
    near = cv2.dilate(lost.view(np.uint8), np.ones((61, 61), np.uint8)).view(bool)
    repaired = pipeline.decode(pipeline.estimate(damaged, lost), damaged, lost, "visual")
    # CIELAB is slow
    compared = (truth, visual, gray_to_rgb(gray), repaired)
    true_lab, *labs = (rgb2lab(rgb[::2, ::2]) for rgb in compared)
    labs[-1][..., 0] = true_lab[..., 0]  # the error of the colour, not that of the fill
    error, gray_error, hole_error = (deltaE_ciede2000(true_lab, lab) for lab in labs)
    segments = felzenszwalb(gray[::2, ::2], scale=200, sigma=0.8, min_size=50)
    return {
        "C": hue_correlation(truth, score),
        "C visual": hue_correlation(truth, visual),
        "colourfulness": colorfulness(visual) / max(colorfulness(truth), 1.0),
        "coherence": spread(labs[0], segments) / max(spread(true_lab, segments), 1.0),
        "delta E": float(error.mean()),
        "delta E of grey": float(gray_error.mean()),
        "delta E in the hole": float(hole_error[lost[::2, ::2]].mean()),
        "delta E around it": float(hole_error[(near & ~lost)[::2, ::2]].mean()),
    }


def spread(lab: np.ndarray, segments: np.ndarray) -> float:
    """Mean variance of a and b within segments (H, W) of a photo's CIELAB (H, W, 3)."""
    colors = pd.DataFrame(lab[..., 1:].reshape(-1, 2))
    means = colors.groupby(segments.ravel()).transform("mean")
    return float(((colors - means) ** 2).mean().sum())


def colorfulness(rgb: np.ndarray) -> float:
    """M3 of Hasler and Süsstrunk, "Measuring Colourfulness in Natural Images", 2003."""
    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    spread, offset = opponents.std(axis=1), opponents.mean(axis=1)
    return float(np.linalg.norm(spread) + 0.3 * np.linalg.norm(offset))


def detector(chosen: HeldOut) -> None:
    """Precision and recall of the shipped detector on aged photos, and what it finds in others."""
    torch.set_num_threads(cores())
    finder = load_finder("auto")
    drawn = {"all": KINDS} | {kind: {kind: mean} for kind, mean in KINDS.items()}
    rows, undamaged = [], []
    for number, (_, path) in enumerate(tqdm(chosen.pairs(), "detecting")):
        rgb, seed = read_truth(path), [SEED, zlib.crc32(path.name.encode())]
        for name, kinds in drawn.items():
            gray, true = age(rgb, np.random.default_rng(seed), kinds=kinds)
            found = clean_mask(finder.probability(gray))
            rows.append({"kinds": name, **hit_counts(found, true)})
        look = list(LOOKS)[number % len(LOOKS)]
        printed = LOOKS[look](luma(rgb), np.random.default_rng(seed))
        for name, gray in (("as it is", luma(rgb)), (look, printed)):
            undamaged.append({"photo": name, "found": finder(gray).share})
    show(pd.DataFrame(rows).groupby("kinds", sort=False).apply(detection_rates), 3)
    found = pd.DataFrame(undamaged).groupby("photo", sort=False)["found"]
    shares = {"mean": "mean", "at most 0.5 %": lambda found: (found <= 0.005).mean()}
    print("share found in undamaged photos:")
    show(found.agg(**shares, nothing=lambda found: (found == 0).mean()))


def main() -> None:
    commands = {command.__name__: command for command in (parts, fills, colors, detector)}
    options = {"prog": "python -m benchmarks.quality", "config": (OmitArgPrefixes,)}
    subcommand_cli_from_dict(commands, description=__doc__, **options)


if __name__ == "__main__":
    run_script(main)
