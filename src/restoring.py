"""Files in, PNGs out: reading ahead, writing behind, going on where an earlier call stopped."""

import errno
import logging
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning_fabric import Fabric
from tqdm import tqdm

from src.damage.finders import look_for_hole, report_damage
from src.damage.masks import match_masks, read_mask, without_masks
from src.datasets.overlap import Overlap, fill_from_overlaps, paste_truths
from src.pipeline import Baseline, Pipeline
from src.utils.distributed import gather, share
from src.utils.errors import InputError, SettingError
from src.utils.files import file_hash, identity, lock_folder, read_json, write_json
from src.utils.images import (
    HEIF_MISSING,
    HEIF_SUFFIXES,
    Details,
    list_images,
    list_others,
    read_photo,
    write_png,
)
from src.utils.processes import cores, prefetch

THREADS = 2  # that read and write files while photos are restored
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # of a disk that takes no other file either
MUCH = 0.5  # share of a photo; of a mask that says that more is lost, a warning is given
AHEAD = 2  # photos that are read before, and that are written after, the one at hand
MANIFEST = ".restored.json"  # in the folder of the results: what they were made of


class Job(NamedTuple):
    """One photo to restore."""

    photo: Path
    output: Path  # the PNG to write
    mask: Path | None = None  # a file that says what is lost; the damage is looked for without one
    overlaps: tuple[Overlap, ...] = ()  # of a test image, to take pixels from


def photo_jobs(photos: Path, output: Path, masks: Path | None = None) -> list[Job]:
    """What to restore of a photo or a folder of photos, and the PNG of each below `output`.

    Args:
        masks: a mask file, or a folder of masks named and placed like the photos.

    Raises `InputError` where there is no photo or no mask, where two photos would have one result,
    or where a result would be written over a photo or over the result of another photo.
    """
    root = photos.parent if photos.is_file() else photos
    paths = [photos] if photos.is_file() else _not_results(list_images(photos), photos, output)
    if not paths:
        raise InputError(f"{photos}: no image file found; name a photo or a folder of photos")
    if masks and masks.is_dir() and masks.absolute() == root.absolute():
        paths = without_masks(paths)
    drawn = match_masks(masks, root, paths) if masks else {}
    plain = [output / path.relative_to(root).with_suffix(".png") for path in paths]
    # a.jpg beside a.png, or beside A.png, whose results are one file on some systems
    counts = Counter(_key(target) for target in plain)
    made_of = _read_manifest(output / MANIFEST)["photos"]
    jobs: list[Job] = []
    taken: dict[str, Path] = {}
    for path, target in zip(paths, plain, strict=True):
        if counts[_key(target)] > 1 or _key(target) in taken:
            target = target.with_name(path.name + ".png")
        if _key(target) in taken:
            raise InputError(
                f"{path}: {taken[_key(target)]} would have the same result; rename one of them"
            )
        taken[_key(target)] = path
        if target.resolve() == path.resolve():
            raise InputError(f"{output}: the result would overwrite {path}", "output")
        before = next(iter(made_of.get(str(target.absolute()), [])), "")
        if target.exists() and Path(before).is_file() and not os.path.samefile(before, path):
            raise InputError(f"{target}: is the result of another photo, {before}", "output")
        jobs.append(Job(path, target, drawn.get(path)))
    return jobs


def _key(path: Path) -> str:
    """The same for names that some file systems hold for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def with_overlaps(jobs: Sequence[Job], overlaps: Sequence[Overlap]) -> list[Job]:
    """Jobs of test images that take pixels from the images they overlap with."""
    return [
        job._replace(overlaps=tuple(overlap for overlap in overlaps if overlap.test == job.photo))
        for job in jobs
    ]


def passed_over(
    photos: Path, output: Path, jobs: Sequence[Job], masks: Path | None = None
) -> list[str]:
    """A line for each file that `photo_jobs` of these arguments left out, and each photo without a
    mask."""
    others = _not_results(list_others(photos), photos, output) if photos.is_dir() else []
    lines = [f"{path}: passed over, {_why(path)}" for path in others]
    without = [job.photo for job in jobs if masks and not job.mask]
    return lines + [f"{path}: no mask, so it is only coloured" for path in without]


def _why(path: Path) -> str:
    if path.suffix.lower() in HEIF_SUFFIXES:
        return f"since {HEIF_MISSING}"
    return "since it is not named as an image"


def _not_results(paths: Sequence[Path], root: Path, output: Path) -> list[Path]:
    """Those of the files below a folder that are no results: not in their folder, or not known to
    it."""
    if output.absolute() == root.absolute():
        results = _read_manifest(output / MANIFEST)["photos"]
        return [path for path in paths if str(path.absolute()) not in results]
    return [path for path in paths if not path.absolute().is_relative_to(output.absolute())]


def restore_files(
    pipeline: Pipeline | Baseline, jobs: Sequence[Job], output: Path, fabric: Fabric
) -> list[str]:
    """Restore files, going on where an earlier call stopped; the processes share them.

    Args:
        output: the folder of the PNGs.

    Returns: an error line for each photo that could not be read or written; the others are
    restored.

    Raises `InputError` as `unrestored` does, and when another program works in the folder.
    """
    with lock_folder(output) if fabric.is_global_zero else nullcontext():
        waiting = unrestored(jobs, pipeline.recipe, output) if fabric.is_global_zero else None
        own = share(fabric, fabric.broadcast(waiting))
        return gather(fabric, restore_jobs(pipeline, own, fabric.is_global_zero))


def unrestored(jobs: Sequence[Job], recipe: dict, output: Path) -> list[Job]:
    """Those of `jobs` that an earlier call has not finished.

    `recipe` is kept in a hidden file of the folder with the identity of each photo; a result of
    another recipe or photo is deleted, to be made again.

    Raises `InputError` when a PNG to write exists that the file does not know.
    """
    manifest = output / MANIFEST
    earlier = _read_manifest(manifest)
    photos = earlier["photos"]
    if earlier["recipe"] != recipe:
        # written by this program, but of another recipe
        photos = {key: made_of[:1] for key, made_of in photos.items()}
    masks = {mask: file_hash(mask) for mask in {job.mask for job in jobs} if mask}
    for job in jobs:
        key = str(job.output.absolute())
        now = [str(job.photo.absolute()), identity(job.photo), masks.get(job.mask)]
        now += [
            [
                [str(path.absolute()), identity(path)]
                for path in (overlap.other, overlap.truth)
                if path
            ]
            for overlap in job.overlaps
        ]
        if job.output.exists() and key not in photos:
            raise InputError(f"{job.output}: exists, but was not written by this program", "output")
        if photos.get(key) != now:
            job.output.unlink(missing_ok=True)
        photos[key] = now
    write_json(manifest, {"recipe": recipe, "photos": photos})
    _beside(manifest).unlink(missing_ok=True)
    waiting = [job for job in jobs if not job.output.exists()]
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} images are already restored")
    return waiting


def restore_jobs(
    pipeline: Pipeline | Baseline, jobs: Sequence[Job], shown: bool = True
) -> list[str]:
    """Restore files one after another; threads read ahead and write behind. Returns as
    `restore_files`."""

    def read_damaged(job: Job) -> tuple[np.ndarray, np.ndarray, Details]:
        gray, clear, details = read_photo(job.photo)
        if details.frames > 1:
            tqdm.write(
                f"{job.photo}: {details.frames} pages or frames, of which only the first is restored"
            )
        if not job.mask:
            mask, line = report_damage(pipeline.find, gray, clear)
            if pipeline.find is not look_for_hole:
                tqdm.write(f"{job.photo}: {line}")
            return *fill_from_overlaps(gray, mask, job.overlaps), details
        mask = read_mask(job.mask, gray.shape)
        line = f"{job.photo}: {mask.mean():.1%} lost, says {job.mask}"
        if mask.mean() > MUCH:
            line += "; warning: that is most of it. White means lost; invert the mask if it was meant so"
        tqdm.write(line)
        return gray, mask, details

    failures, writing = [], deque()
    with ThreadPoolExecutor(THREADS) as pool:
        reading = prefetch(pool, read_damaged, jobs, AHEAD)
        read = zip(jobs, reading, strict=True)
        for job, damaged in tqdm(
            read, "restoring", len(jobs), unit="image", dynamic_ncols=True, disable=not shown
        ):
            try:
                gray, mask, details = damaged.result()
            except InputError as error:
                failures.append(str(error))
                continue
            writing.append(pool.submit(_write, job, pipeline(gray, mask), details))
            if len(writing) > AHEAD:
                failures += writing.popleft().result()
        for written in writing:
            failures += written.result()
    return failures


def _write(job: Job, rgb: np.ndarray, details: Details) -> list[str]:
    """Write a PNG; the error line of one that cannot be written where others can, say for its long
    name."""
    path = job.output
    try:
        write_png(path, paste_truths(rgb, job.overlaps), details)
    except InputError as error:  # of a truth
        return [str(error)]
    except OSError as error:
        if error.errno in FULL:
            raise
        return [f"{path}: not written ({error.strerror or error}); check its name and its folder"]
    return []


def _beside(manifest: Path) -> Path:
    """Where version 1.0 kept it."""
    folder = manifest.parent.absolute()
    return folder.with_name(f".{folder.name}{MANIFEST}")


def _read_manifest(path: Path) -> dict:
    """`recipe` and `photos` of a manifest; empty ones where there is none, or a broken one."""
    beside = _beside(path)
    try:
        found = read_json(path if path.exists() else beside, "")
    except (FileNotFoundError, InputError):
        found = {}
    if not isinstance(found.get("photos"), dict) or "recipe" not in found:
        return {"recipe": None, "photos": {}}
    photos = {
        # a photo's path, its identity and its mask's
        key: value if isinstance(value, list) and value and isinstance(value[0], str) else []
        for key, value in found["photos"].items()
    }
    return {"recipe": found["recipe"], "photos": photos}


def restore_with_ray(
    make_pipeline: Callable[[], Pipeline | Baseline], jobs: Sequence[Job], actors: int, gpus: int
) -> list[str]:
    """Restore files with Ray Data; if an actor or its machine dies, others take over its photos.

    Ray is the cluster that RAY_ADDRESS names, or one on this machine. All its machines must see
    the same files under the same paths.

    Args:
        make_pipeline: called once in each actor.
        jobs: what to restore; a PNG that exists is finished, since none is ever half-written.
        actors: processes that restore; they share the cores of a machine like this one.
        gpus: per actor.

    Returns: an error line for each photo that could not be read or written.
    """
    if actors < 1:
        raise SettingError("devices", actors, "must be at least 1")
    threads = max(1, cores() // actors)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing over the network
    try:
        import ray
    except ImportError:
        raise InputError("Ray is missing", "ray") from None

    class Actor:
        def __init__(self):
            import torch

            torch.set_num_threads(threads)
            self.pipeline = make_pipeline()

        def __call__(self, row: dict) -> dict:
            mask = Path(row["mask"]) if row["mask"] else None
            job = Job(Path(row["photo"]), Path(row["output"]), mask)
            if job.output.exists():
                return {"failure": ""}
            return {"failure": "".join(restore_jobs(self.pipeline, [job], shown=False))}

    if not jobs:
        return []
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    package = {"py_modules": [str(Path(__file__).parent)]}
    ray.init(runtime_env=package, log_to_driver=False, logging_level="warning")
    try:
        rows = []
        for job in jobs:
            paths = {"photo": job.photo, "output": job.output, "mask": job.mask}
            rows.append({key: str(path.absolute()) if path else "" for key, path in paths.items()})
        # a block is handed out as a whole, and again if its actor dies
        blocks = min(len(rows), max(8 * actors, len(rows) // 64))
        done = ray.data.from_items(rows, override_num_blocks=blocks).map(
            Actor, compute=ray.data.ActorPoolStrategy(size=actors), num_gpus=gpus, num_cpus=threads
        )
        rows_done = tqdm(done.iter_rows(), "restoring", len(rows), unit="image", dynamic_ncols=True)
        return [row["failure"] for row in rows_done if row["failure"]]
    finally:
        ray.shutdown()
