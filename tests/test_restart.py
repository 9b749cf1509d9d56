"""Building and restoring again: what is finished stays, and another recipe is refused."""

import os
import shutil
import signal

import pytest
from PIL import Image
from skimage import data

from src.datasets.build import build, photos_below
from src.utils.cli import run_script
from src.utils.errors import InputError
from src.utils.images import list_images
from src.utils.processes import parallel_map
from tests.trees import begin, finished, interrupt, wait_for


def test_build_refuses_another_recipe(photos, small_folder, tmp_path):
    folder, own = tmp_path / "data", shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(small_folder, folder)

    def again(seed=0):
        return build(photos_below(own, folder), own, folder, 3, 0.3, seed)

    again()
    before = finished(folder)
    with pytest.raises(InputError, match=r"seed was 0 and is 1.* name a new folder"):
        again(seed=1)
    photo = own / "coffee.png"
    os.utime(photo)  # touched, not changed
    again()
    photo.write_bytes(photo.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=r"coffee\.png was changed"):
        again()
    photo.unlink()
    with pytest.raises(InputError, match=r"coffee\.png was removed"):
        again()
    shutil.copy2(photos / "coffee.png", photo)
    again()
    assert finished(folder) == before
    before.pop(folder / "recipe.json")
    (folder / "recipe.json").unlink()
    with pytest.raises(InputError, match="not empty; name a new folder"):
        again()
    assert finished(folder) == before


def test_build_beside_its_photos(photos, tmp_path):
    """A data folder inside the photo folder: what a build wrote is no photo of the next one."""
    own = shutil.copytree(photos, tmp_path / "photos")
    found = photos_below(own, own / "data")
    build(found, own, own / "data", 1, 0.3, 0)
    assert photos_below(own, own / "data") == found and len(list_images(own)) > len(found)


def test_too_few_photos_leave_the_folder_free(photos, tmp_path):
    """Nothing but the hidden lock stays there, and other photos may be tried."""
    with pytest.raises(InputError, match="1 usable colour photos, at least 2 needed"):
        build([photos / "coffee.png", photos / "grey.png"], photos, tmp_path / "data", 1, 0.3, 0)
    assert not finished(tmp_path / "data")
    usable = [photos / "coffee.png", photos / "rocket.jpg"]
    assert len(build(usable, photos, tmp_path / "data", 1, 0.3, 0)[0]) == 2


def test_restoring_is_killed_and_interrupted(tmp_path, script):
    photos, folder, alone = (tmp_path / name for name in ("photos", "out", "alone"))
    photos.mkdir()
    for offset in range(60):
        Image.fromarray(data.camera()[offset : offset + 300]).save(photos / f"{offset:02d}.png")
    command = ["infer.py", "--baseline", "telea", "--damage", "hole", "--input", photos, "--output"]
    assert script("infer", *command[1:], alone)[0] == 0
    before = {}
    for number, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        process = begin([*command, folder], tmp_path / "log")
        wanted = len(before) + 3
        wait_for(lambda wanted=wanted: len(list(folder.glob("*.png"))) >= wanted, process)
        os.killpg(process.pid, signal.SIGSTOP)  # so that it does not finish meanwhile
        status, _, err = script("infer", *command[1:], folder)
        assert status == 2 and f"{folder}: another process is working there" in err
        os.killpg(process.pid, signal.SIGCONT)
        assert interrupt(process, number) == expected
        assert "Traceback" not in (tmp_path / "log").read_text()
        after = finished(folder)
        assert len(before) < len(after) < 60
        assert {path: after[path] for path in before} == before
        before = after
    status, out, _ = script("infer", *command[1:], folder)
    assert status == 0 and f"{len(before)} of 60 images are already restored" in out
    after = finished(folder)
    assert {path: after[path] for path in before} == before and len(after) == 60
    assert all(path.read_bytes() == (alone / path.name).read_bytes() for path in after)


def square_or_die(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_a_killed_worker_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: list(parallel_map(square_or_die, range(10), "squares")) and 0)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in err
    assert "error: squares: a worker process was killed" in err and "same command again" in err
