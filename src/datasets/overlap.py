"""Test images that share pixels with training images or with one another: crops of one photo do,
exactly.

Short runs of pixels are hashed, and those whose hash says so are kept (winnowing, Schleimer,
Wilkerson and Aiken 2003), so that two crops keep the same runs wherever they lie. Equal runs
propose a shift, and pixels decide.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from src.damage.hole import find_hole
from src.datasets.competition import read_input, read_test, read_train, read_truth
from src.utils.processes import parallel_map

RUN = 32  # pixels of a row that are hashed, a power of two
KEPT = 8  # binary digits of a hash that must be 0: one run of 256 is kept, of an image 960 or less
LIVELY = (
    RUN // 2
)  # steps between neighbours of a run that are none, at most; flat sky is everywhere alike
MIN_RUNS = 3  # equal runs that propose a shift
MIN_PIXELS = 2048  # that must be shared
BORDER = np.ones((33, 33), np.uint8)  # around a hole
BASE, MIX = 0x9E3779B1, 0x85EBCA6B  # odd numbers of xxHash
BITS = 32  # of a hash


class Runs(NamedTuple):
    """The runs of pixels that are kept of an image, k of them."""

    hashes: np.ndarray  # (k,) uint32
    places: np.ndarray  # (k, 2) int16, row and column of their first pixels


class Overlap(NamedTuple):
    """Pixel (r, c) of a test image is pixel (r + down, c + right) of another image."""

    test: Path
    other: Path  # a test or a training input
    truth: Path | None  # of a training input
    down: int
    right: int


def runs(gray: np.ndarray) -> Runs:
    """The runs that are kept of (H, W) uint8."""
    hashed, base, length = gray.astype(np.uint32) + np.uint32(1), BASE, 1
    while length < RUN:
        hashed = hashed[:, :-length] * np.uint32(base) + hashed[:, length:]
        base, length = base * base % 2**BITS, 2 * length
    hashed = (hashed ^ (hashed >> np.uint32(BITS // 2))) * np.uint32(MIX)
    steps = np.cumsum(gray[:, 1:] != gray[:, :-1], axis=1, dtype=np.int16)
    steps = np.pad(steps, ((0, 0), (1, 0)))
    lively = steps[:, RUN - 1 :] - steps[:, : -RUN + 1] >= RUN - 1 - LIVELY
    places = np.argwhere((hashed < 2 ** (BITS - KEPT)) & lively)
    return Runs(hashed[tuple(places.T)], places.astype(np.int16))


def runs_of_file(path: Path) -> Runs:
    """`runs` of a damaged input; raises `InputError` as `read_input` does."""
    return runs(read_input(path))


def find_overlaps(data_dir: Path) -> list[Overlap]:
    """Every overlap of a test image of a competition folder; those with training images come first.

    Raises `InputError` as the folder's tables and images do.
    """
    train, test = read_train(data_dir), read_test(data_dir)
    tests = [data_dir / path for path in test["input_image_path"]]
    others = [data_dir / path for path in train["input_image_path"]]
    truths = dict(zip(others, (data_dir / path for path in train["gt_image_path"]), strict=True))
    wanted = [runs_of_file(path) for path in tests]
    hashes = np.concatenate([found.hashes for found in wanted])
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    places = np.concatenate([found.places for found in wanted])[order].astype(int)
    owners = np.repeat(np.arange(len(tests)), [len(found.hashes) for found in wanted])[order]
    overlaps = []
    described = parallel_map(runs_of_file, others, "looking for overlaps")
    for path, found in [*zip(others, described, strict=True), *zip(tests, wanted, strict=True)]:
        first, last = (np.searchsorted(hashes, found.hashes, side) for side in ("left", "right"))
        counts = last - first
        mine = np.repeat(np.arange(len(counts)), counts)
        theirs = (
            np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[mine]
        )
        shifts = np.column_stack([owners[theirs], found.places[mine].astype(int) - places[theirs]])
        proposed, votes = np.unique(shifts, axis=0, return_counts=True)
        for owner, down, right in proposed[votes >= MIN_RUNS]:
            overlap = Overlap(tests[owner], path, truths.get(path), int(down), int(right))
            if path != tests[owner] and shared(overlap).sum() >= MIN_PIXELS:
                overlaps.append(overlap)
    return overlaps


def shared(overlap: Overlap) -> np.ndarray:
    """(H, W) bool: pixels of the test image that the other image has too, apart from its own hole.

    What lies around a hole does not count, since tips of it may not have been found. If any other
    pixel differs it is another photo, and nothing is shared.
    """
    gray, other = read_input(overlap.test), read_input(overlap.other)
    mine, theirs = windows(gray.shape, overlap.down, overlap.right)
    near, near_there = (cv2.dilate(find_hole(i).view(np.uint8), BORDER) > 0 for i in (gray, other))
    differs = (gray[mine] != other[theirs]) & ~near[mine] & ~near_there[theirs]
    found = np.zeros(gray.shape, bool)
    found[mine] = ~near_there[theirs] & (not differs.any())
    return found


def windows(
    shape: tuple[int, int], down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What a test image and another one of the same shape share, in the coordinates of each."""
    mine, theirs = [], []
    for side, shift in zip(shape, (down, right), strict=True):
        mine.append(slice(max(0, -shift), min(side, side - shift)))
        theirs.append(slice(max(0, shift), min(side, side + shift)))
    return tuple(mine), tuple(theirs)


def known_elsewhere(
    gray: np.ndarray, mask: np.ndarray, overlaps: Iterable[Overlap]
) -> tuple[np.ndarray, np.ndarray]:
    """A test image (H, W) uint8 and its hole (H, W) bool with the lost pixels that other images
    have."""
    gray, mask = gray.copy(), mask.copy()
    for overlap in overlaps:
        found = shared(overlap) & mask
        mine, theirs = windows(gray.shape, overlap.down, overlap.right)
        gray[mine][found[mine]] = read_input(overlap.other)[theirs][found[mine]]
        mask &= ~found
    return gray, mask


def with_truths(rgb: np.ndarray, overlaps: Iterable[Overlap]) -> np.ndarray:
    """A restored test image (H, W, 3) uint8 with the true colours of what it shares with training
    images."""
    rgb = rgb.copy()
    for overlap in overlaps:
        if overlap.truth:
            mine, theirs = windows(rgb.shape[:2], overlap.down, overlap.right)
            rgb[mine] = read_truth(overlap.truth)[theirs]
    return rgb


def overlap_table(overlaps: Sequence[Overlap], tests: int) -> str:
    """What overlaps with what, a line each, and how many of all test images do."""
    lines = []
    for overlap in overlaps:
        found = shared(overlap)
        hole = find_hole(read_input(overlap.test))
        restored = (found & hole).sum() / max(1, hole.sum())
        kind = "training" if overlap.truth else "test"
        lines.append(
            f"{overlap.test.name}  {kind} image {overlap.other.name}: {found.mean():.1%} of its pixels, "
            f"{restored:.1%} of its hole"
        )
    count = len({overlap.test for overlap in overlaps})
    return "\n".join(
        [*lines, f"{count or 'none'} of {tests} test images overlap with another image"]
    )
