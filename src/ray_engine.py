"""Restoring very large collections: the same pipeline on the actors of a Ray cluster."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

import src
from src.pipeline import Baseline, Pipeline
from src.restoring import Job, restore_jobs
from src.utils.errors import InputError, SettingError
from src.utils.processes import cores


def restore_with_ray(
    make_pipeline: Callable[[], Pipeline | Baseline], jobs: Sequence[Job], actors: int, gpus: int
) -> list[str]:
    """Restore files with Ray Data; a photo whose actor or machine dies is given to another.

    Ray is the cluster that RAY_ADDRESS names, or else one of this machine. All its machines must
    see the same files under the same paths.

    Args:
        make_pipeline: makes what restores, once in each actor.
        jobs: what to restore; a PNG that is there is finished, since none is ever half-written.
        actors: processes that restore; they share the cores of a machine like this one.
        gpus: of each actor.

    Returns: an error line for each photo that could not be read.

    Raises `InputError` where Ray is not installed, or for less than one actor.
    """
    if actors < 1:
        raise SettingError("devices", actors, "must be at least 1")
    threads = max(1, cores() // actors)
    os.environ.setdefault(
        "RAY_USAGE_STATS_ENABLED", "0"
    )  # nothing is reported behind the user's back
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
            job = Job(
                Path(row["photo"]), Path(row["output"]), Path(row["mask"]) if row["mask"] else None
            )
            failures = (
                [] if job.output.exists() else restore_jobs(self.pipeline, [job], shown=False)
            )
            return {"failure": failures[0] if failures else ""}

    if not jobs:
        return []
    package = Path(src.__file__).parent
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.init(
        runtime_env={"py_modules": [str(package)]}, log_to_driver=False, logging_level="warning"
    )
    try:
        rows = [
            {
                "photo": str(job.photo.absolute()),
                "output": str(job.output.absolute()),
                "mask": str(job.mask or ""),
            }
            for job in jobs
        ]
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
