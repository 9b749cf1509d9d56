"""Zip the restored test images for the leaderboard, or check any zip: python make_submission.py"""

from dataclasses import dataclass
from pathlib import Path

from src.command_line import parse_settings, run_script
from src.datasets.competition import read_test
from src.files import file_hash
from src.settings import DataSettings
from src.submission import check_submission, write_submission


@dataclass(frozen=True)
class Settings(DataSettings):
    """Zip exactly the PNGs that test.csv asks for; anything missing, extra or malformed is refused."""

    pred: Path | None = None
    """The folder of restored test images; <output-dir>/<name>/test when left out."""
    zip: Path | None = None
    """The zip to write; <output-dir>/<name>/submission.zip when left out."""
    check: Path | None = None
    """Write nothing, but tell whether this zip, also one of another program, is what test.csv asks for."""


def main() -> None:
    """Check and zip, or check alone."""
    settings = parse_settings(Settings)
    target = settings.check or settings.zip or settings.run_dir / "submission.zip"
    names = [Path(path).stem + ".png" for path in read_test(settings.data_dir)["input_image_path"]]
    if settings.check:
        check_submission(target, names)
    else:
        write_submission(settings.pred or settings.run_dir / "test", names, target)
    size = target.stat().st_size / 1e6
    print(f"{target}: {len(names)} images, {size:.1f} MB, sha256 {file_hash(target)}")


if __name__ == "__main__":
    run_script(main)
