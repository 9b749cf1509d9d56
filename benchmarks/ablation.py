"""What each part of the restorer is worth: one image restored with a part left out or replaced."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.color import luma
from src.damage import detect, lost_pixels
from src.datasets.competition import read_input, read_truth
from src.decode import LEAST, decode, expected_color, render
from src.inference import restore, telea
from src.metrics import HUE_BINS, hue_histogram, masked_ssim, score_image
from src.models.restorer import Restorer

RESTORED = "restored"  # the variant that leaves nothing out
VISUAL, LIKELIEST = "decode visual", "most likely hue (argmax)"


def true_histogram(path: Path) -> np.ndarray:
    """(180,) hue histogram of a truth file, sums to 1."""
    counts = hue_histogram(read_truth(path)).ravel()
    return counts / counts.sum()


def best_constant(histograms: Sequence[np.ndarray]) -> np.ndarray:
    """The (180,) histogram with the highest mean correlation with all of (180,) `histograms`.

    That is the mean of their centred unit vectors, with its least bin moved to 0; see docs/restorer.md.
    """
    centred = np.array(histograms) - 1 / HUE_BINS
    mean = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).mean(axis=0)
    return (mean - mean.min()) / (mean - mean.min()).sum()


def hue_by_hue(gray: np.ndarray, logits: Tensor, p: Tensor, mass: Tensor) -> np.ndarray:
    """RGB whose hue has the highest of `logits` (180, h, w) at each pixel, whatever histogram comes out."""
    return render(gray, expected_color(p, mass), logits)


@torch.inference_mode()
def variants(
    models: Sequence[Restorer], gray: np.ndarray, mask: np.ndarray, true: np.ndarray, constant: np.ndarray
) -> dict[str, np.ndarray]:
    """One image restored in many ways, (H, W, 3) uint8 RGB by name; the decodes share one estimate.

    Args:
        models: fold models in evaluation mode, on the CPU.
        gray, mask: (H, W) uint8 and bool, the damaged image and its hole.
        true: (H, W, 3) uint8, for the oracles.
        constant: (180,), see `best_constant`.
    """
    inputs = [torch.from_numpy(x.astype(np.float32))[None, None] for x in (gray / 255, mask)]
    mean = models[0].predict(models, *inputs, tta=1)
    p, mass, histogram = (mean[key][0] for key in ("p", "mass", "histogram"))
    restored = models[0].decode(mean, *inputs, "score")[0].permute(1, 2, 0).numpy()
    inpainted, filled = luma(restored), telea(gray, mask)[..., 0]
    log_p = p.clamp(min=LEAST).log()
    gumbel = -torch.empty_like(p).exponential_(generator=torch.Generator().manual_seed(0)).log()
    oracle = hue_histogram(true).ravel()

    def with_histogram(wanted: np.ndarray | Tensor) -> np.ndarray:
        return decode(inpainted, p, mass, torch.as_tensor(wanted).float(), "score")

    made = {
        RESTORED: restored,
        "left grey": as_rgb(inpainted),
        "Telea, left grey": telea(gray, mask),
        "Telea": decode(filled, p, mass, histogram, "score"),
        VISUAL: decode(inpainted, p, mass, histogram, "visual"),
        LIKELIEST: hue_by_hue(inpainted, log_p, p, mass),
        "hue sampled cell by cell": hue_by_hue(inpainted, log_p + gumbel, p, mass),
        "histogram: mean of the cells": with_histogram(p.mean(dim=(1, 2))),
        "histogram: best constant": with_histogram(constant),
        "oracle: true histogram": with_histogram(oracle / oracle.sum()),
        "oracle: true luma": decode(luma(true), p, mass, histogram, "score"),
    }
    if len(models) > 1:
        singles = [
            model.decode(model.predict([model], *inputs, tta=1), *inputs, "score") for model in models
        ]
        average = torch.stack(singles).float().mean(dim=0)[0].permute(1, 2, 0)
        made["first model alone"] = singles[0][0].permute(1, 2, 0).numpy()
        made["average of the models' RGB"] = average.round().to(torch.uint8).numpy()
    return made


def measure(
    models: Sequence[Restorer], pair: tuple[Path, Path], constant: np.ndarray
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Scores of every variant of one (input, truth) pair by name, and facts of the restored image."""
    gray, true = read_input(pair[0]), read_truth(pair[1])
    lost = lost_pixels(gray, true)
    start = time.perf_counter()
    mask = detect(gray)
    restored = restore(models, gray, mask)
    seconds = time.perf_counter() - start
    made = variants(models, gray, mask, true, constant)
    facts = {
        "luma kept outside the hole": float((luma(restored) == gray)[~mask].mean()),
        "seconds an image, detector and decode included": seconds,
        "C of the best constant histogram itself": correlation(hue_histogram(true), constant),
        "M of luma alone, inpainter": masked_ssim(as_rgb(luma(true)), as_rgb(luma(restored)), lost),
        "M of luma alone, Telea": masked_ssim(as_rgb(luma(true)), telea(gray, mask), lost),
    }
    return {name: score_image(true, image, lost).as_dict() for name, image in made.items()}, facts


def strip(models: Sequence[Restorer], pair: tuple[Path, Path], constant: np.ndarray) -> np.ndarray:
    """(H, 5W, 3) uint8: input, restored, visual decode, most likely hues and truth of one pair."""
    gray, true = read_input(pair[0]), read_truth(pair[1])
    made = variants(models, gray, detect(gray), true, constant)
    return np.hstack([as_rgb(gray), *(made[name] for name in (RESTORED, VISUAL, LIKELIEST)), true])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """C of two hue histograms, of 180 numbers each in any scale."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def as_rgb(gray: np.ndarray) -> np.ndarray:
    """(H, W) to (H, W, 3)."""
    return np.repeat(gray[..., None], 3, axis=2)
