"""Make a folder of exactly the competition's shape from any folder of colour photos."""

import itertools
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from skimage import data as skimage_data

from src.damage.hole import punch_hole
from src.datasets.competition import SIZE, TEST_COLUMNS, TRAIN_COLUMNS
from src.utils.errors import InputError, SettingError
from src.utils.files import LOCK, begin, hash_or_none, lock_folder, write_text
from src.utils.images import list_images, open_image, open_photo, to_srgb, write_png
from src.utils.processes import parallel_map

SIDE = SIZE[0]
SHORT_SIDE = (640, 1024)  # px, range after resizing; above 512, so that crops differ
MAX_ENLARGEMENT = 2.0
MIN_CHROMA = 3.0  # mean of max(R, G, B) - min(R, G, B) in grey levels; below it a photo is grey
SAMPLE_PHOTOS = ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png"]
SAMPLE_PHOTOS += ["motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg"]

COPY_SIDE = 16  # px of the reduced photos that are compared
# least correlation of copies; smaller, strongly compressed ones had 0.997, two stereo views 0.86
MIN_COPY = 0.98


class Photo(NamedTuple):
    """A photo to crop."""

    name: str  # POSIX path below the photo folder
    size: tuple[int, int]  # width and height after resizing
    reduced: np.ndarray  # (COPY_SIDE, COPY_SIDE) float32 grey, normalized


class Crop(NamedTuple):
    """A 512×512 crop of a resized photo; a row of `crops.csv`."""

    name: str  # TRAIN_00000 or TEST_000; the seed of its damage
    photo: str  # the seed of its position
    left: int
    top: int
    width: int  # the resized photo's
    height: int

    def files(self, data_dir: Path) -> list[Path]:
        """Its truth and its damaged input in a competition folder."""
        part = self.name.split("_")[0].lower()
        return [data_dir / f"{part}_{kind}" / f"{self.name}.png" for kind in ("gt", "input")]


def sample_photos() -> list[Path]:
    """The colour photographs inside the installed scikit-image package."""
    return [Path(skimage_data.__path__[0], name) for name in SAMPLE_PHOTOS]


def photos_below(folder: Path, data_dir: Path) -> list[Path]:
    """Image files of a photo folder, except those that a build wrote into `data_dir` inside it."""
    built = data_dir.absolute()
    photos = [path for path in list_images(folder) if built not in path.absolute().parents]
    if not photos:
        remedy = "name a folder of JPEG, PNG or WebP photos"
        raise InputError(f"{folder}: no image file found outside {data_dir}; {remedy}")
    return photos


def inspect(path: Path, root: Path) -> Photo | str:
    """A photo to crop, or the reason for skipping it."""
    name = path.relative_to(root).as_posix()
    if name != name.encode(errors="ignore").decode():
        return f"{str(path)!a}: name is not UTF-8"
    try:
        image = open_image(path)
        if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
            return f"{path}: grey (mode {image.mode})"
        image = to_srgb(image, path).convert("RGB")
    except (InputError, OSError) as error:
        return str(error)
    short = min(image.size)
    target = min(max(short, SHORT_SIDE[0]), SHORT_SIDE[1], int(short * MAX_ENLARGEMENT))
    if target < SIDE:
        found = f"{image.width}x{image.height}; the short side must be at least {SIDE // 2} px"
        return f"{path}: too small ({found})"
    values = np.asarray(image.reduce(max(1, min(image.size) // 64))).astype(np.int16)
    chroma = float(np.mean(values.max(axis=-1) - values.min(axis=-1)))
    if chroma < MIN_CHROMA:
        return f"{path}: grey (mean chroma {chroma:.1f} of 255)"
    size = tuple(max(SIDE, round(side * target / short)) for side in image.size)
    gray = image.resize((COPY_SIDE, COPY_SIDE), Image.Resampling.BOX).convert("L")
    reduced = np.asarray(gray, np.float32) - np.mean(gray)
    return Photo(name, size, reduced / max(1e-6, np.linalg.norm(reduced)))


def without_copies(photos: list[Photo]) -> tuple[list[Photo], list[str]]:
    """The photos, in order, less copies of others (smaller, mirrored, rotated); and a line on each.

    On both sides of a split, copies would make a score too good.
    """
    views = [(f, k) for f in (1, -1) for k in range(4)]
    kept, lines = [], []
    known = np.empty((0, COPY_SIDE**2), np.float32)
    for photo in sorted(photos, key=lambda one: (-math.prod(one.size), len(one.name), one.name)):
        seen = [np.rot90(photo.reduced[:, ::flip], turns).ravel() for flip, turns in views]
        alike = (known @ np.stack(seen).T).max(axis=1)
        if len(kept) and alike.max() >= MIN_COPY:
            lines.append(f"{photo.name}: a copy of {kept[alike.argmax()].name}")
        else:
            kept.append(photo)
            known = np.concatenate([known, seen[:1]])
    names = {photo.name for photo in kept}
    return [photo for photo in photos if photo.name in names], lines


def plan_crops(
    photos: list[Photo], crops_per_photo: int, test_photos: float, seed: int
) -> list[list[Crop]]:
    """Different crops of each photo, uniform over it; test photos come first."""
    photos = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))]
    count = min(max(1, round(len(photos) * test_photos)), len(photos) - 1)
    plan = []
    for prefix, digits, members in (("TEST", 3, photos[:count]), ("TRAIN", 5, photos[count:])):
        names = (f"{prefix}_{number:0{digits}d}" for number in itertools.count())
        for name, size, _ in members:
            columns, rows = (side - SIDE + 1 for side in size)
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            places = rng.choice(columns * rows, min(crops_per_photo, columns * rows), replace=False)
            corners = [(int(place % columns), int(place // columns)) for place in places]
            plan.append([Crop(next(names), name, *corner, *size) for corner in corners])
    return plan


def write_crops(crops: list[Crop], root: Path, data_dir: Path, seed: int) -> None:
    """Write the missing files of all crops of one photo."""
    missing = {path for crop in crops for path in crop.files(data_dir) if not path.exists()}
    if not missing:
        return
    image = open_photo(root / crops[0].photo).convert("RGB")
    image = image.resize((crops[0].width, crops[0].height), Image.Resampling.LANCZOS)
    for crop in crops:
        rgb = np.asarray(image.crop((crop.left, crop.top, crop.left + SIDE, crop.top + SIDE)))
        gray, _ = punch_hole(rgb, np.random.default_rng([seed, zlib.crc32(crop.name.encode())]))
        for path, array in zip(crop.files(data_dir), (rgb, gray), strict=True):
            if path in missing:
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

    An interrupted call resumes where it stopped, and a finished folder is left as it is. The same
    seed and photos (below `root`) give the same bytes. `test_photos` is the share of the photos
    that become test images. Returns `crops.csv` and this call's reasons for skipping photos.
    """
    if crops_per_photo < 1:
        raise SettingError("crops_per_photo", crops_per_photo, "must be at least 1")
    if not 0 < test_photos < 1:
        raise SettingError("test_photos", test_photos, "must be between 0 and 1")
    recipe = {"crops_per_photo": crops_per_photo, "test_photos": test_photos, "seed": seed}
    with ThreadPoolExecutor() as pool:
        hashes = zip(photos, pool.map(hash_or_none, photos), strict=True)
        recipe["photos"] = {path.relative_to(root).as_posix(): value for path, value in hashes}
    with lock_folder(data_dir):
        files = {path.name for path in data_dir.iterdir()} - {LOCK}
        if files and "recipe.json" not in files:
            remedy = "name a new folder, or remove what an earlier build left"
            raise InputError(f"{data_dir}: not empty; {remedy}")
        remedy = f"repeat the settings, name a new folder, or remove {data_dir} to build it again"
        begin(data_dir, recipe, remedy=remedy)
        if "crops.csv" in files:
            print(f"{data_dir}: already complete, nothing to do")
            return pd.read_csv(data_dir / "crops.csv", keep_default_na=False), []
        inspected = list(parallel_map(partial(inspect, root=root), photos, "reading photos"))
        skipped = [reason for reason in inspected if isinstance(reason, str)]
        usable, copies = without_copies([one for one in inspected if isinstance(one, Photo)])
        skipped += copies
        if len(usable) < 2:
            (data_dir / "recipe.json").unlink()  # so that other photos may be tried
            found = f"{len(usable)} usable colour photos, at least 2 needed"
            raise InputError(f"{root}: {found} ({'; '.join(skipped[:3])})")
        plan = plan_crops(usable, crops_per_photo, test_photos, seed)
        write = partial(write_crops, root=root, data_dir=data_dir, seed=seed)
        list(parallel_map(write, plan, "writing crops"))
        return write_tables(plan, data_dir), skipped


def write_tables(plan: list[list[Crop]], data_dir: Path) -> pd.DataFrame:
    """Write `test.csv`, `train.csv` and `crops.csv` unless they exist; returns the last."""
    crops = pd.DataFrame(itertools.chain(*plan), columns=Crop._fields)
    tables = {"crops": crops}
    for part, columns in (("test", TEST_COLUMNS), ("train", TRAIN_COLUMNS)):
        names = crops["name"][crops["name"].str.startswith(part.upper())] + ".png"
        folders = {column: f"./{part}_{column.split('_')[0]}/" for column in columns}
        tables[part] = pd.DataFrame({column: folders[column] + names for column in columns})
    for part in ("test", "train", "crops"):  # crops.csv comes last: it marks the folder as complete
        if not (data_dir / f"{part}.csv").exists():
            write_text(data_dir / f"{part}.csv", tables[part].to_csv(index=False))
    return crops
