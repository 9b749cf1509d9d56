"""Check and zip the restored test images for the leaderboard: python make_submission.py"""

from dataclasses import dataclass, field
from pathlib import Path

from src.utils.cli import Folders, parse_settings, run_script


@dataclass(frozen=True)
class Settings:
    """Zip the PNGs that test.csv asks for; anything missing, extra or malformed is refused."""

    pred: Path | None = None
    """The folder of restored test images; <output-dir>/<name>/test when left out."""
    zip: Path | None = None
    """The zip to write; <output-dir>/<name>/submission.zip when left out."""
    folders: Folders = field(default_factory=Folders)


def main() -> None:
    """Check and zip the restored test images."""
    settings = parse_settings(Settings)
    from src.datasets.competition import read_test
    from src.evaluation.submission import describe_results, write_submission
    from src.utils.files import file_hash

    run_dir = settings.folders.run_dir
    target = settings.zip or run_dir / "submission.zip"
    pred = settings.pred or run_dir / "test"
    paths = read_test(settings.folders.data_dir)["input_image_path"]
    names = [Path(path).stem + ".png" for path in paths]
    write_submission(pred, names, target)
    print(describe_results(pred, names))
    size = target.stat().st_size / 1e6
    print(f"{target}: {len(names)} images, {size:.1f} MB, sha256 {file_hash(target)}")


if __name__ == "__main__":
    run_script(main)
