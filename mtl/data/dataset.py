"""Samples as batches of tensors at the network's size: decoded, squared, not yet augmented or normalised."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.frame import map_to_square, photo_to_square
from mtl.photo import read_mask, read_photo


class Batch(NamedTuple):
    """N photos with what is known of them."""

    photos: Tensor  # (N, 3, S, S) uint8, RGB
    masks: Tensor  # (N, 1, S, S) uint8, share of the pixel that is lesion, 0..255; zero where there is no mask
    has_mask: Tensor  # (N,) bool
    targets: Tensor  # (N, groups) int64, as mtl.config describes
    photo_index: Tensor  # (N,) int64, place in the dataset: the seed of a photo's augmentation

    def __len__(self) -> int:
        return len(self.photos)


class PhotoDataset(Dataset[Batch]):
    """`dataset[[3, 1, 2]]` is a Batch. Decoding runs in threads: Pillow and numpy let go of the interpreter lock."""

    def __init__(self, samples: Sequence[Sample], config: ModelConfig):
        self.samples = samples
        self.image_size = config.image_size
        self.center_crop = config.center_crop
        self._threads = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        samples = [self.samples[i] for i in index]
        pixels = list(self._threads.map(self._read, samples))
        return Batch(
            photos=torch.from_numpy(np.stack([photo for photo, _ in pixels])).permute(0, 3, 1, 2),
            masks=torch.from_numpy(np.stack([mask for _, mask in pixels]))[:, None],
            has_mask=torch.tensor([sample.mask is not None for sample in samples]),
            targets=torch.tensor([sample.target for sample in samples]),
            photo_index=torch.tensor(index),
        )

    def _read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
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
