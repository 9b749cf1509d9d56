"""What the outputs promise, as properties over random photos, masks and weights."""

import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from src.color.lattice import LEVELS, luma
from src.damage.hole import punch_hole
from src.datasets.folds import encode_keys, fingerprint, fold_files, image_keys
from src.models import create_model
from src.models.checkpoints import save_model
from src.pipeline import Pipeline, load_finder
from src.utils.images import gray_to_rgb, read_gray

PHOTOS = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
LONG = 5000  # px


@pytest.fixture(scope="module")
def ensembles():
    """Two restorers of random weights, and two each of weights so large that they overflow."""
    found = {}
    for scale in (1, 100, 10_000):
        torch.manual_seed(scale)
        found[scale] = [create_model("restorer").eval() for _ in range(2)]
        for model in found[scale]:
            for weights in model.parameters():
                weights.data.mul_(scale)
    return found


def draw_gray(kind, height, width, rng):
    """(H, W) uint8 of one kind of content."""
    if kind == "photo":
        photo = luma(PHOTOS[rng.integers(len(PHOTOS))])
        rows, columns = (
            np.sort(rng.integers(0, s, n))
            for s, n in zip(photo.shape, (height, width), strict=True)
        )
        return photo[np.ix_(rows, columns)]
    if kind == "noise":
        return rng.integers(0, 256, (height, width), np.uint8)
    if kind == "extremes":
        return rng.choice(np.uint8([0, 1, 254, 255]), (height, width))
    if kind == "gradient":
        ramp = np.linspace(0, rng.integers(1, 256), height)[:, None] + np.linspace(0, 255, width)
        return (ramp % 256).astype(np.uint8)
    return np.full(
        (height, width),
        {"black": 0, "white": 255, "constant": rng.integers(1, 255)}[kind],
        np.uint8,
    )


def draw_mask(kind, gray, rng):
    """A damaged copy of a grey image and its mask; at least one pixel is left."""
    mask = np.full(gray.shape, kind == "almost all")
    if kind == "competition":  # the only constant hole
        gray, mask = punch_hole(gray_to_rgb(gray), rng)
    elif kind == "pixel":
        mask.flat[rng.integers(mask.size)] = True
    elif kind == "scattered":
        mask = rng.random(gray.shape) < rng.random()
    elif kind == "stripes":
        mask[rng.integers(2) :: 2] = True
    mask.flat[0] &= not mask.all()
    return gray, mask


@st.composite
def damaged(draw):
    """(gray, mask): the size is small and often odd, the content and the mask of any kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = ["photo", "noise", "extremes", "gradient", "black", "white", "constant"]
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    gray = draw_gray(draw(st.sampled_from(kinds)), height, width, rng)
    masks = ["competition", "empty", "almost all", "pixel", "scattered", "stripes"]
    return draw_mask(draw(st.sampled_from(masks)), gray, rng)


def of_size(height, width, mask="empty"):
    rng = np.random.default_rng(0)
    return draw_mask(mask, draw_gray("photo", height, width, rng), rng)


ANY_PHOTO = (st.integers(1, 40), st.integers(1, 40) | st.just(LONG), st.integers(0, 2**32 - 1))
ANY_VIEWS = st.sampled_from([1, 2])
ANY_SCALE = st.sampled_from([1, 100, 10_000])
ANY_STYLE = st.sampled_from(["score", "visual"])


@settings(max_examples=50, deadline=None)
@given(*ANY_PHOTO)
@example(1, 1, 0)
def test_damage_of_any_size(height, width, seed):
    """A hole is drawn in photos of any size, it is never empty and holds one value."""
    rgb = PHOTOS[0][:height, np.arange(width) % 512]
    gray, mask = punch_hole(rgb, np.random.default_rng(seed))
    assert mask.shape == gray.shape == (height, width) and mask.any()
    assert len(np.unique(gray[mask])) == 1 and np.array_equal(gray[~mask], luma(rgb)[~mask])


@settings(max_examples=15, deadline=None)
@example(of_size(1, 1), 1, 1, 1, "score")
@example(of_size(1, 1, "almost all"), 2, 2, 1, "visual")
@example(of_size(1, LONG, "competition"), 1, 2, 1, "score")
@example(of_size(LONG, 1, "stripes"), 2, 1, 1, "visual")
@example(of_size(1, LONG, "almost all"), 1, 1, 100, "score")
@given(damaged(), st.sampled_from([1, 2]), ANY_VIEWS, ANY_SCALE, ANY_STYLE)
def test_restorer_keeps_the_luma(ensembles, image, members, tta, scale, style):
    """Every known pixel keeps its luma for any weights."""
    gray, mask = image
    before = gray.copy()
    rgb = Pipeline(ensembles[scale][:members], tta=tta, style=style)(gray, mask)
    assert rgb.shape == (*gray.shape, 3) and rgb.dtype == np.uint8
    assert np.array_equal(luma(rgb)[~mask], gray[~mask])
    assert np.array_equal(gray, before)


@settings(max_examples=10, deadline=None)
@given(damaged(), ANY_VIEWS, ANY_SCALE)
def test_estimates_are_finite(ensembles, image, tta, scale):
    """No estimate contains NaN or leaves its range."""
    found = Pipeline(ensembles[scale], tta=tta).estimate(*image)
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["luma"].dtype == np.uint8
    assert (np.abs(found["p"].sum(axis=0) - 1) < 1e-3).all()
    assert (found["chroma_mass"] <= found["p"] * (LEVELS - 1) + 1e-3).all()


@pytest.mark.parametrize(
    ("name", "options"), [("full_pipeline", {"encoder": "mobilenetv3_small_050"}), ("gan", {})]
)
def test_the_earlier_systems_keep_the_size(name, options):
    model = create_model(name, **options).eval()
    for height, width in ((1, 1), (37, 90)):
        rgb = Pipeline([model])(*of_size(height, width, "competition"))
        assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photos of every kind, damaged ones in `damaged` and others in `whole`."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for name in ("damaged", "whole"):
        (folder / name).mkdir()
    for number, size in enumerate([(300, 200), (77, 101), (64, 64), (12, 90), (1, LONG), (1, 1)]):
        gray, _ = punch_hole(PHOTOS[number % 4][: size[0], : size[1]].copy(), rng)
        Image.fromarray(gray).save(folder / "damaged" / f"{number}.png")
        Image.fromarray(gray.astype(np.uint16) * 257).save(
            folder / "damaged" / f"{number}_deep.png"
        )
    whole = folder / "whole"
    for kind in ("noise", "gradient", "extremes", "black", "white", "constant"):
        Image.fromarray(draw_gray(kind, 45, 70, rng)).save(whole / f"{kind}.png")
    deep = rng.integers(0, 65536, (31, 40)).astype(np.uint16)
    for name, values in (("deep", deep), ("dark", deep // 300), ("white", deep * 0 + 65535)):
        Image.fromarray(values).save(whole / f"{name}16.png")
    Image.fromarray(np.full((LONG, 1), 255, np.uint8)).save(whole / "column.tiff")
    # not smaller: below 300 px the detector takes a black flat of this one for a hole
    Image.fromarray(PHOTOS[0]).save(whole / "astronaut.png")
    Image.fromarray(PHOTOS[1][:200, :200]).convert("RGBA").save(
        whole / "coffee.webp", lossless=True
    )
    return folder


@pytest.mark.parametrize(("style", "tta", "damage"), [("score", 2, "hole"), ("visual", 1, "auto")])
def test_infer_keeps_the_luma_of_files(files, random_run, script, tmp_path, style, tta, damage):
    """Everywhere outside the damage found; `--damage hole` finds none in undamaged photos."""
    run = ("--output-dir", random_run, "--name", "random", "--device", "cpu", "--input", files)
    how = ("--decode", style, "--tta", tta, "--damage", damage)
    status, _, err = script("infer", *run, *how, "--output", tmp_path)
    assert status == 0, err
    found, find = 0, load_finder(damage)
    sources = [path for path in files.rglob("*") if path.is_file()]
    for source in sources:
        target = tmp_path / source.relative_to(files).with_suffix(".png")
        if not target.exists():  # two photos of one name
            target = target.with_name(f"{source.name}.png")
        gray, image = read_gray(source), Image.open(target)
        assert (image.mode, image.size[::-1]) == ("RGB", gray.shape)
        mask = find(gray).mask
        assert np.array_equal(luma(np.asarray(image))[~mask], gray[~mask]), source.name
        assert damage == "auto" or mask.any() <= (source.parent.name == "damaged"), source.name
        found += mask.any()
    assert found >= 4 and len(list(tmp_path.rglob("*.png"))) == len(sources)


def test_zip_opens_everywhere(small_folder, script, tmp_path):
    out, target = tmp_path / "out", tmp_path / "submission.zip"
    arguments = ["--data-dir", small_folder, "--baseline", "telea", "--output", out]
    assert script("infer", *arguments)[0] == 0
    status, _, err = script(
        "make_submission", "--data-dir", small_folder, "--pred", out, "--zip", target
    )
    assert status == 0, err
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        assert archive.testzip() is None and names == sorted(
            path.name for path in out.glob("*.png")
        )
        for name in names:
            assert np.array_equal(
                np.asarray(Image.open(archive.open(name))), np.asarray(Image.open(out / name))
            )
    if not shutil.which("unzip") and not os.environ.get("CI"):
        pytest.skip("no unzip here; install it with the system's package manager")
    done = subprocess.run(["unzip", "-t", target], capture_output=True, text=True)
    assert done.returncode == 0 and "No errors detected" in done.stdout, done.stdout
    target.write_bytes(target.read_bytes().replace(b"IDAT", b"XXXX", 1))
    assert subprocess.run(["unzip", "-t", target], capture_output=True).returncode != 0


def test_a_fold_is_scored_only_by_networks_that_held_it_out(
    random_run, small_folder, script, tmp_path
):
    """Networks of another fold, or started from one, have seen the images of this one."""
    model = create_model("restorer")
    for fold in (0, 1):
        pairs = fold_files(small_folder, 2, 0, fold)[1]
        facts = {"fold": fold, "held_out": fingerprint(pairs)}
        save_model(tmp_path / "own" / f"fold{fold}", model, "restorer", facts)
        facts["trained_on"] = encode_keys(image_keys([truth for _, truth in pairs]))
        save_model(tmp_path / "leaked" / f"fold{fold}", model, "restorer", facts)
    mixed = shutil.copytree(tmp_path / "own", tmp_path / "mixed")
    shutil.copy(mixed / "fold1" / "colorizer.safetensors", mixed / "fold0")
    renamed = shutil.copytree(tmp_path / "own", tmp_path / "renamed")
    (renamed / "fold0").rename(renamed / "fold2")
    (renamed / "fold1").rename(renamed / "fold0")
    run = ("--data-dir", small_folder, "--output-dir", tmp_path, "--folds", 2, "--device", "cpu")
    assert script("evaluate", *run, "--name", "own", "--fold", 0)[0] == 0
    before = (tmp_path / "own" / "fold0" / "oof").stat().st_mtime_ns
    assert script("evaluate", *run, "--name", "own", "--fold", 0, "--decode", "visual")[0] == 0
    assert (tmp_path / "own" / "fold0" / "oof").stat().st_mtime_ns == before
    for name in ("mixed", "renamed"):
        status, _, err = script("evaluate", *run, "--name", name, "--fold", 0)
        assert status == 2 and "the colorizer held out fold 1, so it has seen this one" in err
    status, _, err = script("evaluate", *run, "--name", "leaked", "--fold", 0)
    assert status == 2 and "was trained on 100% of the images to be scored" in err


def test_a_run_that_does_not_exist_is_not_replaced_by_the_shipped_weights(
    small_folder, script, tmp_path
):
    status, _, err = script(
        "infer", "--data-dir", small_folder, "--output-dir", tmp_path, "--name", "typo"
    )
    assert status == 2 and "typo: no checkpoint of fold 0" in err
    assert not (tmp_path / "typo").exists()


def test_looking_destroys_no_results(small_folder, random_run, script, tmp_path):
    """Other colours or a baseline are refused in a folder of results; a zip says what it holds."""
    shutil.copytree(random_run / "random", tmp_path / "mine")
    run = ("--data-dir", small_folder, "--output-dir", tmp_path, "--name", "mine")
    assert script("infer", *run, "--device", "cpu")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "mine" / "test").glob("*.png")}
    for other in (("--decode", "visual"), ("--baseline", "input")):
        status, _, err = script("infer", *run, "--device", "cpu", *other)
        assert status == 2 and "holds 3 result(s) made from something else" in err, err
        assert "add --overwrite" in err and before == {path: path.read_bytes() for path in before}
    status, out, _ = script("make_submission", *run)
    assert (
        "model restorer, damage hole, tta 1, style score, 1 fold(s)" in out and "warning" not in out
    )
    assert script("infer", *run, "--baseline", "input", "--overwrite")[0] == 0
    status, out, _ = script("make_submission", *run)
    assert status == 0 and "baseline input" in out and "warning: that is not for the score" in out


def test_an_ensemble_leaves_folds_in_training_out(small_folder, random_run, script, tmp_path):
    for fold in range(2):
        shutil.copytree(random_run / "random" / "fold0", tmp_path / "run" / f"fold{fold}")
        (tmp_path / "run" / f"fold{fold}" / "last.pt").touch()
    run = ("--data-dir", small_folder, "--output-dir", tmp_path, "--name", "run", "--device", "cpu")
    (tmp_path / "run" / "fold0" / "config.json").write_text("{}")
    (tmp_path / "run" / "fold1" / "config.json").write_text("{}")
    status, _, err = script("infer", *run, "--ensemble")
    assert status == 2 and "fold 0, 1 still in training" in err
    assert script("infer", *run, "--output", tmp_path / "one")[0] == 0
    (tmp_path / "run" / "fold1" / "config.json").write_text('{"finished": true}')
    status, out, _ = script("infer", *run, "--ensemble")
    assert status == 0 and "1 fold(s) of" in out and "without fold 0, still in training" in out


def test_a_submission_is_checked(small_folder, script, tmp_path):
    """Files that are missing, extra or no 512x512 RGB PNG; equal pixels give an equal zip."""
    good = Image.open(small_folder / "test_gt" / "TEST_000.png")
    pred = shutil.copytree(small_folder / "test_gt", tmp_path / "pred")
    run = ("--data-dir", small_folder, "--pred", pred, "--zip", tmp_path / "out.zip")
    path, more = pred / "TEST_001.png", pred / "TEST_003.png"
    for change, message in (
        (path.unlink, "TEST_001.png: missing"),
        (lambda: good.save(more), "TEST_003.png: not in test.csv"),
        (lambda: (more.unlink(), good.convert("L").save(path)), "mode is L, expected RGB"),
        (lambda: good.resize((512, 400)).save(path), "size is 512x400, expected 512x512"),
        (lambda: good.save(path, "JPEG"), "holds JPEG, expected PNG"),
    ):
        good.save(path)
        change()
        status, _, err = script("make_submission", *run)
        assert status == 2 and message in err and not (tmp_path / "out.zip").exists(), err
    zips = []
    for level in (1, 9):
        good.save(path, compress_level=level)
        assert script("make_submission", *run)[0] == 0
        zips.append((tmp_path / "out.zip").read_bytes())
    assert zips[0] == zips[1]


def test_results_in_capitals_are_scored_and_zipped(small_folder, script, tmp_path):
    """TEST_000.PNG, as some programs name it; and inputs without any hole are counted in a line."""
    for part in ("gt", "input"):
        shutil.copytree(small_folder / f"test_{part}", tmp_path / part)
    for path in (tmp_path / "gt").iterdir():
        path.rename(path.with_suffix(".PNG"))
    names = [arg for part in ("pred", "gt", "input") for arg in (f"--{part}", tmp_path / part)]
    names[1] = tmp_path / "gt"
    status, out, err = script("evaluate", *names)
    assert status == 0 and "3 images, mean: S 1.0000" in out and "no hole" not in out, out + err
    run = ("--data-dir", small_folder, "--pred", tmp_path / "gt", "--zip", tmp_path / "out.zip")
    status, out, err = script("make_submission", *run)
    assert status == 0 and "3 images" in out, err
    for path in (tmp_path / "gt").iterdir():
        Image.open(path).convert("L").save(tmp_path / "input" / f"{path.stem}.png")
    status, out, err = script("evaluate", *names)
    assert status == 0 and "3 of 3 inputs have no hole, so their M counts as 1" in out, out + err
