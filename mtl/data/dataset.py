"""Samples as batches of tensors at the network's size: decoded, squared, not yet augmented or normalised."""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.errors import DataError, PhotoError
from mtl.frame import map_to_square, photo_to_square
from mtl.photo import read_mask, read_photo

log = logging.getLogger(__name__)

MAX_MISSING = 0.05  # share of the photos that may become unreadable during a run


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
    """`dataset[[3, 1, 2]]` is a Batch. Decoding runs in threads: Pillow and numpy let go of the interpreter lock.

    A photo that cannot be read any more is left out of its batch and named in `missing`; DataError where these are
    more than MAX_MISSING of all.
    """

    def __init__(self, samples: Sequence[Sample], config: ModelConfig, generated_mask_weight: float = 1.0):
        self.samples = samples
        self.image_size = config.image_size
        self.center_crop = config.center_crop
        self.generated_mask_weight = generated_mask_weight
        self.missing: dict[str, str] = {}  # file name -> reason
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        pixels = list(self._threads.map(self._read, index))
        there = [(i, *pair) for i, pair in zip(index, pixels, strict=True) if pair is not None]
        samples = [self.samples[i] for i, _, _ in there]
        size = self.image_size
        photos = np.stack([photo for _, photo, _ in there]) if there else np.empty((0, size, size, 3), np.uint8)
        masks = np.stack([mask for _, _, mask in there]) if there else np.empty((0, size, size), np.uint8)
        return Batch(
            photos=torch.from_numpy(photos).permute(0, 3, 1, 2),
            masks=torch.from_numpy(masks)[:, None],
            has_mask=torch.tensor([sample.mask is not None for sample in samples], dtype=torch.bool),
            mask_weight=torch.tensor([self._mask_weight(sample) for sample in samples], dtype=torch.float32),
            targets=torch.tensor([sample.target for sample in samples], dtype=torch.int64),
            photo_index=torch.tensor([i for i, _, _ in there], dtype=torch.int64),
        )

    def _mask_weight(self, sample: Sample) -> float:
        return self.generated_mask_weight if sample.mask_is_generated else 1.0

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        sample = self.samples[index]
        try:
            return self._pixels(sample)
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

    def _pixels(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        size = self.image_size
        photo = photo_to_square(read_photo(sample.photo, min_side=size), size, self.center_crop)
        if sample.mask is None:
            return photo, np.zeros((size, size), np.uint8)
        lesion = map_to_square(read_mask(sample.mask).astype(np.float32), size, self.center_crop)
        return photo, np.rint(255 * lesion).astype(np.uint8)


class SeededBatches(Sampler[list[int]]):
    """Index lists of one epoch; the order follows from (seed, epoch) alone, and an epoch can begin at any step."""

    def __init__(self, length: int, batch_size: int, *, seed: int | None):
        """`seed` None: in order."""
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.epoch = 0
        self.first_step = 0

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
            yield order[start : start + self.batch_size].tolist()


def make_loader(dataset: PhotoDataset, batch_size: int, *, seed: int | None) -> DataLoader[Batch]:
    """Batches of the dataset, shuffled by `seed`, or in order where it is None."""
    sampler = SeededBatches(len(dataset), batch_size, seed=seed)
    return DataLoader(dataset, batch_size=None, sampler=sampler)
