"""A damaged grey photo in, a restored colour photo out."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch
from PIL import Image

from src.damage.finders import Detector, Finder, look_for_hole, look_for_nothing
from src.models.base import Estimate, RestorationModel
from src.models.checkpoints import load_model, network_files
from src.models.detector import DamageDetector
from src.runs import DETECTOR, fold_checkpoints
from src.utils.cli import DamageKind, Style, Tta
from src.utils.errors import InputError, SettingError
from src.utils.files import file_hash
from src.utils.images import gray_to_rgb


class Pipeline:
    """Restores photos: `rgb = pipeline(gray)`, or `rgb = pipeline(gray, mask)`.

    The estimates of `members`, models of one class in evaluation mode on one device, are averaged
    over `tta` views: 1, or 2 (mirrored). `find` finds the damage if no mask is given. `recipe` is
    saved with the results.
    """

    def __init__(
        self,
        members: Sequence[RestorationModel],
        find: Finder = look_for_hole,
        tta: Tta = 1,
        style: Style = "score",
        recipe: dict | None = None,
    ):
        require_choice("tta", tta, get_args(Tta))
        require_choice("style", style, get_args(Style))
        if not members or any(model.training for model in members):
            raise InputError("members must be one or more models in evaluation mode: model.eval()")
        self.ensemble = members[0].ensemble_class(members, tta)
        self.find = find
        self.style = style
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
        """Load some folds, or all finished ones, of a run such as outputs/restorer or weights."""
        paths = fold_checkpoints(Path(run_dir), folds)
        loaded = [load_model(path, torch.device(device)) for path in paths]
        members = [model for model, _ in loaded]
        names = sorted({description["model"] for _, description in loaded})
        if len(names) > 1:
            raise InputError(f"{run_dir}: folds of different models ({', '.join(names)})")
        if not isinstance(members[0], RestorationModel):
            raise InputError(
                f"{paths[0]}: holds a {names[0]}, expected a model that restores photos"
            )
        checkpoints = {}
        for path in paths:
            checkpoints[path.name] = {file.stem: file_hash(file) for file in network_files(path)}
        recipe = {"model": names[0], "checkpoints": checkpoints, **finder_recipe(damage, detector)}
        return cls(members, load_finder(damage, device, detector), tta, style, recipe)

    def __call__(self, gray: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Restore a photo (H, W) uint8 of any size to (H, W, 3) uint8 RGB.

        `mask` (H, W) bool is True where the photo is lost; without a mask, the damage is detected.
        """
        gray, mask = checked(gray, mask, self.find)
        return self.ensemble.decode(self.ensemble.estimate(gray, mask), gray, mask, self.style)

    def estimate(self, gray: np.ndarray, mask: np.ndarray) -> Estimate:
        """The ensemble's mean estimate, arrays by name: see `RestorerEnsemble.estimate` for the
        restorer's; other models give `rgb`."""
        return self.ensemble.estimate(*checked(gray, mask))

    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style | None = None
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the estimate of `gray` and `mask`, in any style."""
        style = style or self.style
        require_choice("style", style, get_args(Style))
        return self.ensemble.decode(estimate, *checked(gray, mask), style)


class Baseline:
    """Fills the damage with one of `BASELINES` and stays grey; called like a `Pipeline`."""

    def __init__(self, name: str, damage: DamageKind = "hole"):
        require_choice("baseline", name, tuple(BASELINES))
        self.fill = BASELINES[name]
        self.find = load_finder(damage)
        self.recipe = {"baseline": name, **finder_recipe(damage)}

    def __call__(self, gray: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of (H, W) uint8; arguments as for `Pipeline`."""
        return gray_to_rgb(self.fill(*checked(gray, mask, self.find)))


def checked(
    gray: object, mask: object, find: Finder | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`gray` (H, W) uint8 and `mask` (H, W) bool from arrays or images of numpy, cv2, PIL or torch.

    Both may be (H, W, 1), and the mask uint8 of 0 and 1, or of 0 and 255. If the mask is None,
    `find` finds the damage.
    """
    photo = _as_array(gray)
    if photo.dtype != np.uint8 or photo.ndim != 2 or not photo.size:
        raise InputError(f"gray must be (H, W) uint8, found {photo.shape} {photo.dtype}")
    if mask is None and find:
        return photo, find(photo).mask
    lost = _as_array(mask)
    if lost.dtype == np.uint8 and any(np.isin(lost, (0, white)).all() for white in (1, 255)):
        lost = lost > 0
    if lost.shape != photo.shape:
        raise InputError(f"mask is {lost.shape}, gray is {photo.shape}: they must have one shape")
    if lost.dtype != bool:
        found = f"{lost.dtype} from {lost.min()} to {lost.max()}"
        raise InputError(f"mask must be bool, or uint8 of 0 and 1 or 255, found {found}")
    if lost.all():
        raise InputError("mask is True everywhere, so nothing is left of the photo; True is lost")
    return photo, lost


def _as_array(value: object) -> np.ndarray:
    """A contiguous array, without a third axis of 1."""
    if isinstance(value, Image.Image) and value.mode not in ("1", "L"):
        raise InputError(f"found a PIL image of mode {value.mode}, expected L, or 1 for a mask")
    array = np.ascontiguousarray(value)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def require_choice(name: str, value: object, choices: Sequence) -> None:
    """Raise `SettingError` unless a value is one of the choices."""
    if value not in choices:
        raise SettingError(name, value, f"unknown; choose one of {', '.join(map(str, choices))}")


def telea(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8 filled as in Telea 2004 with a radius of 3 px; mask (H, W) bool."""
    return cv2.inpaint(gray, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)


BASELINES = {"input": lambda gray, mask: gray, "telea": telea}


def load_finder(
    damage: DamageKind, device: torch.device | str = "cpu", detector: Path = DETECTOR
) -> Finder:
    """The finder of a kind of damage; "auto" uses the network in the file `detector`."""
    require_choice("damage", damage, get_args(DamageKind))
    if damage != "auto":
        return look_for_hole if damage == "hole" else look_for_nothing
    if not detector.is_file():
        raise InputError(f"{detector}: no such detector", "detector")
    model, _ = load_model(detector, torch.device(device))
    if not isinstance(model, DamageDetector):
        found = type(model).__name__
        raise InputError(f"{detector}: holds a {found}, expected a detector", "detector")
    return Detector(model.probability)


def finder_recipe(damage: DamageKind, detector: Path = DETECTOR) -> dict:
    """The part of a recipe that says how damage is found."""
    return {"damage": damage} | ({"detector": file_hash(detector)} if damage == "auto" else {})
