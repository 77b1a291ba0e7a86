"""Runs the network on squares. Every engine takes and gives the same, so that faster ones can take this one's place."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mtl.config import IMAGENET_MEAN, IMAGENET_STD
from mtl.model import SKIP_CHANNELS, MultiTaskNetwork

FEATURE_COUNT = 2 * sum(SKIP_CHANNELS)
MIN_DEVIATION = 0.01  # below it, a channel counts as even over the photo


class Outputs(NamedTuple):
    """What the network says of N squares; float32."""

    class_logits: np.ndarray  # (N, C)
    mask_logits: np.ndarray  # (N, S/2, S/2)
    features: np.ndarray  # (N, FEATURE_COUNT): what kind of picture it is, as `describe` says


class Engine(Protocol):
    def __call__(self, squares: np.ndarray) -> Outputs:
        """(N, S, S, 3) uint8 -> what the network says of them."""
        ...


class EagerEngine:
    """The network as PyTorch runs it, in float32."""

    def __init__(self, network: MultiTaskNetwork, device: torch.device):
        self.device = device
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def __call__(self, squares: np.ndarray) -> Outputs:
        features, skips = self.network.encoder(to_input(squares, self.device))
        class_logits = self.network.classification_head(features)
        mask_logits = self.network.segmentation_head(features, skips)[:, 0]
        return Outputs(*(part.float().cpu().numpy() for part in (class_logits, mask_logits, describe(skips))))


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
