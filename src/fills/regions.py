"""Boxes around damage, and ways to split a mask: time and memory then depend on the damage."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

Box = tuple[slice, slice]  # rows and columns

THIN = 6  # px; damage no deeper than this, such as scratches, is filled without a network
SHALLOW = 40  # px; deeper damage is never cut
TILE = 304  # px, side of the tiles that long shallow damage is cut into
MERGE = 8  # px; damage this near to other damage is one region with it
MAX_CROP = 512  # root of the number of pixels that are inpainted at once
SEARCH = 128  # px of surroundings that the fills see
MARGIN = 48  # px of surroundings that the inpainter sees; all that shallow damage needs


class Fill(NamedTuple):
    """A hole filled in one way."""

    luma: np.ndarray  # (H, W) float32 in [0, 1]; pixels that are not lost stay as they were
    error: np.ndarray  # (H, W) float32, expected by the method itself; 0 where nothing is lost


def widened(box: Box, margin: int, shape: tuple[int, int]) -> Box:
    """`box` with `margin` more pixels on each side, cut at the borders of an image of `shape`."""
    rows, columns = box
    rows = slice(max(0, rows.start - margin), min(shape[0], rows.stop + margin))
    columns = slice(max(0, columns.start - margin), min(shape[1], columns.stop + margin))
    return rows, columns


def box_with_margin(mask: np.ndarray, margin: int) -> Box:
    """The box of what is True in (H, W) bool, which is not empty, with a margin."""
    return widened(_box(mask), margin, mask.shape)


def _box(mask: np.ndarray, top: int = 0, left: int = 0) -> Box:
    """The box of what is True in a part of a photo whose corner is at (top, left)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)) + top, np.flatnonzero(mask.any(axis=0)) + left
    return np.s_[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]


def thick_regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The lost pixels in or near a disk that is lost as a whole, (H, W) bool, of radius `THIN` or
    more in a large photo; and the factor to reduce each of their regions by, so that the time of
    many stays bounded."""
    radius = max(THIN, round(min(mask.shape) / 250))  # larger photos have wider scratches
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    cores = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, disk)
    thick = mask & (cv2.dilate(cores, disk) > 0)
    return thick, max(1, math.ceil(math.sqrt(np.count_nonzero(thick)) / MAX_CROP))


def regions(mask: np.ndarray, min_margin: int = SEARCH) -> Iterator[tuple[Box, np.ndarray]]:
    """Each region of a mask (H, W) bool: a box around it, and its pixels in the box (h, w) bool.

    The box has a margin of `min_margin` pixels, or of three times the depth of deep regions.
    Damage within `MERGE` pixels is merged into one region.
    """
    labels, found = _labelled(mask)
    for number, place, depth in found:
        box = widened(place, max(min_margin, round(3 * depth)), mask.shape)
        yield box, mask[box] & (labels[box] == number)


class Part(NamedTuple):
    """What is inpainted at once."""

    box: Box
    region: np.ndarray  # (h, w) bool, the lost pixels in the box that belong to it
    is_deep: bool = True


def split_mask(mask: np.ndarray) -> Iterator[Part]:
    """Split a mask (H, W) bool into what is inpainted at once.

    What fits into `MAX_CROP`² pixels with its surroundings stays whole. Otherwise each region is
    taken by itself, without seams; only long shallow ones, which may run all over the photo, are
    cut into tiles.
    """
    if not mask.any():
        return
    box = box_with_margin(mask, SEARCH)
    if mask[box].size <= MAX_CROP**2:
        yield Part(box, mask[box])
        return
    labels, found = _labelled(mask)
    cut = np.zeros_like(mask)
    for number, place, depth in found:
        region = mask[place] & (labels[place] == number)
        is_deep = depth > SHALLOW
        if not is_deep and max(region.shape) > TILE:
            cut[place] |= region
            continue
        box = _box(region, place[0].start, place[1].start)
        box = widened(box, SEARCH if is_deep else MARGIN, mask.shape)
        yield Part(box, mask[box] & (labels[box] == number), is_deep)
    for row, column in np.ndindex(*(math.ceil(length / TILE) for length in mask.shape)):
        top, left = row * TILE, column * TILE
        tile = cut[top : top + TILE, left : left + TILE]
        if tile.any():
            box = widened(_box(tile, top, left), MARGIN, mask.shape)
            y, x = np.ogrid[box]
            yield Part(box, cut[box] & (y // TILE == row) & (x // TILE == column), is_deep=False)


def _labelled(mask: np.ndarray) -> tuple[np.ndarray, list[tuple[int, Box, float]]]:
    """The regions of a mask (H, W) bool, merged within `MERGE` pixels: the label of each pixel in
    or near one, (H, W) int32; and each label with its box and its depth, which is the pixels from
    the innermost lost one to what is known."""
    near = cv2.dilate(mask.view(np.uint8), np.ones((MERGE, MERGE), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near)
    depths = np.zeros(count, np.float32)
    np.maximum.at(depths, labels[mask], depth_map(mask)[mask])
    boxes = [np.s_[y : y + height, x : x + width] for x, y, width, height, _ in stats.tolist()]
    return labels, list(zip(range(count), boxes, depths.tolist(), strict=True))[1:]


def depth_map(mask: np.ndarray) -> np.ndarray:
    """Pixels from each lost pixel to the nearest one that is not lost, (H, W) float32."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3)


def reduced(gray: np.ndarray, mask: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over factor × factor pixels that are not lost, and the share of these.

    Takes (H, W) float32, and (H, W) bool, True where lost. Returns two of (ceil(H / factor),
    ceil(W / factor)) float32; a mean of nothing is 0.
    """
    pad = (0, -gray.shape[0] % factor), (0, -gray.shape[1] % factor)
    weight = np.pad(~mask, pad, mode="edge").astype(np.float32)
    value = np.pad(gray, pad, mode="edge") * weight
    size = weight.shape[1] // factor, weight.shape[0] // factor
    weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    value = cv2.resize(value, size, interpolation=cv2.INTER_AREA)
    return value / weight.clip(1e-6), weight
