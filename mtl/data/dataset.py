"""Samples as batches of tensors at the network's size: decoded, squared, not yet augmented or normalised."""

import logging
import os
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtl.config import ModelConfig
from mtl.data.cache import CHANNELS, PhotoCache, read_row
from mtl.data.folder import Sample
from mtl.data.parallel import in_threads
from mtl.errors import DataError, PhotoError

log = logging.getLogger(__name__)

MAX_MISSING = 0.05  # share of the photos that may become unreadable during a run
HELD_SHARE = 0.4  # of a GPU's free memory that photos may take
ROWS_AT_ONCE = 256
BATCHES_AHEAD = 2
CPU = torch.device("cpu")


class Batch(NamedTuple):
    """N photos with what is known of them."""

    photos: Tensor  # (N, 3, S, S) uint8, RGB
    masks: Tensor  # (N, 1, S, S) uint8, share of the pixel that is lesion, 0..255; zero where there is no mask
    has_mask: Tensor  # (N,) bool
    mask_weight: Tensor  # (N,) float32, what a mask counts in the loss: less than 1 for a generated one
    targets: Tensor  # (N, groups) int64, as mtl.config describes
    photo_index: Tensor  # (N,) int64, place in the dataset: the seed of a photo's augmentation

    def __len__(self) -> int:
        return len(self.photos)

    def parts(self, number: int) -> "list[Batch]":
        """The same photos in at most `number` batches of about one size."""
        pieces = zip(*(tensor.tensor_split(min(number, len(self))) for tensor in self), strict=True)
        return [Batch(*piece) for piece in pieces]


class PhotoDataset(Dataset[Batch]):
    """`dataset[[3, 1, 2]]` is a Batch. What the cache does not hold is decoded in threads: Pillow and numpy let go of
    the interpreter lock.

    A photo that cannot be read any more is left out of its batch and named in `missing`; DataError where these are
    more than MAX_MISSING of all.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        config: ModelConfig,
        generated_mask_weight: float = 1.0,
        cache: PhotoCache | None = None,
    ):
        self.samples = samples
        self.image_size = config.image_size
        self.center_crop = config.center_crop
        self.missing: dict[str, str] = {}  # file name -> reason
        self._cached = cache.rows(samples) if cache else None
        self._on_device: Tensor | None = None  # (N, S, S, 4)
        weights = [generated_mask_weight if sample.mask_is_generated else 1.0 for sample in samples]
        self._has_mask = torch.tensor([sample.mask is not None for sample in samples], dtype=torch.bool)
        self._mask_weight = torch.tensor(weights, dtype=torch.float32)
        self._targets = torch.tensor([sample.target for sample in samples], dtype=torch.int64)
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        return self.batch(index, CPU)

    def batch(self, index: Sequence[int], device: torch.device) -> Batch:
        """Photos and masks on the device if it is a GPU of CUDA, all else on the CPU."""
        places = torch.tensor(index, dtype=torch.int64)
        if self._on_device is not None and self._on_device.device.type == device.type:
            rows = self._on_device[places.to(self._on_device.device)]
        else:
            rows, there = self._rows(index, device)
            places = places[there]
        pixels = rows.permute(0, 3, 1, 2)
        return Batch(
            photos=pixels[:, :3],
            masks=pixels[:, 3:],
            has_mask=self._has_mask[places],
            mask_weight=self._mask_weight[places],
            targets=self._targets[places],
            photo_index=places,
        )

    @property
    def nbytes(self) -> int | None:
        """Of all rows; None where some are not in the cache."""
        if self._cached is None or not self._cached.kept.all():
            return None
        return len(self) * self.image_size**2 * CHANNELS

    def hold_on(self, device: torch.device) -> None:
        """Keep all rows in the device's memory from now on."""
        rows = torch.empty((len(self), self.image_size, self.image_size, CHANNELS), dtype=torch.uint8, device=device)
        for start in range(0, len(self), ROWS_AT_ONCE):
            index = range(start, min(start + ROWS_AT_ONCE, len(self)))
            part, there = self._rows(index, device)
            if not there.all():  # its row was damaged, and the photo is gone
                return
            rows[start : index.stop] = part
        self._on_device = rows

    def _rows(self, index: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """(n, S, S, 4) of those that can be read, on the device, and (len(index),) bool: which these are."""
        on_gpu = device.type == "cuda"
        with torch.cuda.device(device) if on_gpu else nullcontext():  # pinned for this GPU, not for the first
            rows = torch.empty(
                (len(index), self.image_size, self.image_size, CHANNELS), dtype=torch.uint8, pin_memory=on_gpu
            )
        pixels = rows.numpy()
        there = self._cached.read(index, pixels) if self._cached else np.zeros(len(index), bool)
        left = np.flatnonzero(~there).tolist()
        for number, row in zip(left, self._threads.map(self._decode, [index[number] for number in left]), strict=True):
            if row is not None:
                pixels[number], there[number] = row, True
        rows = rows if there.all() else rows[torch.from_numpy(there)]
        return rows.to(device, non_blocking=True) if on_gpu else rows, torch.from_numpy(there)

    def _decode(self, index: int) -> np.ndarray | None:
        sample = self.samples[index]
        try:
            return read_row(sample, self.image_size, self.center_crop)
        except (PhotoError, OSError) as error:
            self._note_missing(sample, str(error))
            return None

    def _note_missing(self, sample: Sample, reason: str) -> None:
        with self._lock:
            if sample.name not in self.missing:
                self.missing[sample.name] = reason
                log.warning("%s is left out from now on: %s", sample.name, reason)
            if len(self.missing) > MAX_MISSING * len(self.samples):
                raise DataError(
                    f"{len(self.missing)} of {len(self.samples)} photos cannot be read any more, "
                    f"the last: {sample.name}: {reason}; put them back and resume"
                )


def hold_where_they_fit(datasets: Sequence[PhotoDataset], device: torch.device, free_bytes: int) -> None:
    """Keep the rows in the device's memory, if all are in the cache and take at most HELD_SHARE of what is free."""
    sizes = [dataset.nbytes for dataset in datasets]
    if None not in sizes and sum(size or 0 for size in sizes) <= HELD_SHARE * free_bytes:
        for dataset in datasets:
            dataset.hold_on(device)


class SeededBatches(Sampler[list[int]]):
    """Index lists of one epoch; the order follows from (seed, epoch) alone, and an epoch can begin at any step."""

    def __init__(self, length: int, batch_size: int, *, seed: int | None):
        """`seed` None: in order."""
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.epoch = 0
        self.first_step = 0
        self.rank, self.ranks = 0, 1

    def keep_share(self, rank: int, ranks: int) -> None:
        """Give this process's part of each batch alone, where `ranks` processes share it; empty where it is small."""
        self.rank, self.ranks = rank, ranks

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.length)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        first, self.first_step = self.first_step, 0
        for start in range(first * self.batch_size, self.length, self.batch_size):
            batch = order[start : start + self.batch_size]
            yield np.array_split(batch, self.ranks)[self.rank].tolist()


class PrefetchingLoader(DataLoader[Batch]):
    """Makes the next batches in a thread of its own while one is trained with; it ends with the iteration."""

    def __init__(self, dataset: PhotoDataset, sampler: Sampler[list[int]], device: torch.device):
        """device: where the photos are to be; from there on the GPU's own queue waits for them, nobody else."""
        super().__init__(dataset, batch_size=None, sampler=sampler)
        self._batch_of = partial(dataset.batch, device=device)

    def __iter__(self) -> Generator[Batch]:  # type: ignore[override]
        return in_threads(self._batch_of, self.sampler, threads=1, ahead=BATCHES_AHEAD)


def make_loader(
    dataset: PhotoDataset, batch_size: int, *, seed: int | None, device: torch.device = CPU
) -> DataLoader[Batch]:
    """Batches of the dataset, shuffled by `seed`, or in order where it is None."""
    return PrefetchingLoader(dataset, SeededBatches(len(dataset), batch_size, seed=seed), device)
