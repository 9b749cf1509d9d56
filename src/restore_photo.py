"""The command `restore-photo`: any photo, coloured and repaired by the shipped weights."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from src.checkpoints import SHIPPED, fold_checkpoints
from src.command_line import parse_settings, run_script
from src.decode import Style
from src.distributed import launch
from src.files import InputError
from src.inference import by_folds, photo_jobs, restore_files
from src.old_photos import Damage, make_finder


@dataclass(frozen=True)
class Settings:
    """Restore a photo or a folder of photos; the originals stay as they are."""

    photos: Annotated[Path, tyro.conf.Positional]
    """A photo or a folder of photos."""
    output: Path = Path("restored")
    """The folder for the restored PNGs; of two photos of one name it keeps the latest."""
    damage: Damage = "auto"
    """What is looked for: one flat and else scratches, stains and tears; one flat; nothing."""
    mask: Path | None = None
    """Instead: a mask file (white is lost), or a folder of masks named like the photos."""
    decode: Style = "visual"
    """"visual": the colours that look best; "score": those that the competition's score rewards."""
    tta: Literal[1, 2, 8] = 2
    """Views averaged for each photo."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""


def restore_photos() -> int:
    """Restore what the command line asks for; 2 when some photo could not be read."""
    settings = parse_settings(Settings)
    if not settings.photos.exists():
        raise InputError(f"{settings.photos}: no such photo or folder; check the path")
    jobs = photo_jobs(settings.photos, settings.output)
    find, found = make_finder(settings.damage, settings.mask, settings.photos, jobs)
    fabric = launch(settings.device)
    paths = fold_checkpoints(SHIPPED, None)
    restore, recipe = by_folds(paths, fabric.device, settings.tta, settings.decode)
    failures = restore_files(restore, jobs, recipe | found, settings.output, fabric, find)
    print(f"{len(jobs) - len(failures)} photos in {settings.output}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


def main() -> None:
    """The entry point."""
    run_script(restore_photos)
