"""One image restored with a part of the restorer left out or replaced."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.color.decode import LEAST, decode, expected_color, histogram_fit, plausibility, render
from src.color.luma import luma
from src.damage.hole import find_hole, lost_pixels
from src.datasets.competition import read_input, read_truth
from src.metrics import HUE_BINS, hue_histogram, masked_ssim, score_image
from src.models.restorer import restored_luma
from src.pipeline import Pipeline, telea
from src.utils.images import gray_to_rgb

RESTORED = "restored"  # the variant that leaves nothing out
VISUAL, LIKELIEST = "decode visual", "most likely hue (argmax)"


def true_histogram(path: Path) -> np.ndarray:
    """(180,) hue histogram of a truth file, sums to 1."""
    counts = hue_histogram(read_truth(path)).ravel()
    return counts / counts.sum()


def best_constant(histograms: Sequence[np.ndarray]) -> np.ndarray:
    """The (180,) histogram with the highest mean correlation with all of (180,) `histograms`.

    That is the mean of their centred unit vectors, with its least bin moved to 0; see
    docs/restorer.md.
    """
    centred = np.array(histograms) - 1 / HUE_BINS
    mean = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).mean(axis=0)
    return (mean - mean.min()) / (mean - mean.min()).sum()


def hue_by_hue(gray: np.ndarray, logits: Tensor, p: Tensor, chroma_mass: Tensor) -> np.ndarray:
    """RGB whose hue has the highest of `logits` (180, h, w) at each pixel, whatever histogram comes
    out."""
    return render(gray, expected_color(p, chroma_mass), logits)


@torch.inference_mode()
def variants(
    pipeline: Pipeline, gray: np.ndarray, mask: np.ndarray, true: np.ndarray, constant: np.ndarray
) -> dict[str, np.ndarray]:
    """One image restored in many ways, (H, W, 3) uint8 RGB by name; the decodes share one estimate.

    Args:
        pipeline: of restorers on the CPU, one view.
        gray, mask: (H, W) uint8 and bool, the damaged image and its hole.
        true: (H, W, 3) uint8, for the oracles.
        constant: (180,), see `best_constant`.
    """
    estimate = pipeline.estimate(gray, mask)
    p, chroma_mass = estimate["p"][0], estimate["chroma_mass"][0]
    inpainted, filled = restored_luma(estimate, gray, mask), telea(gray, mask)
    log_p = p.clamp(min=LEAST).log()
    gumbel = -torch.empty_like(p).exponential_(generator=torch.Generator().manual_seed(0)).log()
    oracle = hue_histogram(true).ravel()

    def with_histogram(wanted: np.ndarray) -> np.ndarray:
        color = expected_color(p, chroma_mass)
        fit = histogram_fit(plausibility(p, color), torch.from_numpy(wanted).float(), *gray.shape)
        return render(inpainted, color, fit)

    made = {
        RESTORED: pipeline.decode(estimate, gray, mask),
        "left grey": gray_to_rgb(inpainted),
        "Telea, left grey": gray_to_rgb(filled),
        "Telea": decode(filled, p, chroma_mass, "score"),
        VISUAL: decode(inpainted, p, chroma_mass, "visual"),
        LIKELIEST: hue_by_hue(inpainted, log_p, p, chroma_mass),
        "hue sampled cell by cell": hue_by_hue(inpainted, log_p + gumbel, p, chroma_mass),
        "histogram: best constant": with_histogram(constant),
        "oracle: true histogram": with_histogram(oracle / oracle.sum()),
        "oracle: true luma": decode(luma(true), p, chroma_mass, "score"),
    }
    members = pipeline.ensemble.members
    if len(members) > 1:
        singles = [Pipeline([member])(gray, mask) for member in members]
        made["first model alone"] = singles[0]
        made["average of the models' RGB"] = np.mean(singles, axis=0).round().astype(np.uint8)
    return made


def measure(
    pipeline: Pipeline, pair: tuple[Path, Path], constant: np.ndarray
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Scores of every variant of one (input, truth) pair by name, and facts of the restored image."""
    gray, true = read_input(pair[0]), read_truth(pair[1])
    lost = lost_pixels(gray, true)
    start = time.perf_counter()
    restored = pipeline(gray)
    seconds = time.perf_counter() - start
    mask = find_hole(gray)
    made = variants(pipeline, gray, mask, true, constant)
    true_luma = gray_to_rgb(luma(true))
    facts = {
        "luma kept outside the hole": float((luma(restored) == gray)[~mask].mean()),
        "seconds an image, finding the hole and decode included": seconds,
        "C of the best constant histogram itself": correlation(hue_histogram(true), constant),
        "M of luma alone, inpainter": masked_ssim(true_luma, gray_to_rgb(luma(restored)), lost),
        "M of luma alone, Telea": masked_ssim(true_luma, gray_to_rgb(telea(gray, mask)), lost),
    }
    return {name: score_image(true, image, lost).as_dict() for name, image in made.items()}, facts


def strip(pipeline: Pipeline, pair: tuple[Path, Path], constant: np.ndarray) -> np.ndarray:
    """(H, 5W, 3) uint8: input, restored, visual decode, most likely hues and truth of one pair."""
    gray, true = read_input(pair[0]), read_truth(pair[1])
    made = variants(pipeline, gray, find_hole(gray), true, constant)
    return np.hstack(
        [gray_to_rgb(gray), *(made[name] for name in (RESTORED, VISUAL, LIKELIEST)), true]
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """C of two hue histograms, of 180 numbers each in any scale."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
