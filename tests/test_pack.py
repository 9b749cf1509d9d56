"""prepare_data.py pack on a real folder: what training reads, interruption, staleness."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from src.datasets.competition import read_train, read_truth
from src.datasets.loader import training_batches
from src.datasets.pack import INDEX, PACK, PART, Pack, pack, truth_reader
from src.runtime.errors import InputError
from src.runtime.files import LOCK


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
    files = next(training_batches(paths, 128, 4, 0, 0, 0, read_truth))
    images = next(training_batches(paths, 128, 4, workers, 0, 0, truth_reader(packed)))
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
    run = ("--data-dir", data_dir, "--output-dir", tmp_path / "outputs", "--workers", 0, "--folds", 2)
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


def test_goes_on_after_a_kill(data_dir):
    """Images packed before SIGKILL are not decoded again: they are broken meanwhile, and nobody minds."""
    index = data_dir / (INDEX + PART)
    command = [sys.executable, "prepare_data.py", "pack", "--data-dir", str(data_dir)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while not index.exists() or index.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (data_dir / PACK).exists() and truth_reader(data_dir) is read_truth
    count = index.read_text().count("\n")
    index.write_text(index.read_text() + '["cut o')
    wanted = [read_truth(path) for path in truths(data_dir)]
    hidden = {path: path.read_bytes() for path in truths(data_dir)[:3]}
    for path in hidden:
        path.write_bytes(b"broken")
    assert pack(data_dir) == len(wanted) > count
    for path, content in hidden.items():
        path.write_bytes(content)
    images = Pack(data_dir)
    assert all(np.array_equal(images(p), w) for p, w in zip(truths(data_dir), wanted, strict=True))
