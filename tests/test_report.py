"""The report page, written by evaluate.py and used in a real browser."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.evaluation.report import read_curves
from src.utils.errors import InputError
from tests.browser import browser_page


@pytest.fixture(scope="module")
def page_file(random_run, tmp_path_factory) -> Path:
    """Output folder with a run of two folds and their curves, whose report `written` writes."""
    outputs = tmp_path_factory.mktemp("report")
    for fold in (0, 1):
        lines = [
            {"step": 20 * n, "loss/hue": 3 / n, "lr": 1e-3, "images_per_second": 9}
            for n in (1, 2, 3)
        ]
        lines.append({"step": 60, "minutes": 1.5, "val/score": 0.5 + fold / 10, "val/S": 0.9})
        shutil.copytree(random_run / "random" / "fold0", outputs / "run" / f"fold{fold}")
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (outputs / "run" / f"fold{fold}" / "metrics.jsonl").write_text(text)
    return outputs


@pytest.fixture
def written(page_file, small_folder, script) -> Path:
    folders = ("--output-dir", page_file, "--name", "run")
    if not (page_file / "run" / "report.html").exists():
        restored = page_file / "run" / "test"
        script(
            "infer",
            *folders,
            "--data-dir",
            small_folder,
            "--baseline",
            "telea",
            "--output",
            restored,
        )
        truth = ("--gt", small_folder / "test_gt", "--input", small_folder / "test_input")
        status, output, _ = script("evaluate", *folders, "--pred", restored, *truth, "--report")
        assert status == 0 and "report.html: open it" in output
    return page_file / "run" / "report.html"


def pixels(element) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def test_page_needs_nothing_else(written, tmp_path):
    alone = shutil.copy(written, tmp_path / "copy.html")
    text = Path(alone).read_text()
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    with browser_page() as (page, complaints):
        page.goto(Path(alone).as_uri())
        sizes = page.eval_on_selector_all(
            "img", "all => all.map(img => [img.complete, img.naturalWidth])"
        )
        assert len(sizes) == 3 * 4 + 2 and all(complete and width > 0 for complete, width in sizes)
        scores = page.locator("#images tbody tr")
        assert scores.count() == 3 and page.locator("#folds tbody tr").count() == 1
        assert page.get_by_text("best", exact=True).count() == 1
        assert not complaints


def test_sliders_move(written):
    with browser_page() as (page, complaints):
        page.goto(written.as_uri())
        figure = page.locator(".compare").first
        stack, slider = figure.locator(".stack"), figure.locator("[type=range]")
        figure.get_by_label("outline").uncheck()
        box = slider.bounding_box()
        seen = {}
        for name, place in (("right", 0.999), ("left", 0.001)):
            middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            page.mouse.move(*middle)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * place, middle[1], steps=5)
            page.mouse.up()
            seen[name] = pixels(stack)
        inner = np.s_[:, 20:-20]  # the line at the slider's place lies at the edge
        assert (np.abs(seen["left"] - seen["right"])[inner].max(axis=2) > 8).mean() > 0.02
        assert np.ptp(seen["right"][inner], axis=2).mean() < 2  # the damaged photo is grey
        slider.focus()
        page.keyboard.press("End")
        figure.get_by_label("truth").check()
        assert np.ptp(pixels(stack)[inner], axis=2).mean() > 10  # and the truth is not
        before = pixels(stack)
        figure.get_by_label("outline").check()
        assert (np.abs(pixels(stack) - before).max(axis=2) > 40).sum() > 100
        assert not complaints


def test_table_is_sorted(written):
    with browser_page() as (page, complaints):
        page.goto(written.as_uri())
        for expected in (sorted, lambda values: sorted(values, reverse=True)):
            page.get_by_role("button", name="score").click()
            values = [
                float(v) for v in page.locator("#images tbody td:last-child").all_inner_texts()
            ]
            assert values == expected(values) and len(set(values)) > 1
        assert not complaints


def test_images_of_another_program_have_no_curves(written, page_file, small_folder, script):
    """They were not made by the run that gives the page its place."""
    folders = ("--output-dir", page_file.parent / "other", "--name", "run")
    shutil.copytree(page_file / "run" / "fold0", page_file.parent / "other" / "run" / "fold0")
    truth = ("--gt", small_folder / "test_gt", "--input", small_folder / "test_input")
    pred = page_file / "run" / "test"
    assert script("evaluate", *folders, "--pred", pred, *truth, "--report")[0] == 0
    text = (page_file.parent / "other" / "run" / "report.html").read_text()
    assert str(pred) in text and "<h2>Training</h2>" not in text
    assert "<h2>Training</h2>" in written.read_text()


@pytest.mark.parametrize(("width", "columns"), [(400, 1), (1280, 3), (1600, 3)])
def test_photos_stand_side_by_side(written, width, columns):
    """And their plots are as wide as they are; the names of the curves stand above the plots."""
    with browser_page(width, 800) as (page, _):
        page.goto(written.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = "e.getBoundingClientRect()).map(r => [r.left, r.top, r.width, r.bottom])"
        boxes = f"all => all.map(e => {boxes}"
        photos, plots = (
            page.eval_on_selector_all(name, boxes) for name in (".stack", ".compare .plot")
        )
        assert len({left for left, *_ in photos}) == columns
        assert [wide for *_, wide, _ in plots] == pytest.approx(
            [wide for *_, wide, _ in photos], abs=1
        )
        assert sum(wide for *_, wide, _ in photos[:columns]) > 0.85 * width
        key, training = (
            page.eval_on_selector_all(name, boxes) for name in (".key", ".plots .plot")
        )
        assert page.locator(".key li").all_inner_texts() == ["fold0", "fold1"]
        assert key[0][3] <= min(top for _, top, *_ in training)


def test_curves_of_a_run(tmp_path):
    folder = tmp_path / "fold0"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(
        '{"step": 20, "loss/a": 1.5}\n{"step": 20, "minutes": 1, "val/score": 0.5}\n'
    )
    (curve,) = read_curves(tmp_path)
    assert curve.name == "fold0" and dict(curve.losses["a"]) == {20.0: 1.5}
    pd.testing.assert_frame_equal(
        curve.validations.reset_index(drop=True), pd.DataFrame({"minutes": [1.0], "score": [0.5]})
    )
    for broken in ("{", "[1]", '{"step": "x"}', '{"step": [1]}'):
        (folder / "metrics.jsonl").write_text(broken)
        with pytest.raises(InputError, match=r"metrics\.jsonl"):
            read_curves(tmp_path)
    assert read_curves(tmp_path / "nowhere") == []
