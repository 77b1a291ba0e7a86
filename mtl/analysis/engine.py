"""Runs the network on squares. Every engine takes and gives the same, so that faster ones can take this one's place."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mtl.config import IMAGENET_MEAN, IMAGENET_STD
from mtl.errors import DeviceError
from mtl.model import SKIP_CHANNELS, MultiTaskNetwork

FEATURE_COUNT = 2 * sum(SKIP_CHANNELS)
MIN_DEVIATION = 0.01  # below it, a channel counts as even over the photo
# For one call on ZeroGPU: a fork, the weights' way to the GPU, and a batch. Shorter ones wait less.
ZERO_GPU_SECONDS = 15


class Outputs(NamedTuple):
    """What the network says of N squares; float32."""

    class_logits: np.ndarray  # (N, C)
    mask_logits: np.ndarray  # (N, S/2, S/2)
    features: np.ndarray  # (N, FEATURE_COUNT): what kind of picture it is, as `describe` says


class Engine(Protocol):
    def __call__(self, squares: np.ndarray) -> Outputs:
        """(N, S, S, 3) uint8 -> what the network says of them."""
        ...


class Answers(nn.Module):
    """All that is asked of the network in one pass, from the pixels on: what every engine computes."""

    def __init__(self, network: MultiTaskNetwork):
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, S, S, 3) uint8 RGB -> the three of `Outputs`, as tensors."""
        features, skips = self.network.encoder((pixels.permute(0, 3, 1, 2) / 255 - self.mean) / self.std)
        mask_logits = self.network.segmentation_head(features, skips)[:, 0]
        return self.network.classification_head(features), mask_logits, describe(skips)


class EagerEngine:
    """The network as PyTorch runs it, in float32."""

    def __init__(self, network: MultiTaskNetwork, device: torch.device):
        self.device = device
        self.answers = Answers(network).to(device).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def __call__(self, squares: np.ndarray) -> Outputs:
        return Outputs(*(part.cpu().numpy() for part in self.answers(torch.from_numpy(squares).to(self.device))))


Run = Callable[[np.ndarray], Outputs]
Lend = Callable[[Run], Run]


class ZeroGpuEngine:
    """The network on a GPU that is lent for each call, in a process forked for it.

    Here the network stays on the CPU, for all else that reads it. In the fork it goes to the device with the first
    call, and stays there for as long as that process is kept. `lend` wraps a function so that it runs in such a
    process, arguments and result pickled, as `spaces.GPU` does; that keeps what it wrapped for good, 23 MB a network.
    """

    def __init__(self, network: MultiTaskNetwork, device: torch.device, lend: Lend):
        self.network = network.eval()
        self._device = device
        self._run = lend(self._in_the_fork)

    def __call__(self, squares: np.ndarray) -> Outputs:
        try:
            return self._run(squares)
        # It has no tree of errors: a quota that is used up, a queue that is full, whatever fails in the fork.
        except Exception as error:
            raise DeviceError(f"ZeroGPU gave no answer ({error}); try again in a minute") from error

    def _in_the_fork(self, squares: np.ndarray) -> Outputs:
        return self._engine(squares)

    @cached_property
    def _engine(self) -> EagerEngine:
        return EagerEngine(self.network, self._device)


def to_input(squares: np.ndarray, device: torch.device) -> Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32 as the network takes it, ImageNet-normalised."""
    x = torch.from_numpy(squares).to(device).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


def describe(skips: list[Tensor]) -> Tensor:
    """The encoder's four skip tensors -> (N, FEATURE_COUNT): each channel's mean and log standard deviation.

    The first two moments of the early stages tell kinds of pictures apart (Lee et al. 2018, arXiv:1807.03888, take
    their means); the last features, trained to tell classes, hardly do.
    """
    means = [skip.mean((2, 3)) for skip in skips]
    deviations = [(skip.std((2, 3), correction=0) + MIN_DEVIATION).log() for skip in skips]
    return torch.cat([*means, *deviations], dim=1)
