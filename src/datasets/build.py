"""Make a folder of exactly the competition's shape from any folder of colour photos."""

import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from skimage import data as skimage_data

from src.damage import synthesize
from src.datasets.competition import SIZE, TEST_COLUMNS, TRAIN_COLUMNS
from src.files import InputError, list_images, open_image, to_rgb, write_png, write_text
from src.parallel import parallel_map

SIDE = SIZE[0]
SHORT_SIDE = (640, 1024)  # wanted short side in pixels; at least 512, so that crops of it can differ
MAX_ENLARGEMENT = 2.0
MIN_CHROMA = 3.0  # mean of max(R, G, B) - min(R, G, B) in grey levels, below which a photo is grey
SAMPLE_PHOTOS = [
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
]


@dataclass(frozen=True)
class Photo:
    """A photo to crop: where it lies, and the size it gets before it is cropped."""

    path: Path
    name: str  # POSIX path below the photo folder: seeds the photo's crops and damage
    size: tuple[int, int]  # width, height in pixels after resizing


@dataclass(frozen=True)
class Crop:
    """One crop of a resized photo and the name of the files it becomes."""

    name: str  # TRAIN_00000 or TEST_000
    left: int
    top: int


def sample_photos() -> list[Path]:
    """The colour photographs inside the installed scikit-image package."""
    folder = Path(skimage_data.__path__[0])
    return [folder / name for name in SAMPLE_PHOTOS]


def resized(size: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height of a photo before cropping, or None when it is too small.

    The short side ends between 512 and 1024 px, at 640 or more where that means enlarging at most twice.
    """
    short = min(size)
    target = min(max(short, SHORT_SIDE[0]), SHORT_SIDE[1], int(short * MAX_ENLARGEMENT))
    if target < SIDE:
        return None
    return tuple(max(SIDE, round(side * target / short)) for side in size)


def inspect(path: Path, root: Path) -> Photo | str:
    """What `build` needs to know of a photo, or the reason why it is skipped."""
    try:
        image = open_image(path)
        if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
            return f"{path}: grey (mode {image.mode})"
        image = to_rgb(image)
    except (InputError, OSError) as error:
        return str(error)
    size = resized(image.size)
    if size is None:
        return f"{path}: tiny ({image.width}x{image.height}; the short side needs {SIDE // 2} px)"
    values = np.asarray(image.reduce(max(1, min(image.size) // 64))).astype(np.int16)
    chroma = float(np.mean(values.max(axis=-1) - values.min(axis=-1)))
    if chroma < MIN_CHROMA:
        return f"{path}: grey (mean chroma {chroma:.1f} of 255)"
    return Photo(path, path.relative_to(root).as_posix(), size)


def place_crops(photo: Photo, count: int, seed: int) -> list[tuple[int, int]]:
    """Up to `count` different (left, top) corners of 512×512 crops, uniform over the photo."""
    columns, rows = (side - SIDE + 1 for side in photo.size)
    rng = np.random.default_rng([seed, zlib.crc32(photo.name.encode())])
    places = rng.choice(columns * rows, min(count, columns * rows), replace=False)
    return [(int(place % columns), int(place // columns)) for place in places]


def write_crops(job: tuple[Photo, list[Crop]], data_dir: Path, seed: int) -> None:
    """Write truth and damaged input of every crop of one photo; damage is seeded by the file's name."""
    photo, crops = job
    image = to_rgb(open_image(photo.path)).resize(photo.size, Image.Resampling.LANCZOS)
    for crop in crops:
        part = crop.name.split("_")[0].lower()
        box = (crop.left, crop.top, crop.left + SIDE, crop.top + SIDE)
        rgb = np.asarray(image.crop(box))
        gray, _ = synthesize(rgb, np.random.default_rng([seed, zlib.crc32(crop.name.encode())]))
        write_png(data_dir / f"{part}_gt" / f"{crop.name}.png", rgb)
        write_png(data_dir / f"{part}_input" / f"{crop.name}.png", gray)


def build(
    photos: list[Path], root: Path, data_dir: Path, crops_per_photo: int, test_photos: float, seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """Write a competition folder; test photos share no photo with training.

    Args:
        photos: image files below `root`.
        crops_per_photo: crops wanted of each photo; a photo of exactly 512×512 gives one.
        test_photos: share of the photos, 0 to 1, that become test images (at least one photo).
        seed: same seed, same photos, same bytes.

    Returns:
        The table written to `crops.csv` (one row a crop: name, photo, left, top, width, height of the
        resized photo), and the reason for each photo that was skipped.

    Raises `InputError` when the folder is not empty or too few photos are usable.
    """
    if data_dir.is_dir() and any(data_dir.iterdir()):
        raise InputError(f"{data_dir}: not empty; name a new folder, or remove what an earlier build left")
    if crops_per_photo < 1 or not 0 < test_photos < 1:
        raise InputError("--crops-per-photo must be at least 1 and --test-photos between 0 and 1")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or more")
    found = list(parallel_map(partial(inspect, root=root), photos, "reading photos"))
    usable = [photo for photo in found if isinstance(photo, Photo)]
    skipped = [reason for reason in found if isinstance(reason, str)]
    if len(usable) < 2:
        reasons = "; ".join(skipped[:3]) or "no image file found"
        raise InputError(f"{root}: {len(usable)} usable colour photos, at least 2 needed ({reasons})")
    usable = [usable[i] for i in np.random.default_rng(seed).permutation(len(usable))]
    count = min(max(1, round(len(usable) * test_photos)), len(usable) - 1)
    jobs, rows = [], []
    for part, digits, members in (("TEST", 3, usable[:count]), ("TRAIN", 5, usable[count:])):
        number = 0
        for photo in members:
            crops = []
            for left, top in place_crops(photo, crops_per_photo, seed):
                crops.append(Crop(f"{part}_{number:0{digits}d}", left, top))
                rows.append((crops[-1].name, photo.name, left, top, *photo.size))
                number += 1
            jobs.append((photo, crops))
    for _ in parallel_map(partial(write_crops, data_dir=data_dir, seed=seed), jobs, "writing crops"):
        pass
    table = pd.DataFrame(rows, columns=["name", "photo", "left", "top", "width", "height"])
    write_text(data_dir / "crops.csv", table.to_csv(index=False))
    for part, columns in (("test", TEST_COLUMNS), ("train", TRAIN_COLUMNS)):
        names = table["name"][table["name"].str.startswith(part.upper())]
        folders = [column.split("_")[0] for column in columns]
        paths = pd.DataFrame(
            {c: f"./{part}_{f}/" + names + ".png" for c, f in zip(columns, folders, strict=True)}
        )
        write_text(data_dir / f"{part}.csv", paths.to_csv(index=False))
    return table, skipped


def photos_below(folder: Path) -> list[Path]:
    """Image files of a photo folder; raises `InputError` when there is none."""
    photos = list_images(folder)
    if not photos:
        raise InputError(f"{folder}: no image file found; name a folder of JPEG, PNG or WebP photos")
    return photos
