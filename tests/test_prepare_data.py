"""Building and checking competition folders, with real files and real defects."""

import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from skimage import data

from src.damage.hole import find_hole
from src.datasets.build import build, inspect, plan_crops
from src.datasets.competition import read_train
from src.datasets.folds import load_folds
from src.utils.errors import InputError
from src.utils.files import LOCK
from tests.trees import finished, hashes


@pytest.fixture
def data_dir(small_folder, tmp_path) -> Path:
    """A copy of the small folder, 9 pairs and 3 test images of 4 photos, that a test may damage."""
    return Path(shutil.copytree(small_folder, tmp_path / "data"))


def test_folder_has_the_shape_of_the_competition(small_folder):
    train, test = pd.read_csv(small_folder / "train.csv"), pd.read_csv(small_folder / "test.csv")
    assert list(train.columns) == ["input_image_path", "gt_image_path"]
    assert list(test.columns) == ["input_image_path"]
    assert train.iloc[0].tolist() == ["./train_input/TRAIN_00000.png", "./train_gt/TRAIN_00000.png"]
    assert test.iloc[0].tolist() == ["./test_input/TEST_000.png"]
    crops = pd.read_csv(small_folder / "crops.csv")
    by_part = crops.groupby(crops["name"].str.startswith("TEST"))["photo"].unique()
    assert not set(by_part[True]) & set(by_part[False])
    assert len(train) + len(test) == len(crops) == 3 * 4
    for row in crops.itertuples():
        part = row.name.split("_")[0].lower()
        gray = Image.open(small_folder / f"{part}_input" / f"{row.name}.png")
        true = Image.open(small_folder / f"{part}_gt" / f"{row.name}.png")
        assert (gray.mode, gray.size, true.mode, true.size) == ("L", (512, 512), "RGB", (512, 512))
        differs = np.asarray(gray) != np.asarray(true.convert("L"))
        assert len(np.unique(np.asarray(gray)[differs])) == 1
        assert 0.004 < find_hole(np.asarray(gray)).mean() < 0.2


def test_the_same_bytes_as_2_0(small_folder):
    """Same seed and photos; the checksums were computed with version 2.0."""
    tables = [small_folder / f"{name}.csv" for name in ("train", "test", "crops")]
    assert zlib.crc32(b"".join(table.read_bytes() for table in tables)) == 865625723
    pixels = (np.asarray(Image.open(path)) for path in sorted(small_folder.rglob("*.png")))
    assert zlib.crc32(b"".join(image.tobytes() for image in pixels)) == 3212180739


def test_every_kind_of_photo(tmp_path, script):
    """Nested JPEG, PNG, WebP and a turned photo are used; grey, tiny and broken files are named."""
    photos, out = tmp_path / "photos", tmp_path / "data"
    (photos / "deep" / "er").mkdir(parents=True)
    coffee = Image.fromarray(data.coffee())
    Image.fromarray(data.astronaut()).save(photos / "deep" / "er" / "a.webp")
    Image.fromarray(data.rocket()).save(photos / "deep" / "b.PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to display
    coffee.save(photos / "turned.jpg", exif=exif)
    coffee.convert("L").save(photos / "grey.png")
    coffee.convert("L").convert("RGB").save(photos / "grey_as_rgb.jpg")
    coffee.resize((200, 150)).save(photos / "tiny.png")
    whole = (photos / "deep" / "b.PNG").read_bytes()
    (photos / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.png").write_text("hello")
    given = ("--photos", photos, "--data-dir", out, "--test-photos", 0.4)
    status, stdout, _ = script("prepare_data", "build", *given)
    assert status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "data"}
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [LOCK]
    crops = pd.read_csv(out / "crops.csv").drop_duplicates("photo").set_index("photo")
    assert set(crops.index) == {"deep/er/a.webp", "deep/b.PNG", "turned.jpg"}
    assert crops.loc["turned.jpg", "width"] < crops.loc["turned.jpg", "height"]
    skipped = [line for line in stdout.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 5
    for name, reason in (
        ("grey.png", "grey (mode L)"),
        ("grey_as_rgb.jpg", "grey (mean chroma"),
        ("tiny.png", "too small (200x150"),
        ("truncated.png", "broken image"),
        ("text.png", "not an image"),
    ):
        assert any(name in line and reason in line for line in skipped), (name, skipped)


def test_a_name_that_is_not_utf8(tmp_path):
    """It could neither be printed nor stand in a table."""
    reason = inspect(tmp_path / os.fsdecode(b"na\xefve.png"), tmp_path)
    assert reason.encode().endswith(b": name is not UTF-8")


@pytest.mark.parametrize(("side", "short"), [(1500, 1024), (700, 700), (512, 640), (299, 598)])
def test_short_side(tmp_path, side, short):
    Image.fromarray(data.coffee()).resize((2 * side, side)).save(tmp_path / "a.png")
    assert inspect(tmp_path / "a.png", tmp_path)[:2] == ("a.png", (2 * short, short))


def test_crops_differ_and_stay_inside(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(data.astronaut()).save(path)
    photo = inspect(path, tmp_path)
    (crops,) = plan_crops([photo], 50, 0.1, seed=0)
    assert len({(crop.left, crop.top) for crop in crops}) == 50
    for crop in crops:
        assert 0 <= crop.left <= crop.width - 512 and 0 <= crop.top <= crop.height - 512


def test_build_refuses(data_dir, photos, tmp_path, script):
    empty = tmp_path / "empty"
    empty.mkdir()
    new = tmp_path / "new"
    for arguments, message in (
        (("--photos", photos, "--data-dir", data_dir), "crops_per_photo was 3 and is 4"),
        (("--sample", "--data-dir", tmp_path), "not empty"),
        (("--photos", tmp_path / "none", "--data-dir", new), "no such folder"),
        (("--photos", empty, "--data-dir", new), "no image file found"),
        (("--data-dir", new), "either --photos DIR or --sample"),
        (("--sample", "--data-dir", new, "--test-photos", 2), "between 0 and 1"),
        (("--sample", "--data-dir", "/proc/none"), "/proc/none"),
    ):
        status, _, stderr = script("prepare_data", "build", *arguments)
        assert status == 2 and message in stderr and "Traceback" not in stderr
        assert len(stderr[stderr.index("error:") :].strip().splitlines()) == 1
    assert not new.exists()


def test_build_resumes(data_dir, small_folder, photos):
    """What exists stays, what is missing is made, and a finished folder is left as it is."""
    missing = ["crops.csv", "train.csv", "train_gt/TRAIN_00003.png", "test_input/TEST_001.png"]
    for name in missing:
        (data_dir / name).unlink()
    before = finished(data_dir)
    for _ in range(2):
        build(sorted(photos.iterdir()), photos, data_dir, 3, 0.3, 0)
        assert hashes(data_dir) == hashes(small_folder)
        assert {path: finished(data_dir)[path] for path in before} == before
        before = finished(data_dir)


def test_check_of_a_good_folder(data_dir, tmp_path, script):
    """Links are followed: on Kaggle the data is one."""
    shutil.move(data_dir / "train_gt", tmp_path / "elsewhere")
    (data_dir / "train_gt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(data_dir)
    given = ("--data-dir", tmp_path / "link", "--folds", 2)
    status, stdout, _ = script("prepare_data", "check", *given)
    assert status == 0, stdout
    assert "train: 9 good images of 512x512 px" in stdout and "test: 3 good" in stdout
    assert 3 <= int(stdout.split("scenes: ")[1].split(",")[0]) <= 9
    assert (data_dir / "folds.csv").exists()


def test_check_says_what_is_odd(data_dir, script):
    for kind in ("input", "gt"):
        first, second, third = (data_dir / f"train_{kind}/TRAIN_{n:05d}.png" for n in range(3))
        shutil.copy(first, second)
    gray = Image.open(third).convert("L")
    gray.convert("RGB").save(third)
    damaged = np.array(gray)
    damaged[50:150, 50:150] = 7
    Image.fromarray(damaged).save(data_dir / "train_input/TRAIN_00002.png")
    _, stdout, _ = script("prepare_data", "check", "--data-dir", data_dir, "--folds", 2)
    assert "odd: 1 train images occur twice; 1 truths have no colour" in stdout
    assert len(stdout.splitlines()) <= 10


def test_a_good_folder_of_too_few_scenes_is_good(data_dir, script):
    """No fold can be made of it, which is no defect of its files."""
    status, stdout, _ = script("prepare_data", "check", "--data-dir", data_dir, "--folds", 9)
    assert status == 0 and "no folds.csv: folds 9: found" in stdout
    assert not (data_dir / "folds.csv").exists()


def test_check_names_every_defect(data_dir, script):
    train = read_train(data_dir)["input_image_path"]
    truth = read_train(data_dir)["gt_image_path"]
    paths = [data_dir / path for path in train]
    paths[0].unlink()
    paths[1].write_text("not a picture")
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[: len(whole) // 2])
    Image.open(paths[3]).resize((256, 256)).save(paths[3])
    Image.open(paths[4]).convert("RGB").save(paths[4])
    Image.open(data_dir / truth[5]).convert("L").save(data_dir / truth[5])
    Image.open(data_dir / truth[6]).convert("L").save(paths[6])  # undamaged
    array = np.array(Image.open(paths[7]))
    array[:4, :4] = 255 - array[:4, :4]  # breaks the grey rule
    Image.fromarray(array).save(paths[7])
    status, stdout, _ = script("prepare_data", "check", "--data-dir", data_dir)
    assert status == 1 and "defects: 8" in stdout
    reasons = "no such file|not an image|broken image|256x256|mode is RGB|mode is L|no hole|differ"
    for index, reason in enumerate(reasons.split("|")):
        (line,) = (line for line in stdout.splitlines() if f"{index:05d}" in line)
        assert reason in line


def test_check_does_not_depend_on_the_detector(data_dir, script):
    """A hole that `find_hole` misses is no defect of a pair; a second hole of one fill is one."""
    path, truth = (data_dir / f"train_{kind}" / "TRAIN_00000.png" for kind in ("input", "gt"))
    gray = np.array(Image.open(truth).convert("L"))
    gray[100:200, 50:150] = 200
    Image.fromarray(gray).save(path)
    assert not find_hole(gray).any()
    status, stdout, _ = script("prepare_data", "check", "--data-dir", data_dir)
    assert status == 0, stdout
    gray[400:405, 400:405] = 200
    Image.fromarray(gray).save(path)
    status, stdout, _ = script("prepare_data", "check", "--data-dir", data_dir)
    assert status == 1 and "TRAIN_00000.png: 25 pixels outside the hole differ" in stdout


def test_tables(data_dir):
    path, third = data_dir / "train.csv", "./train_gt/TRAIN_00003.png"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").replace("/", "\\").encode())
    assert read_train(data_dir)["gt_image_path"][0] == "train_gt/TRAIN_00000.png"
    for broken, message in (
        (text.replace("gt_image_path", "truth"), "no column gt_image_path"),
        (text.replace(third, "/etc/passwd"), "line 5: /etc/passwd points outside"),
        (text.replace(third, "../secret.png"), "points outside"),
        (text.replace(third, "C:\\x.png"), "points outside"),
        (text.replace(third, "a\\..\\..\\x.png"), "points outside"),
        (text.replace(third, "a\0b"), "control characters"),
        (text.replace(third, ""), "line 5: empty path"),
        (text.replace("TRAIN_00003", "TRAIN_00004"), "listed twice"),
        (text.splitlines()[0] + "\n", "no rows"),
        ("", "not a CSV file"),
    ):
        path.write_text(broken)
        with pytest.raises(InputError, match=message.replace("(", "\\(")):
            read_train(data_dir)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        read_train(data_dir)


def test_folds_of_whole_sources(data_dir, script):
    """Every fold holds out the photos of other sources; a split that is there already is kept."""
    (data_dir / "folds.csv").unlink(missing_ok=True)
    crops = pd.read_csv(data_dir / "crops.csv")
    crops["photo"] = [f"camera{number % 3}-{number}.png" for number in range(len(crops))]
    crops.to_csv(data_dir / "crops.csv", index=False)
    arguments = ("prepare_data", "check", "--data-dir", data_dir, "--folds", 3, "--by", "source")
    status, out, _ = script(*arguments)
    assert status == 0 and "scenes: 3" in out
    table = load_folds(data_dir, 3)
    assert table.groupby("scene")["fold"].nunique().eq(1).all() and table["fold"].nunique() == 3
    status, _, err = script(*arguments)
    assert status == 2 and "folds.csv: is there already" in err
    (data_dir / "folds.csv").unlink()
    (data_dir / "crops.csv").unlink()
    assert "crops.csv: missing" in script(*arguments)[2]


def test_copies_are_named_and_left_out(photos, tmp_path, script):
    """What a browser, a phone or a mirror makes of a photo would fall on both sides of a split."""
    folder, out = tmp_path / "photos", tmp_path / "data"
    shutil.copytree(photos, folder)
    chelsea, rocket = (Image.open(next(folder.glob(f"{n}.*"))) for n in ("chelsea", "rocket"))
    chelsea.save(folder / "chelsea (1).jpg", quality=60)
    chelsea.resize((413, 275)).save(folder / "a.jpg", quality=30)
    ImageOps.mirror(rocket).save(folder / "mirrored.png")
    rocket.rotate(90, expand=True).save(folder / "turned.png")
    status, stdout, stderr = script("prepare_data", "build", "--photos", folder, "--data-dir", out)
    assert status == 0, stderr
    for name, other in (
        ("chelsea (1).jpg", "chelsea.png"),
        ("a.jpg", "chelsea.png"),
        ("mirrored.png", "rocket.jpg"),
        ("turned.png", "rocket.jpg"),
    ):
        assert f"skipped {name}: a copy of {other}" in stdout
    kept = set(pd.read_csv(out / "crops.csv")["photo"])
    assert kept == {"astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"}


def test_a_photo_under_the_same_name_is_another_recipe(photos, tmp_path, script):
    """Of equal size and time, as uncompressed scans; the same photo with a new time is none."""
    folder, out = tmp_path / "photos", tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate(("chelsea.png", "rocket.jpg")):
        photo = Image.open(photos / name).resize((400, 300))
        photo.save(folder / f"{number}.bmp")
    build = ("prepare_data", "build", "--photos", folder, "--data-dir", out)
    assert script(*build)[0] == 0
    os.utime(folder / "0.bmp", (1, 1))
    assert script(*build)[0] == 0
    Image.open(photos / "coffee.png").resize((400, 300)).save(folder / "0.bmp")
    os.utime(folder / "0.bmp", (1, 1))
    status, _, stderr = script(*build)
    assert status == 2 and "photos/0.bmp was" in stderr, stderr


MISTAKES = {
    "inputs and truths exchanged": r"TRAIN_0000\d.png: mode is \w+, expected \w+; inputs are",
    "train and test exchanged": r"train.csv: no column gt_image_path .* own train.csv \(input_imag",
    "test.csv is a train.csv": r"test.csv: lists truths, so it is a train.csv; use the",
    "truths of JPEG": r"TRAIN_00000.png: holds JPEG, expected PNG; use the original file",
    "half-copied": r"0\d.png: missing, as are 7 of (9|18) files .*; copy the data set again",
    "another year's header": r"train.csv: no column input_image_path, gt_image_path \(found",
    "never unpacked": r"no such file, but .*open.zip was not unpacked; unpack it",
    "the zip itself": r"no such file, but .*open.zip was not unpacked; unpack it",
    "one folder too high": r"no such file, but .*/data/train.csv exists; use --data-dir .*/data",
    "one name in two folders": r"b/TRAIN_00000.png in input_image_path has the name of train_in",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_with_the_competition_folder(data_dir, script, mistake):
    """Each is named in a line, which says what to do, before anything is trained or written."""
    folder, train, out = data_dir, data_dir / "train.csv", data_dir.parent / "runs"
    sources = sorted((data_dir / "train_input").iterdir())
    if mistake.startswith("inputs"):
        (data_dir / "train_input").rename(data_dir / "other")
        (data_dir / "train_gt").rename(data_dir / "train_input")
        (data_dir / "other").rename(data_dir / "train_gt")
    elif mistake.startswith("train and"):
        shutil.copy(data_dir / "test.csv", train)
    elif mistake.startswith("test.csv"):
        shutil.copy(train, data_dir / "test.csv")
    elif mistake.startswith("truths"):
        truth = data_dir / "train_gt" / "TRAIN_00000.png"
        Image.open(truth).save(truth, format="JPEG")
    elif mistake.startswith("half"):
        for path in sources[-7:]:
            path.unlink()
    elif mistake.startswith("another"):
        train.write_text("image,label\na.png,1\n")
    elif mistake.startswith("one name"):
        (data_dir / "train_input" / "b").mkdir()
        sources[1].rename(data_dir / "train_input" / "b" / "TRAIN_00000.png")
        text = train.read_text().replace("input/TRAIN_00001", "input/b/TRAIN_00000")
        train.write_text(text)
    else:
        folder = data_dir.parent / ("" if mistake.startswith("one folder") else "empty")
        folder.mkdir(exist_ok=True)
        if "zip" in mistake or "unpacked" in mistake:
            (folder / "open.zip").write_bytes(b"PK")
            folder = folder / "open.zip" if mistake.startswith("the zip") else folder
    status, stdout, stderr = script("prepare_data", "check", "--data-dir", folder)
    assert status in (1, 2) and "Traceback" not in stderr
    lines = [line for line in (stdout + stderr).splitlines() if re.search(MISTAKES[mistake], line)]
    assert lines, stdout + stderr
    assert len(lines) == 1 or mistake.startswith("inputs")
    if not mistake.startswith(("test.csv", "inputs", "truths")):
        status, _, stderr = script("train", "--data-dir", folder, "--output-dir", out)
        assert status == 2 and re.search(MISTAKES[mistake], stderr), stderr
