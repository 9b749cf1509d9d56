"""Restoring very large collections: the same restoring function on the actors of a Ray cluster."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

import src
from src.files import InputError
from src.inference import Find, Job, Restore, restore_all
from src.parallel import cores


def restore_with_ray(
    make: Callable[[], tuple[Restore, dict]], find: Find, jobs: Sequence[Job], actors: int, gpus: int
) -> list[str]:
    """Restore files with Ray Data; a photo whose actor or machine dies is given to another.

    Ray is the cluster that RAY_ADDRESS names, or else one of this machine. All its machines must see the
    same files under the same paths.

    Args:
        make: makes the restoring function, once in each actor, and what its results depend on.
        find: tells what of a photo is lost.
        jobs: (photo, PNG to write) pairs; a PNG that is there is finished, since none is ever half-written.
        actors: processes that restore; they share the cores of a machine like this one.
        gpus: of each actor.

    Returns: an error line for each photo that could not be read.

    Raises `InputError` where Ray is not installed, or for less than one actor.
    """
    if actors < 1:
        raise InputError(f"--devices {actors}: must be at least 1")
    threads = max(1, cores() // actors)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported behind the user's back
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray: Ray is missing; pip install -r requirements-ray.txt") from None

    class Actor:
        def __init__(self):
            import torch

            torch.set_num_threads(threads)
            self.restore, _ = make()

        def __call__(self, row: dict) -> dict:
            job = Path(row["photo"]), Path(row["png"])
            failures = [] if job[1].exists() else restore_all(self.restore, [job], find, shown=False)
            return {"failure": failures[0] if failures else ""}

    if not jobs:
        return []
    package = Path(src.__file__).parent
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.init(runtime_env={"py_modules": [str(package)]}, log_to_driver=False, logging_level="warning")
    try:
        rows = [{"photo": str(photo.absolute()), "png": str(png.absolute())} for photo, png in jobs]
        # A block is handed out as a whole, and handed out again when its actor dies.
        blocks = min(len(rows), max(8 * actors, len(rows) // 64))
        photos = ray.data.from_items(rows, override_num_blocks=blocks)
        done = photos.map(
            Actor, compute=ray.data.ActorPoolStrategy(size=actors), num_gpus=gpus, num_cpus=threads
        )
        shown = tqdm(done.iter_rows(), "restoring", len(rows), unit="image", dynamic_ncols=True)
        return [row["failure"] for row in shown if row["failure"]]
    finally:
        ray.shutdown()
