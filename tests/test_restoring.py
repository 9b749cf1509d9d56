"""Files restored while others are read and written, and taken up where an earlier call stopped."""

import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data

from src.damage.finders import look_for_hole, report_damage
from src.damage.hole import find_hole, punch_hole
from src.pipeline import Baseline, telea
from src.restoring import (
    DISK_FULL,
    Job,
    photo_jobs,
    prepare_output,
    restore_files,
    skipped_files,
)
from src.runs import RECIPE
from src.utils import images
from src.utils.distributed import launch
from src.utils.errors import InputError
from src.utils.files import LOCK
from src.utils.images import read_photo, write_png

HIDDEN = {LOCK, RECIPE}


@pytest.fixture(scope="module")
def fabric():
    return launch("cpu")


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of seven small photos of different damage."""
    folder = tmp_path / "photos"
    for number in range(7):
        gray, _ = punch_hole(data.coffee()[:100, :120], np.random.default_rng(number))
        write_png(folder / f"{number}.png", gray)
    return folder


def times(folder: Path) -> dict[str, int]:
    """When each PNG of a folder was written, ns."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def rewritten(folder: Path, before: dict[str, int]) -> set[str]:
    """Names of the PNGs that were written since."""
    return {name for name, time in times(folder).items() if before.get(name) != time}


def test_the_same_call_does_nothing_again(photos, fabric, capsys):
    output = photos.parent / "out"
    jobs = photo_jobs(photos, output)
    restore_files(Baseline("input"), jobs, output, fabric)
    before = times(output)
    (output / "3.png").unlink()
    restore_files(Baseline("input"), jobs, output, fabric)
    assert rewritten(output, before) == {"3.png"}
    assert "6 of 7 images are already restored" in capsys.readouterr().out


def test_results_are_replaced_only_when_told_to(photos, fabric):
    """Another recipe, photo or mask: refused before anything is deleted, or made again."""
    masks, output = photos.parent / "masks", photos.parent / "out"
    mask = np.zeros((100, 120), np.uint8)
    mask[10:20, 10:90] = 255
    for number in range(7):
        write_png(masks / f"{number}.png", mask)
    one = Baseline("telea", damage="none")

    def restore(pipeline: Baseline, overwrite: bool = False) -> set[str]:
        """The results that are written; all stay as they are if it is refused."""
        before = times(output)
        jobs = photo_jobs(photos, output, masks)
        try:
            assert not restore_files(pipeline, jobs, output, fabric, overwrite)
        finally:
            assert len(times(output)) == 7
        return rewritten(output, before)

    restore(one)
    os.utime(masks / "1.png")  # saved again, the same
    assert not restore(one)
    write_png(masks / "3.png", mask[::-1].copy())
    with pytest.raises(
        InputError, match=r"holds 1 result\(s\) made from something else \(.*3\.png"
    ):
        restore(one)
    assert restore(one, overwrite=True) == {"3.png"}
    gray = np.asarray(Image.open(photos / "3.png"))
    assert np.array_equal(
        np.asarray(Image.open(output / "3.png"))[..., 0], telea(gray, mask[::-1] > 0)
    )
    other, _ = punch_hole(data.rocket()[:100, :120], np.random.default_rng(0))
    write_png(photos / "5.png", other)
    with pytest.raises(InputError, match=r"photo or mask of 5\.png is another one now"):
        restore(one)
    assert restore(one, overwrite=True) == {"5.png"}
    for pipeline in (Baseline("telea"), Baseline("input", damage="none")):
        with pytest.raises(InputError, match=r"holds 7 .*(hole|input).*add --overwrite"):
            restore(pipeline)
    assert len(restore(Baseline("input", damage="none"), overwrite=True)) == 7


def test_nothing_is_deleted_before_a_later_refusal(photos, fabric):
    output = photos.parent / "out"
    jobs = photo_jobs(photos, output)
    restore_files(Baseline("input"), jobs[:6], output, fabric)
    write_png(output / "6.png", data.camera())  # somebody's own
    before = times(output)
    with pytest.raises(InputError, match=r"6\.png: exists, but .recipe.json does not list it"):
        restore_files(Baseline("telea"), jobs, output, fabric, overwrite=True)
    assert times(output) == before


def test_folders_may_be_moved_and_copied(photos, fabric, tmp_path):
    """Photos and results together, or one of them: nothing is restored again."""
    (tmp_path / "a").mkdir()
    folder = Path(shutil.move(photos, tmp_path / "a" / "photos"))
    restore_files(
        Baseline("input"), photo_jobs(folder, tmp_path / "a/out"), tmp_path / "a/out", fabric
    )
    (tmp_path / "a").rename(tmp_path / "b")
    shutil.copytree(tmp_path / "b" / "photos", tmp_path / "copied")
    before = times(tmp_path / "b" / "out")
    for place in (tmp_path / "b" / "photos", tmp_path / "copied"):
        jobs = photo_jobs(place, tmp_path / "b" / "out")
        assert not restore_files(Baseline("input"), jobs, tmp_path / "b" / "out", fabric)
    assert len(before) == 7 and times(tmp_path / "b" / "out") == before


def test_every_photo_gets_its_own_result(photos, fabric):
    (photos / "2.png").write_bytes(b"broken")
    output = photos.parent / "out"
    seen = []

    class Watched(Baseline):
        def __call__(self, gray, mask):
            assert mask.any()
            seen.append(threading.current_thread())
            return super().__call__(gray, mask)

    failures = restore_files(Watched("telea"), photo_jobs(photos, output), output, fabric)
    assert len(failures) == 1 and "2.png" in failures[0]
    assert set(seen) == {threading.main_thread()}
    for number in range(7):
        target = output / f"{number}.png"
        assert target.exists() == (number != 2)
        if target.exists():
            gray, rgb = (
                np.asarray(Image.open(photos / f"{number}.png")),
                np.asarray(Image.open(target)),
            )
            assert (rgb == telea(gray, find_hole(gray))[..., None]).all()
    assert {p.name for p in output.iterdir()} == HIDDEN | {f"{n}.png" for n in (0, 1, 3, 4, 5, 6)}


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_broken_manifest_is_no_licence_to_overwrite(photos, fabric, content):
    output = photos.parent / "out"
    jobs = photo_jobs(photos, output)
    restore_files(Baseline("input"), jobs, output, fabric)
    (output / RECIPE).write_text(content)
    with pytest.raises(
        InputError, match=r"0\.png: exists, but .recipe.json does not list it|not JSON"
    ):
        prepare_output(jobs, Baseline("input").recipe, output, overwrite=True)
    assert len(times(output)) == 7


def test_jobs_have_names_of_their_own(tmp_path):
    """a.jpg beside a.png, subfolders, and results inside the folder of the photos."""
    for name in ("a.jpg", "a.png", "deep/a.png", "out/old.png"):
        write_png((tmp_path / name).with_suffix(".png"), data.camera()[:20, :30])
    Image.open(tmp_path / "a.png").save(tmp_path / "a.jpg")
    output = tmp_path / "out"
    jobs = photo_jobs(tmp_path, output)
    assert {job.output.relative_to(output).as_posix() for job in jobs} == {
        "a.jpg.png",
        "a.png.png",
        "deep/a.png",
    }
    assert photo_jobs(tmp_path / "a.jpg", output) == [Job(tmp_path / "a.jpg", output / "a.png")]
    with pytest.raises(InputError, match="would overwrite"):
        photo_jobs(tmp_path / "deep", tmp_path / "deep")
    shutil.rmtree(tmp_path / "deep")
    (tmp_path / "deep").mkdir()
    with pytest.raises(InputError, match="no image file found"):
        photo_jobs(tmp_path / "deep", output)


def test_names_that_would_share_a_result(tmp_path, fabric):
    """As browsers make them, and as file systems that know no capitals mistake them."""
    for name in ("a.jpg", "a.png", "B.jpg", "b.png"):
        Image.fromarray(data.camera()[:40, :50]).save(tmp_path / name)
    output = tmp_path / "out"
    names = [job.output.name for job in photo_jobs(tmp_path, output)]
    assert names == ["B.jpg.png", "a.jpg.png", "a.png.png", "b.png.png"]
    for _ in range(2):
        assert not restore_files(Baseline("input"), photo_jobs(tmp_path, output), output, fabric)
    Image.fromarray(data.camera()[:40, :50]).save(tmp_path / "a.jpg.webp")
    with pytest.raises(InputError, match="would have the same result; rename one"):
        restore_files(Baseline("input"), photo_jobs(tmp_path, output), output, fabric)


def test_every_file_of_a_folder_is_restored_or_named(tmp_path, fabric, capsys, monkeypatch):
    """What browsers and phones save, pages, a folder that is called like a photo, and files that
    are none."""
    folder, output, page = (
        tmp_path / "album",
        tmp_path / "album" / "restored",
        Image.fromarray(data.camera()[:40, :50]),
    )
    (folder / "Album.jpg").mkdir(parents=True)
    page.save(folder / "family.jfif", "JPEG")
    page.save(folder / "UPPER.PNG")
    page.save(folder / "drawn.gif")
    page.save(folder / "Album.jpg" / "inside.jpe", "JPEG")
    page.save(folder / "scan.tif", save_all=True, append_images=[page, page])
    shutil.copy(Path(__file__).with_name("phone.heic"), folder)
    for name in ("Thumbs.db", ".DS_Store", "notes.txt"):
        (folder / name).write_bytes(b"no image")
    jobs = photo_jobs(folder, output)
    assert not restore_files(Baseline("input"), jobs, output, fabric)
    restored = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    names = {
        "family.png",
        "UPPER.png",
        "drawn.png",
        "Album.jpg/inside.png",
        "scan.png",
        "phone.png",
    }
    assert restored == names
    assert "scan.tif: 3 pages or frames; only the first is restored" in capsys.readouterr().out
    named = {Path(line.split(":")[0]).name for line in skipped_files(folder, output, jobs)}
    assert named == {"Thumbs.db", "notes.txt"}
    # without the package that reads it
    monkeypatch.setattr(images, "IMAGE_SUFFIXES", images.IMAGE_SUFFIXES - images.HEIF_SUFFIXES)
    (line,) = [line for line in skipped_files(folder, output, jobs) if "heic" in line]
    assert (
        "phone.heic: skipped: HEIC needs a package that is not installed: pip install pi-heif"
        in line
    )


def test_results_keep_resolution_and_exif(tmp_path, fabric):
    """Turned ones too; and they say that they are sRGB."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.DateTime] = 6, "2001:02:03 04:05:06"
    exif[ExifTags.Base.Artist] = "somebody"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1953:05:12 00:00:00"
    page = Image.fromarray(data.camera()[:40, :50])
    page.save(tmp_path / "a.jpg", dpi=(300, 600), exif=exif)
    page.save(tmp_path / "b.tif", dpi=(1200, 1200))
    page.save(tmp_path / "c.png")
    output = tmp_path / "out"
    assert not restore_files(Baseline("input"), photo_jobs(tmp_path, output), output, fabric)
    found = {}
    for path in sorted(output.glob("*.png")):
        with Image.open(path) as image:
            found[path.stem] = tuple(round(value) for value in image.info.get("dpi", ()))
            assert "srgb" in image.info, path
            if path.stem == "a":
                kept = image.getexif()
                assert kept[ExifTags.Base.DateTime] == "2001:02:03 04:05:06"
                assert kept[ExifTags.Base.Artist] == "somebody"
                dates = kept.get_ifd(ExifTags.IFD.Exif)
                assert dates == {ExifTags.Base.DateTimeOriginal: "1953:05:12 00:00:00"}
                assert ExifTags.Base.Orientation not in kept
                assert image.size == (40, 50)
    assert found == {"a": (300, 600), "b": (1200, 1200), "c": ()}


def test_what_is_transparent_is_lost(tmp_path, fabric):
    """A hole that was erased is filled; of a cut-out, most of which is transparent, the rest is
    kept."""
    gray = data.camera()[100:200, 100:200]
    alpha = np.full(gray.shape, 255, np.uint8)
    alpha[40:60, 30:50] = 0
    for name, clear in (("hole", alpha), ("cut_out", 255 - alpha)):
        image = Image.fromarray(gray)
        image.putalpha(Image.fromarray(clear))
        image.save(tmp_path / f"{name}.png")
    output = tmp_path / "out"
    assert not restore_files(Baseline("telea"), photo_jobs(tmp_path, output), output, fabric)
    results = {path.stem: np.asarray(Image.open(path))[..., 0] for path in output.glob("*.png")}
    mask, line = report_damage(look_for_hole, *read_photo(tmp_path / "cut_out.png")[:2])
    assert line == "no damage found; 96.0% is transparent and stays white" and not mask.any()
    _, line = report_damage(look_for_hole, *read_photo(tmp_path / "hole.png")[:2])
    assert line == "no damage found; 4.0% is transparent and counts as lost"
    hole = results["hole"]
    assert (hole[alpha > 0] == gray[alpha > 0]).all() and hole[alpha == 0].max() < 250
    assert (results["cut_out"][alpha > 0] == 255).all()


def test_results_beside_their_photos(photos, fabric):
    """Run repeatedly, with a new photo, and with two that would have one result."""
    for path in photos.iterdir():
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    Image.open(photos / "0.bmp").save(photos / "0.jpg")
    for _ in range(3):
        jobs = photo_jobs(photos, photos)
        assert not restore_files(Baseline("input"), jobs, photos, fabric) and len(jobs) == 8
        before = times(photos)
        assert set(before) == {
            "0.bmp.png",
            "0.jpg.png",
            *(f"{number}.png" for number in range(1, 7)),
        }
    Image.open(photos / "1.bmp").save(photos / "new.bmp")
    assert not restore_files(Baseline("input"), photo_jobs(photos, photos), photos, fabric)
    assert rewritten(photos, before) == {"new.png"} and not skipped_files(photos, photos, jobs)


def test_two_programs_never_share_a_folder(photos):
    """The second one is told so; the first one ends as if nothing had been."""
    output = photos.parent / "out"
    code = (
        "import sys, time\nfrom src.utils.files import lock_folder\n"
        "with lock_folder(sys.argv[1]):\n    print('locked', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, output]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match="another process is working there"):
            restore_files(Baseline("input"), photo_jobs(photos, output), output, launch("cpu"))
        other.stdin.close()
        assert other.wait() == 0
    assert restore_files(Baseline("input"), photo_jobs(photos, output), output, launch("cpu")) == []


def test_a_failed_write_is_that_of_one_photo(photos, fabric):
    """A folder where a PNG should be: a line of its own, and the others are restored."""
    output = photos.parent / "out"

    class Spoiling(Baseline):
        def __call__(self, gray, mask):
            (output / "1.png").mkdir(exist_ok=True)
            return super().__call__(gray, mask)

    (failure,) = restore_files(Spoiling("input"), photo_jobs(photos, output), output, fabric)
    assert failure.startswith(f"{output / '1.png'}: not written (")
    assert {path.name for path in output.iterdir() if path.is_file()} - HIDDEN == {
        f"{number}.png" for number in (0, 2, 3, 4, 5, 6)
    }


@pytest.mark.parametrize("number", sorted(DISK_FULL))
def test_a_disk_that_takes_nothing_ends_it(photos, fabric, monkeypatch, number):
    def full(path, rgb, details):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("src.restoring.write_png", full)
    output = photos.parent / "out"
    with pytest.raises(OSError, match=os.strerror(number)):
        restore_files(Baseline("input"), photo_jobs(photos, output), output, fabric)


def test_another_photo_under_the_same_name(tmp_path, fabric):
    """Of equal size and time, as uncompressed scans and backups: the content tells them apart."""
    photo, output = tmp_path / "photos" / "scan.bmp", tmp_path / "out"
    photo.parent.mkdir()
    pages = [Image.fromarray(data.camera()[i : i + 40, :50]) for i in (0, 200)]
    for page, overwrite in zip(pages, (False, True), strict=True):
        page.save(photo)
        os.utime(photo, (1, 1))
        jobs = photo_jobs(photo.parent, output)
        if overwrite:
            with pytest.raises(InputError, match="photo or mask of scan"):
                restore_files(Baseline("input"), jobs, output, fabric)
        assert not restore_files(Baseline("input"), jobs, output, fabric, overwrite)
        assert np.array_equal(np.asarray(Image.open(output / "scan.png"))[..., 0], page)


def test_a_result_that_was_retouched_is_kept(photos, fabric):
    """Even if others may be replaced, and then nothing is; moved away, it is made again."""
    output = photos.parent / "out"
    jobs = photo_jobs(photos, output)
    restore_files(Baseline("input"), jobs, output, fabric)
    Image.new("RGB", (120, 100), "red").save(output / "3.png")
    restore_files(Baseline("input"), jobs, output, fabric)
    before = times(output)
    with pytest.raises(InputError, match=r"3\.png: was changed after it was restored.*; move it"):
        restore_files(Baseline("telea"), jobs, output, fabric, overwrite=True)
    assert times(output) == before
    (output / "3.png").unlink()
    for name in ("telea", "input"):  # its new result is known again
        assert not restore_files(Baseline(name), jobs, output, fabric, overwrite=True)
    assert len(rewritten(output, before)) == 7


def test_the_result_of_one_photo_is_a_file(photos, tmp_path, script):
    """If it is named so, with nothing beside it; a folder of photos needs a folder."""
    result, photo = tmp_path / "sub" / "result.PNG", photos / "1.png"
    infer = ("infer", "--baseline", "telea", "--damage", "hole", "--output", result, "--input")
    assert script(*infer, photo)[0] == 0
    assert list(result.parent.iterdir()) == [result] and Image.open(result).size == (120, 100)
    before = result.read_bytes()
    status, _, stderr = script(*infer, photos / "2.png")
    assert status == 2 and f"{result}: exists already; add --overwrite" in stderr
    assert result.read_bytes() == before and script(*infer, photos / "2.png", "--overwrite")[0] == 0
    assert result.read_bytes() != before
    result.unlink()
    for source, name, message in (
        (photos, result, "names an image file, expected a folder"),
        (photo, tmp_path / "a.jpg", "names an image file, expected a PNG or a folder"),
        (photo.with_name("none.png"), result, "none.png: no such photo or folder"),
        (photo, photo, "would overwrite"),
    ):
        status, _, stderr = script(*infer, source, "--output", name, "--overwrite")
        assert status == 2 and message in stderr and not result.exists(), stderr
    assert "leave one out" in script(*infer, photo, "--mask", photo)[2]


def test_no_option_is_ignored(script):
    assert "leave one out" in script("infer", "--ensemble", "--fold", 1)[2]
    given = ("--pred", "a", "--gt", "a", "--input", "a", "--tta", 2)
    assert "--tta and --decode need --fold" in script("evaluate", *given)[2]


def test_many_photos_take_the_memory_of_a_few(tmp_path, fabric):
    for number in range(100):
        Image.new("L", (1000, 500), number).save(tmp_path / f"{number}.png")
    jobs = photo_jobs(tmp_path, tmp_path / "out")
    tracemalloc.start()
    peaks = []
    for count in (10, 100):
        tracemalloc.reset_peak()
        assert not restore_files(Baseline("input"), jobs[:count], tmp_path / "out", fabric)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20 * 1_500_000  # bytes; a few results, not 90 more
