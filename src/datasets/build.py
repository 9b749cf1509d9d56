"""Make a folder of exactly the competition's shape from any folder of colour photos."""

import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from skimage import data as skimage_data

from src.damage.hole import punch_hole
from src.datasets.competition import SIZE, TEST_COLUMNS, TRAIN_COLUMNS
from src.utils.errors import InputError, SettingError
from src.utils.files import LOCK, begin, identity, lock_folder, write_text
from src.utils.images import list_images, open_image, open_photo, to_srgb, write_png
from src.utils.processes import parallel_map

SIDE = SIZE[0]
SHORT_SIDE = (640, 1024)  # px, wanted short side; at least 512, so that crops of it can differ
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
class SourcePhoto:
    """A photo to crop, and the size it gets before it is cropped."""

    path: Path
    name: str  # POSIX path below the photo folder: seeds the photo's crops and damage
    size: tuple[int, int]  # width, height in pixels after resizing


@dataclass(frozen=True)
class Crop:
    """One crop of a resized photo and the name of the files it becomes."""

    name: str  # TRAIN_00000 or TEST_000
    left: int
    top: int

    def files(self, data_dir: Path) -> tuple[Path, Path]:
        """Its truth and its damaged input in a competition folder."""
        part = self.name.split("_")[0].lower()
        folders = (data_dir / f"{part}_{kind}" for kind in ("gt", "input"))
        return tuple(folder / f"{self.name}.png" for folder in folders)


def sample_photos() -> list[Path]:
    """The colour photographs inside the installed scikit-image package."""
    folder = Path(skimage_data.__path__[0])
    return [folder / name for name in SAMPLE_PHOTOS]


def photos_below(folder: Path, data_dir: Path | None = None) -> list[Path]:
    """Image files of a photo folder, without those that a build wrote into `data_dir` inside it."""
    photos = list_images(folder)
    if data_dir and data_dir.absolute() != folder.absolute():
        built = data_dir.absolute()
        photos = [path for path in photos if not path.absolute().is_relative_to(built)]
    if not photos:
        found = "no image file found"
        raise InputError(f"{folder}: {found}; name a folder of JPEG, PNG or WebP photos")
    return photos


def resized(size: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height of a photo before cropping, or None if it is too small.

    The short side ends up between 512 and 1024 px, at 640 or more unless that means enlarging more
    than twice.
    """
    short = min(size)
    target = min(max(short, SHORT_SIDE[0]), SHORT_SIDE[1], int(short * MAX_ENLARGEMENT))
    if target < SIDE:
        return None
    return tuple(max(SIDE, round(side * target / short)) for side in size)


def inspect(path: Path, root: Path) -> SourcePhoto | str:
    """A photo to crop, or the reason why it is skipped."""
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{str(path)!a}: name is not UTF-8"
    try:
        image = open_image(path)
        if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
            return f"{path}: grey (mode {image.mode})"
        image = to_srgb(image, path).convert("RGB")
    except (InputError, OSError) as error:
        return str(error)
    size = resized(image.size)
    if size is None:
        found = f"{image.width}x{image.height}; the short side must be at least {SIDE // 2} px"
        return f"{path}: too small ({found})"
    values = np.asarray(image.reduce(max(1, min(image.size) // 64))).astype(np.int16)
    chroma = float(np.mean(values.max(axis=-1) - values.min(axis=-1)))
    if chroma < MIN_CHROMA:
        return f"{path}: grey (mean chroma {chroma:.1f} of 255)"
    return SourcePhoto(path, name, size)


def place_crops(photo: SourcePhoto, count: int, seed: int) -> list[tuple[int, int]]:
    """Up to `count` different (left, top) corners of 512×512 crops, uniform over the photo."""
    columns, rows = (side - SIDE + 1 for side in photo.size)
    rng = np.random.default_rng([seed, zlib.crc32(photo.name.encode())])
    places = rng.choice(columns * rows, min(count, columns * rows), replace=False)
    return [(int(place % columns), int(place // columns)) for place in places]


def write_crops(job: tuple[SourcePhoto, list[Crop]], data_dir: Path, seed: int) -> None:
    """Write the missing files of every crop of one photo; the damage is seeded by the file name."""
    photo, crops = job
    image = open_photo(photo.path).convert("RGB").resize(photo.size, Image.Resampling.LANCZOS)
    for crop in crops:
        box = (crop.left, crop.top, crop.left + SIDE, crop.top + SIDE)
        rgb = np.asarray(image.crop(box))
        gray, _ = punch_hole(rgb, np.random.default_rng([seed, zlib.crc32(crop.name.encode())]))
        for path, array in zip(crop.files(data_dir), (rgb, gray), strict=True):
            if not path.exists():
                write_png(path, array)


def build(
    photos: list[Path],
    root: Path,
    data_dir: Path,
    crops_per_photo: int,
    test_photos: float,
    seed: int,
) -> tuple[pd.DataFrame, list[str]]:
    """Write a competition folder in which test and training images show different photos.

    An interrupted call resumes where it stopped, and a finished folder is left as it is.

    Args:
        photos: image files below `root`.
        crops_per_photo: crops wanted of each photo; a photo of exactly 512×512 gives one.
        test_photos: share of the photos, 0 to 1, that become test images (at least one photo).
        seed: same seed, same photos, same bytes.

    Returns:
        The table written to `crops.csv` (a row per crop: name, photo, left, top, width and height
        of the resized photo), and the reason for each photo that was skipped by this call.
    """
    if crops_per_photo < 1:
        raise SettingError("crops_per_photo", crops_per_photo, "must be at least 1")
    if not 0 < test_photos < 1:
        raise SettingError("test_photos", test_photos, "must be between 0 and 1")
    if seed < 0:
        raise SettingError("seed", seed, "must be 0 or more")
    data_dir = Path(data_dir)
    with lock_folder(data_dir):
        recipe = {
            "crops_per_photo": crops_per_photo,
            "test_photos": test_photos,
            "seed": seed,
            "photos": _identities(photos, root),
        }
        _begin(data_dir, recipe)
        crops = data_dir / "crops.csv"  # written last
        if crops.exists():
            print(f"{data_dir}: already complete, nothing to do")
            return pd.read_csv(crops, keep_default_na=False), []
        inspected = list(parallel_map(partial(inspect, root=root), photos, "reading photos"))
        skipped = [reason for reason in inspected if isinstance(reason, str)]
        usable = [photo for photo in inspected if isinstance(photo, SourcePhoto)]
        if len(usable) < 2:
            (data_dir / "recipe.json").unlink()  # other photos may be tried
            found = f"{len(usable)} usable colour photos, at least 2 needed"
            reasons = "; ".join(skipped[:3]) or "no image file found"
            raise InputError(f"{root}: {found} ({reasons})")
        jobs = _plan(usable, crops_per_photo, test_photos, seed)
        _write_images(jobs, data_dir, seed)
        if recipe["photos"] != _identities(photos, root):
            found = "a photo changed during the build"
            raise InputError(f"{root}: {found}; remove {data_dir} and build again")
        return _write_tables(jobs, data_dir), skipped


def _begin(data_dir: Path, recipe: dict) -> None:
    """Refuse a folder that holds anything but what the same call began."""
    files = {path.name for path in data_dir.iterdir()} - {LOCK}
    if files and "recipe.json" not in files:
        remedy = "name a new folder, or remove what an earlier build left"
        raise InputError(f"{data_dir}: not empty; {remedy}")
    remedy = f"repeat the settings, name a new folder, or remove {data_dir} to build it again"
    begin(data_dir, recipe, remedy=remedy)


def _identities(photos: list[Path], root: Path) -> dict[str, list[int] | None]:
    return {path.relative_to(root).as_posix(): identity(path) for path in photos}


def _plan(
    photos: list[SourcePhoto], crops_per_photo: int, test_photos: float, seed: int
) -> list[tuple[SourcePhoto, list[Crop]]]:
    """The crops of each photo; test photos come first."""
    photos = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))]
    count = min(max(1, round(len(photos) * test_photos)), len(photos) - 1)
    jobs = []
    for prefix, digits, members in (("TEST", 3, photos[:count]), ("TRAIN", 5, photos[count:])):
        number = 0
        for photo in members:
            places = place_crops(photo, crops_per_photo, seed)
            names = (f"{prefix}_{number + i:0{digits}d}" for i in range(len(places)))
            jobs.append((photo, [Crop(n, *place) for n, place in zip(names, places, strict=True)]))
            number += len(places)
    return jobs


def _write_images(jobs: list[tuple[SourcePhoto, list[Crop]]], data_dir: Path, seed: int) -> None:
    """Write the images that are missing, one process per core."""
    missing = [
        (photo, crops)
        for photo, crops in jobs
        if not all(path.exists() for crop in crops for path in crop.files(data_dir))
    ]
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} photos are already cropped")
    write = partial(write_crops, data_dir=data_dir, seed=seed)
    for _ in parallel_map(write, missing, "writing crops"):
        pass


def _write_tables(jobs: list[tuple[SourcePhoto, list[Crop]]], data_dir: Path) -> pd.DataFrame:
    """Write `test.csv`, `train.csv` and `crops.csv`; returns the last."""
    rows = [
        (crop.name, photo.name, crop.left, crop.top, *photo.size)
        for photo, crops in jobs
        for crop in crops
    ]
    crops = pd.DataFrame(rows, columns=["name", "photo", "left", "top", "width", "height"])
    tables = {}
    for part, columns in (("test", TEST_COLUMNS), ("train", TRAIN_COLUMNS)):
        names = crops["name"][crops["name"].str.startswith(part.upper())]
        folders = {column: f"./{part}_{column.split('_')[0]}/" for column in columns}
        paths = {column: folder + names + ".png" for column, folder in folders.items()}
        tables[f"{part}.csv"] = pd.DataFrame(paths)
    for name, table in (tables | {"crops.csv": crops}).items():
        if not (data_dir / name).exists():
            write_text(data_dir / name, table.to_csv(index=False))
    return crops
