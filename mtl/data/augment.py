"""Random flips, rotations, scales, crops and colours, drawn per photo; photo and mask share the geometry.

Every draw follows from (seed, epoch, photo), so a resumed run and any order of loading see the same. All runs on the
device that the photos are on, without waiting for it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl.config import TrainConfig

# What is drawn for each photo, in this order.
DRAWN = (
    "flip", "rotation", "crop_area", "crop_x", "crop_y", "brightness", "contrast", "vertical_flip", "scale",
    "saturation",
)  # fmt: skip
GROWING = 0.75  # share of the epochs over which the squares grow


def augment(photos: Tensor, masks: Tensor, index: Tensor, *, epoch: int, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """photos (N, 3, S, S) and masks (N, 1, S, S), both float in 0..1, index (N,) -> the same, augmented.

    They come back as squares of `side_at` this epoch. What a rotation uncovers is filled by reflection, in photo and
    mask alike, so the two still fit.
    """
    # Under autocast the grid would be bfloat16, whose steps are a pixel wide.
    with torch.autocast(photos.device.type, enabled=False):
        draws, side = draw(index.to(photos.device), epoch, config.seed), side_at(epoch, config)
        return transform(photos, masks, draws, config, side)


def side_at(epoch: int, config: TrainConfig) -> int | None:
    """The side of the squares that are trained on in an epoch, from 0; None: as they are, image_size.

    From `start_image_size` on by steps of 32 pixels, each for as long as the others (Tan & Le 2021, arXiv:2104.00298).
    """
    if not config.start_image_size:
        return None
    smaller = range(config.start_image_size, config.image_size, 32)
    step = int(epoch * len(smaller) / (GROWING * config.epochs))
    return smaller[step] if step < len(smaller) else config.image_size


def transform(
    photos: Tensor, masks: Tensor, draws: dict[str, Tensor], config: TrainConfig, side: int | None = None
) -> tuple[Tensor, Tensor]:
    """As `augment`, by given draws: (N,) float32 in 0..1 of each name in DRAWN; side: of the squares, unset: S."""
    side = side or photos.shape[-1]
    grid = F.affine_grid(affine(draws, config).to(photos), [len(photos), 3, side, side], align_corners=False)
    # One sampling for both: photo and mask as four channels.
    both = F.grid_sample(
        torch.cat([photos, masks], dim=1), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _jitter(both[:, :3], draws, config), both[:, 3:]


def affine(draws: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """(N, 2, 3) matrices from output to input coordinates in -1..1, as `F.affine_grid` takes them."""
    mirror_x = torch.where(draws["flip"] < config.flip, -1.0, 1.0)
    mirror_y = torch.where(draws["vertical_flip"] < config.vertical_flip, -1.0, 1.0)
    angle = (2 * draws["rotation"] - 1) * math.radians(config.rotation_degrees)
    kept = torch.sqrt(1 - draws["crop_area"] * (1 - config.crop_min_area))
    x, y = ((2 * draws[name] - 1) * (1 - kept) for name in ("crop_x", "crop_y"))
    seen = kept / _factor(draws["scale"], config.scale)
    cos, sin = seen * torch.cos(angle), seen * torch.sin(angle)
    rows = torch.stack([mirror_x * cos, -mirror_y * sin, x, mirror_x * sin, mirror_y * cos, y], dim=1)
    return rows.view(-1, 2, 3)


def _jitter(photos: Tensor, draws: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """Brightness scales a photo, contrast around its mean grey, saturation each pixel around its own grey.

    As torchvision's ColorJitter does, in this order.
    """
    brightness, contrast = (
        _factor(draws[name], getattr(config, name)).view(-1, 1, 1, 1) for name in ("brightness", "contrast")
    )
    photos = (photos * brightness).clamp(0, 1)
    mean = _grey(photos).mean(dim=(2, 3), keepdim=True)
    photos = (mean + (photos - mean) * contrast).clamp(0, 1)
    if config.saturation:
        grey = _grey(photos)
        saturation = _factor(draws["saturation"], config.saturation).view(-1, 1, 1, 1)
        photos = (grey + (photos - grey) * saturation).clamp(0, 1)
    return photos


def _factor(draws: Tensor, largest_change: float) -> Tensor:
    """0..1 -> a factor around 1."""
    return 1 + (2 * draws - 1) * largest_change


def _grey(photos: Tensor) -> Tensor:
    """(N, 3, S, S) -> (N, 1, S, S), as ITU-R BT.601 weighs the colours."""
    red, green, blue = photos.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


# ---- the draws


def draw(index: Tensor, epoch: int, seed: int) -> dict[str, Tensor]:
    """index (N,) int64 -> (N,) uniform float32 in 0..1, 1 excluded, of each name in DRAWN.

    SplitMix64 (Steele, Lea & Flood 2014) as a hash: the state that seed, epoch and photo lead to, one after the other,
    begins a stream of its own. Integers alone, so every device draws the same.
    """
    state = index.new_zeros(())
    for part in (index.new_full((), seed), index.new_full((), epoch), index):
        state = _mix(state + GAMMA * (part + 1))
    numbers = torch.arange(1, len(DRAWN) + 1, device=index.device)
    bits = _shifted(_mix(state[:, None] + GAMMA * numbers), 40)  # as many as float32 holds
    return dict(zip(DRAWN, (bits.to(torch.float32) / 2**24).unbind(1), strict=True))


def _signed(number: int) -> int:
    """64 bits as int64 counts them."""
    return number - 2**64 if number >= 2**63 else number


GAMMA = _signed(0x9E3779B97F4A7C15)
FACTORS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser: every bit of an int64 depends on every one of another."""
    state = (state ^ _shifted(state, 30)) * FACTORS[0]
    state = (state ^ _shifted(state, 27)) * FACTORS[1]
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """To the right; int64's own shift would draw the sign in."""
    return (state >> bits) & (2 ** (64 - bits) - 1)
