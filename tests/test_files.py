"""Reading and writing: nothing half-written, every mode of photo understood."""

import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from src.utils.cli import HINTS, Folders, parse_settings, run_script
from src.utils.errors import InputError, SettingError
from src.utils.files import LOCK, PARTIAL, atomic_write, lock_folder, write_bytes
from src.utils.images import gray_to_rgb, open_image, read_gray, read_image, write_png


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_full_disk(tmp_path):
    """A real write that fails half-way: the process may write files of at most 8 KiB."""
    path = tmp_path / "big.bin"
    write_bytes(path, b"old")
    code = (
        "from src.utils.cli import run_script\nfrom src.utils.files import write_bytes\n"
        f"run_script(lambda: write_bytes({str(path)!r}, bytes(1 << 20)))"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True
    )
    assert done.returncode == 2 and str(path) in done.stderr and "free space" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_no_permission(tmp_path, capsys):
    def main():
        raise PermissionError(13, "Permission denied", str(tmp_path / "x.png"))

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'x.png'}: Permission denied")


def test_a_folder_in_the_way(tmp_path, capsys):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: write_bytes(tmp_path / "a.json", b"1"))
    assert stop.value.code == 2 and str(tmp_path / "a.json") in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "사진" * 41 + "a.png"])
def test_names_as_long_as_file_systems_allow(tmp_path, name):
    assert 250 <= len(name.encode()) <= 255
    write_bytes(tmp_path / name, b"1")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_file_systems_that_refuse_chmod(tmp_path, monkeypatch):
    """CIFS and WSL do."""

    def refuse(*arguments, **settings):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "fchmod", refuse)
    write_bytes(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_png_bytes_depend_on_pixels_only(tmp_path):
    write_png(tmp_path / "a.png", data.coffee())
    write_png(tmp_path / "b.png", np.asfortranarray(data.coffee()))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB"), data.coffee())


def test_turned_grey_photo_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(data.camera()[:20, :40]).save(tmp_path / "turned.jpg", exif=exif)
    assert read_gray(tmp_path / "turned.jpg").shape == (40, 20)


def test_a_broken_tag_does_not_keep_a_photo_from_being_turned(tmp_path):
    """The width (tag 0x100) as bytes of no known type, beside an orientation that can be read."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0100] = 6, 7
    path = tmp_path / "turned.jpg"
    Image.fromarray(data.camera()[:20, :40]).save(path, exif=exif)
    content = path.read_bytes()
    for entry in (
        b"\x01\x00\x00\x03",
        b"\x00\x01\x03\x00",
        b"\x01\x00\x00\x04",
        b"\x00\x01\x04\x00",
    ):
        broken = entry[:2] + (b"\x00\x07" if entry[2] == 0 else b"\x07\x00")
        content = content.replace(entry, broken)
    assert content != path.read_bytes()
    path.write_bytes(content)
    assert read_gray(path).shape == (40, 20)


def test_bad_images_are_named(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "empty.png", "none.png"):
        with pytest.raises(InputError, match=name):
            open_image(tmp_path / name)
    write_png(tmp_path / "a.png", data.camera())
    with pytest.raises(InputError, match="mode is L, expected RGB"):
        read_image(tmp_path / "a.png", "RGB")
    with pytest.raises(InputError, match="512x512, expected 100x50"):
        read_image(tmp_path / "a.png", "L", (100, 50))


def test_an_error_of_a_setting_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(SettingError("seed", -1, "must be 0 or more")))
    assert (error.setting, error.value, str(error)) == ("seed", -1, "seed -1: must be 0 or more")


def test_exit_status(capsys):
    for main, status in ((lambda: None, 0), (lambda: 1, 1)):
        with pytest.raises(SystemExit) as stop:
            run_script(main)
        assert stop.value.code == status

    def broken():
        raise InputError("data/train.csv: no such file; do this")

    with pytest.raises(SystemExit) as stop:
        run_script(broken)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: data/train.csv: no such file; do this\n"


def test_errors_become_a_line_with_the_remedy(capsys):
    """Library code knows facts, the command line adds the flag or the command."""
    errors = {
        SettingError(
            "color_size", 100, "must be a multiple of 32"
        ): "--color-size 100: must be a multiple of 32",
        InputError(
            "data: no such folder", "data folder"
        ): f"data: no such folder; {HINTS['data folder']}",
    }
    for error, line in errors.items():

        def main(error=error):
            raise error

        with pytest.raises(SystemExit) as stop:
            run_script(main)
        assert stop.value.code == 2 and capsys.readouterr().err == f"error: {line}\n"
        assert "--" not in str(error)


def test_a_folder_is_locked_from_inside(tmp_path):
    """One hidden file in it, nothing beside it; what a killed process left half-written goes."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / f".a.png.x1{PARTIAL}").write_bytes(b"half")
    with lock_folder(folder):
        code = (
            "from src.utils.cli import run_script\nfrom src.utils.files import lock_folder\n"
            f"run_script(lambda: lock_folder({str(folder)!r}).__enter__())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2 and "another process is working there" in done.stderr
        assert [path.name for path in folder.iterdir()] == [LOCK]
    with lock_folder(folder):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_grey_becomes_three_equal_channels():
    gray = data.camera()[:5, :7]
    rgb = gray_to_rgb(gray)
    assert rgb.shape == (5, 7, 3) and rgb.dtype == np.uint8 and (rgb == gray[..., None]).all()


def test_pils_limit_stays_as_it_was(tmp_path):
    """Whoever uses this code in a program of their own keeps PIL's guard against bombs, and its
    warning."""
    code = (
        "import sys\nfrom PIL import Image\nbefore = Image.MAX_IMAGE_PIXELS\n"
        "from src.utils.images import read_gray\nread_gray(sys.argv[1])\n"
        "assert before and Image.MAX_IMAGE_PIXELS == before"
    )
    write_png(tmp_path / "a.png", data.camera())
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True)
    small = {"max_pixels": 512 * 512 - 1}
    with pytest.raises(InputError, match=r"0\.2621 megapixels, at most 0\.2621"):
        read_gray(tmp_path / "a.png", **small)


@pytest.mark.parametrize("encoding", ["cp949", "cp1252", "ascii"])
def test_names_that_the_terminal_cannot_show(tmp_path, encoding):
    """Are printed with their code points; nothing stops for them."""
    code = "from src.utils.cli import run_script\nrun_script(lambda: print('é사진🖼'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0 and b"\\U0001f5bc" in done.stdout and not done.stderr


def test_a_closed_pipe_ends_a_script_quietly():
    """As `python evaluate.py | head` does."""
    code = (
        "from src.utils.cli import run_script\n"
        "run_script(lambda: [print('line', flush=True) for _ in range(100_000)] and 0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 128 + signal.SIGPIPE


def test_a_tilde_after_an_equals_sign_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = parse_settings(
        Folders, arguments=["--output-dir=~/x", "--data-dir", "~y", "--name=a~b"]
    )
    assert (found.output_dir, found.data_dir, found.name) == (tmp_path / "x", Path("~y"), "a~b")


def test_compiled_without_a_place_to_keep_it(tmp_path):
    """Read-only code and no home, as in some containers: compiled for the process alone."""
    module = tmp_path / "loops.py"
    module.write_text(
        "from src.utils.compiled import compiled\n\n\n@compiled()\ndef twice(x):\n    return 2 * x\n"
    )
    code = (
        "import sys, numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"  # what remains where nothing can be written
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport loops\n"
        "print(loops.twice(21), type(loops.twice._cache))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("42 ") and "NullCache" in done.stdout, done.stderr
