"""The figures behind docs/experiments.md: python bench.py damage --photos DIR"""

import time
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import pandas as pd
import torch
import tyro
from PIL import Image
from tqdm import tqdm

from src.ablation import RESTORED, best_constant, measure, strip, true_histogram
from src.checkpoints import load_model
from src.command_line import parse_settings, run_script
from src.damage import detect, synthesize
from src.datasets.build import SIDE, Photo, inspect, photos_below, place_crops
from src.datasets.competition import read_test, read_train
from src.datasets.folds import fingerprint, fold_files
from src.datasets.scenes import candidates, describe_file, find_scenes, overlap, reduce_descriptors
from src.files import InputError, open_image, to_rgb, write_png
from src.parallel import cores, parallel_map


def measure_damage(path: Path, root: Path, seed: int) -> dict | None:
    """What `detect` makes of one crop of a photo, undamaged and damaged; None for an unusable photo.

    A wrong pixel cannot be told apart when pixels of its value connect it to one that was rightly found.
    """
    photo = inspect(path, root)
    if not isinstance(photo, Photo):
        return None
    image = to_rgb(open_image(path)).resize(photo.size, Image.Resampling.LANCZOS)
    left, top = place_crops(photo, 1, seed)[0]
    rgb = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))
    rng = np.random.default_rng([seed, zlib.crc32(photo.name.encode())])
    gray, mask = synthesize(rgb, rng)
    start = time.perf_counter()
    found = detect(gray)
    seconds = time.perf_counter() - start
    wrong, right = found != mask, found & mask
    _, labels = cv2.connectedComponents((gray == gray[mask][0]).astype(np.uint8))
    return {
        "IoU": right.sum() / (found | mask).sum(),
        "exact": not wrong.any(),
        "exact up to indistinguishable": bool(np.isin(labels[wrong], np.unique(labels[right])).all()),
        "false hole": bool(detect(np.asarray(Image.fromarray(rgb).convert("L"))).any()),
        "ms": 1000 * seconds,
    }


@dataclass(frozen=True)
class Damage:
    """The hole detector on synthesized damage of real photos."""

    photos: Path
    """Folder of colour photos; one crop of each is damaged."""
    count: int = 0
    """Photos to use, spread evenly over the folder; 0 takes all."""
    seed: int = 0
    """Seed of crops and damage."""

    def run(self) -> None:
        """Print the table."""
        paths = photos_below(self.photos)
        chosen = np.linspace(0, len(paths) - 1, min(self.count or len(paths), len(paths))).astype(int)
        function = partial(measure_damage, root=self.photos, seed=self.seed)
        rows = [row for row in parallel_map(function, [paths[i] for i in chosen], "damaging") if row]
        table = pd.DataFrame(rows)
        print(f"images            {len(table)}")
        for name in ("IoU", "exact", "exact up to indistinguishable", "false hole"):
            print(f"{name:30} {table[name].mean():.5f}")
        print(f"{'ms an image, median':30} {table['ms'].median():.2f}")
        print(f"{'ms an image, 95th percentile':30} {table['ms'].quantile(0.95):.2f}")


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


def test_files(data_dir: Path) -> list[tuple[Path, Path]]:
    """(input, truth) files of the test images of a folder made by `prepare_data.py build`."""
    names = [Path(path).name for path in read_test(data_dir)["input_image_path"]]
    if not (data_dir / "test_gt").is_dir():
        raise InputError(f"{data_dir / 'test_gt'}: no such folder; use one made by prepare_data.py build")
    return [(data_dir / "test_input" / name, data_dir / "test_gt" / name) for name in names]


@dataclass(frozen=True)
class Parts:
    """What each part of the restorer is worth: the same model with a part left out or replaced."""

    data_dir: Path
    """The competition folder that it was trained on."""
    checkpoints: tuple[Path, ...]
    """best.safetensors of one fold, or of several, measured together."""
    images: Literal["held-out", "test"] = "held-out"
    """The fold's held-out images, or the test images of a folder made by `prepare_data.py build`."""
    count: int = 100
    """Images to measure on, spread evenly; 0 takes all."""
    folds: int = 5
    """Number of folds that the scenes were split into."""
    seed: int = 0
    """Seed that the scenes were split with."""
    picture: Path | None = None
    """Write four of the images to this PNG: input, both decodes, most likely hues, and truth."""

    def run(self) -> None:
        """Print mean scores of every variant, differences to the whole, and facts."""
        torch.set_num_threads(cores())
        loaded = [load_model(path, torch.device("cpu")) for path in self.checkpoints]
        models = [model for model, _ in loaded]
        train, held_out = fold_files(self.data_dir, self.folds, self.seed, loaded[0][1]["fold"])
        for path, (_, description) in zip(self.checkpoints, loaded, strict=True):
            if description["model"] != "restorer":
                raise InputError(f"{path}: holds {description['model']}; the parts are those of restorer")
            if self.images == "held-out" and fingerprint(held_out) != description["held_out"]:
                raise InputError(f"{path}: held other images out than the first; use --images test")
        pairs = test_files(self.data_dir) if self.images == "test" else held_out
        shown = np.linspace(0, len(pairs) - 1, min(self.count or len(pairs), len(pairs))).astype(int)
        pairs = [pairs[i] for i in shown]
        constant = best_constant(list(parallel_map(true_histogram, [t for _, t in train], "histograms")))
        rows = [measure(models, pair, constant) for pair in tqdm(pairs, "measuring", dynamic_ncols=True)]
        table = pd.concat({i: pd.DataFrame(scores).T for i, (scores, _) in enumerate(rows)})
        means = table.groupby(level=1, sort=False).mean()
        scores = table["score"].unstack()
        gain = scores.sub(scores[RESTORED], axis=0)
        means["difference"], means["std error"] = gain.mean(), gain.sem()
        print(means.to_string(float_format=lambda value: f"{value:.4f}"))
        facts = pd.DataFrame([facts for _, facts in rows]).mean()
        facts["parameters"] = sum(p.numel() for p in models[0].parameters())
        if self.picture:
            write_png(self.picture, np.vstack([strip(models, pair, constant) for pair in pairs[:4]]))
        print(facts.to_string(float_format=lambda value: f"{value:.6g}"))


Command = (
    Annotated[Damage, tyro.conf.subcommand("damage")]
    | Annotated[Scenes, tyro.conf.subcommand("scenes")]
    | Annotated[Parts, tyro.conf.subcommand("parts")]
)


def main() -> None:
    """Measure what the command line names."""
    parse_settings(Command, __doc__).run()


if __name__ == "__main__":
    run_script(main)
