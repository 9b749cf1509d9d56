"""prepare_data.py pack on a real folder: what training reads, interruption, what is refused."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from src.color.dino import STEP, VIEW, dino
from src.color.lattice import luma
from src.damage.hole import punch_hole
from src.datasets.bank import (
    CHANNELS,
    CROP,
    FOLDER,
    HOLES_SEED,
    REPAIRED,
    TRAIN_CROP,
    Bank,
    crop_around,
    hole_example,
    load_bank,
    pack,
    random_part,
)
from src.datasets.competition import read_train, read_truth
from src.datasets.loader import BatchSpec, EndlessSampler, Sample, TrainingImages, training_batches
from src.fills.copies import color_view
from src.utils.errors import InputError
from src.utils.files import LOCK
from tests.training import TINY, metrics, train
from tests.trees import hashes


@pytest.fixture
def data_dir(small_folder, tmp_path):
    """A copy of the small folder, that a test may damage."""
    return shutil.copytree(small_folder, tmp_path / "data")


@pytest.fixture(scope="module")
def packed(small_folder, tmp_path_factory):
    """A packed copy of the small folder; tests must not change it."""
    folder = shutil.copytree(small_folder, tmp_path_factory.mktemp("packed") / "data")
    pack(folder)
    return folder


@pytest.fixture
def packed_copy(packed, tmp_path, monkeypatch):
    """One that a test may damage; packing goes on in this process, without the start of others."""
    here = lambda function, items, _: map(function, items)  # noqa: E731
    monkeypatch.setattr("src.datasets.bank.parallel_map", here)
    return shutil.copytree(packed, tmp_path / "data")


def truths(folder):
    return [folder / name for name in read_train(folder)["gt_image_path"]]


def test_holds_every_truth_and_a_hole_in_each(packed):
    """The hole is where the competition's damage was drawn; the fills are the costly ones."""
    bank = load_bank(packed)
    bank.row("truths", truths(packed)[0])
    assert len(pickle.dumps(bank)) < 1e5
    bank = pickle.loads(pickle.dumps(bank))
    for row, path in enumerate(truths(packed)):
        example, rgb = bank.row("holes", path), read_truth(path)
        assert np.array_equal(bank.row("truths", path), rgb)
        assert example.shape == (CHANNELS, CROP, CROP) and example.dtype == np.uint8
        _, mask = punch_hole(rgb, np.random.default_rng([HOLES_SEED, row]))
        box = crop_around(mask)
        hole = mask[box]
        assert np.array_equal(example[:2], [luma(rgb)[box], hole * 255])
        for fill, doubt in (example[2:4], example[4:6]):
            assert np.array_equal(fill[~hole], example[0][~hole]) and not doubt[~hole].any()
            assert doubt[hole].any() and (fill != example[0])[hole].any()
        if row < 2:
            assert np.array_equal(example, hole_example(luma(rgb), mask))


def test_refuses_what_is_stale(data_dir, script, tmp_path):
    assert load_bank(data_dir) is None
    count = len(truths(data_dir))
    arguments = ("pack", "--data-dir", data_dir, "--arrays", "holes")
    status, out, _ = script("prepare_data", *arguments)
    assert status == 0 and f"{data_dir / FOLDER}: {count} images" in out
    assert list(data_dir.parent.iterdir()) == [data_dir]  # nothing is left beside it
    before = hashes(data_dir)
    assert script("prepare_data", *arguments)[0] == 0 and hashes(data_dir) == before
    first, second = truths(data_dir)[:2]
    os.utime(first)  # touched, not changed
    Bank(data_dir)
    other = first.read_bytes()
    first.write_bytes(other[:-1] + b"\0")  # the same size
    with pytest.raises(InputError, match=f"{first.name}: changed or .*; delete the folder pack"):
        load_bank(data_dir)
    outputs = tmp_path / "outputs"
    run = ("--data-dir", data_dir, "--output-dir", outputs, "--workers", 0, "--folds", 2)
    status, _, err = script("train", *run)
    assert status == 2 and "python prepare_data.py pack" in err and "Traceback" not in err
    # else `infer.py` would not take the shipped weights anymore: a run was begun
    assert [path.name for path in outputs.rglob("*") if path.is_file()] == [LOCK]
    first.write_bytes(other)
    Bank(data_dir)
    second.unlink()
    with pytest.raises(InputError, match=f"{second.name}: changed or removed"):
        load_bank(data_dir)


def test_packs_again_only_what_changed(packed_copy):
    bank = Bank(packed_copy)
    first, second = truths(packed_copy)[:2]
    marked = np.load(packed_copy / FOLDER / "holes.npy", mmap_mode="r+")
    marked[0] = 7
    before = bank.row("holes", second).copy()
    Image.fromarray(255 - read_truth(second)).save(second)
    pack(packed_copy)
    bank = Bank(packed_copy)
    assert (bank.row("holes", first) == 7).all()
    assert not np.array_equal(bank.row("holes", second), before)
    assert np.array_equal(bank.row("truths", second), read_truth(second))


@pytest.mark.parametrize("damage", ["holes.npy", "recipe.json", "table", "version"])
def test_refuses_what_is_broken(packed, packed_copy, monkeypatch, damage):
    """`pack` makes it again."""
    folder = packed_copy / FOLDER
    if damage == "table":
        table = packed_copy / "train.csv"
        table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    elif damage == "version":
        monkeypatch.setattr("src.datasets.bank.VERSION", 99)
    elif damage == "recipe.json":
        (folder / damage).unlink()
    else:
        os.truncate(folder / damage, 100_000)
    with pytest.raises(InputError, match="delete the folder pack") as refused:
        load_bank(packed_copy)
    assert refused.value.hint == "pack"
    pack(packed_copy)
    Bank(packed_copy)
    if damage == "holes.npy":
        after, before = hashes(folder), hashes(packed / FOLDER)
        assert all(after[name] == before[name] for name in ("truths.npy", "holes.npy"))


def test_goes_on_after_a_kill(packed, data_dir):
    """Images that were packed before are not packed again: they are marked meanwhile."""
    folder = data_dir / FOLDER
    command = [sys.executable, "prepare_data.py", "pack", "--data-dir", str(data_dir)]
    command += ["--arrays", "holes"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)

    def done() -> np.ndarray:
        recipe = folder / "recipe.json"
        return np.flatnonzero(np.load(folder / "stamps.npy")[:, 0]) if recipe.exists() else []

    while len(done()) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    rows = done()
    assert len(rows) < len(truths(data_dir))
    with pytest.raises(InputError, match=f"holds {len(rows)} of {len(truths(data_dir))} images"):
        load_bank(data_dir)
    np.load(folder / "holes.npy", mmap_mode="r+")[rows] = 7
    assert pack(data_dir, ["holes"]) == len(truths(data_dir))
    found, wanted = Bank(data_dir), Bank(packed)
    for row, path in enumerate(truths(data_dir)):
        other = packed / path.relative_to(data_dir)
        assert np.array_equal(found.row("truths", path), wanted.row("truths", other))
        hole = 7 if row in rows else wanted.row("holes", other)
        assert (found.row("holes", path) == hole).all()


def test_views_are_what_the_colorizer_sees(packed):
    """Whole photos, and some with a hole that holds the photo's texture."""
    bank = Bank(packed)
    for row, path in enumerate(truths(packed)[: REPAIRED + 1]):
        gray = luma(read_truth(path))
        whole = color_view(gray, np.zeros(gray.shape, bool))
        view = bank.row("views", path)
        assert view.shape == (VIEW, VIEW) and view.dtype == np.uint8
        if row % REPAIRED:
            assert np.array_equal(view, whole)
        else:
            _, mask = punch_hole(read_truth(path), np.random.default_rng([HOLES_SEED, row]))
            lost = cv2.resize(mask.astype(np.float32), (VIEW, VIEW), interpolation=cv2.INTER_AREA)
            changed = np.abs(view.astype(int) - whole) > 1
            assert not changed[cv2.blur(lost, (5, 5)) == 0].any()
            assert changed[lost == 1].mean() > 0.5
        tokens = dino(torch.device("cpu"))(torch.tensor(view)[None, None] / 255)
        assert np.abs(bank.row("tokens", path) - (tokens / STEP)[0].numpy()).max() < 0.6


def test_a_bank_of_some_arrays(data_dir, script):
    """Without tokens, every other batch shows the views; what is lacking is asked for."""
    first = truths(data_dir)[0]
    images = TrainingImages([first], 64, 0, BatchSpec(("gray", "rgb"), views=True))
    sides = {"holes": (64, 64), "holes views": (64, VIEW), "tokens": (VIEW, VIEW)}
    for arrays, expected in sides.items():
        arguments = ("--data-dir", data_dir, "--arrays", *arrays.split())
        assert script("prepare_data", "pack", *arguments)[0] == 0
        images.bank = Bank(data_dir)
        batches = [images[Sample(0, batch, 0, False)] for batch in range(2)]
        assert tuple(batch["gray"].shape[-1] for batch in batches) == expected
        assert all(("tokens" in batch) == ("tokens" in arrays) for batch in batches)
        assert batches[1]["rgb"].shape[-1] == (64 if arrays == "holes" else 256)
    images.spec = BatchSpec(("hole",))
    refused = images[Sample(0, 0, 0, True)]
    assert isinstance(refused, InputError) and "pack again with --arrays holes" in str(refused)


KEYS = ("hole", "gray", "rgb")  # the restorer's


def test_a_bank_changes_the_speed_alone(packed):
    """But for the holes: the same images, and the same shapes."""
    with_bank = TrainingImages(truths(packed), 512, 1, BatchSpec(), Bank(packed))
    without = TrainingImages(truths(packed), 512, 1, BatchSpec())
    sample = Sample(5, 0, 2, False)
    assert all(torch.equal(value, without[sample][key]) for key, value in with_bank[sample].items())
    with_bank.spec = without.spec = BatchSpec(KEYS)
    for hole in (True, False):
        one, two = (images[Sample(0, 0, 2, hole)] for images in (with_bank, without))
        assert set(one) == set(two) == (set(KEYS) if hole else {"gray", "rgb"})
        for key, value in one.items():
            assert value.shape == two[key].shape and value.dtype == two[key].dtype == torch.uint8
    without.spec, sample = BatchSpec(("hole",)), Sample(0, 0, 2, True)
    hole = without[sample]["hole"]
    assert hole.shape == (CHANNELS, TRAIN_CROP, TRAIN_CROP)
    assert set(hole[1].unique().tolist()) == {0, 255}


def test_random_parts_of_an_example():
    example, seen = np.arange(CROP * CROP).reshape(1, CROP, CROP), set()
    for seed in range(12):
        part = random_part(example, np.random.default_rng(seed))[0]
        assert part.shape == (TRAIN_CROP, TRAIN_CROP) and (np.diff(part, axis=0) == CROP).all()
        (step,) = np.unique(np.diff(part, axis=1))
        seen.add(int(step))
    assert seen == {1, -1}  # as it is, and mirrored


@pytest.mark.parametrize("workers", [0, 1])
def test_one_image_in_two_has_a_hole(packed, workers):
    paths = truths(packed)
    images = TrainingImages(paths, 64, 0, BatchSpec(KEYS), Bank(packed))
    sampler = EndlessSampler(np.ones(len(paths)), 4, 0, hole_every=2)
    later = EndlessSampler(np.ones(len(paths)), 4, 0, first_batch=2, hole_every=2)
    batches, later = training_batches(images, sampler, workers), training_batches(images, later, 0)
    for number, batch in zip(range(3), batches, strict=False):
        assert set(batch) == set(KEYS) and batch["rgb"].shape == (4, 3, 64, 64)
        assert batch["hole"].shape == (2, CHANNELS, TRAIN_CROP, TRAIN_CROP)
        if number == 2:  # as begun there
            assert all(torch.equal(value, batch[key]) for key, value in next(later).items())


def test_trains_from_a_bank(packed_copy, tmp_path):
    folders = ("--data-dir", packed_copy, "--output-dir", tmp_path / "outputs")
    train(*folders, *TINY, "--epochs", 1, "--folds", 2)
    assert metrics(tmp_path / "outputs" / "restorer" / "fold0", "val/score")
