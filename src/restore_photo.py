"""The command `restore-photo`: any photo, coloured and repaired by the shipped weights."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from src.runtime.command_line import parse_settings, run_script
from src.runtime.errors import InputError
from src.runtime.settings import DamageKind, Style, Tta


@dataclass(frozen=True)
class Settings:
    """Restore a photo or a folder of photos; the originals stay as they are."""

    photos: Annotated[Path, tyro.conf.Positional]
    """A photo or a folder of photos."""
    output: Path = Path("restored")
    """The folder for the restored PNGs."""
    damage: DamageKind = "auto"
    """The damage to find: "hole" is one region of one constant value; "auto" is a hole or, if there is none,
    scratches, cracks, stains and tears; "none" finds nothing."""
    mask: Path | None = None
    """Instead of finding damage: a mask file (white is lost), or a folder of masks named like the photos."""
    decode: Style = "visual"
    """"visual": the colours that look best; "score": those that the competition's score rewards."""
    tta: Tta = 2
    """Views averaged for each photo."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""


def restore_photos() -> int:
    """Restore what the command line asks for; 2 when some photo could not be read."""
    settings = parse_settings(Settings)
    if not settings.photos.exists():
        raise InputError(f"{settings.photos}: no such photo or folder; check the path")
    from src.models.checkpoints import SHIPPED
    from src.pipeline import Pipeline
    from src.restoring import passed_over, photo_jobs, restore_files
    from src.runtime.distributed import launch

    jobs = photo_jobs(settings.photos, settings.output, settings.mask)
    for line in passed_over(settings.photos, settings.output, jobs, settings.mask):
        print(line)
    fabric = launch(settings.device)
    damage = "none" if settings.mask else settings.damage
    pipeline = Pipeline.load(SHIPPED, None, settings.tta, settings.decode, damage, fabric.device)
    failures = restore_files(pipeline, jobs, settings.output, fabric)
    print(f"{len(jobs) - len(failures)} photos in {settings.output}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


def main() -> None:
    """The entry point."""
    run_script(restore_photos)
