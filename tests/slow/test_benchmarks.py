"""python -m benchmarks on small folders: things are really measured or trained, and the tables come
out."""

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks.training import read_batches, step_seconds
from src.damage.aging import KINDS
from src.datasets.bank import pack
from src.datasets.build import sample_photos
from src.datasets.folds import fingerprint, fold_files
from src.models.checkpoints import save_model
from src.models.registry import create_model


@pytest.fixture(autouse=True)
def threads():
    """Benchmarks set numbers of threads; tests after them see the old ones."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def packed(sample_folder, tmp_path_factory) -> Path:
    """A packed copy of the sample folder; tests must not change it."""
    folder = Path(shutil.copytree(sample_folder, tmp_path_factory.mktemp("packed") / "data"))
    pack(folder)
    return folder


def test_score(sample_folder, script):
    status, out, err = script(
        "benchmarks", "score", "--data-dir", sample_folder, "--count", 2, "--files", 2
    )
    assert status == 0, err
    assert float(re.search(r"ratio +([\d.]+)", out)[1]) > 0 and "2 files, all cores" in out
    gaps = re.findall(r"[SMC] (\d\.\de[+-]\d+)", out)
    assert len(gaps) == 3 and all(float(gap) < 1e-9 for gap in gaps)
    assert out.startswith("python -m benchmarks score --data-dir")


def test_damage(sample_folder, script):
    photos = sample_folder / "train_gt"
    status, out, err = script("benchmarks", "damage", "--photos", photos, "--count", 10)
    assert status == 0, err
    values = {line[:30].strip(): float(line[30:]) for line in out.splitlines() if line[30:].strip()}
    assert values["IoU"] > 0.99 and values["false hole"] == 0


def test_detector(sample_folder, script):
    status, out, err = script("benchmarks", "detector", "--data-dir", sample_folder, "--count", 3)
    assert status == 0, err
    for name in ("all", *KINDS):
        assert re.search(
            rf"^{name} +probability above 0.5( +[01]\.\d{{3}}){{5}}$", out, re.MULTILINE
        ), out
    assert out.count("after the post-processing") == 1 + len(KINDS)
    for name in ("as it is", "all looks"):
        assert re.search(rf"^{name}( +\d+\.\d{{3}}%){{4}}$", out, re.MULTILINE), out


def test_scenes(sample_folder, script):
    status, out, err = script("benchmarks", "scenes", "--data-dir", sample_folder)
    assert status == 0, err
    assert re.search(r"in one scene: [01]\.\d{4}\n", out)
    rows = [line.split() for line in out.splitlines()[-3:]]
    count = len((sample_folder / "train.csv").read_text().splitlines()) - 1
    assert [int(row[0]) for row in rows] == [count // 4, count // 2, count]


def test_parts(sample_folder, script, tmp_path):
    """The variants share one luma or one decode as they should, and the numbers are evaluate.py's."""
    paths = []
    for fold in (0, 3):
        torch.manual_seed(fold)
        model = create_model("restorer", color_size=64, encoder_weights="none").eval()
        facts = {"fold": fold, "held_out": fingerprint(fold_files(sample_folder, 5, 0, fold)[1])}
        paths.append(tmp_path / "run" / f"fold{fold}")
        save_model(paths[-1], model, "restorer", facts)
    arguments = ["benchmarks", "parts", "--data-dir", sample_folder, "--checkpoints"]
    picture, scores = tmp_path / "parts.png", tmp_path / "scores.json"
    status, out, err = script(
        *arguments, *paths, "--images", "test", "--count", 2, "--picture", picture
    )
    assert status == 0, err
    assert Image.open(picture).size == (5 * 512, 2 * 512)
    assert "average of the models' RGB" in out and "oracle: true histogram" in out
    assert re.search(r"luma kept outside the hole +1\n", out)
    status, out, err = script(*arguments, paths[0], "--count", 0)
    assert status == 0, err
    folders = ["--data-dir", sample_folder, "--output-dir", tmp_path, "--name", "run"]
    status, _, err = script("evaluate", *folders, "--fold", 0, "--json", scores)
    assert status == 0, err
    mean = json.loads(scores.read_text())["mean"]
    row = re.search(r"^restored +(.*)$", out, re.MULTILINE).group(1).split()
    wanted = [mean[key] for key in ("S", "M", "C", "score")]
    assert [float(value) for value in row[:4]] == pytest.approx(wanted, abs=1e-4)
    status, _, err = script(*arguments, *paths)
    assert status == 2 and "use --images test" in err


def test_fills(sample_folder, script, tmp_path):
    """A row for each fill, one for an inpainter, and a line of the table for each image."""
    torch.manual_seed(0)
    model = create_model("restorer", color_size=64, encoder_weights="none")
    save_model(tmp_path / "run" / "fold0", model, "restorer", {"fold": 0})
    arguments = ["--data-dir", sample_folder, "--count", 2, "--table", tmp_path / "m.csv"]
    status, out, err = script(
        "benchmarks", "fills", *arguments, "--checkpoints", tmp_path / "run" / "fold0"
    )
    assert status == 0 and "2 images" in out, err
    table = pd.read_csv(tmp_path / "m.csv")
    names = {
        "telea",
        "smooth",
        "frequency",
        "exemplar",
        "inpainter fold0",
        "inpainters, two views",
        "copies",
    }
    assert len(table) == 2 and names < set(table) and table.abs().max(axis=None) <= 1
    for name in names:
        assert re.search(rf"^{name} +-?\d\.\d{{4}}", out, re.MULTILINE), out


def test_colors(sample_folder, script, tmp_path):
    """Figures by source and of all, and a sheet; a colorizer without an inpainter is enough."""
    torch.manual_seed(0)
    model = create_model("restorer", color_size=64, encoder_weights="none")
    for number in range(2):
        save_model(tmp_path / f"fold{number}", model, "restorer", {"fold": number})
        (tmp_path / f"fold{number}" / "inpainter.safetensors").unlink()
    arguments = [
        "--data-dir",
        sample_folder,
        "--count",
        4,
        "--tta",
        2,
        "--table",
        tmp_path / "c.csv",
    ]
    arguments += [
        "--sheet",
        tmp_path / "sheet.png",
        "--checkpoints",
        tmp_path / "fold0",
        tmp_path / "fold1",
    ]
    status, out, err = script("benchmarks", "colors", *arguments)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "c.csv", index_col="image")
    assert (
        len(table) == 4 and table["C"].between(-1, 1).all() and (table["colourfulness"] > 0).all()
    )
    assert (table["delta E"] > 0).all() and set(table["source"]) <= {
        Path(p.name).stem for p in sample_photos()
    }
    assert f"{table['C'].mean():.4f}" in out and f"{table['colourfulness'].median():.4f}" in out
    assert Image.open(tmp_path / "sheet.png").size == (4 * 3 * 240, 240)


def test_data(packed, script):
    status, out, err = script("benchmarks", "data", "--data-dir", packed, "--count", 3)
    assert status == 0, err
    rows = {
        line[:30].strip(): float(line[30:].split()[0])
        for line in out.splitlines()
        if " ms " in line
    }
    assert "16 workers, 256 px, pack, projected" in out
    assert len(rows) == 7 and all(value > 0 for value in rows.values())


def test_loader_prefers_the_pack(data_dir):
    files = next(read_batches(data_dir, 64, 8, 0))
    pack(data_dir)
    for path in (data_dir / "train_gt").iterdir():  # not images any more, yet as old and as large
        facts = path.stat()
        path.write_bytes(bytes(facts.st_size))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    packed = next(read_batches(data_dir, 64, 8, 0))
    assert all(torch.equal(files[key], packed[key]) for key in files)


class Clock:
    """A clock that moves by a second whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1
        return self.now


def test_steps_and_waiting_are_told_apart(monkeypatch):
    """A loader that takes three seconds by the clock: four of the five of a step are spent on
    waiting."""
    channels = {"damaged": 1, "mask": 1, "gray": 1, "rgb": 3}
    batch = {
        key: torch.zeros(2, count, 64, 64, dtype=torch.uint8) for key, count in channels.items()
    }
    clock = Clock()
    monkeypatch.setattr("benchmarks.training.time", clock)

    def slow():
        while True:
            clock.now += 3
            yield batch

    options = {"encoder": "lite0", "encoder_weights": "none", "image_size": 64}
    assert step_seconds("full_pipeline", slow(), 2, **options) == (1.0, 0.8)


def test_training(packed, script, monkeypatch):
    sizes = dict.fromkeys(("restorer", "full_pipeline", "gan"), 2)
    for name, value in (("BATCH_SIZES", sizes), ("RUNS", 1)):  # as they are it takes many minutes
        monkeypatch.setattr(f"benchmarks.training.{name}", value)
    status, out, err = script(
        "benchmarks", "training", "--data-dir", packed, "--steps", 1, "--batches", 1
    )
    assert status == 0, err
    for name in ("restorer, 512 px, 1 workers", "gan, 512 px, 0 workers", "256 px, 1 workers, PNG"):
        assert re.search(rf"^{name} +\d", out, re.MULTILINE), out


def test_inference(sample_folder, script):
    status, out, err = script("benchmarks", "inference", "--data-dir", sample_folder, "--count", 1)
    assert status == 0, err
    assert "infer.py --ensemble --tta 2, once: 1 files" in out and out.count(" ms\n") == 7
    assert float(re.search(r"^ratio +([\d.]+)$", out, re.MULTILINE)[1]) > 0


def test_size(script):
    status, out, err = script("benchmarks", "size", "--megapixels", 0.1, 0.05)
    assert status == 0, err
    rows = [line.split() for line in out.splitlines() if re.match(r" +0\.", line)]
    assert [row[0] for row in rows] == ["0.05", "0.1"] and all(float(row[3]) > 0 for row in rows)


def test_preparation(script, tmp_path):
    folder, work_dir = tmp_path / "photos", tmp_path / "work"
    for place in (folder, work_dir):
        place.mkdir()
    for photo in sample_photos():
        shutil.copy(photo, folder)
    arguments = ["--photos", folder, "--pairs", 60, "--work-dir", work_dir]
    status, out, err = script("benchmarks", "preparation", *arguments)
    assert status == 0, err
    row = out.splitlines()[-1].split()
    assert row[0] == "60" and len(row) == 5 and all(float(value) >= 0 for value in row[1:])
    assert not list(work_dir.iterdir())
    status, out, err = script("benchmarks", "preparation", *arguments, "--skip", "check", "pack")
    assert status == 0 and len(out.splitlines()[-1].split()) == 3, err
    status, _, err = script("benchmarks", "preparation", "--photos", folder, "--pairs", 10**6)
    assert status == 2 and "--pairs 1000000: 90003 photos needed" in err


def test_time_to_score(data_dir, script, tmp_path):
    """Both are really trained, for seconds; a second call prints the same without training again."""
    arguments = [
        "--data-dir",
        data_dir,
        "--output-dir",
        tmp_path,
        "--minutes",
        0.5,
        "--validate-at",
        0.1,
    ]
    arguments += [
        "--val-images",
        2,
        "--full-pipeline",
        "encoder=lite0",
        "image-size=64",
        "batch-size=2",
    ]
    arguments += ["--restorer", "image-size=64", "color-size=64", "batch-size=2"]
    tables = []
    for _ in range(2):
        status, out, err = script("benchmarks", "time-to-score", *arguments)
        assert status == 0, err
        assert "times sooner" in out
        tables.append(out[out.index("minutes") :])
    assert tables[0] == tables[1]
    assert set(pd.read_csv(tmp_path / "curves.csv")["model"]) == {"full_pipeline", "restorer"}
    assert (tmp_path / "curves.png").is_file()
    status, _, err = script("benchmarks", "time-to-score", *arguments[:-1], "batch-size=0")
    assert status == 2 and "restorer: the training failed" in err
