"""A damaged grey photo in, a restored colour photo out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch

from src.damage.finders import DamageFinder, Finder, find_nothing
from src.damage.hole import find_hole
from src.fills.base import Fill
from src.fills.exemplar import complete
from src.fills.frequency import extrapolate
from src.fills.regions import parts
from src.models.base import Estimate, RestorationModel
from src.models.checkpoints import load_model, network_files
from src.models.detector import DamageDetector
from src.runs import DETECTOR, fold_checkpoints
from src.utils.cli import DamageKind, Style, Tta
from src.utils.errors import InputError, SettingError
from src.utils.files import file_hash
from src.utils.images import gray_to_rgb


class Pipeline:
    """Restores photos with an ensemble of models: `rgb = pipeline(gray)` or `rgb = pipeline(gray,
    mask)`.

    Args:
        members: models of one class in evaluation mode, on one device.
        find: what finds the damage of a photo whose mask is not given.
        tta: number of views that are averaged: 1, 2 (mirrored) or 8 (mirrored and turned).
        style: what the colours are chosen for, see `src.color.decode`.
        recipe: what the results depend on, see `src.utils.recipe`.
    """

    def __init__(
        self,
        members: Sequence[RestorationModel],
        find: Finder = find_hole,
        tta: Tta = 1,
        style: Style = "score",
        recipe: dict | None = None,
    ):
        for name, value, choices in (
            ("tta", tta, get_args(Tta)),
            ("style", style, get_args(Style)),
        ):
            if value not in choices:
                raise SettingError(
                    name, value, f"unknown; choose one of {', '.join(map(str, choices))}"
                )
        self.ensemble = members[0].ensemble_class(members, tta)
        self.find = find
        self.style = style
        self.device = next(members[0].parameters()).device
        self.recipe = (recipe or {}) | {"tta": tta, "style": style}

    @classmethod
    def load(
        cls,
        run_dir: Path | str,
        folds: Sequence[int] | None = None,
        tta: Tta = 1,
        style: Style = "score",
        damage: DamageKind = "auto",
        device: torch.device | str = "cpu",
        detector: Path = DETECTOR,
    ) -> "Pipeline":
        """The pipeline of a run's folds, all trained ones when `folds` is None.

        Args:
            run_dir: such as outputs/restorer, or weights for the shipped ones.
            damage, detector: what is looked for, and with which file's network, see `load_finder`.

        Raises `InputError` for a missing, broken or foreign checkpoint, and for folds of different
        models; `SettingError` for an unknown choice.
        """
        paths = fold_checkpoints(Path(run_dir), folds)
        members, descriptions = zip(
            *(load_model(path, torch.device(device)) for path in paths), strict=True
        )
        names = sorted({description["model"] for description in descriptions})
        if len(names) > 1:
            raise InputError(f"{run_dir}: folds of different models ({', '.join(names)})")
        if not isinstance(members[0], RestorationModel):
            raise InputError(
                f"{paths[0]}: holds a {names[0]}, expected a model that restores photos"
            )
        checkpoints = {
            path.name: {file.stem: file_hash(file) for file in network_files(path)}
            for path in paths
        }
        recipe = {"model": names[0], "checkpoints": checkpoints, **finder_recipe(damage, detector)}
        return cls(members, load_finder(damage, device, detector), tta, style, recipe)

    def __call__(self, gray: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Restore a photo.

        Args:
            gray: (H, W) uint8, of any size.
            mask: (H, W) bool, True where lost; found when it is None.

        Returns: (H, W, 3) uint8 RGB.
        """
        mask = self.find(gray) if mask is None else mask
        return self.decode(self.estimate(gray, mask), gray, mask)

    @torch.inference_mode()
    def estimate(self, gray: np.ndarray, mask: np.ndarray) -> Estimate:
        """What the ensemble knows of a photo before anything is decided, tensors (1, K, h, w) by
        name.

        The restorer gives `luma` in [0, 1], and on a coarse grid the probability `p` of each of 180
        hues and `chroma_mass`, this times the chroma expected of the hue. The other models give
        `rgb`.
        """
        damaged = torch.from_numpy(gray.astype(np.float32) / 255)[None, None].to(self.device)
        lost = torch.from_numpy(mask.astype(np.float32))[None, None].to(self.device)
        return self.ensemble.estimate(damaged, lost)

    @torch.inference_mode()
    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style | None = None
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB of an estimate of `gray` and `mask`, in another style if one is
        given."""
        return self.ensemble.decode(estimate, gray, mask, style or self.style)


class Baseline:
    """What needs no training, called like a `Pipeline`: a fill of the hole, left grey.

    Args:
        name: a key of `BASELINES`.
        damage: what is looked for, as for `Pipeline.load`.
    """

    def __init__(self, name: str, damage: DamageKind = "hole"):
        self.fill = BASELINES[name]
        self.find = load_finder(damage)
        self.recipe = {"baseline": name, **finder_recipe(damage)}

    def __call__(self, gray: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of (H, W) uint8; arguments as for `Pipeline`."""
        return gray_to_rgb(self.fill(gray, self.find(gray) if mask is None else mask))


def telea(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """OpenCV's inpainting of Telea 2004 with a radius of 3 px: (H, W) uint8 from (H, W) uint8 and
    bool."""
    return cv2.inpaint(gray, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def filled(
    fill: Callable[[np.ndarray, np.ndarray], Fill], gray: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """`gray` (H, W) uint8 filled where `mask` (H, W) bool is True, by a fill of `src.fills`."""
    result, known = gray.copy(), ~mask
    for box, part in parts(mask):
        luma = fill(gray[box].astype(np.float32) / 255, known[box]).luma
        result[box][part] = (luma[part] * 255).round().astype(np.uint8)
    return result


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "input": lambda gray, mask: gray,
    "telea": telea,
    "frequency": partial(filled, extrapolate),
    "exemplar": partial(filled, complete),
}


def load_detector(path: Path = DETECTOR, device: torch.device | str = "cpu") -> DamageFinder:
    """The finder of old photos' damage; raises `InputError` for a missing or broken detector."""
    if not path.is_file():
        raise InputError(f"{path}: no such detector", "detector")
    model, _ = load_model(path, torch.device(device))
    if not isinstance(model, DamageDetector):
        raise InputError(f"{path}: holds a {type(model).__name__}, expected a detector", "detector")
    return DamageFinder(model.probability)


def load_finder(
    damage: DamageKind, device: torch.device | str = "cpu", detector: Path = DETECTOR
) -> Finder:
    """What finds damage: "hole", "none" (finds nothing), or "auto" (a hole, or else an old photo's
    damage).

    "auto" takes the network of the file `detector`. Raises `SettingError` for another word, and
    as `load_detector` does.
    """
    if damage == "auto":
        return load_detector(detector, device)
    finders = {"hole": find_hole, "none": find_nothing}
    if damage not in finders:
        raise SettingError("damage", damage, "unknown; choose one of auto, hole, none")
    return finders[damage]


def finder_recipe(damage: DamageKind, detector: Path = DETECTOR) -> dict:
    """What the result of `load_finder` depends on."""
    return {"damage": damage} | ({"detector": file_hash(detector)} if damage == "auto" else {})
