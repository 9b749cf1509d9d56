"""A small run of the fuzzer; tests/slow has the long one."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from src.datasets.competition import read_test
from tests.fuzz import Kind, fuzz


def raises(path: Path) -> None:
    if b"test_input" not in path.read_bytes():
        raise KeyError("planted")
    read_test(path.parent)


def crashes(path: Path) -> None:
    if b"gt_image_path" not in path.read_bytes():
        os.kill(os.getpid(), signal.SIGSEGV)


def hangs(path: Path) -> None:
    if not path.read_bytes().endswith(b"\n"):
        time.sleep(60)


def test_real_readers_have_no_fault(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--mutations",
        "150",
        "--folder",
        str(tmp_path / "fuzz"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"150 mutations: (\d+) accepted, (\d+) refused, 0 fault", done.stdout)
    accepted, refused = map(int, found.groups())
    assert accepted + refused == 150 and min(accepted, refused) > 15
    peak = int(re.search(r"peak (\d+) MiB", done.stdout).group(1))
    assert peak < 4096


def test_planted_faults_are_found(tmp_path):
    """An unexpected error, a crash and a hang; the fuzzer goes on and keeps the file of each."""
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "train.csv").write_text("input_image_path,gt_image_path\n" + "./a.png,./b.png\n" * 3)
    (seeds / "test.csv").write_text("input_image_path\n./test_input/a.png\n")
    (seeds / "folds.csv").write_text("scene,fold\n0,0\n1,1\n")
    kinds = [
        Kind("test.csv", 1, (raises,)),
        Kind("train.csv", 1, (crashes,)),
        Kind("folds.csv", 1, (hangs,)),
    ]
    results = fuzz(kinds, 40, 0, tmp_path, seconds=1)
    assert len(results) == 40
    for kind, message in (
        ("test.csv", "KeyError"),
        ("train.csv", "SIGSEGV"),
        ("folds.csv", "SIGALRM"),
    ):
        faults = [n for n, r in enumerate(results) if r.path == kind and r.outcome == "fault"]
        assert faults and all(message in results[number].message for number in faults)
        assert all((tmp_path / "faults" / f"{number}-{kind}").exists() for number in faults)
        assert any(r.path == kind and r.outcome != "fault" for r in results)
    assert {r.outcome for r in results} == {"accepted", "refused", "fault"}
