"""Random flips, rotations, crops, brightness and contrast, drawn per photo; photo and mask share the geometry.

Every draw follows from (seed, epoch, photo), so a resumed run and any order of loading see the same.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtl.config import TrainConfig


def augment(photos: Tensor, masks: Tensor, index: Tensor, *, epoch: int, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """photos (N, 3, S, S) and masks (N, 1, S, S), both float in 0..1, index (N,) -> the same, augmented.

    What a rotation uncovers is filled by reflection, in photo and mask alike, so the two still fit.
    """
    # Under autocast the grid would be bfloat16, whose steps are a pixel wide.
    with torch.autocast(photos.device.type, enabled=False):
        return _augment(photos, masks, index, epoch, config)


def _augment(photos: Tensor, masks: Tensor, index: Tensor, epoch: int, config: TrainConfig) -> tuple[Tensor, Tensor]:
    draws = _draws(index.tolist(), epoch, config.seed)
    grid = F.affine_grid(affine(draws, config).to(photos), list(photos.shape), align_corners=False)
    # One sampling for both: photo and mask as four channels.
    both = F.grid_sample(
        torch.cat([photos, masks], dim=1), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _jitter(both[:, :3], draws[:, 5:7].to(photos), config), both[:, 3:]


def _draws(indices: list[int], epoch: int, seed: int) -> Tensor:
    """(N, 7) uniform numbers in 0..1: flip, rotation, crop area, crop place (2), brightness, contrast."""
    return torch.from_numpy(np.stack([np.random.default_rng((seed, epoch, i)).random(7, np.float32) for i in indices]))


def affine(draws: Tensor, config: TrainConfig) -> Tensor:
    """(N, 2, 3) matrices from output to input coordinates in -1..1, as `F.affine_grid` takes them."""
    mirror = torch.where(draws[:, 0] < config.flip, -1.0, 1.0)
    angle = (2 * draws[:, 1] - 1) * math.radians(config.rotation_degrees)
    side = torch.sqrt(1 - draws[:, 2] * (1 - config.crop_min_area))
    offset = (2 * draws[:, 3:5] - 1) * (1 - side)[:, None]
    cos, sin = side * torch.cos(angle), side * torch.sin(angle)
    rows = torch.stack([mirror * cos, -sin, offset[:, 0], mirror * sin, cos, offset[:, 1]], dim=1)
    return rows.view(-1, 2, 3)


def _jitter(photos: Tensor, draws: Tensor, config: TrainConfig) -> Tensor:
    """Brightness scales a photo, contrast scales it around its mean grey (as torchvision's ColorJitter does)."""
    brightness = 1 + (2 * draws[:, 0] - 1) * config.brightness
    contrast = 1 + (2 * draws[:, 1] - 1) * config.contrast
    photos = (photos * brightness.view(-1, 1, 1, 1)).clamp(0, 1)
    grey = photos.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    mean = (photos * grey).sum(1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    return (mean + (photos - mean) * contrast.view(-1, 1, 1, 1)).clamp(0, 1)
