"""prepare_data.py pack on a real folder, truths and holes: what training reads, interruption,
staleness."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.color.luma import luma
from src.damage.hole import punch_hole
from src.datasets.bank import (
    HOLES,
    HOLES_INDEX,
    HOLES_SEED,
    INDEX,
    PACK,
    PART,
    Holes,
    Pack,
    hole_reader,
    pack,
    truth_reader,
)
from src.datasets.competition import read_train, read_truth
from src.datasets.holes import CHANNELS, CROP, SEEN, crop_around, hole_example
from src.datasets.loader import BatchSpec, EndlessSampler, Sample, TrainingImages, training_batches
from src.utils.errors import InputError
from src.utils.files import LOCK
from tests.training import TINY, metrics, train

FILES = (PACK, INDEX, HOLES, HOLES_INDEX)


@pytest.fixture
def data_dir(small_folder, tmp_path):
    """A copy of the small folder, that a test may damage."""
    return shutil.copytree(small_folder, tmp_path / "data")


def truths(folder):
    return [folder / name for name in read_train(folder)["gt_image_path"]]


@pytest.fixture(scope="module")
def packed(small_folder, tmp_path_factory):
    """A packed copy of the small folder; tests must not change it."""
    folder = shutil.copytree(small_folder, tmp_path_factory.mktemp("packed") / "data")
    pack(folder)
    return folder


def test_holds_every_truth(packed):
    images = pickle.loads(pickle.dumps(truth_reader(packed)))
    assert isinstance(images, Pack) and len(images.rows) == len(truths(packed))
    assert all(np.array_equal(images(path), read_truth(path)) for path in truths(packed))
    assert len(pickle.dumps(images)) < 1e5
    assert not list(packed.glob(f"*{PART}"))


@pytest.mark.parametrize("workers", [0, 1])
def test_trains_on_the_same_images(packed, workers):
    paths = truths(packed)[:4]
    sampler = EndlessSampler(np.ones(4), 4, 0)
    files, images = (
        next(training_batches(TrainingImages(paths, 128, 0, BatchSpec(), read), sampler, workers))
        for read, workers in ((read_truth, 0), (truth_reader(packed), workers))
    )
    assert all(torch.equal(files[key], images[key]) for key in files)


def test_refuses_what_is_stale(data_dir, script, tmp_path):
    assert truth_reader(data_dir) is read_truth
    status, out, _ = script("prepare_data", "pack", "--data-dir", data_dir)
    assert status == 0 and f"{PACK}: {len(truths(data_dir))} images" in out
    assert list(data_dir.parent.iterdir()) == [data_dir]  # nothing is left beside it
    before = (data_dir / PACK).stat().st_mtime_ns
    assert script("prepare_data", "pack", "--data-dir", data_dir)[0] == 0
    assert (data_dir / PACK).stat().st_mtime_ns == before  # nothing to do
    first, second = truths(data_dir)[:2]
    os.utime(first)  # touched, not changed
    Pack(data_dir)
    other = first.read_bytes()
    first.write_bytes(other[:-1] + b"\0")  # the same size
    with pytest.raises(InputError, match=f"{first.name}: changed since"):
        truth_reader(data_dir)
    run = (
        "--data-dir",
        data_dir,
        "--output-dir",
        tmp_path / "outputs",
        "--workers",
        0,
        "--folds",
        2,
    )
    status, _, err = script("train", *run)
    assert status == 2 and "python prepare_data.py pack" in err
    assert [path.name for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == [LOCK]
    first.write_bytes(other)
    Pack(data_dir)
    Image.fromarray(255 - read_truth(second)).save(second)
    pack(data_dir)
    assert np.array_equal(Pack(data_dir)(second), read_truth(second))
    second.unlink()
    with pytest.raises(InputError, match=f"{second.name}: removed since"):
        truth_reader(data_dir)


@pytest.mark.parametrize("damage", ["index", "data", "table"])
def test_refuses_what_is_broken(packed, tmp_path, damage):
    folder = shutil.copytree(packed, tmp_path / "data")
    path = folder / {"index": INDEX, "data": PACK, "table": "train.csv"}[damage]
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(b"\n", 0, -1) + 1])
    with pytest.raises(InputError, match="delete it to train from the PNG files") as refused:
        Pack(folder)
    assert refused.value.hint == "pack"


def test_refuses_a_disk_that_is_too_small(data_dir, monkeypatch):
    usage = shutil.disk_usage(data_dir)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="GB free, packing needs"):
        pack(data_dir)
    assert not list(data_dir.glob("pack*"))


def killed_after_three_lines(folder: Path, index: str) -> int:
    """Kill `prepare_data.py pack`; the number of lines of an index that are whole, before one that
    is not."""
    path = folder / (index + PART)
    command = [sys.executable, "prepare_data.py", "pack", "--data-dir", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while not path.exists() or path.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lines = path.read_text()
    path.write_text(lines + '["cut o')
    return lines.count("\n")


def test_goes_on_after_a_kill(data_dir):
    """Images packed before SIGKILL are not decoded again: they are broken meanwhile, and nobody
    minds."""
    count = killed_after_three_lines(data_dir, INDEX)
    assert not (data_dir / PACK).exists() and truth_reader(data_dir) is read_truth
    wanted = [read_truth(path) for path in truths(data_dir)]
    hidden = {path: path.read_bytes() for path in truths(data_dir)[:3]}
    for path in hidden:
        path.write_bytes(b"broken")
    assert pack(data_dir) == len(wanted) > count
    for path, content in hidden.items():
        path.write_bytes(content)
    images = Pack(data_dir)
    assert all(np.array_equal(images(p), w) for p, w in zip(truths(data_dir), wanted, strict=True))


def test_holds_a_hole_of_every_truth(packed):
    """Of the packed grey, where the competition's damage was drawn; the fills are the costly ones."""
    holes = pickle.loads(pickle.dumps(hole_reader(packed)))
    assert isinstance(holes, Holes) and len(holes.rows) == len(truths(packed))
    assert len(pickle.dumps(holes)) < 1e5
    for row, path in enumerate(truths(packed)):
        example, rgb = holes(path), read_truth(path)
        assert example.shape == (CHANNELS, CROP, CROP) and example.dtype == np.uint8
        _, lost = punch_hole(rgb, np.random.default_rng([HOLES_SEED, row]))
        box = crop_around(lost)
        assert np.array_equal(example[0], luma(rgb)[box]) and np.array_equal(
            example[1], lost[box] * 255
        )
        hole = lost[box]
        for fill, doubt in (example[2:4], example[4:6]):
            assert np.array_equal(fill[~hole], example[0][~hole]) and not doubt[~hole].any()
            assert doubt[hole].any() and (fill != example[0])[hole].any()
        if row < 2:
            assert np.array_equal(example, hole_example(luma(rgb), lost))


def test_packed_again_stays_as_it_is(packed):
    before = {name: (packed / name).stat().st_mtime_ns for name in FILES}
    assert pack(packed) == len(truths(packed))
    assert {name: (packed / name).stat().st_mtime_ns for name in FILES} == before
    assert not list(packed.glob(f"*{PART}"))


def test_goes_on_after_a_kill_among_the_holes(packed, tmp_path):
    """Holes that were filled before SIGKILL are not filled again: they are marked meanwhile, and
    stay so."""
    folder = shutil.copytree(packed, tmp_path / "data")
    for name in (HOLES, HOLES_INDEX):
        (folder / name).unlink()
    kept = (folder / PACK).stat().st_mtime_ns
    count = killed_after_three_lines(folder, HOLES_INDEX)
    assert not (folder / HOLES).exists() and hole_reader(folder) is None
    assert count < len(truths(folder))
    np.lib.format.open_memmap(folder / (HOLES + PART), "r+")[:count] = 7
    assert pack(folder) == len(truths(folder))
    assert (folder / PACK).stat().st_mtime_ns == kept and not list(folder.glob(f"*{PART}"))
    assert (folder / HOLES_INDEX).read_bytes() == (packed / HOLES_INDEX).read_bytes()
    found, wanted = Holes(folder), Holes(packed)
    for row, path in enumerate(truths(folder)):
        assert (
            found(path) == (7 if row < count else wanted(packed / path.relative_to(folder)))
        ).all()


def test_after_a_kill_between_the_last_renames(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "data")
    for name in (PACK, HOLES):
        (folder / name).rename(folder / (name + PART))
    before = {name: (folder / (name + PART)).stat().st_mtime_ns for name in (PACK, HOLES)}
    pack(folder)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert not list(folder.glob(f"*{PART}"))


@pytest.fixture
def in_this_process(monkeypatch):
    """Few photos are packed before a process has started."""
    monkeypatch.setattr(
        "src.datasets.bank.parallel_map", lambda function, items, _: map(function, items)
    )


@pytest.fixture
def stale(packed, tmp_path):
    """A folder whose holes are of another version of the fills."""
    folder = shutil.copytree(packed, tmp_path / "data")
    index = folder / HOLES_INDEX
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps([*facts, version - 1]) + "\n" for *facts, version in lines))
    return folder


def test_holes_of_another_version_are_refused(packed, stale, script, tmp_path):
    """In one line that says what to do; that renews them and leaves the truths."""
    kept = (stale / PACK).stat().st_mtime_ns
    run = (
        "--data-dir",
        stale,
        "--output-dir",
        tmp_path / "outputs",
        *TINY,
        "--epochs",
        1,
        "--folds",
        2,
    )
    status, _, err = script("train", *run)
    message = f"{HOLES_INDEX}: made by another version of the fills"
    assert (
        status == 2
        and message in err
        and "python prepare_data.py pack" in err
        and "Traceback" not in err
    )
    assert script("prepare_data", "pack", "--data-dir", stale)[0] == 0
    assert (stale / PACK).stat().st_mtime_ns == kept
    for name in (HOLES, HOLES_INDEX):
        assert (stale / name).read_bytes() == (packed / name).read_bytes()
    train(*run, "--parts", "inpainter")
    assert metrics(tmp_path / "outputs" / "restorer" / "fold0", "val/score")


def test_a_training_that_is_refused_leaves_nothing(stale, script, tmp_path):
    """Else `infer.py` would not take the shipped weights any more: a run was begun."""
    run = (
        "--data-dir",
        stale,
        "--output-dir",
        tmp_path / "outputs",
        *TINY,
        "--epochs",
        1,
        "--folds",
        2,
    )
    assert script("train", *run)[0] == 2
    assert [path.name for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == [LOCK]


def test_holes_of_other_truths_are_refused(packed, in_this_process, tmp_path):
    """A truth is changed and packed anew, and the holes are those of before; they are renewed by
    `pack`."""
    folder = shutil.copytree(packed, tmp_path / "data")
    changed = truths(folder)[1]
    Image.fromarray(255 - read_truth(changed)).save(changed)
    pack(folder)
    before, after = Holes(packed), Holes(folder)
    for path in truths(folder):
        same = np.array_equal(after(path), before(packed / path.relative_to(folder)))
        assert same == (path != changed)
    wanted = after(changed).copy()
    for name in (HOLES, HOLES_INDEX):
        shutil.copy(packed / name, folder)
    (folder / PACK).unlink()  # they know for themselves what they were made from
    with pytest.raises(InputError, match=f"{changed.name}: changed since") as refused:
        hole_reader(folder)
    assert refused.value.hint == "pack"
    pack(folder)
    assert np.array_equal(Holes(folder)(changed), wanted)


@pytest.mark.parametrize("damage", ["index", "data", "a row", "no index"])
def test_broken_holes_are_refused(packed, in_this_process, tmp_path, damage):
    folder = shutil.copytree(packed, tmp_path / "data")
    path = folder / (HOLES if damage in ("data", "a row") else HOLES_INDEX)
    content = path.read_bytes()
    if damage == "no index":
        path.unlink()
    elif damage == "a row":
        np.save(path, np.load(path)[:-1])
    else:
        path.write_bytes(content[: content.rfind(b"\n", 0, -1) + 1])
    with pytest.raises(
        InputError, match="or delete it to fill the holes during training"
    ) as refused:
        hole_reader(folder)
    assert refused.value.hint == "pack" and str(folder) in str(refused.value)
    pack(folder)
    for name in (HOLES, HOLES_INDEX):
        assert (folder / name).read_bytes() == (packed / name).read_bytes()


KEYS = ("hole", "gray", "rgb")  # what the restorer asks for


def test_items_have_the_same_shapes_with_and_without_holes(packed):
    """With a bank, which saves the fills, and without, where each hole is filled when it is asked
    for."""
    paths, read = truths(packed), truth_reader(packed)
    spec = BatchSpec(KEYS)
    with_bank = TrainingImages(paths, 512, 1, spec, read, Holes(packed))
    without = TrainingImages(paths, 512, 1, spec, read)
    for with_hole in (True, False):
        one, two = (images[Sample(0, 0, 2, with_hole)] for images in (with_bank, without))
        assert set(one) == set(two) == (set(KEYS) if with_hole else {"gray", "rgb"})
        for key, value in one.items():
            assert value.shape == two[key].shape and value.dtype == two[key].dtype == torch.uint8, (
                key
            )
    images, sample = (
        TrainingImages(paths, 512, 1, BatchSpec(("hole",)), read),
        Sample(0, 0, 2, True),
    )
    hole, whole = images[sample]["hole"], without[sample]["hole"]
    assert hole.shape == (CHANNELS, SEEN, SEEN) and torch.equal(hole, whole)
    assert set(hole[1].unique().tolist()) == {0, 255}


def part_of(part: np.ndarray, whole: np.ndarray) -> bool:
    """Whether a (C, h, w) array lies somewhere in a larger one."""
    shape = part.shape[1:]
    places = np.lib.stride_tricks.sliding_window_view(whole[0], shape)
    rows, columns = np.nonzero((places[:, :, ::37, ::41] == part[0, ::37, ::41]).all(axis=(2, 3)))
    found = (
        whole[:, y : y + shape[0], x : x + shape[1]] for y, x in zip(rows, columns, strict=True)
    )
    return any(np.array_equal(part, candidate) for candidate in found)


@pytest.mark.parametrize("bank", [True, False])
def test_holes_depend_on_seed_epoch_and_index_alone(packed, bank):
    """With a bank each is a part of its photo's example, or the mirror image of one."""
    paths, read, holes = truths(packed), truth_reader(packed), Holes(packed) if bank else None

    def images(seed: int = 1) -> TrainingImages:
        return TrainingImages(paths, 128, seed, BatchSpec(KEYS), read, holes)

    first, other = images(), images(2)
    asked = [Sample(n, 0, i, h) for n, i, h in ((0, 2, 1), (9, 1, 1), (5, 2, 0), (7, 2, 1))]
    items = [first[key] for key in asked]
    again = images()
    for key, item in reversed(list(zip(asked, items, strict=True))):
        assert item.keys() == again[key].keys()
        assert all(torch.equal(value, again[key][name]) for name, value in item.items())
    assert not torch.equal(items[0]["rgb"], items[3]["rgb"])
    assert not torch.equal(items[0]["rgb"], other[asked[0]]["rgb"])
    if bank:
        seen = set()
        for number in range(12):
            hole, example = first[Sample(number, 0, 2, True)]["hole"].numpy(), holes(paths[2])
            ways = [
                mirrored
                for mirrored in (False, True)
                if part_of(hole[..., ::-1] if mirrored else hole, example)
            ]
            assert len(ways) == 1
            seen |= set(ways)
        assert seen == {True, False}
    else:
        assert not torch.equal(items[0]["hole"], items[3]["hole"])


@pytest.mark.parametrize("workers", [0, 1])
def test_every_so_many_images_have_a_hole(packed, workers):
    spec, weights = BatchSpec(KEYS, hole_every=2), np.ones(len(truths(packed)))
    images = TrainingImages(truths(packed), 64, 0, spec, truth_reader(packed), Holes(packed))
    batches = training_batches(images, EndlessSampler(weights, 4, 0, hole_every=2), workers)
    later = training_batches(images, EndlessSampler(weights, 4, 0, 2, hole_every=2), 0)
    for number, batch in zip(range(3), batches, strict=False):
        assert set(batch) == set(KEYS) and batch["rgb"].shape == (4, 3, 64, 64)
        assert batch["hole"].shape == (2, CHANNELS, SEEN, SEEN)
        if number == 2:  # as begun there
            assert all(torch.equal(value, batch[key]) for key, value in next(later).items())
