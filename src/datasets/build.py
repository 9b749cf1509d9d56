"""Make a folder of exactly the competition's shape from any folder of colour photos."""

import json
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
from src.utils.files import LOCK, append_text, lock_folder, read_text, write_text
from src.utils.images import list_images, open_image, open_photo, to_srgb, write_png
from src.utils.processes import parallel_map
from src.utils.recipe import identity, require_same

RECORD = ".build.jsonl"  # in the folder: what it is built from, then each photo's inspection
SIDE = SIZE[0]
SHORT_SIDE = (
    640,
    1024,
)  # wanted short side in pixels; at least 512, so that crops of it can differ
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

    def files(self, data_dir: Path) -> tuple[Path, Path]:
        """Its truth and its damaged input in a competition folder."""
        part = self.name.split("_")[0].lower()
        return (
            data_dir / f"{part}_gt" / f"{self.name}.png",
            data_dir / f"{part}_input" / f"{self.name}.png",
        )


def sample_photos() -> list[Path]:
    """The colour photographs inside the installed scikit-image package."""
    folder = Path(skimage_data.__path__[0])
    return [folder / name for name in SAMPLE_PHOTOS]


def resized(size: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height of a photo before cropping, or None when it is too small.

    The short side ends between 512 and 1024 px, at 640 or more where that means enlarging at most
    twice.
    """
    short = min(size)
    target = min(max(short, SHORT_SIDE[0]), SHORT_SIDE[1], int(short * MAX_ENLARGEMENT))
    if target < SIDE:
        return None
    return tuple(max(SIDE, round(side * target / short)) for side in size)


def inspect(path: Path, root: Path) -> SourcePhoto | str:
    """What `build` needs to know of a photo, or the reason why it is skipped."""
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
    """Write truth and damaged input of every crop of one photo, those that exist excepted.

    The damage is seeded by the file's name.
    """
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
    """Write a competition folder; test photos share no photo with training.

    An interrupted call resumes where it stopped, and a finished folder is left as it is. The hidden
    `RECORD` tells what the folder is built from; it stays, since by it the same call is known from
    another.

    Args:
        photos: image files below `root`.
        crops_per_photo: crops wanted of each photo; a photo of exactly 512×512 gives one.
        test_photos: share of the photos, 0 to 1, that become test images (at least one photo).
        seed: same seed, same photos, same bytes.

    Returns:
        The table written to `crops.csv` (one row a crop: name, photo, left, top, width, height of
        the resized photo), and the reason for each photo that was skipped.

    Raises `InputError` when too few photos are usable, when the folder holds anything else than
    what the same call began, a photo was added, removed or changed since, or another process works
    in the folder.
    """
    if crops_per_photo < 1:
        raise SettingError("crops_per_photo", crops_per_photo, "must be at least 1")
    if not 0 < test_photos < 1:
        raise SettingError("test_photos", test_photos, "must be between 0 and 1")
    if seed < 0:
        raise SettingError("seed", seed, "must be 0 or more")
    settings = {"crops_per_photo": crops_per_photo, "test_photos": test_photos, "seed": seed}
    with lock_folder(data_dir):
        return _build(photos, root, data_dir, settings)


def _build(
    photos: list[Path], root: Path, data_dir: Path, settings: dict
) -> tuple[pd.DataFrame, list[str]]:
    crops_per_photo, test_photos, seed = settings.values()
    recipe = settings | _identities(photos, root)
    found = _inspected(photos, root, data_dir, recipe)
    usable = [photo for photo in found if isinstance(photo, SourcePhoto)]
    skipped = [reason for reason in found if isinstance(reason, str)]
    if len(usable) < 2:
        (data_dir / RECORD).unlink()  # the folder is empty again, and other photos may be tried
        reasons = "; ".join(skipped[:3]) or "no image file found"
        raise InputError(
            f"{root}: {len(usable)} usable colour photos, at least 2 needed ({reasons})"
        )
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
    waiting = [
        job
        for job in jobs
        if not all(path.exists() for crop in job[1] for path in crop.files(data_dir))
    ]
    for _ in parallel_map(
        partial(write_crops, data_dir=data_dir, seed=seed), waiting, "writing crops"
    ):
        pass
    if recipe != settings | _identities(photos, root):
        raise InputError(
            f"{root}: a photo changed during the build; remove {data_dir} and build again"
        )
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} photos are already cropped")
    table = pd.DataFrame(rows, columns=["name", "photo", "left", "top", "width", "height"])
    tables = {"crops.csv": table}
    for part, columns in (("test", TEST_COLUMNS), ("train", TRAIN_COLUMNS)):
        names = table["name"][table["name"].str.startswith(part.upper())]
        folders = [column.split("_")[0] for column in columns]
        tables[f"{part}.csv"] = pd.DataFrame(
            {c: f"./{part}_{f}/" + names + ".png" for c, f in zip(columns, folders, strict=True)}
        )
    unwritten = [name for name in tables if not (data_dir / name).exists()]
    if not waiting and not unwritten:
        print(f"{data_dir}: already complete, nothing to do")
    for name in unwritten:
        write_text(data_dir / name, tables[name].to_csv(index=False))
    return table, skipped


def _identities(photos: list[Path], root: Path) -> dict[str, list[int] | None]:
    """The identity of each photo by its name."""
    return {path.relative_to(root).as_posix(): identity(path) for path in photos}


def _inspected(
    photos: list[Path], root: Path, data_dir: Path, recipe: dict
) -> list[SourcePhoto | str]:
    """`inspect` of every photo, resumed where the folder's record ends; errors as for `build`."""
    record, done = data_dir / RECORD, []
    if record.exists():
        begun, *lines = read_text(record, f"remove {data_dir} and build again").split("\n")
        try:
            earlier = dict(json.loads(begun))
            earlier |= earlier.pop("photos", {})  # where version 1.0 kept them
        except (ValueError, TypeError, RecursionError):
            raise InputError(f"{record}: broken; remove {data_dir} and build again") from None
        remedy = "repeat the settings, name a new folder, or remove this one to build it again"
        require_same(data_dir, earlier, recipe, remedy)
        for path, line in zip(photos, lines, strict=False):
            try:
                known = json.loads(line)
            except ValueError:
                break  # an interruption cut it off
            name = path.relative_to(root).as_posix()
            done.append(known if isinstance(known, str) else SourcePhoto(path, name, tuple(known)))
    elif any(path.name != LOCK for path in data_dir.iterdir()):
        raise InputError(
            f"{data_dir}: not empty; name a new folder, or remove what an earlier build left"
        )
    if len(done) == len(photos):
        return done
    write_text(record, "".join(map(_line, [recipe, *done])))
    for result in parallel_map(partial(inspect, root=root), photos[len(done) :], "reading photos"):
        append_text(record, _line(result))
        done.append(result)
    return done


def _line(value: dict | SourcePhoto | str) -> str:
    return json.dumps(value.size if isinstance(value, SourcePhoto) else value) + "\n"


def photos_below(folder: Path, data_dir: Path | None = None) -> list[Path]:
    """Image files of a photo folder, without those that a build wrote into `data_dir` inside of it.

    Raises `InputError` when there is none.
    """
    photos = list_images(folder)
    if data_dir and data_dir.absolute() != folder.absolute():
        photos = [
            path for path in photos if not path.absolute().is_relative_to(data_dir.absolute())
        ]
    if not photos:
        raise InputError(
            f"{folder}: no image file found; name a folder of JPEG, PNG or WebP photos"
        )
    return photos
