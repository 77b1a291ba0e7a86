"""Runs the network on squares. Every engine takes and gives the same, so that faster ones can take this one's place."""

from typing import Protocol

import numpy as np
import torch

from mtl.config import IMAGENET_MEAN, IMAGENET_STD
from mtl.model import MultiTaskNetwork


class Engine(Protocol):
    def __call__(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, S, S, 3) uint8 -> class logits (N, C) and mask logits (N, S/2, S/2), float32."""
        ...


class EagerEngine:
    """The network as PyTorch runs it, in float32."""

    def __init__(self, network: MultiTaskNetwork, device: torch.device):
        self.device = device
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self._mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = torch.from_numpy(squares).to(self.device).permute(0, 3, 1, 2) / 255
        class_logits, seg_logits, _ = self.network((x - self._mean) / self._std)
        return class_logits.float().cpu().numpy(), seg_logits[:, 0].float().cpu().numpy()
