"""The settings of every benchmark; no torch, so that `--help` need not wait for it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class HoleFinding:
    """How well and how fast holes are found, on damage drawn on real photos."""

    photos: Path
    """Folder of colour photos; one crop of each is damaged."""
    count: int = 0
    """Photos to use, spread evenly over the folder; 0 takes all."""
    seed: int = 0
    """Seed of crops and damage."""


@dataclass(frozen=True)
class DetectorQuality:
    """Precision and recall of the detector on aged photos that it was not trained on.

    Both what the network says and what is left after the post-processing are measured.
    """

    data_dir: Path
    """The competition folder that it was trained on."""
    checkpoint: Path | None = None
    """What train.py detector wrote; the shipped detector when left out."""
    fold: int = 0
    """The fold that was held out."""
    folds: int = 5
    """Number of folds that the scenes were split into."""
    seed: int = 0
    """Seed of the split and of the damage."""
    count: int = 200
    """Images to measure on, spread evenly over the fold; 0 takes all."""


@dataclass(frozen=True)
class SceneSearch:
    """How well scenes are found, and how the time of each stage of the search grows."""

    data_dir: Path
    """A folder made by prepare_data.py build; its crops.csv holds the truth."""


@dataclass(frozen=True)
class PartsAblation:
    """What each part of the restorer is worth: the same model with a part left out or replaced."""

    data_dir: Path
    """The competition folder that it was trained on."""
    checkpoints: tuple[Path, ...]
    """The folder of one fold, such as outputs/restorer/fold0, or of several, measured together."""
    images: Literal["held-out", "test"] = "held-out"
    """The fold's held-out images, or the test images of a folder made by prepare_data.py build."""
    count: int = 100
    """Images to measure on, spread evenly; 0 takes all."""
    folds: int = 5
    """Number of folds that the scenes were split into."""
    seed: int = 0
    """Seed that the scenes were split with."""
    picture: Path | None = None
    """Write four of the images to this PNG: input, both decodes, most likely hues, and truth."""


@dataclass(frozen=True)
class FillQuality:
    """M of the grey images, with its standard error, of every fill, their mixes, and a fold's
    inpainter."""

    data_dir: Path
    """A competition folder."""
    checkpoints: tuple[Path, ...] = ()
    """Inpainters to measure, each alone with one view, and all together with two."""
    fold: int = 0
    """The fold whose held-out images are measured."""
    count: int = 300
    """Images to measure on, spread evenly over the fold; 0 takes all."""
    folds: int = 5
    """Number of folds that the scenes are split into."""
    seed: int = 0
    """Seed that the scenes are split with."""
    table: Path | None = None
    """Write M of every image to this CSV."""


@dataclass(frozen=True)
class ColorQuality:
    """Colours of undamaged photos by source: C, and what people see, its colourfulness and
    CIEDE2000."""

    data_dir: Path
    """A competition folder; where prepare_data.py build made it, a photo's source is its path up to
    a "-"."""
    checkpoints: tuple[Path, ...]
    """Colorizers to measure, together: folders of folds."""
    fold: int = 0
    """The fold whose held-out images are measured."""
    count: int = 300
    """Images to measure on, spread evenly over the fold; 0 takes all."""
    tta: int = 1
    """Views of each photo: 1, 2 or 8."""
    folds: int = 5
    """Number of folds that the scenes are split into."""
    seed: int = 0
    """Seed that the scenes are split with."""
    table: Path | None = None
    """Write the figures of every image to this CSV."""
    sheet: Path | None = None
    """Write all of them to this PNG: grey, as people are shown them, and as they are."""


@dataclass(frozen=True)
class ScoreSpeed:
    """The score of an image by the published calls and by ours, and of a whole fold."""

    data_dir: Path
    """A competition folder; its first training pairs are used, filled in by Telea."""
    count: int = 20
    """Images to time one by one."""
    files: int = 6000
    """Files to score with all cores, the first ones again where there are fewer; a fold has 6,000.
    """


@dataclass(frozen=True)
class DataSpeed:
    """Milliseconds an image, one core: reading, damage, and whole training images; PNG files and
    pack."""

    data_dir: Path
    """A competition folder, packed by prepare_data.py pack."""
    count: int = 100
    """Images of each run; the median of the runs' means counts."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Images a second of training steps and of the loader alone, and how long steps wait for
    images."""

    data_dir: Path
    """A competition folder, packed by prepare_data.py pack."""
    steps: int = 10
    """Steps of each model; the median counts."""
    batches: int = 100
    """Batches of each loader."""


@dataclass(frozen=True)
class InferenceSpeed:
    """Restoring a 512×512 image with five folds and two views, against a forward pass of
    full_pipeline."""

    data_dir: Path
    """A competition folder; its test images are restored."""
    count: int = 100
    """Test images that infer.py restores."""


@dataclass(frozen=True)
class PhotoSizes:
    """Seconds a megapixel of PNG files of growing size, one fold and one view, and the peak memory."""

    megapixels: tuple[float, ...] = (0.25, 1, 4, 12, 48)
    """Sizes to restore."""


@dataclass(frozen=True)
class PreparationTime:
    """Seconds of building, checking, packing and splitting folders of growing size; each runs once."""

    photos: Path
    """Folder of colour photos; twelve crops of each are used, so 29,603 pairs need 2,667 photos."""
    pairs: tuple[int, ...] = (1000, 5000, 29603)
    """Training pairs of the folders to make."""
    skip: tuple[Literal["check", "pack"], ...] = ()
    """Stages to leave out; no other stage needs them."""
    work_dir: Path = Path(tempfile.gettempdir())
    """Where the folders are made, and removed again; 29,603 pairs take 40 GB."""


@dataclass(frozen=True)
class TimeToScore:
    """Train full_pipeline, then the restorer, for the same wall-clock; how much sooner ours is as
    good.

    The schedule of each is fitted to the budget, and both times are known no finer than the minutes
    at which both are validated. The same command again goes on where it was interrupted.
    """

    data_dir: Path
    """The competition folder."""
    output_dir: Path = Path("outputs/time-to-score")
    """Where both runs, the table and the plot go."""
    minutes: float = 30.0
    """Wall-clock budget of each, validations included."""
    validate_at: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8, 16)
    """Minutes at which both are validated, besides the end."""
    val_images: int = 50
    """Held-out images that both are validated on."""
    fold: int = 0
    """The fold held out."""
    full_pipeline: tuple[str, ...] = ("encoder=lite0", "image-size=128")
    """Settings of full_pipeline's training; these gave it its best half hour."""
    restorer: tuple[str, ...] = ()
    """Settings of the restorer's training."""


BENCHMARKS: dict[str, type] = {
    "damage": HoleFinding,
    "detector": DetectorQuality,
    "scenes": SceneSearch,
    "parts": PartsAblation,
    "fills": FillQuality,
    "colors": ColorQuality,
    "score": ScoreSpeed,
    "data": DataSpeed,
    "training": TrainingSpeed,
    "inference": InferenceSpeed,
    "size": PhotoSizes,
    "preparation": PreparationTime,
    "time-to-score": TimeToScore,
}
