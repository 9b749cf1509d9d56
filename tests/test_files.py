"""Files written whole or not at all, locks, and what a script says of an error."""

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.utils.cli import HINTS, run_script
from src.utils.errors import InputError, SettingError
from src.utils.files import LOCK, lock_folder, write_bytes


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
    assert done.returncode == 2 and str(path) in done.stderr and "File too large" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


SIZE = SettingError("image_size", 100, "must be a multiple of 32")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("train.csv: no such file; do this"), "train.csv: no such file; do this"),
        (InputError("data: no folder", "data folder"), f"data: no folder; {HINTS['data folder']}"),
        (SIZE, "--image-size 100: must be a multiple of 32"),
        (PermissionError(errno.EACCES, "No", "x.png"), "x.png: No; check its permissions"),
    ],
)
def test_errors_become_a_line_with_the_remedy(capsys, error, line):
    """Library code knows facts, the command line adds the flag or the command."""

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2 and capsys.readouterr().err == f"error: {line}\n"
    assert "--" not in str(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error", "/dev/sda"),
        PermissionError(errno.EPERM, "Operation not permitted"),  # of no file: say a signal
        ConnectionResetError(errno.ECONNRESET, "Connection reset"),
        OSError("could not get source code"),
    ],
)
def test_not_every_os_error_is_the_disk(capsys, error):
    """Others show where they come from, and nobody is told to check the free space."""

    def main():
        raise error

    with pytest.raises(OSError) as raised:
        run_script(main)
    assert raised.value is error and not capsys.readouterr().err


def test_a_folder_in_the_way(tmp_path, capsys):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: write_bytes(tmp_path / "a.json", b"1"))
    assert stop.value.code == 2 and str(tmp_path / "a.json") in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_names_as_long_as_file_systems_allow(tmp_path):
    name = "사진" * 41 + "a.png"  # 251 bytes
    write_bytes(tmp_path / name, b"1")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_error_of_a_setting_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(SettingError("seed", -1, "must be 0 or more")))
    assert (error.setting, error.value, str(error)) == ("seed", -1, "seed -1: must be 0 or more")


def killed_while_writing(path: Path) -> Path:
    """The hidden file that a process leaves if it is killed while it writes `path`."""
    before = set(path.parent.glob(".*"))
    code = (
        "import os, signal, sys\nfrom src.utils.files import write_bytes\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_bytes(sys.argv[1], b'half')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)])
    (partial,) = set(path.parent.glob(".*")) - before
    return partial


def test_a_folder_is_locked_from_inside(tmp_path):
    """By one hidden file in it and nothing beside it."""
    folder = tmp_path / "results"
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


def test_a_lock_removes_only_what_this_program_left(tmp_path):
    """Other programs' partial files stay, and those of another lock's folder, and any folder."""
    (tmp_path / "sub").mkdir()
    with lock_folder(tmp_path / "oof"):
        own = [killed_while_writing(tmp_path / "a.png"), killed_while_writing(tmp_path / "sub/a")]
        others = [killed_while_writing(tmp_path / "oof" / "a.png"), tmp_path / ".movie.mp4.partial"]
        others += [tmp_path / ".photos.partial", own[0].with_name(f"{own[0].name}-folder")]
        others[1].write_bytes(b"half of a download")
        others[2].mkdir()
        others[3].mkdir()
        with lock_folder(tmp_path):
            assert not any(path.exists() for path in own)
            assert all(path.exists() for path in others)
    with lock_folder(tmp_path / "oof"):
        assert not others[0].exists()


@pytest.mark.parametrize("encoding", ["cp949", "cp1252", "ascii"])
def test_names_that_the_terminal_cannot_show(tmp_path, encoding):
    """Are printed with their code points; nothing stops for them."""
    code = "from src.utils.cli import run_script\nrun_script(lambda: print('é사진🖼'))"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
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


@pytest.mark.parametrize("writable", [True, False])
def test_numba_has_a_place_for_what_it_compiled(writable):
    """Read-only code and no home, as in some containers: a folder for this run."""
    code = (
        f"import os, sys\nos.access = lambda *_: {writable}\n"
        "import src.metrics\n"
        "folder = os.environ.get('NUMBA_CACHE_DIR')\nprint(folder and os.path.isdir(folder))"
    )
    environment = {key: os.environ[key] for key in os.environ if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout == f"{None if writable else True}\n", done.stderr


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_disk_that_cannot_lock(tmp_path, number):
    """As some network disks and containers: a warning that names the file, and the work is done."""
    code = (
        "import fcntl, os, sys\nfrom src.utils.cli import run_script\n"
        "from src.utils.files import lock_folder, write_bytes\n"
        f"def flock(file, operation):\n    raise OSError({number}, os.strerror({number}))\n"
        "fcntl.flock = flock\n"
        "def main():\n    with lock_folder(sys.argv[1]):\n"
        "        write_bytes(sys.argv[1] + '/done', b'')\n"
        "run_script(main)"
    )
    partial = killed_while_writing(tmp_path / "a.png")  # perhaps another process writes it still
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "done").exists() and partial.exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: {tmp_path / LOCK}: this disk cannot lock files"), line
