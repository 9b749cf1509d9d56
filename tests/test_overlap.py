"""Crops of one photo among the test images: found, told, and made use of."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from src.damage.hole import find_hole, punch_hole
from src.datasets.competition import read_input
from src.datasets.overlap import Overlap, find_overlaps, shared, windows
from src.utils.images import write_png

SEEDS = (0, 1, 52, 3)  # of the holes; that of TEST_902 lies where TEST_901 is whole


@pytest.fixture(scope="module")
def folder(small_folder, tmp_path_factory) -> Path:
    """A competition folder to which three crops of one photo were added: a training one and two
    test images.

    TEST_901 overlaps with TRAIN_90000 and TEST_902; TEST_903 is another photo.
    """
    folder = Path(shutil.copytree(small_folder, tmp_path_factory.mktemp("overlap") / "data"))
    photo = np.asarray(Image.fromarray(data.coffee()).resize((1000, 900), Image.Resampling.LANCZOS))
    other = np.asarray(Image.fromarray(data.chelsea()).resize((600, 512), Image.Resampling.LANCZOS))
    crops = {
        "TRAIN_90000": photo[0:512, 100:612],
        "TEST_901": photo[90:602, 250:762],
        "TEST_902": photo[300:812, 400:912],
        "TEST_903": other[:, :512],
    }
    for number, (name, rgb) in enumerate(crops.items()):
        part = name.split("_")[0].lower()
        gray, _ = punch_hole(rgb, np.random.default_rng(SEEDS[number]))
        write_png(folder / f"{part}_input" / f"{name}.png", gray)
        write_png(folder / f"{part}_gt" / f"{name}.png", rgb)
        row = {"input_image_path": f"./{part}_input/{name}.png"}
        row |= {"gt_image_path": f"./{part}_gt/{name}.png"} if part == "train" else {}
        table = pd.read_csv(folder / f"{part}.csv")
        pd.concat([table, pd.DataFrame([row])]).to_csv(folder / f"{part}.csv", index=False)
    return folder


def test_exactly_the_overlaps_are_found(folder):
    found = {(o.test.stem, o.other.stem): (o.down, o.right) for o in find_overlaps(folder)}
    first, second = folder / "test_input" / "TEST_901.png", folder / "test_input" / "TEST_902.png"
    ours = {pair: shift for pair, shift in found.items() if pair[0].startswith("TEST_9")}
    assert ours == {
        ("TEST_901", "TRAIN_90000"): (90, 150),
        ("TEST_902", "TRAIN_90000"): (300, 300),
        ("TEST_901", "TEST_902"): (-210, -150),
        ("TEST_902", "TEST_901"): (210, 150),
    }
    # the folder itself holds none: its test images are of photos of their own, each of which has
    # three crops
    assert all(other.startswith("TEST_") for _, other in found.keys() - ours.keys())
    (overlap,) = (o for o in find_overlaps(folder) if (o.test, o.other) == (first, second))
    mask = shared(overlap)
    assert mask.mean() > 0.35 and not mask[:210].any() and not mask[:, :150].any()
    mine, theirs = windows(mask.shape, overlap.down, overlap.right)
    hole = find_hole(read_input(second))
    assert not (mask[mine] & hole[theirs]).any()
    assert mask[mine].sum() > 0.8 * (~hole[theirs]).sum()


def test_tips_of_holes_that_were_not_found_do_not_hide_an_overlap(tmp_path):
    photo = np.asarray(Image.fromarray(data.coffee()).resize((1000, 900), Image.Resampling.LANCZOS))
    denied = 0
    for seed in range(12):
        for name, rgb in (("a", photo[:512, :512]), ("b", photo[100:612, 50:562])):
            gray, _ = punch_hole(rgb, np.random.default_rng([seed, ord(name)]))
            write_png(tmp_path / f"{name}.png", gray)
        overlap = Overlap(tmp_path / "a.png", tmp_path / "b.png", None, -100, -50)
        denied += not shared(overlap).any()
        other = Overlap(tmp_path / "a.png", tmp_path / "b.png", None, -101, -50)
        assert not shared(other).any()
    assert denied == 0


def test_no_overlap_is_said(sample_folder, script):
    status, stdout, stderr = script("prepare_data", "overlap", "--data-dir", sample_folder)
    assert status == 0, stderr
    assert (
        stdout.splitlines()[-1].startswith(("none of", "3 of", "2 of"))
        and "training image" not in stdout
    )


def test_lost_pixels_and_colours_are_taken_from_elsewhere(folder, random_run, tmp_path, script):
    run = ("--data-dir", folder, "--output-dir", random_run, "--name", "random")
    for output, flags in (("with", ["--overlap"]), ("without", [])):
        status, _, stderr = script("infer", *run, "--output", tmp_path / output, *flags)
        assert status == 0, stderr
    overlaps = find_overlaps(folder)
    for name in ("TEST_901", "TEST_902", "TEST_903"):
        with_, without, truth = (
            np.asarray(Image.open(path / f"{name}.png")).astype(int)
            for path in (tmp_path / "with", tmp_path / "without", folder / "test_gt")
        )
        known = np.zeros(truth.shape[:2], bool)
        for overlap in overlaps:
            if overlap.test.stem == name and overlap.truth:
                known[windows(known.shape, overlap.down, overlap.right)[0]] = True
        assert (with_ == truth)[known].all()
        if name == "TEST_903":
            assert not known.any() and (with_ == without).all()
        else:
            assert known.mean() > 0.1 and (without != truth)[known].any(axis=1).mean() > 0.5
    # a hole that another test image has whole is filled with its luma, without colours
    gray = read_input(folder / "test_input" / "TEST_902.png")
    (overlap,) = (o for o in overlaps if (o.test.stem, o.other.stem) == ("TEST_902", "TEST_901"))
    lost = shared(overlap) & find_hole(gray)
    assert lost.any()
    result = np.asarray(Image.open(tmp_path / "with" / "TEST_902.png").convert("L"))
    truth = np.asarray(Image.open(folder / "test_gt" / "TEST_902.png").convert("L"))
    assert (result == truth)[lost].all()


def test_overlaps_are_of_test_images(tmp_path, script):
    for flags in (("--input", tmp_path, "--output", tmp_path), ("--engine", "ray")):
        status, _, stderr = script("infer", "--overlap", *flags)
        assert status == 2 and "--overlap works on the test images alone" in stderr
