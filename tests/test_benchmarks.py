"""python -m benchmarks: comparisons tell better from worse. What measures or trains is in
tests/slow."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from benchmarks.check import (
    TOLERANCES,
    checked_out,
    compare_trees,
    find_commit,
    least,
    slower,
    table,
    time_tree,
)
from benchmarks.machine import median_seconds
from benchmarks.settings import BENCHMARKS, TimeToScore
from benchmarks.size import damaged_photo
from benchmarks.time_to_score import plot, score_curve, sooner, train_command
from benchmarks.timings import MEASUREMENTS, least_seconds
from src.damage.hole import find_hole
from src.utils.errors import InputError, SettingError


def git(repository: Path, *arguments: str) -> str:
    identity = [
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@localhost",
        "-c",
        "commit.gpgsign=false",
    ]
    command = ["git", "-C", repository, *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write_timings(repository: Path, code: str) -> None:
    """A tree that says how fast it is; `names` are those that it is asked for."""
    folder = repository / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    head = "import json, sys\nnames = sys.argv[2:]\n"
    (folder / "timings.py").write_text(f"{head}print(json.dumps({code}))\n")


@pytest.fixture
def repository(tmp_path) -> Path:
    """A git repository of two commits: an empty one, `before`, and one whose tree takes a second."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "before")
    git(folder, "tag", "before")
    write_timings(folder, "{'step': 1.0, 'gone': 1.0}")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "timings")
    return folder


def test_help_imports_no_torch():
    check = "import sys, benchmarks.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_its_help(name, script):
    status, out, _ = script("benchmarks", name, "--help")
    assert status == 0 and f"python -m benchmarks {name}" in out


def test_the_score_is_a_flag_away_and_nothing_else(script):
    status, _, err = script("benchmarks", "score", "--data-dir", "none", "--epochs", 3)
    assert status == 2 and "--epochs" in err
    status, _, err = script("benchmarks", "score", "--data-dir", "nowhere")
    assert status == 2 and "nowhere" in err


@pytest.mark.parametrize("megapixels", [0.05, 1])
def test_photos_to_enlarge_have_their_size_and_a_hole(megapixels):
    gray = damaged_photo(megapixels)
    assert gray.size == pytest.approx(megapixels * 1e6, rel=0.02) and find_hole(gray).any()


def curve(scores: list[float], first: float = 1.0) -> pd.DataFrame:
    minutes = [first * 2**i for i in range(len(scores))]
    return pd.DataFrame({"minutes": minutes, "score": scores, "S": 0.0, "M": 0.0, "C": 0.0})


def test_sooner_compares_with_the_peers_best():
    peer = curve([0.1, 0.4, 0.3])
    assert sooner(peer, curve([0.2, 0.4, 0.5], first=0.25)) == (0.4, 2.0, 1.0)
    assert sooner(peer, curve([0.5], first=0.25)) == (0.4, 2.0, 0.25)
    assert sooner(peer, curve([0.4, 0.4]))[2] == float("inf")


def test_curves_are_read_and_drawn(tmp_path):
    lines = [
        {"step": 1, "loss/l1": 0.3},
        {"step": 2, "val/S": 1, "val/M": 0, "val/C": 0, "val/score": 0.2, "minutes": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = score_curve(tmp_path / "metrics.jsonl")
    assert len(found) == 1 and found.loc[0, ["minutes", "score"]].tolist() == [0.5, 0.2]
    (tmp_path / "begun.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert score_curve(tmp_path / "begun.jsonl").empty
    plot({"full_pipeline": found, "restorer": found}, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 300


def test_time_to_score_trains_what_it_says(script, tmp_path):
    """train.py understands the command line that the benchmark makes."""
    settings = TimeToScore(tmp_path, tmp_path / "runs", minutes=7, restorer=("color-size=64",))
    for model, wanted in (
        ("full_pipeline", {"encoder": "lite0", "image_size": 128}),
        ("restorer", {"color_size": 64, "image_size": 512}),
    ):
        _, path, *arguments = train_command(settings, model)
        status, out, err = script("train", *arguments, "--dry-run")
        assert Path(path).name == "train.py" and status == 0, err
        wanted |= {"model": model, "name": model, "max_minutes": 7, "val_images": 50, "workers": 0}
        assert json.loads(out).items() >= wanted.items()


def test_medians_leave_the_first_round_out():
    calls = []
    found = median_seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, runs=3)
    assert (
        calls == ["a", "b"] * 4 and set(found) == {"a", "b"} and all(s >= 0 for s in found.values())
    )


def test_the_least_of_several_calls_counts():
    calls = []
    assert least_seconds(lambda: calls.append(0), runs=4, seconds=0) >= 0
    assert len(calls) == 4


def test_slower_than_the_tolerance():
    old, tolerances = {"score": 1.0, "step": 2.0, "gone": 1.0}, {"step": 0.3}
    assert slower(old, {"score": 1.14, "step": 2.59, "new": 9.0}, tolerances, 0.15) == []
    assert slower(old, {"score": 1.16, "step": 2.61}, tolerances, 0.15) == ["score", "step"]
    assert slower(old, {"score": 0.5, "step": float("nan")}, tolerances, 0.15) == ["step"]


def test_the_least_of_rounds_of_different_names():
    assert least([{"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 2.0}, {"a": 4.0}]) == {"a": 2.0, "b": 1.0}


def test_the_table_shows_both_sides():
    lines = table({"a": 1.0, "b": 0.5}, {"a": 2.0, "c": 0.1}, ["a"]).splitlines()
    assert re.fullmatch(r"a +1000.00 +2000.00 +2.00  SLOWER", lines[1])
    assert re.fullmatch(r"b +500.00 +- +-", lines[2]) and re.fullmatch(r"c +- +100.00 +-", lines[3])


def test_tolerances_are_of_what_is_measured():
    assert TOLERANCES.keys() <= MEASUREMENTS.keys()


def test_a_slower_tree_is_told(repository, tmp_path):
    """A real worktree of a commit and real processes, which only say how long they took."""
    write_timings(repository, "{'step': 1.4, 'new': 1.0}")
    with checked_out(repository, find_commit(repository, "HEAD")) as before:
        assert compare_trees(before, repository, tmp_path, 2) == (
            {"step": 1.0, "gone": 1.0},
            {"step": 1.4, "new": 1.0},
            ["step"],
        )
        assert compare_trees(before, repository, tmp_path, 1, {"step": 0.5})[2] == []
    assert not before.exists() and len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_single_slow_round_is_no_slowdown(repository, tmp_path, capsys):
    write_timings(repository, "{'step': 1.0 if names == ['step'] else 2.0}")
    with checked_out(repository, find_commit(repository, "HEAD")) as before:
        assert compare_trees(before, repository, tmp_path, 1)[2] == []
    assert "timed again: step" in capsys.readouterr().out


def test_the_worktree_goes_after_an_error(repository, tmp_path, capfd):
    write_timings(repository, "1 / 0")
    with (
        pytest.raises(InputError, match=r"benchmarks\.timings failed \(exit status 1\)"),
        checked_out(repository, find_commit(repository, "HEAD")) as before,
    ):
        assert time_tree(before, tmp_path, ["step"]) == {"step": 1.0, "gone": 1.0}
        time_tree(repository, tmp_path)
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert not before.exists() and len(git(repository, "worktree", "list").splitlines()) == 1
    write_timings(repository, "[1]")
    with pytest.raises(InputError, match=r"benchmarks\.timings failed"):
        time_tree(repository, tmp_path)


def test_impossible_comparisons_are_refused(repository, tmp_path, script, monkeypatch):
    with pytest.raises(SettingError, match="against nonsense: no commit of"):
        find_commit(repository, "nonsense")
    with pytest.raises(SettingError, match=r"against before: has no benchmarks/timings\.py"):
        find_commit(repository, "before")
    with pytest.raises(InputError, match="no git checkout"):
        find_commit(tmp_path, "HEAD")
    with pytest.raises(InputError, match="no git checkout of its own, but a folder of"):
        find_commit(repository / "benchmarks", "HEAD")
    monkeypatch.setattr("benchmarks.check.ROOT", repository)
    status, _, err = script("benchmarks", "check", "--against=--all")
    assert status == 2 and err.startswith("error: --against --all: no commit of")
    status, _, err = script("benchmarks", "check", "--rounds", 0)
    assert status == 2 and "--rounds 0: must be at least 1" in err
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git"):
        find_commit(repository, "HEAD")
