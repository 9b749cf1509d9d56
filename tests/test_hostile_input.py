"""Files that mean harm: bombs, paths and links out of the folder, code in checkpoints."""

import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from src.datasets.competition import read_train
from src.datasets.folds import load_folds
from src.evaluation.submission import MAX_ENTRIES, MAX_PNG, read_submission
from src.models.checkpoints import load_state
from src.utils.cli import run_script
from src.utils.errors import InputError
from src.utils.files import MAX_TEXT, inside, read_json, read_text, write_json
from src.utils.images import MAX_PIXELS, list_images, open_image
from tests.training import TINY, train

CPU = torch.device("cpu")
COLORIZER = {  # what the file of one says of itself
    "model": "restorer",
    "network": "colorizer",
    "arguments": {"encoder": "lite0", "color_size": 64},
}


def measured(imported: str, call: str, path: Path) -> tuple[str, float]:
    """What a process prints for `call`, which names `path` and what is `imported`, and its growth
    in MiB."""
    program = (
        f"import resource, sys\nfrom pathlib import Path\n{imported}\n"
        "from src.utils.errors import InputError\n"
        "path, used = Path(sys.argv[1]), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"before = used()\ntry:\n    {call}\nexcept InputError as error:\n    print(error)\n"
        "print((used() - before) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    *lines, growth = done.stdout.splitlines()
    return "\n".join(lines), float(growth)


READ_ZIP = ("from src.evaluation.submission import read_submission", "list(read_submission(path))")


def png_of(width: int, height: int, content: bytes) -> bytes:
    """A grey PNG that declares a size, whatever its compressed content."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


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


@pytest.mark.filterwarnings("ignore:Image size")
def test_picture_bomb(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(60_000, 60_000, zlib.compress(bytes(1 << 20))))
    message, growth = measured("from src.utils.images import open_image", "open_image(path)", path)
    assert f"{path}: 3600 megapixels, at most 179" in message
    assert growth < 32
    side = int(MAX_PIXELS**0.5)
    path.write_bytes(png_of(side + 1, side + 1, b""))
    with pytest.raises(InputError, match="megapixels"):
        open_image(path)
    path.write_bytes(png_of(side, side, zlib.compress(bytes(1 << 10))))
    with pytest.raises(InputError, match="broken image"):
        open_image(path)


@pytest.mark.filterwarnings("error")
def test_a_large_photo_gives_no_warning(tmp_path):
    """PIL alone would warn from 89 megapixels on."""
    path = tmp_path / "large.png"
    path.write_bytes(png_of(10_000, 10_000, zlib.compress(bytes(10_000 * 10_001), 1)))
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: int(open_image(path).size != (10_000, 10_000)))
    assert stop.value.code == 0


def test_another_format_under_the_name_of_a_png(tmp_path, script):
    """PIL hands PostScript to Ghostscript, an interpreter."""
    Image.fromarray(data.coffee()).save(tmp_path / "photo.eps")
    (tmp_path / "photo.eps").rename(tmp_path / "photo.png")
    assert Image.open(tmp_path / "photo.png").format == "EPS"
    with pytest.raises(InputError, match=r"photo\.png: not an image of type PNG, JPEG"):
        open_image(tmp_path / "photo.png")
    status, stdout, stderr = script(
        "prepare_data", "build", "--photos", tmp_path, "--data-dir", tmp_path / "out"
    )
    assert status == 2 and "not an image" in stdout + stderr


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (
        open_image,
        lambda path: read_text(path, "remove it"),
        lambda path: next(read_submission(path)),
    ):
        with pytest.raises(InputError, match="not a regular file"):
            read(tmp_path / "a.png")


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
    with open(path, "wb") as file:
        file.truncate(MAX_TEXT + 1)
    with pytest.raises(InputError, match="larger than 256 MiB"):
        read_text(path, "remove it")
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path, "") == {"a": 1}
    name = os.fsdecode(b"photo\xff.png")
    write_json(path, {"name": name})
    assert read_json(path, "") == {"name": name}


def test_paths_that_leave_the_folder(data_dir, tmp_path):
    assert inside(data_dir, "train_gt/a.png") == data_dir / "train_gt" / "a.png"
    (tmp_path / "link").symlink_to(data_dir)
    assert (
        inside(tmp_path / "link", "train_gt") == tmp_path / "link" / "train_gt"
    )  # the folder may be one
    assert len(read_train(tmp_path / "link")) == len(read_train(data_dir))
    for relative in ("..", "../data2/x", "/etc/passwd", "a/../../x"):
        with pytest.raises(InputError, match="outside of"):
            inside(data_dir, relative)
    text = (data_dir / "train.csv").read_text()
    for hostile in (
        "../x.png",
        "/etc/passwd",
        "C:\\x.png",
        "..\\x.png",
        "train_gt/../../x.png",
        "a\0b.png",
    ):
        (data_dir / "train.csv").write_text(text.replace("./train_gt/TRAIN_00003.png", hostile))
        with pytest.raises(InputError, match=r"train\.csv, line 5"):
            read_train(data_dir)


@pytest.mark.parametrize(
    "name", ["train_gt", "train_input/TRAIN_00002.png", "train.csv", "test.csv"]
)
def test_links_out_of_the_data_folder(data_dir, tmp_path, script, name):
    outside = tmp_path / "elsewhere"
    shutil.move(data_dir / name, outside)
    (data_dir / name).symlink_to(outside)
    status, _, stderr = script("prepare_data", "check", "--data-dir", data_dir)
    message = stderr.strip().splitlines()[-1]
    assert (
        status == 2
        and f"{data_dir / name}: leads to {outside}" in message
        and "Traceback" not in stderr
    )


def test_links_that_the_user_trusts(data_dir, tmp_path, monkeypatch):
    """Images elsewhere, in a linked folder and as linked files; a circle of links ends."""
    count = len(list_images(data_dir))
    shutil.move(data_dir / "train_gt", tmp_path / "elsewhere")
    (data_dir / "train_gt").symlink_to(tmp_path / "elsewhere")
    (data_dir / "circle").symlink_to(tmp_path)
    monkeypatch.setenv("FOLLOW_LINKS", "1")
    assert len(load_folds(data_dir)) == len(read_train(data_dir))
    (tmp_path / "elsewhere" / "again.png").symlink_to(data_dir / "test_gt" / "TEST_000.png")
    found = list_images(data_dir)
    assert len([path for path in found if "circle" not in path.parts]) == count + 1
    assert len(found) == len({os.path.realpath(path) for path in found}) + 1  # again.png
    with pytest.raises(InputError, match="outside of"):
        inside(data_dir, "../x")


def test_links_in_a_folder_to_score_or_zip(sample_folder, tmp_path, script):
    pred = shutil.copytree(sample_folder / "test_gt", tmp_path / "pred")
    shutil.move(pred / "TEST_001.png", tmp_path / "elsewhere.png")
    (pred / "TEST_001.png").symlink_to(tmp_path / "elsewhere.png")
    truth = ("--gt", sample_folder / "test_gt", "--input", sample_folder / "test_input")
    zipped = ("--data-dir", sample_folder, "--zip", tmp_path / "a.zip")
    for name, arguments in (("evaluate", truth), ("make_submission", zipped)):
        status, _, stderr = script(name, "--pred", pred, *arguments)
        assert status == 2 and "TEST_001.png: leads to" in stderr, stderr
    assert not (tmp_path / "a.zip").exists()


def test_check_and_score_of_a_zip(sample_folder, submission, script, tmp_path):
    checked = script("make_submission", "--data-dir", sample_folder, "--check", submission)
    assert checked[0] == 0 and "3 images" in checked[1]
    other = rewritten(
        submission, tmp_path / "other.zip", lambda info, png: (info, png, zipfile.ZIP_DEFLATED)
    )
    assert script("make_submission", "--data-dir", sample_folder, "--check", other)[0] == 0
    truth = ("--gt", sample_folder / "test_gt", "--input", sample_folder / "test_input")
    status, stdout, stderr = script("evaluate", "--pred", submission, *truth)
    assert status == 0 and "3 images, mean: S 1.0000" in stdout, stdout + stderr
    assert "the score would be 1.0000 if S were 1, 1.0000 if M were 1, 1.0000 if C were 1" in stdout
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("TEST_003.png", (sample_folder / "test_gt" / "TEST_000.png").read_bytes())
    status, _, stderr = script("make_submission", "--data-dir", sample_folder, "--check", other)
    assert status == 2 and f"{other / 'TEST_003.png'}: not in test.csv" in stderr
    status, _, stderr = script("evaluate", "--pred", other, *truth)
    assert status == 2 and "TEST_003.png" in stderr
    missing = tmp_path / "none.zip"
    for name, arguments in (("make_submission", ("--check",)), ("evaluate", (*truth, "--pred"))):
        status, _, stderr = script(name, *arguments, missing, "--data-dir", sample_folder)
        assert status == 2 and f"{missing}: no such zip" in stderr, stderr


def link(info: zipfile.ZipInfo, png: bytes) -> tuple:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, b"/etc/passwd"


def renamed(name: str):
    def change(info: zipfile.ZipInfo, png: bytes) -> tuple:
        info.filename = name if info.filename == "TEST_001.png" else info.filename
        return info, png

    return change


def gray(info: zipfile.ZipInfo, png: bytes) -> tuple:
    return info, png_of(512, 512, zlib.compress(bytes(512 * 513)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("../TEST_001.png"), "not the plain name"),
        (renamed("/tmp/TEST_001.png"), "not the plain name"),
        (renamed("C:\\TEST_001.png"), "not the plain name"),
        (renamed("folder/TEST_001.png"), "not the plain name"),
        (renamed("readme.txt"), "not the plain name"),
        (renamed("TEST_000.png"), "listed twice"),
        (renamed("x" * 300 + ".png"), "no file can have"),
        (link, "a link"),
        (gray, "mode is L, expected RGB"),
        (
            lambda info, png: (info, bytes(MAX_PNG + 1), zipfile.ZIP_DEFLATED),
            f"at most {MAX_PNG} are read",
        ),
        (lambda info, png: (info, png, zipfile.ZIP_LZMA), "another method"),
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


def test_an_encrypted_entry(submission):
    content = bytearray(submission.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    submission.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        list(read_submission(submission))


def test_zip_bombs(tmp_path, submission):
    """Three ways to make a small file large: content, a lie about the content's size, a long
    directory."""
    bomb, lie, many = (tmp_path / f"{name}.zip" for name in ("bomb", "lie", "many"))
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.png", "w") as entry,
    ):
        for _ in range(1 << 10):
            entry.write(bytes(1 << 20))
    content = bytearray(bomb.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 1000)
    lie.write_bytes(content)
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(MAX_ENTRIES + 1):
            archive.writestr(f"{number}.png", b"")
    for path, wanted in (
        (bomb, "1073741824 bytes"),
        (lie, "broken zip"),
        (many, f"at most {MAX_ENTRIES}"),
    ):
        assert path.stat().st_size < 2 << 20
        message, growth = measured(*READ_ZIP, path)
        assert str(path) in message and wanted in message and growth < 64
    directory = b"PK\x01\x02" + bytes(42)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory) << 20, 0, 0)
    many.write_bytes(directory * (1 << 20) + end)
    message, growth = measured(*READ_ZIP, many)
    assert "directory is too large" in message and growth < 64


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_in_checkpoints_is_not_executed(data_dir, tmp_path, script):
    """The payload runs where pickle is trusted, and in none of our scripts, in both formats of
    torch."""
    marker, fold = tmp_path / "executed", tmp_path / "run" / "fold0"
    arguments = ["--data-dir", data_dir, "--output-dir", tmp_path, "--name", "run"]
    training = [*arguments, *TINY, "--epochs", 1, "--val-images", 1]
    train(*training)
    whole = {path: path.read_bytes() for path in fold.glob("*.safetensors")}
    for zipped, network in ((True, "inpainter"), (False, "colorizer")):
        state = {"step": 1, "model": Payload(marker)}
        torch.save(state, fold / "last.pt", _use_new_zipfile_serialization=zipped)
        torch.load(fold / "last.pt", weights_only=False)
        assert marker.exists()
        marker.unlink()
        for path, content in whole.items():
            path.write_bytes(content)
        shutil.copy(fold / "last.pt", fold / f"{network}.safetensors")
        for name, given, message in (
            ("train", training, "last.pt: broken training state"),
            ("infer", arguments, f"{network}.safetensors: not a readable checkpoint"),
            ("evaluate", [*arguments, "--fold", 0], f"{network}.safetensors: not a readable"),
        ):
            status, _, stderr = script(name, *given)
            assert status == 2 and message in stderr and "Traceback" not in stderr, stderr
            assert not marker.exists()


def test_a_compressed_state_is_refused(tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"x": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match="compressed"):
        load_state(path)


def test_a_link_among_all_paths_of_the_competition(tmp_path):
    """The whole training set, 59,206 paths, is read; one of them leads out of the folder and is
    found."""
    for part in ("train_gt", "train_input"):
        (tmp_path / part).mkdir()
    rows = [f"./train_input/TRAIN_{n:05d}.png,./train_gt/TRAIN_{n:05d}.png" for n in range(29_603)]
    (tmp_path / "train.csv").write_text("\n".join(["input_image_path,gt_image_path", *rows]))
    assert len(read_train(tmp_path)) == 29_603
    (tmp_path / "train_gt" / "TRAIN_20000.png").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"TRAIN_20000\.png: leads to /etc/passwd"):
        read_train(tmp_path)
