"""Real files, mutated, through every reader of the scripts: python -m tests.fuzz --mutations 10000
--seed 0

| file | reader | script | |---|---|---| | photo.png, .jpg, .webp, .tif, .bmp | read_photo, inspect
| infer.py --input, prepare_data.py build | | train_input/, train_gt/ | read_input, read_truth,
check_image | train.py, prepare_data.py check and pack | | restored/ | score_files | evaluate.py,
make_submission.py | | train.csv, test.csv, folds.csv | read_train, read_test, load_folds | all but
build | | pack.npy, pack.jsonl | Pack | train.py, prepare_data.py pack | | holes.npy, holes.jsonl |
Holes | train.py, prepare_data.py pack | | config.json, metrics.jsonl, last.pt | begin_run,
RunLogger, TrainingState.load | train.py | | inpainter.safetensors, colorizer.safetensors |
load_model | infer.py, evaluate.py --fold | | pictures/.restored.json | unrestored | infer.py,
evaluate.py --fold | | submission.zip | check_submission, unpacked | make_submission.py --check,
evaluate.py --pred |

A reader may accept a file or refuse it with an `InputError` that names it or one beside it.
Anything
else is a fault: another error, a crash, more than `SECONDS`, or more than `MEMORY` bytes of address
space beyond what the imports take. Its file is kept and the exit status is 1. A case depends on
seed and number.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from PIL import Image
from skimage import data as photographs

from src.damage.hole import find_hole
from src.datasets.build import build, inspect, sample_photos
from src.datasets.check import Hole, check_image
from src.datasets.competition import read_input, read_test, read_train, read_truth
from src.datasets.folds import load_folds
from src.evaluation.scoring import score_files
from src.evaluation.submission import check_submission, unpacked, write_submission
from src.models import create_model
from src.models.checkpoints import load_model, save_model
from src.restoring import MANIFEST, Job, unrestored
from src.training.logger import RunLogger
from src.training.state import TrainingState, begin_run
from src.utils.errors import InputError
from src.utils.files import write_json, write_text
from src.utils.images import read_gray
from tests.mutations import anywhere, archive, csv, jpeg, jsonl, pick, png, safetensors

SECONDS, MEMORY = 60, 4 << 30


@dataclass(frozen=True)
class Kind:
    """A file that scripts read; of all mutations it gets its weight's share of the sum."""

    path: str  # below the folder of all seeds, which is a competition folder as well
    weight: float
    readers: tuple[Callable[[Path], object], ...]
    mutate: Callable[[np.random.Generator, bytes, bytes], bytes] = anywhere


class Result(NamedTuple):
    """What became of a case."""

    path: str
    outcome: str  # accepted, refused or fault
    message: str  # of the fault
    seconds: float
    peak: int  # bytes, the most that the process has held


def read_tables(path: Path) -> None:
    load_folds(path.parent, 2)
    read_test(path.parent)


def score(path: Path) -> None:
    score_files(
        (
            path,
            path.parent / "train_gt/TRAIN_00000.png",
            path.parent / "train_input/TRAIN_00000.png",
        )
    )


def check_pair(path: Path) -> str | Hole:
    row = tuple(f"train_{part}/TRAIN_00000.png" for part in ("input", "gt"))
    return check_image(row, path.parents[1])


def read_zip(path: Path) -> None:
    check_submission(path, [Path(name).name for name in read_train(path.parent)["gt_image_path"]])
    with unpacked(path):
        pass


def read_manifest(path: Path) -> None:
    photo = path.parents[1] / "photo.png"
    unrestored([Job(photo, path.with_name("photo.png"))], {"tta": 1}, path.parent)


def read_config(path: Path) -> None:
    begin_run(path.parent, {"lr": 0.001, "name": "a"}, {"name"})


def read_metrics(path: Path) -> None:
    RunLogger(path.parent, 20, Fabric(accelerator="cpu", devices=1)).writer.close()
    shutil.rmtree(path.with_name("tensorboard"))


def fresh_state() -> TrainingState:
    return TrainingState(create_model("restorer", color_size=64))


STATES: list[TrainingState] = []  # one takes all cases of a process


def read_state(path: Path) -> None:
    if not STATES:
        STATES.append(fresh_state())
    STATES[0].load(path)


def read_photo(path: Path) -> None:
    find_hole(read_gray(path))


def read_model(path: Path) -> None:
    load_model(path.parent, torch.device("cpu"))


PHOTO = (read_photo, partial(inspect, root=Path("/")))
KINDS = (
    Kind("photo.png", 12, PHOTO, png),
    Kind("photo.jpg", 12, PHOTO, jpeg),
    Kind("photo.webp", 5, PHOTO),
    Kind("photo.tif", 8, PHOTO),
    Kind("photo.bmp", 4, PHOTO),
    Kind("train_input/TRAIN_00000.png", 3, (read_input, check_pair), png),
    Kind("train_gt/TRAIN_00000.png", 3, (read_truth, check_pair), png),
    Kind("restored.png", 4, (score,), png),
    Kind("train.csv", 7, (read_tables,), csv),
    Kind("test.csv", 5, (read_tables,), csv),
    Kind("folds.csv", 7, (read_tables,), csv),
    Kind("config.json", 4, (read_config,), jsonl),
    Kind("metrics.jsonl", 3, (read_metrics,), jsonl),
    Kind(f"pictures/{MANIFEST}", 4, (read_manifest,), jsonl),
    Kind("colorizer.safetensors", 4, (read_model,), safetensors),
    Kind("inpainter.safetensors", 2, (read_model,), safetensors),
    Kind("last.pt", 2, (read_state,), archive),
    Kind("submission.zip", 6, (read_zip,), archive),
)


def make_seeds(folder: Path) -> None:
    """One real file of each kind, written by the code that the scripts use."""
    photos = sample_photos()[:4]

    def plain_map(function: Callable, items: Sequence, _: str) -> Iterator:
        return map(function, items)

    with ExitStack() as stack:
        for module in (
            "build",
            "scenes",
        ):  # few photos are done before a process has started
            stack.enter_context(patch(f"src.datasets.{module}.parallel_map", plain_map))
        build(photos, photos[0].parent, folder, crops_per_photo=1, test_photos=0.2, seed=0)
        load_folds(folder, 2)
    names = [Path(name).name for name in read_train(folder)["gt_image_path"]]
    write_submission(folder / "train_gt", names, folder / "submission.zip")
    shutil.copy(folder / "train_gt" / names[0], folder / "restored.png")
    photo, exif = Image.fromarray(photographs.astronaut()[:260, 100:401]), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a turned photo"
    for suffix in ("png", "jpg", "webp", "tif", "bmp"):
        photo.save(
            folder / f"photo.{suffix}",
            exif=exif,
            **({"compression": "tiff_lzw"} if suffix == "tif" else {}),
        )
    write_json(
        folder / "config.json",
        {"lr": 0.001, "name": "a", "loss_weights": {"hue": 1.0}, "validate_at": [1]},
    )
    lines = ({"step": step, "loss/hue": 1.5, "lr": 0.001} for step in (10, 20, 30))
    write_text(folder / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    state = fresh_state()
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    state.save(folder / "last.pt")
    facts = {"fold": 0, "held_out": "0" * 16, "step": 1, "score": {"S": 0.5}}
    save_model(folder, state.ema.module, "restorer", facts)
    read_manifest(folder / "pictures" / MANIFEST)


def mutated(kinds: Sequence[Kind], folder: Path, seed: int, number: int) -> tuple[Kind, bytes]:
    """The kind and the content of a case."""
    rng, weights = np.random.default_rng([seed, number]), np.array([kind.weight for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    content, other = ((folder / k.path).read_bytes() for k in (kind, pick(rng, kinds)))
    if rng.random() < 0.6:
        content = kind.mutate(rng, content, other)
    if kind.mutate is anywhere or rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 4))):
            content = anywhere(rng, content, other)
    return kind, content


def outcome(
    readers: Sequence[Callable[[Path], object]], path: Path, folder: Path
) -> tuple[str, str]:
    """Whether readers accept a file of a folder, and what is wrong with the way in which one
    refused it."""
    found = "accepted"
    for reader in readers:
        try:
            answer = reader(path)
        except InputError as error:
            answer = str(error)
        except Exception:
            return "fault", traceback.format_exc()
        if isinstance(answer, str):
            found = "refused"
            if str(folder) not in answer or len(answer.splitlines()) > 1:
                return "fault", f"not one line that names a file: {answer}"
    return found, ""


def work(
    kinds: Sequence[Kind],
    numbers: range,
    seed: int,
    folder: Path,
    seconds: int,
    results: Connection,
) -> None:
    """Run cases within the bounds, one result each; a case beyond its time ends this process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress bars, and warnings of PIL
    mapped = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    try:
        for number in numbers:
            results.send(run(kinds, folder, seed, number, seconds))
    except Exception:
        results.send(traceback.format_exc())  # of the fuzzer itself


def run(kinds: Sequence[Kind], folder: Path, seed: int, number: int, seconds: int) -> Result:
    """One case."""
    kind, content = mutated(kinds, folder / "seeds", seed, number)
    path = folder / "work" / kind.path
    path.write_bytes(content)
    signal.alarm(seconds)
    start = time.monotonic()
    found, message = outcome(kind.readers, path, folder / "work")
    passed = time.monotonic() - start
    signal.alarm(0)
    if found == "fault":
        keep(folder, kind, number)
    shutil.copyfile(folder / "seeds" / kind.path, path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Result(kind.path, found, message, passed, peak)


def keep(folder: Path, kind: Kind, number: int) -> None:
    """Copy the file of a case that found a fault."""
    (folder / "faults").mkdir(exist_ok=True)
    shutil.copy(folder / "work" / kind.path, folder / "faults" / f"{number}-{Path(kind.path).name}")


def fuzz(
    kinds: Sequence[Kind], mutations: int, seed: int, folder: Path, seconds: int = SECONDS
) -> list[Result]:
    """Run cases 0 to `mutations` - 1 in a process of their own, and in another one after each
    crash.

    `folder` gets `seeds/`, where it has none yet, `work/` and, for faults, `faults/`.
    """
    if not (folder / "seeds").exists():
        make_seeds(folder / "seeds")
    shutil.copytree(folder / "seeds", folder / "work", dirs_exist_ok=True)
    context, results = multiprocessing.get_context("forkserver"), []
    # what takes longest to import, once; starts no thread
    context.set_forkserver_preload(["src.training.validation", "src.training.logger"])
    while len(results) < mutations:
        receiving, sending = context.Pipe(duplex=False)
        numbers = range(len(results), mutations)
        process = context.Process(
            target=work, args=(kinds, numbers, seed, folder, seconds, sending)
        )
        process.start()
        sending.close()
        with suppress(EOFError):
            while True:
                results.append(receiving.recv())
        process.join()
        if results and isinstance(results[-1], str):
            raise RuntimeError(
                f"the fuzzer itself failed in case {len(results) - 1}: {results[-1]}"
            )
        if len(results) < mutations:
            kind, _ = mutated(kinds, folder / "seeds", seed, len(results))
            keep(folder, kind, len(results))
            shutil.copyfile(folder / "seeds" / kind.path, folder / "work" / kind.path)
            message = f"killed by {signal.Signals(-process.exitcode).name}"
            results.append(Result(kind.path, "fault", message, seconds, 0))
    return results


def summary(results: Sequence[Result]) -> str:
    """Counts of each kind of file and outcome, the slowest cases and the most memory."""
    table = pd.DataFrame(results)
    outcomes = ["accepted", "refused", "fault"]
    counts = pd.crosstab(table["path"], table["outcome"]).reindex(columns=outcomes, fill_value=0)
    counts["slowest, s"] = table.groupby("path")["seconds"].max().round(2)
    sums = ", ".join(f"{counts[name].sum()} {name}" for name in outcomes)
    most = f"slowest {table['seconds'].max():.2f} s, peak {table['peak'].max() / 2**20:.0f} MiB"
    return f"{counts.to_string()}\n{len(table)} mutations: {sums}; {most}"


def main() -> int:
    """Fuzz, print what became of the files, and tell by the exit status whether there are faults."""
    parser = argparse.ArgumentParser(
        description="Mutate real files and read them as the scripts do."
    )
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/fuzz"), help="emptied first")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    results = fuzz(KINDS, options.mutations, options.seed, options.folder.absolute())
    print(summary(results))
    faults = [
        (number, result) for number, result in enumerate(results) if result.outcome == "fault"
    ]
    for number, fault in faults:
        kept = options.folder / "faults" / f"{number}-{Path(fault.path).name}"
        print(f"{kept}: {fault.message}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
