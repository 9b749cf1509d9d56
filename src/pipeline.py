"""A damaged grey photo in, a restored colour photo out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.damage.finders import Detector, Finder, look_for_hole, look_for_nothing
from src.fills.exemplar import complete
from src.fills.frequency import extrapolate
from src.fills.regions import Fill, regions
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

    Args:
        members: models of one class in evaluation mode on one device; their estimates are averaged.
        find: finds the damage of a photo whose mask is not given, see `src.damage.finders`.
        tta: views averaged per photo: 1, or 2 (mirrored).
        style: "score" or "visual", see `src.color.decode`.
        recipe: what the results depend on, kept beside them.
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
        if len({type(model) for model in members}) > 1:
            names = sorted({type(model).__name__ for model in members})
            raise InputError(f"members must be models of one class, found {', '.join(names)}")
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
        """The pipeline of some folds of a run, or of all its finished folds.

        Args:
            run_dir: such as outputs/restorer, or weights for the shipped ones.
            damage, detector: see `load_finder`.

        Raises `InputError` for checkpoints that are missing, broken or of different models.
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

    @torch.inference_mode()
    def __call__(self, gray: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Restore a photo.

        Args:
            gray: (H, W) uint8 of any size.
            mask: (H, W) bool, True where lost; looked for if it is None.

        Returns: (H, W, 3) uint8 RGB.
        """
        gray, mask = checked(gray, mask, self.find)
        return self.ensemble.decode(self.ensemble.estimate(gray, mask), gray, mask, self.style)

    @torch.inference_mode()
    def estimate(self, gray: np.ndarray, mask: np.ndarray) -> Estimate:
        """What the ensemble knows of a photo before anything is decided, float32 arrays by
        name.

        The restorer gives `luma` in [0, 1], and on a coarse grid the probability `p` of each of 180
        hues and `chroma_mass`, this times the chroma expected of the hue. The other models give
        `rgb`.
        """
        return self.ensemble.estimate(*checked(gray, mask))

    @torch.inference_mode()
    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style | None = None
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the estimate of `gray` and `mask`, in another style if one is
        given."""
        gray, mask = checked(gray, mask)
        require_choice("style", style or self.style, get_args(Style))
        for name in {"luma", "rgb"} & estimate.keys():
            if estimate[name].shape[-2:] != gray.shape:
                found = tuple(estimate[name].shape[-2:])
                raise InputError(f"the estimate is of a photo of {found}, gray is {gray.shape}")
        return self.ensemble.decode(estimate, gray, mask, style or self.style)


class Baseline:
    """Fills the damage without any training and leaves the photo grey; called like a `Pipeline`.

    Args:
        name: a key of `BASELINES`.
        damage: see `load_finder`.
    """

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
    """`gray` (H, W) uint8 and `mask` (H, W) bool from what cv2, PIL and torch give.

    Arrays and tensors may be (H, W, 1), images of mode L and 1, masks uint8 of 0 and 1 or of 0 and
    255. A mask that is None is looked for with `find`, if there is one.
    """
    photo, found = _as_array(gray, ("L",))
    if photo.dtype != np.uint8 or photo.ndim != 2 or not photo.size:
        raise InputError(f"gray must be (H, W) uint8, found {found}")
    photo = np.ascontiguousarray(photo)
    if mask is None and find:
        return photo, find(photo).mask
    lost, found = _as_array(mask, ("1", "L"))
    if lost.dtype == np.uint8 and np.isin(lost, (0, lost.max(initial=0))).all():
        lost = lost > 0 if lost.max(initial=0) in (0, 1, 255) else lost
    if lost.dtype != bool or lost.ndim != 2:
        raise InputError(f"mask must be (H, W) bool, or uint8 of 0 and 1 or 255, found {found}")
    if lost.shape != photo.shape:
        raise InputError(f"mask is {lost.shape}, gray is {photo.shape}: they must have one shape")
    if lost.all():
        raise InputError("mask is True everywhere, so nothing is left of the photo; True is lost")
    return photo, np.ascontiguousarray(lost)


def _as_array(value: object, modes: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """An array, tensor or image of these modes as an array without a third axis of 1, and what was
    found, in words; an array of objects for anything else."""
    if isinstance(value, Tensor):
        value = value.numpy(force=True)
    if isinstance(value, Image.Image):
        found = f"a PIL image of mode {value.mode}"
        # a palette image would give its indices
        value = np.asarray(value) if value.mode in modes else None
    else:
        found = type(value).__name__
    if not isinstance(value, np.ndarray):
        return np.empty((0, 0), object), found
    found = f"{value.shape} {value.dtype}" + (f" up to {value.max()}" if value.size else "")
    return value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value, found


def require_choice(name: str, value: object, choices: Sequence) -> None:
    """Raise `SettingError` unless a value is one of the choices."""
    if value not in choices:
        raise SettingError(name, value, f"unknown; choose one of {', '.join(map(str, choices))}")


def telea(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """OpenCV's inpainting of Telea 2004 with a radius of 3 px: (H, W) uint8 from (H, W) uint8 and
    bool."""
    return cv2.inpaint(gray, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def filled(
    fill: Callable[[np.ndarray, np.ndarray], Fill], gray: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """`gray` (H, W) uint8 filled where `mask` (H, W) bool is True, by a fill of `src.fills`."""
    result = gray.copy()
    for box, region in regions(mask):
        luma = fill(gray[box].astype(np.float32) / 255, mask[box]).luma
        result[box][region] = (luma[region] * 255).round().astype(np.uint8)
    return result


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "input": lambda gray, mask: gray,
    "telea": telea,
    "frequency": partial(filled, extrapolate),
    "exemplar": partial(filled, complete),
}


def load_finder(
    damage: DamageKind, device: torch.device | str = "cpu", detector: Path = DETECTOR
) -> Finder:
    """The finder of a kind of damage.

    Args:
        damage: "hole", "none" (looks for nothing), or "auto": a hole or, if there is none, the
            damage of old photos, with the network in the file `detector`.
    """
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
    """What the results of `load_finder` depend on."""
    return {"damage": damage} | ({"detector": file_hash(detector)} if damage == "auto" else {})
