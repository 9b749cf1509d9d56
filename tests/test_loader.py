"""Training batches: what is drawn, that it differs each time, and that a resumed run sees the
same."""

import random
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from src.datasets.loader import (
    BatchSpec,
    EndlessSampler,
    Sample,
    TrainingImages,
    augmentation,
    training_batches,
)
from src.utils.errors import InputError
from tests.training import assert_batches_of_one

SPEC = BatchSpec()


@pytest.fixture(scope="module")
def paths(sample_folder):
    return sorted((sample_folder / "train_gt").glob("*.png"))[:4]


def item(images, number, batch=0, image=0, hole=False):
    return images[Sample(number, batch, image, hole)]


def batches_of(paths, workers=0, first_batch=0, spec=SPEC, size=64, batch_size=4):
    images = TrainingImages(paths, size, 0, spec)
    sampler = EndlessSampler(np.ones(len(paths)), batch_size, 0, first_batch)
    return training_batches(images, sampler, workers)


def test_items_depend_on_seed_and_sample_alone(paths):
    images = TrainingImages(paths, 96, 1, SPEC)
    first = item(images, 2, image=2)
    item(images, 7, image=1)
    again = item(TrainingImages(paths, 96, 1, SPEC), 2, image=2)
    others = item(images, 3, image=2), item(TrainingImages(paths, 96, 2, SPEC), 2, image=2)
    for key, channels in (("damaged", 1), ("mask", 1), ("gray", 1), ("rgb", 3)):
        assert first[key].shape == (channels, 96, 96) and first[key].dtype == torch.uint8
        assert torch.equal(first[key], again[key])
        assert not any(torch.equal(first[key], other[key]) for other in others)
    mask = first["mask"][0] > 0
    assert mask.any() and len(first["damaged"][0][mask].unique()) == 1
    assert torch.equal(first["damaged"][0][~mask], first["gray"][0][~mask])
    gray = Image.fromarray(first["rgb"].permute(1, 2, 0).numpy()).convert("L")
    assert torch.equal(first["gray"][0], torch.from_numpy(np.array(gray)))


def test_an_image_drawn_twice_in_an_epoch_differs(paths):
    """In crop, flip and hole; 2.0 seeded items by their image."""
    sampler = EndlessSampler(np.array([100.0, 1, 1, 1]), 1, seed=0)
    twice = [sample for sample in islice(sampler, 4) if sample.image == 0][:2]
    images = TrainingImages(paths, 96, 0, SPEC)
    first, second = (images[sample] for sample in twice)
    assert len(twice) == 2
    assert all(not torch.equal(first[key], second[key]) for key in first)


def test_damage_is_drawn_only_if_needed(paths):
    def draw_damage(rgb, rng):
        raise AssertionError("drawn")

    asked = BatchSpec(("gray", "rgb"), draw_damage)
    assert set(item(TrainingImages(paths, 64, 0, asked), 0)) == {"gray", "rgb"}
    with pytest.raises(AssertionError, match="drawn"):
        item(TrainingImages(paths, 64, 0, BatchSpec(("damaged",), draw_damage)), 0)


def test_random_squares(paths):
    """One side a batch, a place for each image, the same in all tensors of an item."""
    images = TrainingImages(paths, 96, 0, BatchSpec(("gray", "rgb"), min_crop=0.5))
    sides = set()
    for batch in range(40):
        first, second = (item(images, 2 * batch + i, batch) for i in range(2))
        assert first["gray"].shape == second["gray"].shape
        sides.add(first["gray"].shape[-1])
        rgb = Image.fromarray(first["rgb"].permute(1, 2, 0).numpy())
        assert np.array_equal(first["gray"][0], np.array(rgb.convert("L")))
    assert min(sides) >= 48 and max(sides) <= 96 and max(sides) - min(sides) > 40
    rows = np.arange(96, dtype=np.uint8).repeat(96).reshape(96, 96)
    images.spec = BatchSpec(("damaged",), lambda rgb, rng: (rows, rows > 0), min_crop=0.5)
    assert len({int(item(images, number)["damaged"].min()) for number in range(9)}) > 4


@pytest.mark.parametrize("workers", [0, 1])
def test_resumes_where_it_stopped(paths, workers):
    spec = BatchSpec(("gray", "rgb"), min_crop=0.5)
    whole = list(islice(batches_of(paths, spec=spec), 4))
    resumed = islice(batches_of(paths, workers, first_batch=2, spec=spec), 2)
    for batch, again in zip(whole[2:], resumed, strict=True):
        assert all(torch.equal(values, again[key]) for key, values in batch.items())


def test_processes_see_the_batches_of_one(sample_folder):
    assert_batches_of_one(sample_folder, processes=2, workers=0)


def test_an_epoch_is_shuffled_and_shared_out_whole():
    whole = list(islice(EndlessSampler(np.ones(5), 1, seed=3), 15))
    assert list(islice(EndlessSampler(np.ones(5), 1, seed=3, first_batch=7), 8)) == whole[7:]
    assert [sample.number for sample in whole] == list(range(15))
    epochs = [[sample.image for sample in whole[start : start + 5]] for start in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs) and epochs[0] != epochs[1]
    parts = [EndlessSampler(np.ones(7), 3, 1, process=n, processes=3) for n in range(3)]
    parts = [iter(part) for part in parts]
    together = [next(parts[i % 3]) for i in range(24)]
    assert together == list(islice(EndlessSampler(np.ones(7), 3, seed=1, hole_every=1), 24))


@pytest.mark.parametrize("processes", [1, 2])
def test_images_are_drawn_by_their_weights(processes):
    """In a thousand epochs each is drawn as often as its weight says."""
    weights = np.array([1, 4, 0.5, 1, 2, 0.1, 1])
    size, epochs = len(weights), 1000
    counts, expected = np.zeros((epochs, size), int), size * weights / weights.sum()
    for process in range(processes):
        sampler = EndlessSampler(weights, 2, 5, process=process, processes=processes)
        for sample in islice(sampler, size * epochs // processes):
            counts[sample.number // size, sample.image] += 1
    assert (counts.sum(axis=1) == size).all()
    assert ((counts >= np.floor(expected)) & (counts <= np.ceil(expected))).all()
    assert counts.mean(axis=0) == pytest.approx(expected, abs=0.05)


def test_augmentations_are_independent(paths):
    """Each of flip, brightness and gamma occurs with and without the others."""
    images = TrainingImages(paths[:1], 64, 0, BatchSpec(("rgb",)))
    applied = []
    for transform in images.augment.transforms[1:]:
        decide = transform.should_apply
        transform.should_apply = lambda *a, decide=decide, **k: (
            applied.append(decide(*a, **k)) or applied[-1]
        )
    seen = set()
    for number in range(80):
        applied.clear()
        item(images, number)
        seen.add(tuple(applied))
    assert len(seen) == 8


def test_whole_images_are_not_resampled():
    """Tone and mirror move no pixel off the grid: an image of two levels keeps two."""
    image = np.random.default_rng(0).choice(np.uint8([60, 200]), (512, 512, 1)).repeat(3, axis=2)
    augment = augmentation(512)
    for seed in range(20):
        augment.set_random_state(np.random.default_rng(seed), random.Random(seed))
        assert len(np.unique(augment(image=image)["image"])) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_loader_keeps_its_type_and_message(data_dir, workers):
    broken = data_dir / "train_gt" / "TRAIN_00000.png"
    broken.write_bytes(broken.read_bytes()[:5000])
    for path, message in ((broken, "broken image"), (broken.with_name("no.png"), "no such file")):
        with pytest.raises(InputError, match=f"{path}: {message}") as error:
            next(batches_of([path], workers, batch_size=1))
        assert "Traceback" not in str(error.value)


def test_workers_end_with_the_process(sample_folder):
    """Even if the batches are still referred to when it ends, as by the traceback of an error."""
    lines = [
        "import sys; from pathlib import Path; from tests.test_loader import batches_of",
        "paths = sorted(Path(sys.argv[1]).glob('*.png'))[:4]",
        "if __name__ == '__main__': batches = batches_of(paths, 1); next(batches)",
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(sample_folder / "train_gt")]
    # that it ends is the test; once in some forty runs torch's worker aborts as it leaves
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "Error" not in done.stderr, done.stderr


def test_too_little_shared_memory_is_named(paths):
    """Docker gives /dev/shm 64 MB; here it has less than a batch."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom src.utils.cli import run_script\n"
        "from tests.test_loader import batches_of\n"
        "if __name__ == '__main__':\n    paths = [Path(name) for name in sys.argv[1:]]\n"
        "    run_script(lambda: print(len(next(batches_of(paths, 1, size=256)))))"
    )
    mount = "mount -t tmpfs -o size=200k tmpfs /dev/shm"
    command = ["unshare", "-m", "bash", "-c", f'{mount} || exit 77; exec "$@"', "", sys.executable]
    done = subprocess.run([*command, "-c", code, *paths], capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("nothing may be mounted here")
    assert done.returncode == 2 and not done.stdout
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "/dev/shm: too small" in line and "--shm-size" in line and "--workers 0" in line
