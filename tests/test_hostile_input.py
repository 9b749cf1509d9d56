"""Files that mean harm: paths out of the folder, unusual zips, code in checkpoints."""

import os
import shutil
from pathlib import Path

import pytest
import torch

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
