"""Training images as tensors: they are sampled, augmented and damaged here only."""

import atexit
import itertools
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from src.color.lattice import luma
from src.damage.hole import DrawDamage, punch_hole
from src.datasets.bank import Bank, hole_example, random_part
from src.datasets.competition import SIZE, read_truth
from src.utils.errors import InputError
from src.utils.processes import limit_threads, workers_ignore

ORDER, ITEM, SQUARE = range(3)  # random streams: one per epoch, per item, per batch


@dataclass(frozen=True)
class BatchSpec:
    """The batches that a model is trained on; all images are uint8 tensors."""

    keys: tuple[str, ...] = ("damaged", "mask", "gray", "rgb")
    """Tensors of a batch: `damaged`, `mask` (0 or 255), `gray` (B, 1, S, S), `rgb` (B, 3, S, S),
    `hole` (b, CHANNELS, TRAIN_CROP, TRAIN_CROP), see `hole_example`, and `tokens`, see `views`."""
    draw_damage: DrawDamage = punch_hole
    """Makes `damaged` and `mask` from RGB; only called if one of them is in `keys`."""
    hole_every: int = 1
    """Of a process's images, one in this many comes with a `hole`."""
    min_crop: float = 1.0
    """Smallest side of the random square that is cut out of each image, relative to the image."""
    views: bool = False
    """Whether `gray` and `rgb` of a packed folder are whole photos, a third of them with a repaired
    hole, see `training_view`: in all batches and with their `tokens`, or without tokens in every
    other batch."""


class Sample(NamedTuple):
    """A training item to make."""

    number: int  # counted from the start of training; the item's seed
    batch: int  # all samples of a batch have the same size
    image: int  # index into the paths
    hole: bool  # whether it comes with a hole


def augmentation(image_size: int) -> "A.Compose":  # noqa: F821, imported below
    """From (512, 512, 3) uint8 RGB to a square of `image_size` px; new augmentations go here.

    Up to 512 px no crop is enlarged, since enlarged photos are smoother than real ones. Tone
    changes equally in all channels, so that hue, which the score measures, hardly moves.
    """
    import albumentations as A  # slow to import, and models import this module

    native = min(1.0, (image_size / min(SIZE)) ** 2)
    return A.Compose(
        [
            A.RandomResizedCrop((image_size, image_size), scale=(native, 1.0), ratio=(1.0, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5),
            A.RandomGamma(gamma_limit=(85, 118), p=0.3),
        ]
    )


@dataclass(eq=False)
class TrainingImages(Dataset):
    """Truth images, augmented and damaged differently each time they are drawn: an item depends on
    its `Sample` and the seed alone, not on workers, processes and interruptions.
    """

    paths: list[Path]
    image_size: int
    seed: int
    spec: BatchSpec
    bank: Bank | None = None  # without one, files are read and the hole of `mask` is filled here

    def __post_init__(self) -> None:
        self.augment = augmentation(self.image_size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: Sample) -> dict[str, Tensor] | InputError:
        """The tensors of `spec`, or an error, which would lose its type if a worker raised it."""
        try:
            item = self._item(sample, np.random.default_rng([self.seed, ITEM, sample.number]))
        except InputError as error:
            return error
        return {key: torch.from_numpy(np.array(values)) for key, values in item.items()}

    def _item(self, sample: Sample, rng: np.random.Generator) -> dict[str, np.ndarray]:
        path, keys, bank = self.paths[sample.image], set(self.spec.keys), self.bank
        item: dict[str, np.ndarray] = {}
        if not sample.hole:
            keys.discard("hole")
        if "hole" in keys and bank:
            item["hole"] = random_part(bank.row("holes", path), rng)
            keys.remove("hole")
        views = self.spec.views and bank and "views" in bank.arrays
        if views and ("tokens" in bank.arrays or sample.batch % 2):
            item["rgb"] = bank.row("truths", path)[::2, ::2].transpose(2, 0, 1)
            item["gray"] = bank.row("views", path)[None]
            if "tokens" in bank.arrays:
                item["tokens"] = bank.row("tokens", path)
            keys -= {"gray", "rgb"}
        if keys:
            truth = bank.row("truths", path) if bank else read_truth(path)
            item |= self._images(truth, keys, sample.batch, rng)
        return item

    def _images(
        self, truth: np.ndarray, keys: set[str], batch: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        # set_random_seed would give every transform the same draws
        self.augment.set_random_state(rng, random.Random(int(rng.integers(2**31))))
        rgb = self.augment(image=truth)["image"]
        gray = luma(rgb)
        images = {"gray": gray[None], "rgb": rgb.transpose(2, 0, 1)}
        item = {}
        if keys & {"damaged", "mask", "hole"}:
            damaged, mask = self.spec.draw_damage(rgb, rng)
            images |= {"damaged": damaged[None], "mask": mask[None] * np.uint8(255)}
            if "hole" in keys:
                item["hole"] = random_part(hole_example(gray, mask), rng)
        of_batch = np.random.default_rng([self.seed, SQUARE, batch])
        side = round(len(gray) * of_batch.uniform(self.spec.min_crop, 1))
        top, left = (int(start) for start in rng.integers(len(gray) - side + 1, size=2))
        square = slice(top, top + side), slice(left, left + side)
        return item | {key: images[key][:, *square] for key in keys & images.keys()}


@dataclass(eq=False)
class EndlessSampler(Sampler):
    """Endless `Sample`s, reshuffled each epoch; each process takes every n-th.

    An epoch has as many samples as there are images; each image occurs in proportion to its weight,
    rounded up or down at random (systematic resampling, Kitagawa 1996).
    """

    weights: np.ndarray  # (N,) positive, one per image
    batch_size: int  # of all processes together
    seed: int
    first_batch: int = 0
    process: int = 0
    processes: int = 1
    hole_every: int = 1

    def __iter__(self) -> Iterator[Sample]:
        size, order_of = len(self.weights), None
        expected = np.cumsum(self.weights) / np.sum(self.weights) * size
        start = self.first_batch * self.batch_size + self.process
        for number in itertools.count(start, self.processes):
            epoch, position = divmod(number, size)
            if epoch != order_of:
                order_of, rng = epoch, np.random.default_rng([self.seed, ORDER, epoch])
                drawn = np.searchsorted(expected, np.arange(size) + rng.random(), side="right")
                order = rng.permutation(drawn.clip(max=size - 1))  # rounding may overshoot
            hole = number // self.processes % self.hole_every == 0
            yield Sample(number, number // self.batch_size, int(order[position]), hole)


def collate(items: list[dict[str, Tensor] | InputError]) -> dict[str, Tensor] | InputError:
    """A batch of `TrainingImages`, or the first of their errors."""
    for item in items:
        if isinstance(item, InputError):
            return item
    keys = sorted(set().union(*items))
    return {key: default_collate([item[key] for item in items if key in item]) for key in keys}


def training_batches(
    images: TrainingImages, sampler: EndlessSampler, workers: int, pin_memory: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Endless batches, see `BatchSpec`; each process gets its share of each."""
    loader = DataLoader(
        images,
        batch_size=sampler.batch_size // sampler.processes,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # the default one's state is part of a checkpoint
        worker_init_fn=limit_threads if workers else None,
        multiprocessing_context="spawn" if workers else None,  # a fork may inherit held locks
        pin_memory=pin_memory,
    )
    with workers_ignore(signal.SIGINT, signal.SIGTERM):  # the training loop decides when to stop
        batches = iter(loader)
    # torch ends its workers when the iterator is collected, which a traceback may prevent, or with
    # a SIGTERM at exit, which they ignore; it has nothing public to end them
    end = batches._shutdown_workers if workers else lambda: None
    atexit.register(end)
    try:
        for batch in batches:
            if isinstance(batch, InputError):
                raise batch
            yield batch
    finally:
        end()
        atexit.unregister(end)
