"""Files restored while others are read and written."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from skimage import data

from src.damage.hole import find_hole, punch_hole
from src.runtime.distributed import launch
from src.inference import AHEAD, restore_files, telea
from src.runtime.processes import prefetch


def damaged_photos(folder, count: int) -> list:
    """(photo, PNG to write) pairs of different damage."""
    jobs = []
    for number in range(count):
        gray, _ = punch_hole(data.coffee()[:200, :200], np.random.default_rng(number))
        Image.fromarray(gray).save(folder / f"{number}.png")
        jobs.append((folder / f"{number}.png", folder / "out" / f"{number}.png"))
    return jobs


def test_every_photo_gets_its_own_result(tmp_path):
    jobs = damaged_photos(tmp_path, 7)
    jobs[2][0].write_bytes(b"broken")
    seen = []

    def restore_one(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
        assert mask.any()
        seen.append(threading.current_thread())
        return telea(gray, mask)

    failures = restore_files(restore_one, jobs, {}, tmp_path / "out", launch("cpu"))
    assert len(failures) == 1 and "2.png" in failures[0]
    assert set(seen) == {threading.main_thread()}
    for number, (source, target) in enumerate(jobs):
        assert target.exists() == (number != 2)
        if target.exists():
            gray, rgb = np.asarray(Image.open(source)), np.asarray(Image.open(target))
            assert np.array_equal(rgb, telea(gray, find_hole(gray)))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{n}.png" for n in (0, 1, 3, 4, 5, 6)]


def test_a_failed_write_ends_it(tmp_path, monkeypatch):
    def full(path, array):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("src.inference.write_png", full)
    with pytest.raises(OSError, match="No space left"):
        restore_files(telea, damaged_photos(tmp_path, 5), {}, tmp_path / "out", launch("cpu"))


def test_photos_are_not_all_read_at_once():
    begun, most = [], []
    with ThreadPoolExecutor(2) as pool:
        for number, future in enumerate(prefetch(pool, begun.append, range(20), AHEAD)):
            future.result()
            most.append(len(begun) - number)
    assert sorted(begun) == list(range(20)) and len(most) == 20 and max(most) <= AHEAD + 1
