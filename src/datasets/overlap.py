"""Test images that share pixels with other images, exactly, because they are crops of one photo.

Short runs of pixels are hashed, and only certain hashes are kept (winnowing, Schleimer, Wilkerson
and Aiken 2003), so that two crops keep the same runs wherever they are. Equal runs propose a shift,
and pixels decide.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from src.damage.hole import find_hole
from src.datasets.competition import read_input, read_test, read_train, read_truth
from src.utils.processes import parallel_map

RUN = 32  # pixels of a row that are hashed, a power of two
ZERO_BITS = 8  # a hash is kept if so many bits are 0: one run of 256, at most 960 of an image
MAX_FLAT = RUN // 2  # skip runs with more equal neighbours: sky matches everywhere
MIN_RUNS = 3  # equal runs that propose a shift
MIN_PIXELS = 2048  # shared pixels of an overlap
BORDER = np.ones((33, 33), np.uint8)  # the surroundings of a hole
BASE, MIX = 0x9E3779B1, 0x85EBCA6B  # odd numbers of xxHash
BITS = 32  # per hash


class Runs(NamedTuple):
    """The k runs of pixels that are kept of an image."""

    hashes: np.ndarray  # (k,) uint32
    places: np.ndarray  # (k, 2) int16, row and column of the first pixel


class Overlap(NamedTuple):
    """Pixel (r, c) of a test image is pixel (r + down, c + right) of another image."""

    test: Path
    other: Path  # a test or a training input
    truth: Path | None  # of a training input
    down: int
    right: int


def runs(gray: np.ndarray) -> Runs:
    """The runs to keep of (H, W) uint8."""
    hashed, base, length = gray.astype(np.uint32) + np.uint32(1), BASE, 1
    while length < RUN:
        hashed = hashed[:, :-length] * np.uint32(base) + hashed[:, length:]
        base, length = base * base % 2**BITS, 2 * length
    hashed = (hashed ^ (hashed >> np.uint32(BITS // 2))) * np.uint32(MIX)
    steps = np.cumsum(gray[:, 1:] != gray[:, :-1], axis=1, dtype=np.int16)
    steps = np.pad(steps, ((0, 0), (1, 0)))
    flat = RUN - 1 - (steps[:, RUN - 1 :] - steps[:, : -RUN + 1])
    places = np.argwhere((hashed < 2 ** (BITS - ZERO_BITS)) & (flat <= MAX_FLAT))
    return Runs(hashed[tuple(places.T)], places.astype(np.int16))


def runs_of_file(path: Path) -> Runs:
    """`runs` of a damaged input."""
    return runs(read_input(path))


def find_overlaps(data_dir: Path) -> list[Overlap]:
    """Every overlap of a test image of a competition folder, those with training images first."""
    train, test = read_train(data_dir), read_test(data_dir)
    tests = [data_dir / path for path in test["input_image_path"]]
    others = [data_dir / path for path in train["input_image_path"]]
    truths = dict(zip(others, (data_dir / path for path in train["gt_image_path"]), strict=True))
    runs_of_tests = [runs_of_file(path) for path in tests]
    runs_of_others = parallel_map(runs_of_file, others, "looking for overlaps")
    index = RunIndex(runs_of_tests)
    overlaps = []
    for path, found in itertools.chain(
        zip(others, runs_of_others, strict=True), zip(tests, runs_of_tests, strict=True)
    ):
        for owner, down, right in index.shifts(found):
            overlap = Overlap(tests[owner], path, truths.get(path), down, right)
            if path != tests[owner] and shared(overlap).sum() >= MIN_PIXELS:
                overlaps.append(overlap)
    return overlaps


class RunIndex:
    """The runs of several images, sorted by hash."""

    def __init__(self, images: Sequence[Runs]):
        hashes = np.concatenate([image.hashes for image in images])
        order = np.argsort(hashes, kind="stable")
        counts = [len(image.hashes) for image in images]
        self.hashes = hashes[order]
        self.places = np.concatenate([image.places for image in images])[order].astype(int)
        self.owners = np.repeat(np.arange(len(images)), counts)[order]

    def shifts(self, other: Runs) -> list[list[int]]:
        """(image, down, right) wherever `MIN_RUNS` equal runs have this shift to `other`."""
        first = np.searchsorted(self.hashes, other.hashes, "left")
        counts = np.searchsorted(self.hashes, other.hashes, "right") - first
        theirs = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        mine = within + first[theirs]
        moved = other.places[theirs].astype(int) - self.places[mine]
        rows = np.column_stack([self.owners[mine], moved])
        proposed, votes = np.unique(rows, axis=0, return_counts=True)
        return proposed[votes >= MIN_RUNS].tolist()


def shared(overlap: Overlap) -> np.ndarray:
    """(H, W) bool: pixels of the test image that the other image has too, apart from its own hole.

    Pixels close to a hole are not compared, since tips of it may not have been found. If any other
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
    """Rows and columns that two images of one shape share, in the coordinates of each."""
    mine, theirs = [], []
    for side, shift in zip(shape, (down, right), strict=True):
        mine.append(slice(max(0, -shift), min(side, side - shift)))
        theirs.append(slice(max(0, shift), min(side, side + shift)))
    return tuple(mine), tuple(theirs)


def fill_from_overlaps(
    gray: np.ndarray, mask: np.ndarray, overlaps: Iterable[Overlap]
) -> tuple[np.ndarray, np.ndarray]:
    """A test image (H, W) uint8 with lost pixels copied from other images, and its mask without
    them."""
    gray, mask = gray.copy(), mask.copy()
    for overlap in overlaps:
        found = shared(overlap) & mask
        mine, theirs = windows(gray.shape, overlap.down, overlap.right)
        gray[mine][found[mine]] = read_input(overlap.other)[theirs][found[mine]]
        mask &= ~found
    return gray, mask


def paste_truths(rgb: np.ndarray, overlaps: Iterable[Overlap]) -> np.ndarray:
    """A restored test image (H, W, 3) uint8 with the true colours that training images share."""
    rgb = rgb.copy()
    for overlap in overlaps:
        if overlap.truth:
            mine, theirs = windows(rgb.shape[:2], overlap.down, overlap.right)
            rgb[mine] = read_truth(overlap.truth)[theirs]
    return rgb


def overlap_table(overlaps: Sequence[Overlap], tests: int) -> str:
    """A line per overlap, and how many of all test images have one."""
    lines = []
    for overlap in overlaps:
        found = shared(overlap)
        hole = find_hole(read_input(overlap.test))
        restored = (found & hole).sum() / max(1, hole.sum())
        kind = "training" if overlap.truth else "test"
        share = f"{found.mean():.1%} of its pixels, {restored:.1%} of its hole"
        lines.append(f"{overlap.test.name}  {kind} image {overlap.other.name}: {share}")
    count = len({overlap.test for overlap in overlaps}) or "none"
    return "\n".join([*lines, f"{count} of {tests} test images overlap with another image"])
