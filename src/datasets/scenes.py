"""Scenes: images that are crops of the same photo, found from the images alone.

An inverted file of SIFT keypoints proposes pairs, matched keypoints align them, pixels decide.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import faiss
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from tqdm import tqdm

from src.datasets.competition import SIZE, read_truth
from src.utils.processes import parallel_map

SIDE = SIZE[0]
DETECT = 192  # px, side for keypoints: 256 takes twice the time and matches no better
KEYPOINTS = 64  # kept per image
CELLS = 4  # per side; keypoints are taken from each in turn, or a busy corner would get all
CONTRAST = 0.01  # SIFT's own 0.04 leaves smooth crops (sky, walls) without keypoints
DIMENSIONS = 32  # SIFT has 128; all crops that shared a quarter still became candidates
LEVELS = 254.0  # descriptors are integers: sums are then exact for any thread and BLAS
MATCH_DISTANCE = 90.0  # largest, in rounded RootSIFT units (0.35 of the unit sphere's radius)
NEIGHBOURS = 16  # a crop needs to find only some siblings: components link the rest
LISTS = 4.0  # inverted lists per square root of the number of descriptors: search grows as n^1.5
PROBES = 8
TRAINING = 64  # descriptors that a list is trained on
MIN_VOTES = 5  # matches that make aligning a pair worthwhile; pairs sharing a quarter had 6 or more
MIN_INLIERS = 4  # 2 fix a similarity, 2 confirm it
TOLERANCE = 6.0  # px of 512; largest error of an inlier
SMALL = 128  # px, side at which pixels are compared: recompression is averaged away
WINDOW = 11  # px, side of the comparison windows
TEXTURE = 3.0  # least standard deviation (grey levels) of a window that counts: sky always agrees
MIN_TEXTURE = 0.1  # share of the image that must count; less may be one sign seen in two streets
MIN_CORRELATION = 0.85  # 98.6 % of the crop pairs of one photo reach it, other pairs rarely


class Features(NamedTuple):
    """The parts of an image that are compared."""

    points: np.ndarray  # (k, 2) float32, x and y in pixels of the whole image, k <= KEYPOINTS
    descriptors: np.ndarray  # (k, 128) uint8, SIFT
    small: np.ndarray  # (SMALL, SMALL) uint8, grey


def describe(image: Path | np.ndarray) -> Features:
    """Keypoints and a small grey copy of a ground truth, a file or (512, 512, 3) uint8."""
    rgb = read_truth(image) if isinstance(image, Path) else image
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    reduced = cv2.resize(gray, (DETECT, DETECT), interpolation=cv2.INTER_AREA)
    small = cv2.resize(gray, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT_create(contrastThreshold=CONTRAST)
    detected = {point.pt: point for point in sift.detect(reduced, None)}
    ranks, taken = [], {}
    for point in sorted(detected.values(), key=lambda point: (-point.response, point.pt)):
        point.angle = 0.0  # crops are never rotated, and upright descriptors confuse fewer corners
        cell = tuple(int(value * CELLS / DETECT) for value in point.pt)
        taken[cell] = taken.get(cell, 0) + 1
        ranks.append((taken[cell], point))
    points = [point for _, point in sorted(ranks, key=lambda pair: pair[0])[:KEYPOINTS]]
    points, descriptors = sift.compute(reduced, points)
    places = (np.array([point.pt for point in points]).reshape(-1, 2) + 0.5) * (SIDE / DETECT) - 0.5
    descriptors = np.empty((0, 128)) if descriptors is None else descriptors
    return Features(places.astype(np.float32), descriptors.astype(np.uint8), small)


def find_scenes(paths: list[Path]) -> np.ndarray:
    """Scene of each image, (N,) int64, numbered from 0 by first appearance.

    Images share a scene if they overlap, directly or through others; every machine finds the same.
    """
    return group(list(parallel_map(describe, paths, "describing images")))


def group(images: list[Features]) -> np.ndarray:
    """`find_scenes` of described images."""
    # RootSIFT (Arandjelović and Zisserman, 2012) on principal axes: (k, 32) float32 integers
    some = images[:: 1 + len(images) // 1024]
    sample = _root(np.concatenate([image.descriptors for image in some]))
    axes = np.linalg.eigh(sample.T @ sample)[1][:, -DIMENSIONS:] * LEVELS
    vectors = [np.rint(_root(image.descriptors) @ axes).astype(np.float32) for image in images]
    joined = DisjointSet(range(len(images)))
    for i, j in tqdm(candidates(vectors), desc="comparing pairs", unit="pair", dynamic_ncols=True):
        if not joined.connected(i, j) and overlap(images[i], images[j], vectors[i], vectors[j]):
            joined.merge(i, j)
    return pd.factorize(np.array([joined[i] for i in range(len(images))]))[0]


def _root(descriptors: np.ndarray) -> np.ndarray:
    return np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1))


def candidates(vectors: list[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of images with enough neighbouring descriptors, the most votes first."""
    count = len(vectors)
    data = np.concatenate(vectors)
    owner = np.repeat(np.arange(count), [len(image) for image in vectors])
    if not len(data):
        return []
    lists = max(1, min(int(LISTS * len(data) ** 0.5), len(data) // TRAINING))
    index = faiss.index_factory(DIMENSIONS, f"IVF{lists},Flat")
    index.cp.seed = 0
    index.cp.int_centroids = True
    index.cp.max_points_per_centroid = TRAINING
    index.nprobe = PROBES
    index.train(data)
    index.add(data)
    pairs = []
    for start in range(0, len(data), 1 << 16):
        distance, found = index.search(data[start : start + (1 << 16)], NEIGHBOURS)
        row, column = np.nonzero((distance < MATCH_DISTANCE**2) & (found >= 0))
        # one vote per keypoint and image
        votes = np.unique((start + row) * count + owner[found[row, column]])
        mine, other = owner[votes // count], votes % count
        pairs.append((np.minimum(mine, other) * count + np.maximum(mine, other))[mine != other])
    pairs, votes = np.unique(np.concatenate(pairs), return_counts=True)
    order = np.argsort(-votes, kind="stable")[: (votes >= MIN_VOTES).sum()]
    return [divmod(int(pair), count) for pair in pairs[order]]


def overlap(a: Features, b: Features, vectors_a: np.ndarray, vectors_b: np.ndarray) -> bool:
    """Whether two images show the same pixels, up to shift, scale and recompression."""
    squares = (vectors_a**2).sum(axis=1)[:, None] + (vectors_b**2).sum(axis=1)
    distance = squares - 2 * vectors_a @ vectors_b.T
    nearest = distance.argmin(axis=1)
    mutual = distance.argmin(axis=0)[nearest] == np.arange(len(nearest))
    match = np.flatnonzero(mutual & (distance.min(axis=1) < MATCH_DISTANCE**2))
    if len(match) < MIN_INLIERS:
        return False
    matrix, inliers = cv2.estimateAffinePartial2D(
        a.points[match], b.points[nearest[match]], ransacReprojThreshold=TOLERANCE
    )
    if matrix is None or inliers.sum() < MIN_INLIERS:
        return False
    step = SIDE / SMALL
    matrix[:, 2] = (matrix[:, 2] + (matrix[:, :2].sum(axis=1) - 1) * (step - 1) / 2) / step
    return correlation(a.small, b.small, matrix) >= MIN_CORRELATION


def correlation(a: np.ndarray, b: np.ndarray, matrix: np.ndarray) -> float:
    """Mean correlation, -1 to 1, of the textured windows that `b` shares with the warped `a`, both
    (128, 128) uint8; 0 if they are few. Over whole images, one sign or skyline would dominate.
    """
    warped = cv2.warpAffine(a.astype(np.float32), matrix, b.shape)
    inside = cv2.warpAffine(np.ones_like(warped), matrix, b.shape, flags=cv2.INTER_NEAREST)
    inside = cv2.blur(inside, (WINDOW, WINDOW), borderType=cv2.BORDER_CONSTANT) > 0.999
    b = b.astype(np.float32)
    mean_a, mean_b = _mean(warped), _mean(b)
    var_a, var_b = _mean(warped**2) - mean_a**2, _mean(b**2) - mean_b**2
    textured = inside & (np.maximum(var_a, var_b) > TEXTURE**2)
    if textured.mean() < MIN_TEXTURE:
        return 0.0
    norm = np.sqrt(np.maximum(var_a, 1) * np.maximum(var_b, 1))
    return float(((_mean(warped * b) - mean_a * mean_b) / norm)[textured].mean())


def _mean(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (WINDOW, WINDOW))
