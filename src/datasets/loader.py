"""Training images as tensors; which image gets which damage depends on seeds alone."""

import atexit
import random
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from src.color.luma import luma
from src.damage.hole import DrawDamage, punch_hole
from src.datasets.bank import Holes, ReadTruth
from src.datasets.competition import SIZE, read_truth
from src.datasets.holes import hole_example, random_part
from src.utils.errors import InputError
from src.utils.processes import main_unseen, one_thread
from src.utils.signals import SIGNALS, block_signals

IMAGES = ("damaged", "mask", "gray", "rgb")  # what an item is unless something else is asked for


def augmentation(image_size: int) -> A.Compose:
    """Geometric and photometric augmentation of (512, 512, 3) uint8 RGB to a square of `image_size`
    px.

    Square crops range from native resolution to the whole photo. Up to 512 px none is enlarged,
    since that is smoother than what has to be painted in. Tone changes alike in all channels, so
    that hue, which the score counts, hardly moves.
    """
    native = min(1.0, (image_size / min(SIZE)) ** 2)
    return A.Compose(
        [
            A.RandomResizedCrop((image_size, image_size), scale=(native, 1.0), ratio=(1.0, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5),
            A.RandomGamma(gamma_limit=(85, 118), p=0.3),
        ]
    )


class TrainingImages(Dataset):
    """Truth images, augmented and damaged afresh in each epoch.

    An item is asked for by (epoch, index) and depends on these and the seed alone, so that neither
    the number of workers nor an interruption changes what is trained on. It holds those of these
    uint8 tensors
    that are asked for: `damaged`, `mask` (0 or 255) and `gray` (1, S, S), `rgb` (3, S, S), and
    `hole`, see `hole_example`.

    Args:
        keys: the tensors to make.
        holes: where the holes are read; without, each is that of `mask`, filled when it is asked
            for.
    """

    def __init__(
        self,
        paths: list[Path],
        image_size: int,
        seed: int,
        read: ReadTruth = read_truth,
        draw_damage: DrawDamage = punch_hole,
        keys: Collection[str] = IMAGES,
        holes: Holes | None = None,
    ):
        self.paths = paths
        self.keys = frozenset(keys)
        self.holes = holes
        self.seed = seed
        self.read = read
        self.draw_damage = draw_damage
        self.transform = augmentation(image_size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int, bool]) -> dict[str, Tensor] | InputError:
        """The item of an epoch and an index, with a hole or without, or the error why there is
        none.

        It is returned, since an error that is raised in a worker reaches the training as another
        type.
        """
        epoch, index, with_hole = key
        keys = self.keys if with_hole else self.keys - {"hole"}
        rng = np.random.default_rng([self.seed, epoch, index])
        # set_random_seed would give every transform the same draws: a flip always with a change of
        # tone
        self.transform.set_random_state(rng, random.Random(int(rng.integers(2**31))))
        item: dict[str, np.ndarray] = {}
        if "hole" in keys and self.holes:
            item["hole"] = random_part(self.holes(self.paths[index]), rng)
        if keys - item.keys():
            try:
                truth = self.read(self.paths[index])
            except InputError as error:
                return error
            rgb = self.transform(image=truth)["image"]
            damaged, lost = self.draw_damage(rgb, rng)
            gray = luma(rgb)
            item |= {
                "damaged": damaged[None],
                "mask": lost[None] * np.uint8(255),
                "gray": gray[None],
            }
            item["rgb"] = rgb.transpose(2, 0, 1)
            if "hole" in keys and not self.holes:
                item["hole"] = random_part(hole_example(gray, lost), rng)
        return {key: torch.from_numpy(np.array(item[key])) for key in keys}


def collate(items: list[dict[str, Tensor] | InputError]) -> dict[str, Tensor] | InputError:
    """A batch of `TrainingImages`, or the first of their errors."""
    for item in items:
        if isinstance(item, InputError):
            return item
    keys = set().union(*items)
    return {
        key: default_collate([item[key] for item in items if key in item]) for key in sorted(keys)
    }


class EndlessSampler(Sampler):
    """(epoch, index, hole) without an end, reshuffled each epoch, from sample number `start` on.

    Of several processes each takes every n-th, so that together they see the batches of a single
    one. Every `hole_every`-th sample of each has a hole. An epoch has as many samples as there are
    images; with `weights`, (N,) positive numbers, an image is in it as often as its share of them
    says, rounded up or down at random (systematic resampling, Kitagawa 1996).
    """

    def __init__(
        self,
        size: int,
        seed: int,
        start: int = 0,
        process: int = 0,
        processes: int = 1,
        hole_every: int = 1,
        weights: np.ndarray | None = None,
    ):
        self.hole_every = hole_every
        weights = np.ones(size) if weights is None else weights
        self.expected = np.cumsum(weights) / np.sum(weights) * size
        self.size, self.seed, self.start = size, seed, start
        self.process, self.processes = process, processes

    def __iter__(self) -> Iterator[tuple[int, int, bool]]:
        own = islice(self._all(), self.process, None, self.processes)
        for number, (epoch, index) in enumerate(own, self.start // self.processes):
            yield epoch, index, number % self.hole_every == 0

    def _all(self) -> Iterator[tuple[int, int]]:
        epoch, skip = divmod(self.start, self.size)
        while True:
            rng = np.random.default_rng([self.seed, epoch])
            order = rng.permutation(self.size)
            drawn = np.searchsorted(
                self.expected, np.arange(self.size) + rng.random(), side="right"
            )
            drawn = drawn.clip(max=self.size - 1)  # sums are rounded
            yield from ((epoch, int(index)) for index in drawn[order[skip:]])
            epoch, skip = epoch + 1, 0


def training_batches(
    paths: list[Path],
    image_size: int,
    batch_size: int,
    workers: int,
    seed: int,
    start: int,
    read: ReadTruth = read_truth,
    process: int = 0,
    processes: int = 1,
    draw_damage: DrawDamage = punch_hole,
    keys: Collection[str] = IMAGES,
    holes: Holes | None = None,
    hole_every: int = 1,
    weights: np.ndarray | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Endless batches of `TrainingImages` from sample number `start` on; values as its docstring
    says.

    Of `processes` that train together this is number `process`; it gets its part of each batch. The
    `weights` are those of `EndlessSampler`.

    Raises `InputError` for an unreadable image.
    """
    loader = DataLoader(
        TrainingImages(paths, image_size, seed, read, draw_damage, keys, holes),
        batch_size=batch_size // processes,
        sampler=EndlessSampler(len(paths), seed, start, process, processes, hole_every, weights),
        num_workers=workers,
        collate_fn=collate,
        # the default one, whose state a resumed run restores, stays untouched
        generator=torch.Generator(),
        worker_init_fn=one_thread if workers else None,
        # Workers forked after OpenMP or OpenCV started threads here would wait for them for ever.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    with (
        block_signals(*SIGNALS),
        main_unseen(),
    ):  # training decides when to stop, and needs its workers until then
        batches = iter(loader)
    # Also at exit, where multiprocessing would wait for ever for workers that its SIGTERM does not
    # reach. torch has nothing public for it: workers end when the iterator is collected, which a
    # traceback may hold.
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
