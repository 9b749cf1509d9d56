"""Building, packing and restoring in real processes that are killed, and taken up by the same command."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image
from skimage import data

from src.runtime.command_line import run_script
from src.damage.hole import punch_hole
from src.datasets.build import RECORD, build, photos_below
from src.datasets.pack import INDEX, PACK, PART, pack
from src.files import InputError
from src.runtime.processes import parallel_map
from tests.trees import begin, finished, hashes, interrupt, wait_for

KILL, CTRL_C, TERMINATE = signal.SIGKILL, signal.SIGINT, signal.SIGTERM


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Sixty damaged grey photos of 200 px."""
    folder = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(0)
    for number in range(60):
        top, left = rng.integers(0, 200, 2)
        gray, _ = punch_hole(data.coffee()[top : top + 200, left : left + 200], rng)
        Image.fromarray(gray).save(folder / f"{number:03d}.png")
    return folder


def advanced(progress, begun, more):
    now = progress()
    assert now >= begun, "finished work was thrown away"
    return now >= begun + more


def interrupted_until_done(command, folder, progress, signals, script, tmp_path):
    """Run a command, interrupted by each of the signals after a random amount of work, then to its end.

    After each interruption every finished file is whole, and none of them is written again later.
    """
    rng, log, before = np.random.default_rng(len(command)), tmp_path / "log", {}
    for number in signals:
        begun, more = progress(), rng.integers(1, 4)
        process = begin(command, log)
        wait_for(partial(advanced, progress, begun, more), process)
        os.killpg(process.pid, signal.SIGSTOP)  # so that it does not finish meanwhile
        status, _, err = script(str(command[0]).removesuffix(".py"), *command[1:])
        assert status == 2 and f"{folder}: another process works there" in err, err
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(rng.uniform(0, 0.03))
        status = interrupt(process, number)
        assert status == (130 if number == CTRL_C else -number)
        if number == CTRL_C:  # the others give no time to say anything
            assert "interrupted" in log.read_text() and "Traceback" not in log.read_text(), log.read_text()
        after = finished(folder.parent)
        assert progress() >= begun + more
        assert {path: after.get(path) for path in before} == before
        before = after
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = finished(folder.parent)
    assert {path: after.get(path) for path in before} == before
    assert not list(folder.parent.rglob(".*.partial"))
    return done.stdout


def test_build(photos, small_folder, script, tmp_path):
    folder = tmp_path / "where" / "data"
    command = ["prepare_data.py", "build", "--photos", photos, "--data-dir", folder]
    command += ["--crops-per-photo", 3, "--test-photos", 0.3]

    def progress():  # photos inspected and images written
        record = folder / RECORD
        lines = record.read_text().count("\n") if record.exists() else 0
        return lines + len(list(folder.rglob("[A-Z]*.png")))

    out = interrupted_until_done(command, folder, progress, (KILL, CTRL_C, TERMINATE), script, tmp_path)
    assert hashes(folder) == hashes(small_folder)
    before = finished(folder)
    status, again, _ = script("prepare_data", *command[1:])
    assert status == 0 and "finished before and left as it is" in again and finished(folder) == before
    assert again.splitlines()[-1] == out.splitlines()[-1] and again.count("skipped") == 2


def test_build_refuses_another_recipe(photos, small_folder, tmp_path):
    folder, own = tmp_path / "data", shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(small_folder, folder)

    def again(crops=3, share=0.3, seed=0):
        return build(photos_below(own), own, folder, crops, share, seed)

    again()
    before = finished(folder)
    for other, message in (
        ({"crops": 2}, "crops_per_photo was 3 and is 2"),
        ({"share": 0.5}, r"test_photos was 0\.3 and is 0\.5"),
        ({"seed": 1}, "seed was 0 and is 1"),
    ):
        with pytest.raises(InputError, match=f"data: begun with .*{message}.* name a new folder"):
            again(**other)
    photo, first = own / "coffee.png", (photos / "coffee.png").stat()
    os.utime(photo, ns=(first.st_atime_ns, first.st_mtime_ns + 1))
    with pytest.raises(InputError, match=r"coffee\.png was added, removed or changed"):
        again()
    photo.unlink()
    with pytest.raises(InputError, match=r"coffee\.png was added, removed or changed"):
        again()
    shutil.copy2(photos / "coffee.png", photo)
    shutil.copy2(photo, own / "more.png")
    with pytest.raises(InputError, match=r"more\.png was added, removed or changed"):
        again()
    (own / "more.png").unlink()
    again()
    assert finished(folder) == before
    (folder / RECORD).write_text("[")
    with pytest.raises(InputError, match=rf"{RECORD}: broken; remove"):
        again()
    (folder / RECORD).unlink()
    with pytest.raises(InputError, match="not empty; name a new folder"):
        again()
    assert finished(folder) == before


def test_a_photo_changed_during_the_build(photos, tmp_path, script):
    """Changed after its inspection, before it is cropped: no table is written, now or later."""
    own, folder = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "data"
    command = ["prepare_data.py", "build", "--photos", own, "--data-dir", folder, "--crops-per-photo", 1]
    process = begin(command, tmp_path / "log")
    wait_for(lambda: (folder / RECORD).exists(), process)
    Image.fromarray(data.coffee()[::-1]).save(own / "coffee.png")
    assert process.wait(60) == 2
    assert "a photo changed meanwhile; remove" in (tmp_path / "log").read_text()
    assert not list(folder.glob("*.csv"))
    status, _, err = script("prepare_data", *command[1:])
    assert status == 2 and "coffee.png was added, removed or changed" in err
    assert not list(folder.glob("*.csv"))


def test_build_beside_its_photos(photos, tmp_path):
    """A data folder inside of the photo folder: what a build wrote is no photo of the next one."""
    own = shutil.copytree(photos, tmp_path / "photos")
    found = photos_below(own, own / "data")
    build(found, own, own / "data", 1, 0.3, 0)
    assert photos_below(own, own / "data") == found and len(photos_below(own)) > len(found)


def test_too_few_photos_leave_an_empty_folder(photos, tmp_path):
    with pytest.raises(InputError, match="1 usable colour photos, at least 2 needed"):
        build([photos / "coffee.png", photos / "grey.png"], photos, tmp_path / "data", 1, 0.3, 0)
    assert not list((tmp_path / "data").iterdir())


def test_pack(small_folder, script, tmp_path):
    folder = tmp_path / "where" / "data"
    folder.mkdir(parents=True)
    reference = shutil.copytree(small_folder, tmp_path / "reference")
    # 24 rows of nine images, so that there is enough to interrupt
    rows = (reference / "train.csv").read_text().splitlines()
    table = [rows[0]]
    for number in range(24):
        source = rows[1 + number % 9].split(",")
        names = [path.replace(path[-9:-4], f"{number:05d}") for path in source]
        table.append(",".join(names))
        for old, new in zip(source, names, strict=True):
            if number >= 9:
                shutil.copy2(reference / old, reference / new)
    (reference / "train.csv").write_text("\n".join(table) + "\n")
    shutil.copytree(reference, folder, dirs_exist_ok=True)
    pack(reference)
    shutil.copy2(reference / INDEX, folder)  # of a deleted pack: must not vouch for the next
    index = folder / (INDEX + PART)

    def progress():
        return index.read_text().count("\n") if index.exists() else 0

    command = ["prepare_data.py", "pack", "--data-dir", folder]
    interrupted_until_done(command, folder, progress, (KILL, CTRL_C), script, tmp_path)
    assert hashes(folder) == hashes(reference)
    # between the two last renames
    before = (folder / PACK).stat().st_mtime_ns
    (folder / PACK).rename(folder / (PACK + PART))
    assert pack(folder) == 24 and (folder / PACK).stat().st_mtime_ns == before
    assert not (folder / (PACK + PART)).exists()


@pytest.mark.parametrize(
    ("baseline", "signals"),
    [(True, (KILL, CTRL_C)), (False, (KILL, TERMINATE))],
    ids=["telea", "restorer"],
)
def test_restoring(damaged, random_run, script, tmp_path, monkeypatch, baseline, signals):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # more threads wait for each other on a busy machine
    folder, alone, photos = tmp_path / "where" / "out", tmp_path / "alone", tmp_path / "photos"
    count = 60 if baseline else 24
    photos.mkdir()
    for path in sorted(damaged.iterdir())[:count]:
        shutil.copy2(path, photos)
    which = ["--baseline", "telea"] if baseline else ["--output-dir", random_run, "--name", "random"]
    command = ["infer.py", *which, "--device", "cpu", "--input", photos, "--output"]
    status, _, err = script("infer", *command[1:], alone)
    assert status == 0, err

    def progress():
        return len(list(folder.glob("[0-9]*.png")))

    out = interrupted_until_done([*command, folder], folder, progress, signals, script, tmp_path)
    assert f"of {count} images were restored before" in out
    assert len(hashes(folder)) == count and hashes(folder) == hashes(alone)


def square_or_die(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_a_killed_worker_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: list(parallel_map(square_or_die, range(10), "squares")) and 0)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in err
    assert "error: squares: a process was ended from outside" in err and "same command again" in err
