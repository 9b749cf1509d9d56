"""bench.py on small folders: the tables come out, and the comparisons tell better from worse."""

import json
import re
import shutil
import time

import pandas as pd
import pytest
import torch
from PIL import Image

from src.benchmarks.check import BASELINE, read_baseline, regressions
from src.benchmarks.machine import median_seconds
from src.benchmarks.size import damaged_photo
from src.benchmarks.time_to_score import plot, score_curve, sooner
from src.benchmarks.training import read_batches, step_seconds
from src.damage import detect
from src.datasets.build import sample_photos
from src.datasets.pack import pack
from src.files import InputError


@pytest.fixture(autouse=True)
def threads():
    """Benchmarks set numbers of threads; tests after them see the old ones."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_score(sample_folder, script):
    status, out, err = script("bench", "score", "--data-dir", sample_folder, "--count", 2, "--files", 2)
    assert status == 0, err
    assert float(re.search(r"ratio +([\d.]+)", out)[1]) > 5 and "2 files, all cores" in out
    assert all(float(gap) < 1e-9 for gap in re.findall(r"[SMC] (\d\.\de-\d+)", out))
    assert out.startswith("python bench.py score --data-dir")


def test_training_waits_and_steps_are_told_apart():
    """A loader that sleeps: the waiting is its share of the step."""
    batch = {key: torch.zeros(2, 3 if key == "rgb" else 1, 64, 64, dtype=torch.uint8)
             for key in ("damaged", "mask", "gray", "rgb")}  # fmt: skip

    def slow():
        while True:
            time.sleep(0.3)
            yield batch

    seconds, waiting = step_seconds("full_pipeline", slow(), 3, encoder="lite0")
    share = 0.3 / (0.3 + seconds)
    assert share * 0.7 < waiting < min(1, share * 1.3)
    quick, waiting = step_seconds("full_pipeline", iter([batch] * 4), 3, encoder="lite0")
    assert quick < 3 * seconds and waiting < 0.05


def test_loader_prefers_the_pack(data_dir, monkeypatch):
    files = next(read_batches(data_dir, 64, 0))
    pack(data_dir)
    monkeypatch.setattr("src.datasets.pack.read_truth", None)  # a PNG would be an error
    packed = next(read_batches(data_dir, 64, 0))
    assert all(torch.equal(files[key], packed[key]) for key in files)


@pytest.mark.parametrize("megapixels", [0.05, 1])
def test_photos_to_enlarge_have_their_size_and_a_hole(megapixels):
    gray = damaged_photo(megapixels)
    assert gray.size == pytest.approx(megapixels * 1e6, rel=0.02) and detect(gray).any()


def test_size(script):
    status, out, err = script("bench", "size", "--megapixels", 0.05, 0.1)
    assert status == 0, err
    rows = [line.split() for line in out.splitlines() if re.match(r" +0\.", line)]
    assert [row[0] for row in rows] == ["0.05", "0.1"] and all(float(row[1]) > 0 for row in rows)


def test_preparation(script, tmp_path):
    folder, work_dir = tmp_path / "photos", tmp_path / "work"
    for place in (folder, work_dir):
        place.mkdir()
    for photo in sample_photos():
        shutil.copy(photo, folder)
    arguments = ["--photos", folder, "--pairs", 60, "--work-dir", work_dir]
    status, out, err = script("bench", "preparation", *arguments)
    assert status == 0, err
    row = out.splitlines()[-1].split()
    assert row[0] == "60" and len(row) == 5 and all(float(value) > 0 for value in row[1:])
    assert not list(work_dir.iterdir())
    status, out, err = script("bench", "preparation", *arguments, "--skip", "check", "pack")
    assert status == 0 and len(out.splitlines()[-1].split()) == 3, err
    status, _, err = script("bench", "preparation", "--photos", folder, "--pairs", 10**6)
    assert status == 2 and "photos needed" in err


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
    plot({"full_pipeline": found, "restorer": found}, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 300


def test_time_to_score(data_dir, script, tmp_path):
    """Both are really trained, for seconds; a second call prints the same without training again."""
    arguments = ["time-to-score", "--data-dir", data_dir, "--output-dir", tmp_path, "--minutes", 0.1]
    arguments += [
        "--validate-at",
        0.03,
        "--val-images",
        2,
        "--full-pipeline",
        "encoder=lite0",
        "image-size=64",
    ]
    arguments += ["batch-size=2", "--restorer", "image-size=64", "color-size=64", "batch-size=2"]
    tables = []
    for _ in range(2):
        status, out, err = script("bench", *arguments)
        assert status == 0, err
        assert "times sooner" in out
        tables.append(out[out.index("minutes") :])
    assert tables[0] == tables[1]
    table = pd.read_csv(tmp_path / "curves.csv")
    assert set(table["model"]) == {"full_pipeline", "restorer"} and (table["minutes"] < 0.2).all()
    assert (tmp_path / "curves.png").is_file()
    status, _, err = script("bench", *arguments[:-1], "batch-size=0")
    assert status == 2 and "the training failed" in err


def test_medians_leave_the_first_round_out():
    calls = []
    found = median_seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, runs=3)
    assert calls == ["a", "b"] * 4 and set(found) == {"a", "b"} and all(0 <= s < 1 for s in found.values())


def test_regressions_are_found():
    baseline = {"score": 40.0, "step": 2.0}
    assert regressions(baseline, {"score": 30.0, "step": 1.5}, 0.3) == []
    assert regressions(baseline, {"score": 20.0, "step": 1.5}, 0.3) == ["score"]
    assert regressions(baseline, {"score": 90.0}, 0.3) == ["step"]
    assert regressions(baseline, {"score": float("nan"), "step": 2.0}, 0.3) == ["score"]


def test_check_needs_a_baseline(script, tmp_path):
    status, _, err = script("bench", "check", "--baseline", tmp_path / "none.json")
    assert status == 2 and "--update" in err
    (tmp_path / "broken.json").write_text("[]")
    with pytest.raises(InputError, match="no readable baseline"):
        read_baseline(tmp_path / "broken.json")


def test_check_fails_when_something_got_slower(script, tmp_path, monkeypatch):
    """The command's exit status, with the measuring replaced: it takes minutes."""
    found = {"score": 40.0, "step": 2.0}
    monkeypatch.setattr("src.benchmarks.check.measure_ratios", lambda data_dir: found)
    monkeypatch.setattr("src.benchmarks.check.build", lambda *_, **__: None)
    monkeypatch.setattr("src.benchmarks.check.pack", lambda data_dir: None)
    path = tmp_path / "baseline.json"
    assert script("bench", "check", "--baseline", path, "--update")[0] == 0
    assert script("bench", "check", "--baseline", path)[0] == 0
    found = {"score": 40.0, "step": 1.0}
    status, out, _ = script("bench", "check", "--baseline", path)
    assert status == 1 and re.search(r"step +2.00 +1.00 +WORSE", out)
    assert json.loads(path.read_text())["ratios"]["step"] == 2.0


def test_shipped_baseline_is_readable():
    ratios = read_baseline(BASELINE)
    assert len(ratios) >= 8 and all(value > 0 for value in ratios.values())
