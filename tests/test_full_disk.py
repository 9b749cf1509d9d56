"""A full disk: one line that names the file, nothing half-written; with room it resumes."""

import shutil
from pathlib import Path

from tests.trees import finished


def fill(disk: Path, left: int) -> Path:
    """Leave `left` bytes of a disk free; returns the file that takes the rest."""
    ballast = disk / "ballast"
    with open(ballast, "ab") as file:
        while (free := shutil.disk_usage(disk).free) > left:
            file.write(bytes(min(free - left, 1 << 20)))
            file.flush()
    return ballast


def test_restoring(small_disk, small_folder, random_run, script, tmp_path):
    disk = small_disk(8 << 20)
    here, there = tmp_path / "here", disk / "out"
    run = ("--output-dir", random_run, "--name", "random", "--device", "cpu")
    infer = ["infer", "--data-dir", small_folder, *run, "--output"]
    for left in (0, 600_000):  # not even the manifest, then some of three images
        ballast = fill(disk, left)
        status, _, err = script(*infer, there)
        assert status == 2 and "Traceback" not in err, err
        message = err[err.index("error:") :]
        assert str(there) in message and "No space left" in message and message.count("\n") == 1
        before = finished(there)
        assert bool(before) == (left > 0) and len(before) < 3
        ballast.unlink()
    status, out, err = script(*infer, there)
    assert status == 0 and f"{len(before)} of 3 images are already restored" in out, err
    assert {path: finished(there)[path] for path in before} == before
    assert script(*infer, here)[0] == 0
    restored, whole = (
        {path.name: path.read_bytes() for path in place.glob("*.png")} for place in (there, here)
    )
    assert restored == whole and len(whole) == 3
