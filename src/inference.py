"""From damaged grey to restored colour: views, folds, files."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from src.checkpoints import load_model
from src.damage import detect
from src.decode import Style
from src.distributed import gather, share
from src.files import (
    MAX_PIXELS,
    InputError,
    exclusive,
    file_hash,
    list_images,
    open_image,
    read_json,
    to_rgb,
    upright,
    write_json,
    write_png,
)
from src.models import RestorationModel
from src.parallel import begun_ahead

THREADS = 2  # that read and write files while photos are restored
AHEAD = 2  # photos that are read before, and that are written after, the one at hand

Job = tuple[Path, Path]  # photo, PNG to write
Find = Callable[[Path, np.ndarray], np.ndarray]  # a photo and its gray (H, W) to its mask (H, W)
Restore = Callable[[np.ndarray, np.ndarray], np.ndarray]  # gray (H, W), mask (H, W) to RGB (H, W, 3)


@torch.inference_mode()
def restore(
    models: Sequence[RestorationModel],
    gray: np.ndarray,
    mask: np.ndarray,
    tta: int = 1,
    style: Style = "score",
) -> np.ndarray:
    """Restore one image with an ensemble: estimates are averaged over views and models, then decoded once.

    Args:
        models: in evaluation mode, all of one class and on one device.
        gray: (H, W) uint8, damaged.
        mask: (H, W) bool, True where lost.
        tta: number of views: 1, 2 (mirrored) or 8 (mirrored and turned).
        style: what the decode is for, "score" or "visual".

    Returns: (H, W, 3) uint8 RGB.
    """
    damaged, lost = as_tensors(models, gray, mask)
    mean = models[0].predict(models, damaged, lost, tta)
    return models[0].decode(mean, damaged, lost, style)[0].permute(1, 2, 0).cpu().numpy()


def as_tensors(
    models: Sequence[RestorationModel], gray: np.ndarray, mask: np.ndarray
) -> tuple[Tensor, Tensor]:
    """A photo and its mask as `predict` takes them, (1, 1, H, W) float32 on the models' device."""
    device = next(models[0].parameters()).device
    damaged = torch.from_numpy(gray.astype(np.float32) / 255)[None, None].to(device)
    return damaged, torch.from_numpy(mask.astype(np.float32))[None, None].to(device)


def by_folds(paths: Sequence[Path], device: torch.device, tta: int, style: Style) -> tuple[Restore, dict]:
    """`restore` with the models of some checkpoints, and what its results depend on.

    Raises `InputError` as `load_model` does, and for models of different kinds.
    """
    loaded = [load_model(path, device) for path in paths]
    names = {description["model"] for _, description in loaded}
    if len(names) > 1:
        folder = paths[0].parents[1]
        raise InputError(f"{folder}: folds of different models ({', '.join(sorted(names))})")
    choices = {"tta": tta, "style": style}
    recipe = {"model": names.pop(), "checkpoints": {str(path): file_hash(path) for path in paths}}
    return partial(restore, [model for model, _ in loaded], **choices), recipe | choices


def telea(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """OpenCV's inpainting of Telea 2004 with a radius of 3 px, left grey: what needs no training."""
    filled = cv2.inpaint(gray, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return np.repeat(filled[..., None], 3, axis=2)


def as_it_is(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The damaged input itself, as RGB."""
    return np.repeat(gray[..., None], 3, axis=2)


BASELINES: dict[str, Restore] = {"input": as_it_is, "telea": telea}


def read_gray(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Any photo as (H, W) uint8: colours, sepia too, become PIL's luma; 16 bits are scaled.

    Raises `InputError` for what is no image, or has over `max_pixels`.
    """
    image = open_image(path, max_pixels=max_pixels)
    return np.asarray(upright(image) if image.mode == "L" else to_rgb(image).convert("L"))


def by_rule(_: Path, gray: np.ndarray) -> np.ndarray:
    """The hole of the competition, see `src.damage.detect`."""
    return detect(gray)


def photo_jobs(photos: Path, output: Path) -> list[Job]:
    """What to restore of a photo or a folder of photos, and the PNG of each below `output`.

    Raises `InputError` where there is no photo, or a result would be written over one.
    """
    root = photos.parent if photos.is_file() else photos
    paths = [photos] if photos.is_file() else list_images(photos)
    if output.absolute() != root.absolute():  # results in a folder inside the photos are no photos
        paths = [path for path in paths if not path.absolute().is_relative_to(output.absolute())]
    if not paths:
        raise InputError(f"{photos}: no image file found; name a photo or a folder of photos")
    plain = [output / path.relative_to(root).with_suffix(".png") for path in paths]
    shared = {target for target, count in Counter(plain).items() if count > 1}  # a.jpg beside a.png
    jobs = []
    for path, target in zip(paths, plain, strict=True):
        if target in shared:
            target = target.with_name(path.name + ".png")
        if target.resolve() == path.resolve():
            raise InputError(f"--output {output}: would overwrite {path}; name another folder")
        jobs.append((path, target))
    return jobs


def restore_files(
    restore_one: Restore,
    jobs: Sequence[Job],
    recipe: dict,
    output: Path,
    fabric: Fabric,
    find: Find = by_rule,
) -> list[str]:
    """Restore files, going on where an earlier call stopped; the processes share them.

    Args:
        jobs: (photo, PNG to write) pairs.
        recipe: what the results depend on besides the photos, see `unrestored`.
        output: the folder of the PNGs.
        find: tells what of a photo is lost.

    Returns: an error line for each photo that could not be read; the others are restored.

    Raises `InputError` as `unrestored` does, and when another program works in the folder.
    """
    with exclusive(output) if fabric.is_global_zero else nullcontext():
        waiting = fabric.broadcast(unrestored(jobs, recipe, output) if fabric.is_global_zero else None)
        own = share(fabric, waiting)
        return gather(fabric, restore_all(restore_one, own, find, fabric.is_global_zero))


def unrestored(jobs: Sequence[Job], recipe: dict, output: Path) -> list[Job]:
    """Those of `jobs` that an earlier call has not finished.

    `recipe` is kept in a file beside the folder with name, size and time of each photo; a result of another
    recipe or photo is deleted, to be made anew.

    Raises `InputError` when a PNG to write exists but that file does not tell that it is ours.
    """
    manifest = manifest_of(output)
    earlier = _read_manifest(manifest)
    photos = earlier["photos"]
    if earlier["recipe"] != recipe:
        photos = dict.fromkeys(photos, "")  # ours, but to be made anew
    for source, target in jobs:
        key, identity = str(target.absolute()), _identity(source)
        if target.exists() and key not in photos:
            raise InputError(f"{target}: exists and is not from this program; name another folder")
        if photos.get(key) != identity:
            target.unlink(missing_ok=True)
        photos[key] = identity
    write_json(manifest, {"recipe": recipe, "photos": photos})
    waiting = [(source, target) for source, target in jobs if not target.exists()]
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} images were restored before")
    return waiting


def restore_all(
    restore_one: Restore, jobs: Sequence[Job], find: Find = by_rule, shown: bool = True
) -> list[str]:
    """Restore files one after another; threads read ahead and write behind. Returns as `restore_files`."""

    def read_damaged(path: Path) -> tuple[np.ndarray, np.ndarray]:
        gray = read_gray(path)
        return gray, find(path, gray)

    failures, writing = [], deque()
    with ThreadPoolExecutor(THREADS) as pool:
        reading = begun_ahead(pool, read_damaged, [source for source, _ in jobs], AHEAD)
        read = zip(jobs, reading, strict=True)
        for (_, target), damaged in tqdm(
            read, "restoring", len(jobs), unit="image", dynamic_ncols=True, disable=not shown
        ):
            try:
                gray, mask = damaged.result()
            except InputError as error:
                failures.append(str(error))
                continue
            writing.append(pool.submit(write_png, target, restore_one(gray, mask)))
            if len(writing) > AHEAD:
                writing.popleft().result()
        for written in writing:
            written.result()
    return failures


def manifest_of(folder: Path) -> Path:
    """Where `restore_files` keeps what it knows of a folder: a hidden file beside it."""
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.restored.json")


def _identity(photo: Path) -> list | None:
    try:
        facts = photo.stat()
    except OSError:
        return None  # reading it will tell why
    return [str(photo.absolute()), facts.st_size, facts.st_mtime_ns]


def _read_manifest(manifest: Path) -> dict:
    try:
        found = read_json(manifest, "")
    except (FileNotFoundError, InputError):
        found = {}
    whole = isinstance(found.get("photos"), dict) and "recipe" in found
    return found if whole else {"recipe": None, "photos": {}}
