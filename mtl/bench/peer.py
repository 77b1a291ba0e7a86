"""The peer: segmentation_models_pytorch's Unet on the same encoder, with the loop and loader that people write for it.

[https://github.com/qubvel-org/segmentation_models.pytorch]: `Unet("efficientnet-b0", aux_params=...)`, photos read by
Pillow, torchvision's transforms in worker processes, float32, Adam, cross-entropy and BCE.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from mtl.config import IMAGENET_MEAN, IMAGENET_STD
from mtl.data.folder import Sample

WORKERS = 2


def is_installed() -> bool:
    return importlib.util.find_spec("segmentation_models_pytorch") is not None


def make_network(classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp  # type: ignore[import-untyped]

    return smp.Unet("efficientnet-b0", encoder_weights=None, aux_params={"classes": classes})


class PeerAnalyser:
    """One photo to class probabilities, and to the lesion's map and mask at the photo's size."""

    def __init__(self, classes: int, size: int):
        self.network = make_network(classes).eval()
        self._transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((size, size), antialias=True),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    @torch.inference_mode()
    def __call__(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with Image.open(path) as image:
            photo = image.convert("RGB")
        mask_logits, class_logits = self.network(self._transform(photo)[None])
        whole = F.interpolate(mask_logits, (photo.height, photo.width), mode="bilinear").sigmoid()[0, 0]
        return class_logits.softmax(1)[0].numpy(), whole.numpy(), (whole >= 0.5).numpy()


class PeerDataset(Dataset[tuple[Tensor, Tensor, int, bool]]):
    """Photo, mask, class and whether there is a mask, augmented where that is asked for."""

    def __init__(self, samples: Sequence[Sample], size: int, *, augmented: bool):
        self.samples = samples
        turns = [
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(15),
            v2.RandomResizedCrop((size, size), scale=(0.8, 1.0), antialias=True),
            v2.ColorJitter(0.2, 0.2),
        ]
        scale = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.float32, "others": None}
        self._transform = v2.Compose(
            [
                v2.Resize((size, size), antialias=True),
                *(turns if augmented else []),
                v2.ToDtype(scale, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int, bool]:
        sample = self.samples[index]
        with Image.open(sample.photo) as image:
            photo = tv_tensors.Image(image.convert("RGB"))
        mask = tv_tensors.Mask(torch.zeros(1, *photo.shape[-2:], dtype=torch.uint8))
        if sample.mask is not None:
            with Image.open(sample.mask) as image:
                mask = tv_tensors.Mask(torch.from_numpy(np.array(image.convert("L")) // 255)[None])
        photo, mask = self._transform(photo, mask)
        label = max(sample.target)
        return photo, mask, label if label >= 0 else -100, sample.mask is not None


def make_loader(samples: Sequence[Sample], size: int, batch_size: int, *, augmented: bool) -> DataLoader[Any]:
    dataset = PeerDataset(samples, size, augmented=augmented)
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def train_epochs(samples: Sequence[Sample], classes: int, size: int, batch_size: int) -> Iterator[int]:
    """Train an epoch each time it is asked, and give the photos of it."""
    network = make_network(classes).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    loader = make_loader(samples, size, batch_size, augmented=True)
    while True:
        photos = 0
        for photo, mask, label, has_mask in loader:
            mask_logits, class_logits = network(photo)
            loss = 0.5 * _mask_loss(mask_logits, mask, has_mask)
            if (label >= 0).any():
                loss = loss + F.cross_entropy(class_logits, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            photos += len(photo)
        yield photos


def _mask_loss(logits: Tensor, masks: Tensor, has_mask: Tensor) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))
    return (losses * has_mask).sum() / has_mask.sum().clamp(min=1)
