"""How well scenes are found, and how the search grows."""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.settings import SceneSearch
from src.datasets.build import SIDE
from src.datasets.competition import read_train
from src.datasets.scenes import candidates, describe_file, find_scenes, overlap, reduce_descriptors
from src.utils.errors import InputError
from src.utils.processes import parallel_map


def run(settings: SceneSearch) -> None:
    """Print recall, false merges and seconds a stage at a quarter, half and all of the images."""
    data_dir = settings.data_dir
    paths = [data_dir / path for path in read_train(data_dir)["gt_image_path"]]
    truth = data_dir / "crops.csv"
    if not truth.is_file():
        raise InputError(f"{truth}: no such file; use a folder made by prepare_data.py build")
    crops = pd.read_csv(truth).set_index("name").loc[[path.stem for path in paths]]
    crops["scene"] = find_scenes(paths)
    pairs = crops.merge(crops, on="photo").query(
        "left_x < left_y or (left_x == left_y and top_x < top_y)"
    )
    shared = 1.0
    for axis in ("left", "top"):
        shared *= (SIDE - (pairs[f"{axis}_x"] - pairs[f"{axis}_y"]).abs()).clip(lower=0) / SIDE
    near = pairs[shared >= 0.25]
    photos = crops.groupby("scene")["photo"].transform("nunique") > 1
    merged, total = crops[photos]["photo"].nunique(), crops["photo"].nunique()
    joined = (near["scene_x"] == near["scene_y"]).mean()
    print(f"pairs sharing a quarter or more: {len(near)}, in one scene: {joined:.4f}")
    print(f"photos sharing a scene with another photo: {merged} of {total} ({merged / total:.2%})")
    print(f"{'images':>8}{'describe':>10}{'search':>10}{'verify':>10}  seconds")
    for part in (4, 2, 1):
        print(stages(paths[: len(paths) // part]))


def stages(paths: list[Path]) -> str:
    """Wall-clock seconds of each stage of the search over some images, as a line of the table."""
    times = [time.perf_counter()]
    features = list(parallel_map(describe_file, paths, "describing"))
    times.append(time.perf_counter())
    vectors = reduce_descriptors([image.descriptors for image in features])
    found = candidates(vectors)
    times.append(time.perf_counter())
    for i, j in found:
        overlap(features[i], features[j], vectors[i], vectors[j])
    times.append(time.perf_counter())
    return f"{len(paths):>8}" + "".join(f"{seconds:>10.1f}" for seconds in np.diff(times))
