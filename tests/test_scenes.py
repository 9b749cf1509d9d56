"""Scenes are found from the images alone, and no fold splits one."""

import os
import shutil
import subprocess
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.datasets.build import build, sample_photos
from src.datasets.competition import read_train, read_truth
from src.datasets.folds import assign_folds, fold_files, load_folds
from src.datasets.scenes import describe, find_scenes, group
from src.utils.errors import InputError, SettingError
from tests.training import TINY, train

STEREO = {"motorcycle_left.png", "motorcycle_right.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("competition")
    build(sample_photos(), sample_photos()[0].parent, folder, 6, 0.1, 0)
    return folder


@pytest.fixture(scope="module")
def table(folder) -> pd.DataFrame:
    return load_folds(folder, folds=3)


@pytest.fixture(scope="module")
def truth(folder, table) -> pd.DataFrame:
    crops = pd.read_csv(folder / "crops.csv").set_index("name")
    return crops.loc[[Path(path).stem for path in table["gt_image_path"]]].reset_index()


def shared(a, b) -> float:
    """Part of a crop's area that two crops of one photo share."""
    return max(0, 512 - abs(a.left - b.left)) * max(0, 512 - abs(a.top - b.top)) / 512**2


def test_crops_of_a_photo_share_a_scene(table, truth):
    rows = list(truth.assign(scene=table["scene"]).itertuples())
    same = [(a, b) for a, b in combinations(rows, 2) if a.photo == b.photo and shared(a, b) >= 0.25]
    joined = np.mean([a.scene == b.scene for a, b in same])
    assert len(same) > 50
    assert joined >= 0.95


def test_different_photos_stay_apart(table, truth):
    photos = truth.groupby(table["scene"])["photo"].agg(set)
    merged = [names for names in photos if len(names) > 1 and names != STEREO]
    assert not merged


def test_scenes_are_the_same_twice_and_numbered_in_order(folder, table):
    scenes = find_scenes([folder / name for name in table["gt_image_path"]])
    assert np.issubdtype(scenes.dtype, np.integer)
    np.testing.assert_array_equal(scenes, table["scene"])
    first = pd.unique(scenes)
    np.testing.assert_array_equal(first, np.arange(len(first)))


def test_scale_and_recompression_are_forgiven(folder):
    rgb = read_truth(folder / "train_gt" / "TRAIN_00000.png")
    part = Image.fromarray(rgb).crop((40, 60, 440, 460))
    zoomed = part.resize((512, 512), Image.Resampling.BICUBIC)
    buffer = BytesIO()
    zoomed.save(buffer, "JPEG", quality=50)
    assert list(group([describe(rgb), describe(np.asarray(Image.open(buffer)))])) == [0, 0]


def test_a_common_logo_does_not_join(folder, truth):
    logo = read_truth(folder / "train_gt" / f"{truth['name'][0]}.png")[:160, :160]
    other = np.flatnonzero(~truth["photo"].isin({*STEREO, truth["photo"][0]}))
    names = truth["name"][[0, other[0]]]
    images = [read_truth(folder / "train_gt" / f"{name}.png").copy() for name in names]
    for image in images:
        image[-160:, -160:] = logo
    assert list(group([describe(image) for image in images])) == [0, 1]


def test_images_without_texture_stay_apart():
    flat = [describe(np.full((512, 512, 3), value, np.uint8)) for value in (90, 90, 200)]
    assert list(group(flat)) == [0, 1, 2]


def test_no_scene_is_in_two_folds_and_sizes_are_balanced(table):
    assert table.groupby("scene")["fold"].nunique().max() == 1
    scenes = np.repeat(np.arange(600), np.tile([1, 5, 12, 30], 150))
    scenes = np.random.default_rng(0).permutation(scenes)
    fold = assign_folds(scenes, 5, seed=1)
    assert pd.Series(fold).groupby(scenes).nunique().max() == 1
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    assert np.ptp(np.bincount(fold)) <= 0.02 * len(scenes)


def test_folds_csv_is_reused(folder, table):
    """Another seed would give other folds."""
    before = (folder / "folds.csv").stat().st_mtime_ns
    again = load_folds(folder, folds=3, seed=9)
    pd.testing.assert_frame_equal(again, table)
    assert list(table.columns) == ["input_image_path", "gt_image_path", "scene", "fold", "weight"]
    assert (table["weight"] == 1).all() and table.iloc[:, :2].equals(read_train(folder))
    assert (folder / "folds.csv").stat().st_mtime_ns == before


SPOILED = {
    "row dropped": lambda table: table.iloc[1:],
    "other file": lambda table: table.assign(gt_image_path="train_gt/X.png"),
    "no scene": lambda table: table.drop(columns="scene"),
    "fraction": lambda table: table.assign(fold=table["fold"] + 0.5),
    "scene split": lambda table: table.assign(
        fold=[(table["fold"][0] + 1) % 3, *table["fold"][1:]]
    ),
    "empty": lambda table: pd.DataFrame(),
}


@pytest.fixture
def folds_csv(folder, tmp_path):
    """Where to write the folds of a copy of the folder."""
    data_dir = shutil.copytree(folder, tmp_path / "data", copy_function=os.link)
    (data_dir / "folds.csv").unlink()
    return data_dir / "folds.csv"


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_stale_or_broken_folds_csv_is_refused(folds_csv, table, spoil):
    spoil(table).to_csv(folds_csv, index=False)
    with pytest.raises(InputError, match=r"folds\.csv.*delete it"):
        load_folds(folds_csv.parent, folds=3)


def test_weights_of_a_folds_csv(folds_csv, table):
    weights, folder = np.linspace(0.5, 3, len(table)), folds_csv.parent
    table.assign(weight=weights).to_csv(folds_csv, index=False)
    np.testing.assert_array_equal(load_folds(folder, folds=3)["weight"], weights)
    training, _, rows = fold_files(folder, 3, 0, 1)
    np.testing.assert_array_equal(rows["weight"], weights[table["fold"] != 1])
    assert [truth for _, truth in training] == [folder / name for name in rows["gt_image_path"]]


@pytest.mark.parametrize("weight", [0, "inf", "", "much"])
def test_a_weight_that_is_not_a_positive_number_is_refused(folds_csv, table, weight):
    weights = [1, 2, weight, *[1] * (len(table) - 3)]
    table.assign(weight=weights).to_csv(folds_csv, index=False)
    with pytest.raises(InputError, match=r"folds\.csv, line 4: weight .* must be a number above 0"):
        load_folds(folds_csv.parent, folds=3)


def test_another_number_of_folds_is_refused(folder, table):
    found = r"folds\.csv: folds 0, 1, 2, expected 0 to 3; delete it"
    with pytest.raises(InputError, match=found) as refused:
        load_folds(folder, folds=4)
    assert refused.value.hint == "folds"


@pytest.mark.parametrize(("scenes", "folds"), [([0, 0, 1, 1], 3), ([0, 0], 2), ([0, 1, 2], 1)])
def test_too_few_scenes_or_folds_are_refused(scenes, folds):
    with pytest.raises(SettingError, match=f"^folds {folds}: "):
        assign_folds(np.array(scenes), folds)


def test_folds_of_a_read_only_folder_are_kept_with_the_run(small_disk, sample_folder, tmp_path):
    """As on Kaggle; they are found once, and evaluate.py finds them again."""
    data, run = small_disk(64 << 20) / "data", tmp_path / "outputs" / "restorer"
    shutil.copytree(sample_folder, data, ignore=shutil.ignore_patterns("folds.csv"))
    subprocess.run(["mount", "-o", "remount,ro", data.parent], check=True)
    train("--data-dir", data, "--output-dir", run.parent, *TINY, "--epochs", 1)
    assert not (data / "folds.csv").exists()
    before = (run / "folds.csv").stat().st_mtime_ns
    assert len(load_folds(data, spare=run)) == len(pd.read_csv(run / "folds.csv"))
    assert (run / "folds.csv").stat().st_mtime_ns == before
    with pytest.raises(OSError, match="Read-only"):
        load_folds(data)
