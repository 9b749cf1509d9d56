"""Photos in, PNGs out: what is pending, reading ahead, writing behind."""

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
from src.pipeline import Baseline, Pipeline
from src.runs import RECIPE
from src.utils.distributed import gather, share
from src.utils.errors import InputError, SettingError
from src.utils.files import differences, file_hash, lock_folder, read_recipe, write_json
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

THREADS = 2  # read and write files while photos are restored
QUEUE = 2  # photos read ahead and written behind
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no other photo can be written either


class Job(NamedTuple):
    """A photo to restore."""

    photo: Path
    output: Path  # the PNG to write
    mask: Path | None = None  # a mask file; damage is looked for without one


def photo_jobs(photos: Path, output: Path, masks: Path | None = None) -> list[Job]:
    """The jobs of a photo or a folder of photos; results are placed below `output` alike.

    Args:
        masks: a mask file, or a folder of masks named and placed like the photos.

    Raises `InputError` if there is no photo or no mask, or if a result would overwrite a photo.
    """
    if not photos.exists():
        raise InputError(f"{photos}: no such photo or folder")
    root = photos.parent if photos.is_file() else photos
    paths = [photos] if photos.is_file() else _without_results(list_images(photos), photos, output)
    if not paths:
        raise InputError(f"{photos}: no image file found; name a photo or a folder of photos")
    if masks and masks.is_dir() and masks.absolute() == root.absolute():
        paths = without_masks(paths)
    matched = match_masks(masks, root, paths) if masks else {}
    targets = [output / path.relative_to(root).with_suffix(".png") for path in paths]
    # a.jpg beside a.png, or beside A.png, whose results are one file on some systems
    counts = Counter(_key(target) for target in targets)
    jobs: list[Job] = []
    taken: set[str] = set()
    for path, target in zip(paths, targets, strict=True):
        if counts[_key(target)] > 1 or _key(target) in taken:
            target = target.with_name(path.name + ".png")
        taken.add(_key(target))
        if target.resolve() == path.resolve():
            raise InputError(f"{output}: the result would overwrite {path}", "output")
        jobs.append(Job(path, target, matched.get(path)))
    return jobs


def _key(path: Path) -> str:
    """Equal for names that some file systems take for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def skipped_files(
    photos: Path, output: Path, jobs: Sequence[Job], masks: Path | None = None
) -> list[str]:
    """A line for each file that `photo_jobs` left out, and for each photo without a mask."""
    others = _without_results(list_others(photos), photos, output) if photos.is_dir() else []
    lines = []
    for path in others:
        heif = path.suffix.lower() in HEIF_SUFFIXES
        lines.append(f"{path}: skipped: {HEIF_MISSING if heif else 'not an image file'}")
    without = [job.photo for job in jobs if masks and not job.mask]
    return lines + [f"{path}: no mask, so it is only coloured" for path in without]


def _without_results(paths: Sequence[Path], root: Path, output: Path) -> list[Path]:
    """The files below a folder that are not results: those listed in the folder of the results, or
    all of that folder if it is inside the other."""
    root, output = root.absolute(), output.absolute()
    if output != root and output.is_relative_to(root):
        return [path for path in paths if not path.absolute().is_relative_to(output)]
    results = {output / name for name in _read_photos(output)}
    return [path for path in paths if path.absolute() not in results]


def restore_files(
    pipeline: Pipeline | Baseline,
    jobs: Sequence[Job],
    output: Path,
    fabric: Fabric,
    overwrite: bool = False,
) -> list[str]:
    """Restore files, resuming an earlier call; the processes share them.

    Args:
        output: the folder of the PNGs.
        overwrite: see `prepare_output`.

    Returns: an error line for each photo that could not be read or written.
    """
    with lock_folder(output) if fabric.is_global_zero else nullcontext():
        pending = None
        if fabric.is_global_zero:
            pending = prepare_output(jobs, pipeline.recipe, output, overwrite)
            if len(pending) < len(jobs):
                print(f"{len(jobs) - len(pending)} of {len(jobs)} images are already restored")
        own = share(fabric, fabric.broadcast(pending))
        return gather(fabric, restore_jobs(pipeline, own, fabric.is_global_zero))


def prepare_output(
    jobs: Sequence[Job], recipe: dict, output: Path, overwrite: bool = False
) -> list[Job]:
    """The jobs without a result yet; the folder's recipe is written.

    A result whose photo, mask or recipe has changed is refused, or with `overwrite` deleted to be
    made again. Nothing is deleted before all jobs were looked at. A photo is known by its content,
    so folders may be moved.

    Raises `InputError` for a result that would be replaced without `overwrite`, and for any file
    that the recipe does not list.
    """
    earlier = read_recipe(output, RECIPE)
    photos = _read_photos(output)
    _check_names(jobs, output, photos)
    names = [_name(job, output) for job in jobs]
    made_of = _read_and_hash(jobs, names, photos)
    changes = differences(earlier.get("recipe") or {}, recipe)
    if changes:  # results that are not made again now stay behind, made of nothing known
        made_of = {name: {"photo": [], "mask": None} for name in photos} | made_of
    outdated = [
        name
        for name in photos.keys() & made_of
        if (output / name).exists() and (changes or not _same(photos[name], made_of[name]))
    ]
    outdated.sort()
    if outdated and not overwrite:
        raise _made_otherwise(output, outdated, changes)
    for name in set(outdated) & set(names):
        (output / name).unlink()
    photos |= made_of
    write_json(output / RECIPE, {"recipe": recipe, "photos": photos})
    return [job for job in jobs if not job.output.exists()]


def _name(job: Job, output: Path) -> str:
    return job.output.relative_to(output).as_posix()


def _made_otherwise(output: Path, outdated: Sequence[str], changes: Sequence[str]) -> InputError:
    found = "; ".join(changes[:3]) or f"the photo or mask of {outdated[0]} is another one now"
    return InputError(
        f"{output}: holds {len(outdated)} result(s) made from something else ({found}); "
        "add --overwrite to replace them, or choose another output folder"
    )


def _read_and_hash(jobs: Sequence[Job], names: Sequence[str], photos: dict[str, dict]) -> dict:
    """`_made_of` of each job, by its name."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(_made_of, jobs, [photos.get(name) for name in names])
        return dict(zip(names, found, strict=True))


def _check_names(jobs: Sequence[Job], output: Path, photos: dict[str, dict]) -> None:
    """Refuse two jobs of one result, and a file in a result's place that is not a result."""
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(_key(job.output), job)
        if other is not job:
            raise InputError(
                f"{job.photo}: {other.photo} would have the same result; rename one of them"
            )
        if os.path.lexists(job.output) and _name(job, output) not in photos:
            raise InputError(f"{job.output}: exists, but {RECIPE} does not list it", "output")


def _made_of(job: Job, earlier: dict | None) -> dict:
    """The content of a job's files: `photo`, its hash with size and times, and `mask`, a hash."""
    mask = file_hash(job.mask) if job.mask else None
    try:
        status = os.stat(job.photo)
        # a file that was put in another's place may have its size and modification time
        seen = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = earlier["photo"] if earlier else []
        sha256 = known[0] if known[1:] == seen else file_hash(job.photo)
    except OSError:
        # reading it will name the reason
        return {"photo": earlier["photo"] if earlier else [], "mask": mask}
    return {"photo": [sha256, *seen], "mask": mask}


def _same(earlier: dict, now: dict) -> bool:
    """Whether two of `_made_of` are of the same content."""
    return earlier["photo"][:1] == now["photo"][:1] and earlier["mask"] == now["mask"]


def _read_photos(output: Path) -> dict[str, dict]:
    """What the results in a folder were made of, by their path in it."""
    photos = read_recipe(output, RECIPE).get("photos")
    return photos if isinstance(photos, dict) else {}


def restore_jobs(
    pipeline: Pipeline | Baseline, jobs: Sequence[Job], shown: bool = True
) -> list[str]:
    """Restore files one after another; threads read ahead and write behind. Returns as
    `restore_files`."""
    failures, writing = [], deque()
    with ThreadPoolExecutor(THREADS) as pool:
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


def _read(pipeline: Pipeline | Baseline, job: Job) -> tuple[np.ndarray, np.ndarray, Details]:
    """The photo of a job, its mask, and what else its file says."""
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
    """Write a PNG; the error line if this one cannot be written, say because its name is too
    long."""
    path = job.output
    try:
        write_png(path, rgb, details)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        return [f"{path}: not written ({error.strerror or error}); check its name and its folder"]
    return []


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
