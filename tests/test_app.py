"""The app as its users meet it: a real server, a real browser, a real upload."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Error as BrowserError
from skimage import data

from app import KEEP_RESULTS, Handlers
from src.color.lattice import luma
from src.damage.hole import find_hole, punch_hole
from src.models import create_model
from src.models.checkpoints import save_model
from src.pipeline import load_finder
from src.session import SHOWN, Session, marked
from tests.browser import browser_page


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The app with the shipped weights: its address, and its folder of temporary files."""
    folder = tmp_path_factory.mktemp("app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", port, "--output-dir", folder / "outputs"]
    (folder / "tmp").mkdir()
    with open(folder / "log", "wb") as log:
        nobody = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
        environment = {"TMPDIR": str(folder / "tmp"), **nobody}
        process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, env=os.environ | environment
        )
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    assert process.poll() is None, (folder / "log").read_text()
    yield f"http://127.0.0.1:{port}", folder / "tmp"
    process.terminate()
    process.wait(120)
    assert not list((folder / "tmp").iterdir()), "uploads and results outlive the server"


@pytest.fixture(scope="module")
def megapixel(tmp_path_factory) -> Path:
    """A damaged grey photo of one megapixel."""
    rgb = np.asarray(Image.fromarray(data.chelsea()).resize((1250, 832)))
    gray, _ = punch_hole(rgb, np.random.default_rng(3))
    path = tmp_path_factory.mktemp("photo") / "chelsea.png"
    Image.fromarray(gray).save(path)
    return path


def upload(page, path: Path) -> None:
    page.set_input_files("#upload input[type=file]", path)


def download(page, path: Path) -> np.ndarray:
    """What the button gives now."""
    with page.expect_download() as found:
        page.locator("#download").click()
    assert found.value.suggested_filename.endswith("_restored.png")
    found.value.save_as(path)
    return np.asarray(Image.open(path))


def shown(page) -> str:
    """The addresses of the pictures that are compared."""
    return page.eval_on_selector_all("#compare img", "all => all.map(img => img.src).join()")


def wait_for_other_picture(page, before: str) -> None:
    """Wait until what is compared is something else than `before`; the download changes with it."""
    pictures = "[...document.querySelectorAll('#compare img')].map(img => img.src).join()"
    page.wait_for_function(f"before => {pictures} != before", arg=before, timeout=300_000)


def test_upload_restore_choose_download(server, megapixel, tmp_path):
    address, folder = server
    gray, other = np.asarray(Image.open(megapixel)), tmp_path / "other.png"
    Image.fromarray(gray[:300, :400]).save(other)
    with browser_page() as (page, complaints):
        page.goto(address)
        upload(page, megapixel)
        page.locator("#found").get_by_text("damage").wait_for()
        page.locator("#restore").click()
        page.locator("#compare img").first.wait_for(timeout=300_000)
        page.locator("#colorizations img").nth(5).wait_for()
        sizes = page.eval_on_selector_all("#compare img", "all => all.map(img => img.naturalWidth)")
        assert len(sizes) == 2 and all(sizes)
        likeliest = download(page, tmp_path / "chelsea_restored.png")
        before = shown(page)
        page.locator("#colorizations button img").nth(3).click()
        wait_for_other_picture(page, before)
        another, before = download(page, tmp_path / "another.png"), shown(page)
        page.locator("#saturation input[type=range]").focus()
        page.keyboard.press("Home")
        page.keyboard.press("Tab")
        wait_for_other_picture(page, before)
        grey = download(page, tmp_path / "grey.png")
        kept = [path.name for path in folder.rglob("*_restored.png")]
        assert set(kept) == {"chelsea_restored.png"} and len(kept) <= KEEP_RESULTS
        page.locator("#upload").get_by_label("Clear").click()
        page.locator("#compare img").first.wait_for(state="detached")
        upload(page, other)
        page.locator("#found").get_by_text("damage").wait_for()
        assert page.locator("#colorizations img").count() == 0  # none of the photo before
        assert not complaints
    hole = find_hole(gray)
    for rgb in (likeliest, another, grey):
        assert rgb.shape == (*gray.shape, 3)
        assert (luma(rgb) == gray)[~hole].all() and (luma(rgb) != gray)[hole].mean() > 0.9
    assert np.ptp(likeliest, axis=2).mean() > 5
    assert (likeliest != another).any(axis=2).mean() > 0.2
    assert np.ptp(grey, axis=2).mean() < 2


def test_damage_need_not_be_repaired(server, megapixel, tmp_path):
    """With the box unchecked the hole stays, and the time is told."""
    gray = np.asarray(Image.open(megapixel))
    with browser_page() as (page, complaints):
        page.goto(server[0])
        upload(page, megapixel)
        page.locator("#found").get_by_text("flagged as damage").wait_for()
        page.get_by_label("Repair damage").uncheck()
        page.locator("#restore").click()
        page.locator("#compare img").first.wait_for(timeout=300_000)
        page.locator("#took").get_by_text(
            re.compile(r"Restored in \d+\.\d s; 0\.0% was painted in")
        ).wait_for()
        assert (luma(download(page, tmp_path / "restored.png")) == gray).all()
        assert not complaints


def test_brush_marks_what_is_painted_in(server, tmp_path):
    """A stroke through the middle changes the luma there and nowhere else."""
    address, _ = server
    gray = luma(data.chelsea())
    path, found = tmp_path / "cat.png", load_finder("auto")(gray).mask
    Image.fromarray(gray).save(path)
    with browser_page() as (page, complaints):
        page.goto(address)
        upload(page, path)
        page.locator("#found").get_by_text("damage").wait_for()
        canvas = page.locator("#damage canvas").first
        for _ in range(20):  # until a stroke has reached the server; the editor loads for a while
            canvas.scroll_into_view_if_needed()
            box = canvas.bounding_box()
            page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + box["height"] / 2)
            page.mouse.down()
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + box["height"] / 2, steps=10)
            page.mouse.up()
            page.wait_for_timeout(500)
            page.locator("#restore").click()
            page.locator("#compare img").first.wait_for(timeout=300_000)
            with suppress(
                BrowserError
            ):  # the result of the click before is gone, the next is not there
                changed = (luma(download(page, tmp_path / "restored.png")) != gray) & ~found
                if changed.any():
                    break
        assert not complaints
    rows, columns = np.nonzero(changed)
    assert 50 < changed.sum() < 0.3 * changed.size
    assert np.ptp(rows) < 0.5 * gray.shape[0] and np.ptp(columns) < 0.7 * gray.shape[1]


@pytest.mark.parametrize("width", [400, 1280])
def test_damage_is_drawn_on_the_photo(server, tmp_path, width):
    """A dark hole in the second quarter of the rows and of the columns, seen in a screenshot."""
    with browser_page(width) as (page, complaints):
        for rows, columns in ((64, 64), (256, 256), (960, 200), (160, 960), (3000, 4000)):
            noise = np.random.default_rng(0).uniform(100, 140, (8, 8))
            gray = cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC).astype(
                np.uint8
            )
            gray[rows // 4 : rows // 2, columns // 4 : columns // 2] = 20
            Image.fromarray(gray).save(tmp_path / "photo.png")
            page.goto(server[0])
            upload(page, tmp_path / "photo.png")
            page.locator("#found").get_by_text("6.2% was flagged as damage").wait_for()
            for _ in range(40):  # the editor loads for a while
                page.wait_for_timeout(300)
                marks, (left, top, wide, high) = marks_on_photo(
                    page.locator("#damage").screenshot()
                )
                if max(wide, high) > 250 and marks.sum() > 0.03 * wide * high:
                    break
            assert marks.any() and not complaints
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert max(wide, high) > 250, (wide, high)  # large on the page, whatever its pixels
            left += (
                wide - high * columns / rows
            )  # the editor's tools lie on the left of a wide photo
            y, x = np.nonzero(marks)
            place = np.array([np.percentile(y, [1, 99]) - top, np.percentile(x, [1, 99]) - left])
            expected = np.outer([high, high * columns / rows], [0.25, 0.5])
            assert np.abs(place - expected).max() <= 3, (rows, columns, place, expected)


def marks_on_photo(screenshot: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The red marks on the grey photo of a screenshot, (H, W) bool; and the photo's box."""
    screen = Image.open(BytesIO(screenshot)).convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(screen).astype(int), -1, 0)
    marks = red - green > 60
    photo = marks | (np.abs(red - blue) < 8) & (red > 80) & (red < 160)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(photo.astype(np.uint8))
    largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    return marks & (labels == largest), stats[largest, :4]


def test_refused_uploads(server, tmp_path):
    address, _ = server
    Image.new("L", (4001, 3001)).save(tmp_path / "large.png")
    Image.new("L", (6000, 5000)).save(tmp_path / "huge.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "heavy.png").write_bytes(bytes(51 << 20))
    for name, message in (
        ("large.png", "more than 12 megapixels"),
        ("huge.png", "more than 12 megapixels"),
        ("text.png", "not an image"),
        ("heavy.png", "maximum"),
    ):
        with browser_page() as (page, _):
            page.goto(address)
            upload(page, tmp_path / name)
            page.get_by_text(message).first.wait_for()


def test_only_this_machine_is_served(server):
    port = int(server[0].rsplit(":", 1)[1])
    for host, refused in (
        ("127.0.0.1", False),
        ("127.0.0.2", True),
    ):  # 0.0.0.0 would answer on both
        with socket.socket() as client:
            assert (client.connect_ex((host, port)) != 0) is refused


def test_corrections_keep_what_was_found_exactly():
    found = np.zeros((3000, 2000), bool)
    found[1001:1500, 333:777] = True
    photo = Session("photo", np.zeros(found.shape, np.uint8), found)
    layer = marked(found).copy()
    assert layer.shape == (1024, 683, 4)
    assert (photo.corrected([layer]) == found).all()
    assert not photo.corrected([]).any()
    layer[:100, :100] = 255
    added = photo.corrected([layer])
    assert added[:290, :290].all() and (added[310:] == found[310:]).all()


@pytest.mark.parametrize("side", [64, 300, 1500, 4000])
def test_strokes_on_photos_of_any_size(side):
    """A stroke of four pixels of the editor down the middle marks a line there, and rubs it out
    again."""
    photo = Session("photo", np.zeros((side, side), np.uint8), np.zeros((side, side), bool))
    layer = marked(photo.found).copy()
    assert layer.shape == (SHOWN, SHOWN, 4)
    layer[:, SHOWN // 2 - 2 : SHOWN // 2 + 2] = 255
    mask = photo.corrected([layer])
    middle, wide = side // 2, max(1, 4 * side / SHOWN)
    assert mask[:, middle - 1 : middle + 1].any(axis=1).all()
    assert mask.sum(axis=1).max() <= wide + 2
    photo.found = mask
    assert not photo.corrected([np.zeros_like(layer)]).any()


def test_other_models_are_refused(script, tmp_path):
    for name, options, message in (
        ("full_pipeline", {"encoder": "lite0"}, "holds a full_pipeline, the app needs a restorer"),
        ("detector", {}, "holds a detector, expected a model that restores photos"),
    ):
        model = create_model(name, **options)
        save_model(tmp_path / name / "fold0", model, name, {})
        status, _, stderr = script("app", "--output-dir", tmp_path, "--name", name)
        assert status == 2 and message in stderr, stderr


def test_a_port_in_use_is_named(server, tmp_path):
    command = [
        sys.executable,
        "app.py",
        "--port",
        server[0].rsplit(":", 1)[1],
        "--output-dir",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "choose another --port" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_each_of_three_clicks_keeps_its_result(tmp_path, monkeypatch):
    """The events of one session are queued, and what the first one made is fetched after the last;
    a slider that moves a hundred times leaves a few files."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    gray = luma(data.chelsea())
    photo = Session("cat", gray, np.zeros(gray.shape, bool), luma=gray)
    photo.colors = [np.zeros((2, 8, 8), np.float32)]
    results = [Path(Handlers(None).colored(photo, 0, 1.0)[1]) for _ in range(3)]
    assert len(set(results)) == 3 and all(Image.open(path).size == (451, 300) for path in results)
    for _ in range(10):
        results.append(Path(Handlers(None).colored(photo, 0, 1.0)[1]))
    assert set(tmp_path.rglob("*.png")) == set(results[-KEEP_RESULTS:]) == set(photo.results)
