"""A full disk: one line that names the file, nothing half-written, and it goes on once there is
room."""

from tests.disks import fill, refused
from tests.trees import finished


def test_restoring(small_disk, small_folder, random_run, script, tmp_path):
    disk = small_disk(8 << 20)
    here, there = tmp_path / "here", disk / "out"
    infer = [
        "--data-dir",
        small_folder,
        "--output-dir",
        random_run,
        "--name",
        "random",
        "--device",
        "cpu",
    ]
    for left in (0, 600_000):  # not even the manifest, then some of three images
        ballast = fill(disk, left)
        message = refused(script, "infer", *infer, "--output", there)
        assert f"{there}" in message and "No space left" in message
        before = finished(there)
        assert bool(before) == (left > 0) and len(before) < 3
        ballast.unlink()
    status, out, err = script("infer", *infer, "--output", there)
    assert status == 0 and f"{len(before)} of 3 images are already restored" in out, err
    assert {path: finished(there)[path] for path in before} == before
    assert script("infer", *infer, "--output", here)[0] == 0
    restored, whole = (
        {p.name: p.read_bytes() for p in place.glob("*.png")} for place in (there, here)
    )
    assert restored == whole and len(whole) == 3
