"""Photos in, PNGs out: what is pending, reading ahead, writing behind."""

import errno
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning_fabric import Fabric
from tqdm import tqdm

from src.damage.finders import look_for_hole, report_damage
from src.damage.masks import match_masks, read_mask, without_masks
from src.pipeline import Baseline, Pipeline
from src.runs import RECIPE
from src.utils.distributed import gather, share
from src.utils.errors import InputError, SettingError
from src.utils.files import (
    differences,
    file_hash,
    hash_or_none,
    lock_folder,
    name_key,
    read_recipe,
    write_json,
)
from src.utils.images import (
    HEIF_MISSING,
    HEIF_SUFFIXES,
    IMAGE_SUFFIXES,
    Details,
    list_images,
    list_others,
    read_photo,
    write_png,
)
from src.utils.processes import cores, prefetch

QUEUE = 2  # photos read ahead and written behind
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no other photo can be written either
Method = Pipeline | Baseline


class Job(NamedTuple):
    """A photo to restore."""

    photo: Path
    output: Path  # the PNG to write
    mask: Path | None = None  # a mask file; without one, damage is detected


def photo_jobs(photos: Path, output: Path, masks: Path | None = None) -> list[Job]:
    """The jobs of a photo or of a folder, whose layout `output` and a folder `masks` share.

    The result of a single photo may also be a file; see `is_file_name`.
    """
    if not photos.exists():
        raise InputError(f"{photos}: no such photo or folder")
    if is_file_name(output) and (photos.is_dir() or output.suffix.lower() != ".png"):
        expected = "a folder" if photos.is_dir() else "a PNG or a folder"
        raise InputError(f"{output}: names an image file, expected {expected}", "output")
    root = photos.parent if photos.is_file() else photos
    paths = [photos] if photos.is_file() else _without_results(list_images(photos), photos, output)
    if not paths:
        raise InputError(f"{photos}: no image file found; name a photo or a folder of photos")
    if masks and masks.is_dir() and masks.absolute() == root.absolute():
        paths = without_masks(paths)
    matched = match_masks(masks, root, paths) if masks else {}
    targets = [output / path.relative_to(root).with_suffix(".png") for path in paths]
    targets = [output] if is_file_name(output) else targets
    counts = Counter(name_key(target) for target in targets)
    jobs = []
    for path, target in zip(paths, targets, strict=True):
        if counts[name_key(target)] > 1:  # a.jpg beside a.png
            target = target.with_name(path.name + ".png")
        if target.resolve() == path.resolve():
            raise InputError(f"{output}: the result would overwrite {path}", "output")
        jobs.append(Job(path, target, matched.get(path)))
    return jobs


def is_file_name(output: Path) -> bool:
    """Whether `output` names an image file, not a folder of results."""
    return output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir()


def skipped_files(
    photos: Path, output: Path, jobs: Sequence[Job], masks: Path | None = None
) -> list[str]:
    """A line for each file that `photo_jobs` left out, and for each photo without a mask."""
    lines = []
    if photos.is_dir():
        for path in _without_results(list_others(photos), photos, output):
            heif = path.suffix.lower() in HEIF_SUFFIXES
            lines.append(f"{path}: skipped: {HEIF_MISSING if heif else 'not an image file'}")
    without = [job.photo for job in jobs if masks and not job.mask]
    return lines + [f"{path}: no mask, so it is only coloured" for path in without]


def _without_results(paths: Sequence[Path], root: Path, output: Path) -> list[Path]:
    """The files below `root` that are not results of ours."""
    root, output = root.absolute(), output.absolute()
    if output != root and output.is_relative_to(root):
        return [path for path in paths if not path.absolute().is_relative_to(output)]
    results = {output / name for name in read_recipe(output, RECIPE).get("photos", {})}
    return [path for path in paths if path.absolute() not in results]


def restore_files(
    pipeline: Method, jobs: Sequence[Job], output: Path, fabric: Fabric, overwrite: bool = False
) -> list[str]:
    """Restore files into `output` with all processes, or resume; returns a line per error."""
    work = results_folder(jobs, pipeline.recipe, output, overwrite)
    with work if fabric.is_global_zero else nullcontext() as pending:
        own = share(fabric, fabric.broadcast(pending))
        return gather(fabric, restore_jobs(pipeline, own, fabric.is_global_zero))


@contextmanager
def results_folder(
    jobs: Sequence[Job], recipe: dict, output: Path, overwrite: bool = False
) -> Iterator[list[Job]]:
    """Work in a folder of results alone, on the jobs that it yields; see `prepare_output`."""
    with lock_folder(output):
        pending = prepare_output(jobs, recipe, output, overwrite)
        if len(pending) < len(jobs):
            print(f"{len(jobs) - len(pending)} of {len(jobs)} images are already restored")
        try:
            yield pending
        finally:
            made = [job.output for job in pending if job.output.is_file()]
            hashes = {path.relative_to(output).as_posix(): file_hash(path) for path in made}
            earlier = read_recipe(output, RECIPE)
            if hashes:
                results = earlier.get("results", {}) | hashes
                write_json(output / RECIPE, earlier | {"results": results})


def prepare_output(
    jobs: Sequence[Job], recipe: dict, output: Path, overwrite: bool = False
) -> list[Job]:
    """Write the folder's recipe and return the jobs that have no result yet.

    A result whose photo (by content), mask or recipe has changed is refused, or with `overwrite`
    deleted after all jobs were checked. Files that the recipe does not list, and results that were
    changed since, are never replaced.
    """
    earlier = read_recipe(output, RECIPE)
    photos = earlier.get("photos", {})
    named = _by_name(jobs, output, photos)
    hashes = _hashes(named)
    changes = differences(earlier.get("recipe") or {}, recipe)
    if changes:  # results that are not remade now stay, with unknown origin
        hashes = {name: [] for name in photos} | hashes
    changed = [name for name in photos.keys() & hashes if changes or photos[name] != hashes[name]]
    outdated = sorted(name for name in changed if (output / name).exists())
    if outdated and not overwrite:
        found = "; ".join(changes[:3]) or f"the photo or mask of {outdated[0]} is another one now"
        made = f"{len(outdated)} result(s) made from something else ({found})"
        remedy = "add --overwrite to replace them, or choose another output folder"
        raise InputError(f"{output}: holds {made}; {remedy}")
    results = earlier.get("results", {})
    for name in outdated:
        if name in results and name in named and results[name] != file_hash(output / name):
            found = "was changed after it was restored, so it is not replaced"
            raise InputError(f"{output / name}: {found}; move it elsewhere, or delete it")
    for name in set(outdated) & named.keys():
        (output / name).unlink()
    pending = [job for job in jobs if not job.output.exists()]
    for job in pending:
        results.pop(job.output.relative_to(output).as_posix(), None)
    entries = {"recipe": recipe, "photos": photos | hashes, "results": results}
    write_json(output / RECIPE, entries)
    return pending


def _by_name(jobs: Sequence[Job], output: Path, photos: dict[str, list]) -> dict[str, Job]:
    """The jobs by their result's path; an error if a file is there that `photos` does not list."""
    taken: dict[str, Job] = {}
    named = {}
    for job in jobs:
        other = taken.setdefault(name_key(job.output), job)
        if other is not job:
            found = f"{other.photo} would have the same result"
            raise InputError(f"{job.photo}: {found}; rename one of them")
        name = job.output.relative_to(output).as_posix()
        if os.path.lexists(job.output) and name not in photos:
            raise InputError(f"{job.output}: exists, but {RECIPE} does not list it", "output")
        named[name] = job
    return named


def _hashes(named: dict[str, Job]) -> dict[str, list[str | None]]:
    """SHA-256 of the photo and the mask of each job; photos that cannot be read are left out."""
    with ThreadPoolExecutor() as pool:
        photos = pool.map(hash_or_none, (job.photo for job in named.values()))
        masks = pool.map(hash_or_none, (job.mask for job in named.values()))
        found = zip(named, photos, masks, strict=True)
        return {name: [photo, mask] for name, photo, mask in found if photo}


def restore_jobs(pipeline: Method, jobs: Sequence[Job], shown: bool = True) -> list[str]:
    """Restore files one by one, reading ahead and writing behind; returns error lines."""
    failures, writing = [], deque()
    with ThreadPoolExecutor(2) as pool:
        reading = prefetch(pool, lambda job: _read(pipeline, job), jobs, QUEUE)
        read = zip(jobs, reading, strict=True)
        for job, damaged in tqdm(
            read, "restoring", len(jobs), unit="image", dynamic_ncols=True, disable=not shown
        ):
            try:
                gray, mask, details = damaged.result()
                rgb = pipeline(gray, mask)
            except InputError as error:
                failures.append(str(error))
                continue
            writing.append(pool.submit(_write, job, rgb, details))
            if len(writing) > QUEUE:
                failures += writing.popleft().result()
        for written in writing:
            failures += written.result()
    return failures


def _read(pipeline: Method, job: Job) -> tuple[np.ndarray, np.ndarray, Details]:
    """The photo of a job, its mask, and the details of its file."""
    gray, clear, details = read_photo(job.photo)
    if details.frames > 1:
        tqdm.write(f"{job.photo}: {details.frames} pages or frames; only the first is restored")
    if job.mask:
        mask, line = read_mask(job.mask, gray.shape)
    else:
        mask, line = report_damage(pipeline.find, gray, clear)
    if job.mask or pipeline.find is not look_for_hole:
        tqdm.write(f"{job.photo}: {line}")
    return gray, mask, details


def _write(job: Job, rgb: np.ndarray, details: Details) -> list[str]:
    """Write a PNG; returns an error line if only this one cannot be written."""
    try:
        write_png(job.output, rgb, details)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        return [f"{job.output}: not written ({error.strerror}); check its name and its folder"]
    return []


def restore_with_ray(
    make_pipeline: Callable[[], Method], jobs: Sequence[Job], actors: int, gpus: int
) -> list[str]:
    """Restore files with Ray Data; if an actor dies, others take over. Returns error lines.

    Ray is the cluster that RAY_ADDRESS names, or one on this machine. All its machines must see
    the same files under the same paths. Each actor calls `make_pipeline` and has `gpus` GPUs.
    """
    if actors < 1:
        raise SettingError("devices", actors, "must be at least 1")
    threads = max(1, cores() // actors)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send nothing over the network
    try:
        import ray
    except ImportError:
        raise InputError("Ray is missing", "ray") from None

    class Actor:
        def __init__(self):
            import torch

            torch.set_num_threads(1)  # as infer.py does
            self.pipeline = make_pipeline()

        def __call__(self, row: dict) -> dict:
            job = Job(*(Path(path) if path else None for path in row["job"]))
            pending = [] if job.output.exists() else [job]  # a block may be handed out twice
            return {"failure": "".join(restore_jobs(self.pipeline, pending, shown=False))}

    if not jobs:
        return []
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    package = {"py_modules": [str(Path(__file__).parent)]}
    ray.init(runtime_env=package, log_to_driver=False, logging_level="warning")
    try:
        rows = [{"job": [str(path.absolute()) if path else "" for path in job]} for job in jobs]
        blocks = min(len(rows), max(8 * actors, len(rows) // 64))
        done = ray.data.from_items(rows, override_num_blocks=blocks).map(
            Actor, compute=ray.data.ActorPoolStrategy(size=actors), num_gpus=gpus, num_cpus=threads
        )
        rows_done = tqdm(done.iter_rows(), "restoring", len(rows), unit="image", dynamic_ncols=True)
        return [row["failure"] for row in rows_done if row["failure"]]
    finally:
        ray.shutdown()
