"""How well scenes are found, and how the search grows."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.datasets.build import SIDE
from src.datasets.competition import read_train
from src.datasets.scenes import candidates, describe_file, find_scenes, overlap, reduce_descriptors
from src.files import InputError
from src.parallel import parallel_map


@dataclass(frozen=True)
class Scenes:
    """The scene search on a folder made by `prepare_data.py build`, and how its stages grow."""

    data_dir: Path
    """The folder; its crops.csv holds the truth."""

    def run(self) -> None:
        """Print recall, false merges and seconds a stage at a quarter, half and all of the images."""
        table = read_train(self.data_dir)
        paths = [self.data_dir / path for path in table["gt_image_path"]]
        if not (self.data_dir / "crops.csv").is_file():
            raise InputError(f"{self.data_dir / 'crops.csv'}: no such file; use a folder made by build")
        crops = (
            pd.read_csv(self.data_dir / "crops.csv").set_index("name").loc[[path.stem for path in paths]]
        )
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
            print(self.stages(paths[: len(paths) // part]))

    @staticmethod
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
