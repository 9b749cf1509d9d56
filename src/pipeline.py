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
from src.fills.regions import regions
from src.fills.simple import Fill
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

    def __call__(self, gray: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Restore a photo.

        Args:
            gray: (H, W) uint8 of any size.
            mask: (H, W) bool, True where lost; looked for if it is None.

        Returns: (H, W, 3) uint8 RGB.
        """
        gray = checked_gray(gray)
        mask = self.find(gray).mask if mask is None else checked_mask(mask, gray.shape)
        return self.decode(self.estimate(gray, mask), gray, mask)

    @torch.inference_mode()
    def estimate(self, gray: np.ndarray, mask: np.ndarray) -> Estimate:
        """What the ensemble knows of a photo before anything is decided, float32 arrays by
        name.

        The restorer gives `luma` in [0, 1], and on a coarse grid the probability `p` of each of 180
        hues and `chroma_mass`, this times the chroma expected of the hue. The other models give
        `rgb`.
        """
        gray = checked_gray(gray)
        return self.ensemble.estimate(gray, checked_mask(mask, gray.shape))

    @torch.inference_mode()
    def decode(
        self, estimate: Estimate, gray: np.ndarray, mask: np.ndarray, style: Style | None = None
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the estimate of `gray` and `mask`, in another style if one is
        given."""
        gray = checked_gray(gray)
        mask = checked_mask(mask, gray.shape)
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
        gray = checked_gray(gray)
        mask = self.find(gray).mask if mask is None else checked_mask(mask, gray.shape)
        return gray_to_rgb(self.fill(gray, mask))


def checked_gray(gray: object) -> np.ndarray:
    """(H, W) uint8 from an array or tensor of it or of (H, W, 1), or from a PIL image of mode L."""
    array = _as_array(gray, ("L",))
    if array is None or array.dtype != np.uint8 or array.ndim != 2 or not array.size:
        raise InputError(f"gray must be (H, W) uint8, found {_describe(gray)}")
    return np.ascontiguousarray(array)


def checked_mask(mask: object, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from an array or tensor of it, of uint8 with 0 for what is not lost and 1 or 255
    for what is, or of (H, W, 1); or from a PIL image of mode 1 or L."""
    array = _as_array(mask, ("1", "L"))
    if array is not None and array.dtype == np.uint8 and array.size:
        top = array.max()
        if top in (0, 1, 255) and ((array == 0) | (array == top)).all():
            array = array > 0
        else:
            raise InputError(
                f"mask must be bool, or uint8 of 0 and 1 or of 0 and 255, found values up to {top}"
            )
    if array is None or array.dtype != bool or array.ndim != 2:
        raise InputError(f"mask must be (H, W) bool, True where lost, found {_describe(mask)}")
    if array.shape != shape:
        raise InputError(f"mask is {array.shape}, gray is {shape}: they must have one shape")
    if array.all():
        raise InputError("mask is True everywhere, so nothing is left of the photo; True is lost")
    return np.ascontiguousarray(array)


def _as_array(value: object, modes: tuple[str, ...]) -> np.ndarray | None:
    if isinstance(value, Image.Image):
        # the array of a palette image would hold indices
        value = np.asarray(value) if value.mode in modes else None
    elif isinstance(value, Tensor):
        value = value.numpy(force=True)
    if not isinstance(value, np.ndarray):
        return None
    return value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value


def _describe(value: object) -> str:
    if isinstance(value, Image.Image):
        return f"a PIL image of mode {value.mode}"
    if isinstance(value, np.ndarray | Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


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
