"""Check a competition folder, pack it, or build one from photos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.utils.cli import parse_settings, run_script
from src.utils.errors import InputError


@dataclass(frozen=True)
class Check:
    """Verify that every file in a competition folder decodes and has the right size and grey."""

    data_dir: Path = Path("data")
    """The competition folder."""
    folds: int = 5
    """Number of folds that the scenes are split into, for folds.csv."""
    seed: int = 0
    """Seed of the split."""
    by: Literal["scene", "source"] = "scene"
    """What is never split between folds; sources are known for folders that build made."""

    def run(self) -> int:
        from src.datasets.check import check_folder, describe, describe_folds
        from src.datasets.folds import split_by_source

        good, defects = check_folder(self.data_dir)
        print(*describe(good), sep="\n")
        if not defects:
            if self.by == "source":
                split_by_source(self.data_dir, self.folds, self.seed)
            print(describe_folds(self.data_dir, self.folds, self.seed))
            return 0
        print(f"defects: {len(defects)}", *defects, sep="\n  ")
        return 1


@dataclass(frozen=True)
class Build:
    """Make a competition folder from colour photos. Run the same command again to resume."""

    data_dir: Path = Path("data")
    """The folder to make."""
    photos: Path | None = None
    """Folder of JPEG, PNG or WebP photos; subfolders are searched too."""
    sample: bool = False
    """Use the photographs that scikit-image ships instead."""
    crops_per_photo: int = 4
    """512x512 crops of each photo."""
    test_photos: float = 0.1
    """Share of the photos that become test images, 0 to 1."""
    seed: int = 0
    """Seed of crops, damage and split."""

    def run(self) -> None:
        if (self.photos is None) == (not self.sample):
            raise InputError("build: name either --photos DIR or --sample")
        from src.datasets.build import build, photos_below, sample_photos

        photos = sample_photos() if self.sample else photos_below(self.photos, self.data_dir)
        root = photos[0].parent if self.sample else self.photos
        settings = self.crops_per_photo, self.test_photos, self.seed
        table, skipped = build(photos, root, self.data_dir, *settings)
        print("".join(f"skipped {reason}\n" for reason in skipped), end="")
        tests = int(table["name"].str.startswith("TEST").sum())
        images = f"{len(table) - tests} pairs and {tests} test images"
        print(f"{self.data_dir}: {images} of {table['photo'].nunique()} photos")


@dataclass(frozen=True)
class Pack:
    """Decode truths and fill holes once, for faster training. Run it again to resume."""

    data_dir: Path = Path("data")
    """The competition folder; packing takes 1.7 MB and about 0.6 s of one core per image."""
    arrays: tuple[Literal["holes", "views", "tokens"], ...] = ("holes", "views", "tokens")
    """What to prepare besides the truths: holes for the inpainter, views for the colorizer, and
    what DINOv2 sees in them, which is better computed as it goes if there is a GPU."""

    def run(self) -> None:
        from src.datasets.bank import FOLDER, pack

        count, folder = pack(self.data_dir, self.arrays), self.data_dir / FOLDER
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: {count} images, {size / 1e9:.2f} GB")


def main() -> int | None:
    return parse_settings(Check | Build | Pack, __doc__).run()


if __name__ == "__main__":
    run_script(main)
