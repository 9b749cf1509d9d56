"""Files that mean harm: paths out of the folder, unusual zips, code in checkpoints."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from src.datasets.competition import read_train
from src.utils.errors import InputError
from src.utils.files import read_json, read_text, write_json
from tests.training import TINY, train


def test_texts(tmp_path):
    path = tmp_path / "a.json"
    for content, message in (
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "holds a list"),
        (b'{"a": ', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.json: {message}.*; remove it"):
            read_json(path, "remove it")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: not a regular file"):
        read_text(tmp_path / "pipe", "remove it")
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path, "") == {"a": 1}
    name = os.fsdecode(b"photo\xff.png")
    write_json(path, {"name": name})
    assert read_json(path, "") == {"name": name}


def test_paths_stay_in_the_folder_and_links_are_followed(data_dir, tmp_path):
    before = read_train(data_dir)
    shutil.move(data_dir / "train_gt", tmp_path / "elsewhere")
    (data_dir / "train_gt").symlink_to(tmp_path / "elsewhere")  # as on Kaggle
    (tmp_path / "link").symlink_to(data_dir)
    assert read_train(tmp_path / "link").equals(before)
    text = (data_dir / "train.csv").read_text()
    for hostile in ("../x.png", "/etc/passwd", "C:\\x.png", "..\\x.png", "a/../../x.png", "a\0b"):
        (data_dir / "train.csv").write_text(text.replace("./train_gt/TRAIN_00003.png", hostile))
        with pytest.raises(InputError, match=r"train\.csv, line 5"):
            read_train(data_dir)


@pytest.fixture
def submission(sample_folder, script, tmp_path) -> Path:
    """A real zip of the sample folder's test images."""
    target = tmp_path / "good.zip"
    arguments = ("--data-dir", sample_folder, "--pred", sample_folder / "test_gt", "--zip", target)
    status, _, stderr = script("make_submission", *arguments)
    assert status == 0, stderr
    return target


def rewritten(source: Path, target: Path, change) -> Path:
    """A copy of a zip in which `change` may alter each entry's (ZipInfo, content)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(*change(zipfile.ZipInfo(name), old.read(name)))
    return target


def test_check_and_score_of_a_zip(sample_folder, submission, script, tmp_path):
    check = ("make_submission", "--data-dir", sample_folder, "--check")
    truth = ("--gt", sample_folder / "test_gt", "--input", sample_folder / "test_input")
    status, out, _ = script(*check, submission)
    assert status == 0 and "3 images" in out
    other = rewritten(
        submission, tmp_path / "other.zip", lambda info, png: (info, png, zipfile.ZIP_DEFLATED)
    )
    assert script(*check, other)[0] == 0
    status, out, err = script("evaluate", "--pred", submission, *truth)
    assert status == 0 and "3 images, mean: S 1.0000" in out, out + err
    assert "the score would be 1.0000 if S were 1, 1.0000 if M were 1, 1.0000 if C were 1" in out
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("TEST_003.png", (sample_folder / "test_gt" / "TEST_000.png").read_bytes())
    for command in (check, ("evaluate", *truth, "--pred")):
        status, _, err = script(*command, other)
        assert status == 2 and "TEST_003.png" in err
        status, _, err = script(*command, tmp_path / "none.zip")
        assert status == 2 and "none.zip: no such zip" in err


def renamed(name: str):
    def change(info: zipfile.ZipInfo, png: bytes) -> tuple:
        info.filename = name if info.filename == "TEST_001.png" else info.filename
        return info, png

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("../TEST_001.png"), "not a plain file name"),
        (renamed("folder/TEST_001.png"), "not a plain file name"),
        (renamed("TEST_000.png"), "listed twice"),
        (lambda info, png: (info, png[: len(png) // 2]), "broken image"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_entries(submission, tmp_path, sample_folder, script, change, message):
    path = rewritten(submission, tmp_path / "bad.zip", change)
    truth = ("--gt", sample_folder / "test_gt", "--input", sample_folder / "test_input")
    for name, arguments in (
        ("make_submission", ("--data-dir", sample_folder, "--check", path)),
        ("evaluate", ("--pred", path, *truth)),
    ):
        status, _, stderr = script(name, *arguments)
        assert status == 2 and str(path) in stderr and message in stderr, stderr


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_in_checkpoints_is_not_executed(data_dir, tmp_path, script):
    """The payload runs where pickle is trusted, and in none of our scripts."""
    marker, fold = tmp_path / "executed", tmp_path / "run" / "fold0"
    arguments = ["--data-dir", data_dir, "--output-dir", tmp_path, "--name", "run"]
    training = [*arguments, *TINY, "--epochs", 1, "--val-images", 1]
    train(*training)
    torch.save({"step": 1, "model": Payload(marker)}, fold / "last.pt")
    torch.load(fold / "last.pt", weights_only=False)
    assert marker.exists()
    marker.unlink()
    shutil.copy(fold / "last.pt", fold / "inpainter.safetensors")
    for name, given, message in (
        ("train", training, "last.pt: broken training state"),
        ("infer", arguments, "inpainter.safetensors: not a readable checkpoint"),
        ("evaluate", [*arguments, "--fold", 0], "inpainter.safetensors: not a readable"),
    ):
        status, _, stderr = script(name, *given)
        assert status == 2 and message in stderr and "Traceback" not in stderr, stderr
        assert not marker.exists()
