"""Augmentation: photo and mask move together, and every draw follows from (seed, epoch, photo) alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor
from torchvision.transforms import functional

from mtl.config import TrainConfig
from mtl.data.augment import DRAWN, affine, augment, draw, side_at, transform

OFF = TrainConfig(flip=0, rotation_degrees=0, crop_min_area=1, brightness=0, contrast=0)
SIDE = 16
SEEDS = st.integers(0, 2**31 - 1)
GEOMETRY = {
    "flip": st.floats(0, 1),
    "rotation_degrees": st.floats(0, 180),
    "crop_min_area": st.floats(0.05, 1),
    "vertical_flip": st.floats(0, 1),
    "scale": st.floats(0, 0.9),
}
COLOUR = {"brightness": st.floats(0, 1), "contrast": st.floats(0, 1), "saturation": st.floats(0, 1)}
GEOMETRIES = st.fixed_dictionaries(GEOMETRY)
AUGMENTATIONS = st.fixed_dictionaries(GEOMETRY | COLOUR)

pytestmark = pytest.mark.usefixtures("one_thread")


def photos_and_masks(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Photos (N, 3, S, S) and masks (N, 1, S, S) of noise, and their places 0..N-1 in the dataset."""
    draw = torch.Generator().manual_seed(seed)
    photos, masks = (torch.rand(count, channels, SIDE, SIDE, generator=draw) for channels in (3, 1))
    return photos, masks.round(), torch.arange(count)


@law
@given(GEOMETRIES, SEEDS, st.integers(0, 1000))
def test_photo_and_mask_share_the_geometry(changes: dict[str, float], seed: int, epoch: int) -> None:
    _, masks, index = photos_and_masks(4, seed)
    config = OFF.replace(seed=seed, **changes)
    photos, moved = augment(masks.expand(-1, 3, -1, -1), masks, index, epoch=epoch, config=config)
    torch.testing.assert_close(photos, moved.expand(-1, 3, -1, -1), atol=1e-4, rtol=0)


@law
@given(AUGMENTATIONS, SEEDS, st.integers(0, 1000), st.data())
def test_batch_and_order_change_nothing(changes: dict[str, float], seed: int, epoch: int, data: Any) -> None:
    config = OFF.replace(seed=seed, **changes)
    photos, masks, index = photos_and_masks(5, seed)
    whole_photos, whole_masks = augment(photos, masks, index, epoch=epoch, config=config)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=1, unique=True)))
    part_photos, part_masks = augment(photos[chosen], masks[chosen], index[chosen], epoch=epoch, config=config)
    assert torch.equal(part_masks, whole_masks[chosen])
    torch.testing.assert_close(part_photos, whole_photos[chosen], atol=1e-6, rtol=0)


def test_another_photo_epoch_or_seed_is_another_draw() -> None:
    photos, masks, _ = photos_and_masks(1)

    def first_pixels(photo: int, epoch: int, seed: int) -> bytes:
        config = TrainConfig(seed=seed)
        return augment(photos, masks, torch.tensor([photo]), epoch=epoch, config=config)[0].numpy().tobytes()

    draws = [first_pixels(*place) for place in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len(set(draws)) == 4
    assert first_pixels(0, 0, 0) == draws[0]


def test_torch_s_own_random_state_is_neither_used_nor_moved() -> None:
    photos, masks, index = photos_and_masks(2)
    before = torch.get_rng_state()
    first, _ = augment(photos, masks, index, epoch=0, config=TrainConfig())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(augment(photos, masks, index, epoch=0, config=TrainConfig())[0], first)


def test_everything_off_is_the_identity() -> None:
    photos, masks, index = photos_and_masks(3)
    same_photos, same_masks = augment(photos, masks, index, epoch=5, config=OFF)
    torch.testing.assert_close(same_photos, photos, atol=1e-5, rtol=0)
    torch.testing.assert_close(same_masks, masks, atol=1e-5, rtol=0)


@law
@given(AUGMENTATIONS, SEEDS)
def test_values_stay_in_0_to_1(changes: dict[str, float], seed: int) -> None:
    photos, masks, index = photos_and_masks(3, seed)
    for values in augment(photos, masks, index, epoch=0, config=OFF.replace(seed=seed, **changes)):
        # Bilinear weights add up to 1 up to rounding.
        assert values.isfinite().all()
        assert values.min() >= -1e-6
        assert values.max() <= 1 + 1e-6


def test_flip_of_probability_one_mirrors_left_and_right() -> None:
    photos, masks, index = photos_and_masks(2)
    mirrored, mirrored_masks = augment(photos, masks, index, epoch=0, config=OFF.replace(flip=1))
    torch.testing.assert_close(mirrored, photos.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored_masks, masks.flip(-1), atol=1e-5, rtol=0)


def test_about_the_set_share_is_flipped() -> None:
    _, masks, _ = photos_and_masks(1)
    index = torch.arange(400)
    many = masks.expand(400, -1, -1, -1)
    _, moved = augment(many.expand(-1, 3, -1, -1), many, index, epoch=0, config=OFF.replace(flip=0.3))
    flipped = (moved - many.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 0.2 < flipped.float().mean() < 0.4


def draws(**numbers: float) -> dict[str, Tensor]:
    """Of one photo, one half (no change) but for those named."""
    return {name: torch.tensor([numbers.get(name, 0.5)]) for name in DRAWN}


def test_rotation_goes_to_either_side_by_at_most_the_setting() -> None:
    config = OFF.replace(rotation_degrees=30)
    for drawn, degrees in ((0.0, -30), (0.25, -15), (0.5, 0), (1.0, 30)):
        matrix = affine(draws(rotation=drawn), config)[0]
        assert math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])) == pytest.approx(degrees, abs=1e-4)
        assert torch.linalg.det(matrix[:, :2]).item() == pytest.approx(1, abs=1e-6)


@law
@given(st.floats(0.05, 1), *[st.floats(0, 1, width=32, exclude_max=True)] * 3)
def test_a_crop_lies_within_the_photo_and_keeps_the_share(share: float, area: float, x: float, y: float) -> None:
    matrix = affine(draws(crop_area=area, crop_x=x, crop_y=y), OFF.replace(crop_min_area=share))[0]
    side = matrix[0, 0].item()
    assert share - 1e-5 <= side**2 <= 1 + 1e-5
    assert matrix[:, 2].abs().max().item() + side <= 1 + 1e-5


@law
@given(st.floats(0, 1), SEEDS)
def test_brightness_and_contrast_leave_the_mask_alone(change: float, seed: int) -> None:
    photos, masks, index = photos_and_masks(2, seed)
    config = OFF.replace(seed=seed, brightness=change, contrast=change)
    _, same = augment(photos, masks, index, epoch=0, config=config)
    torch.testing.assert_close(same, masks, atol=1e-5, rtol=0)


def test_brightness_scales_within_its_bounds() -> None:
    grey = torch.full((200, 3, SIDE, SIDE), 0.5)
    config = OFF.replace(brightness=0.2)
    brighter, _ = augment(grey, grey[:, :1], torch.arange(200), epoch=0, config=config)
    levels = brighter.mean(dim=(1, 2, 3)) / 0.5
    assert 0.8 <= levels.min() < 0.83
    assert 1.17 < levels.max() <= 1.2


def test_contrast_keeps_the_mean_of_a_grey_photo() -> None:
    photos = 0.4 + 0.2 * photos_and_masks(100)[0][:, :1].expand(-1, 3, -1, -1)
    config = OFF.replace(contrast=0.5)
    changed, _ = augment(photos, photos[:, :1], torch.arange(100), epoch=0, config=config)
    torch.testing.assert_close(changed.mean(dim=(1, 2, 3)), photos.mean(dim=(1, 2, 3)), atol=1e-4, rtol=0)
    ratio = changed.std(dim=(1, 2, 3)) / photos.std(dim=(1, 2, 3))
    assert 0.5 <= ratio.min() < 0.7
    assert 1.3 < ratio.max() <= 1.5


# ---- against torchvision, at set draws

LARGE = 64
# The grid's float32 coordinates are off by some 1e-5 pixel, and noise differs by up to 1 from pixel to pixel.
GRID = {"atol": 1e-4, "rtol": 0}
# torchvision weighs red by 0.2989 instead of 0.299.
ITS_GREY = {"atol": 2e-4, "rtol": 0}


def transformed(config: TrainConfig, **numbers: float) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (1, 3, S, S), and what becomes of it and of its green channel as a mask."""
    photos = torch.rand(1, 3, LARGE, LARGE, generator=torch.Generator().manual_seed(0))
    return photos, *transform(photos, photos[:, 1:2], draws(**numbers), config)


def require_equal(ours: tuple[Tensor, Tensor], theirs: Tensor, where: Tensor | slice) -> None:
    photos, masks = ours
    torch.testing.assert_close(photos[..., where], theirs[..., where], **GRID)
    torch.testing.assert_close(masks[..., where], theirs[:, 1:2][..., where], **GRID)


def inside(radius: float) -> Tensor:
    """(S, S) bool: the disc around the middle. Beyond the photo torchvision fills with black, and we by reflection."""
    row, column = torch.meshgrid(*2 * [torch.arange(LARGE) + 0.5 - LARGE / 2], indexing="ij")
    return torch.hypot(row, column) < radius


def test_flips_are_torchvision_s() -> None:
    for name, flipped in (("flip", functional.hflip), ("vertical_flip", functional.vflip)):
        photos, *ours = transformed(OFF.replace(**{name: 0.5}), **{name: 0.49})
        require_equal((ours[0], ours[1]), flipped(photos), slice(None))


@pytest.mark.parametrize("degrees", [-40, 15, 120])
def test_rotation_is_torchvision_s(degrees: float) -> None:
    photos, *ours = transformed(OFF.replace(rotation_degrees=abs(degrees)), rotation=float(degrees > 0))
    theirs = functional.rotate(photos, degrees, functional.InterpolationMode.BILINEAR)
    require_equal((ours[0], ours[1]), theirs, inside(LARGE / 2 - 1))


def test_a_crop_is_torchvision_s() -> None:
    photos, *ours = transformed(OFF.replace(crop_min_area=0.75**2), crop_area=1, crop_x=0.25, crop_y=0.75)
    theirs = functional.resized_crop(photos, 12, 4, 48, 48, [LARGE, LARGE], antialias=False)
    # At its border torchvision sees nothing of what lies beyond the crop.
    cut = [values[..., 1:-1, 1:-1] for values in (*ours, theirs)]
    require_equal((cut[0], cut[1]), cut[2], slice(None))


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_scale_is_torchvision_s(factor: float) -> None:
    photos, *ours = transformed(OFF.replace(scale=0.3), scale=float(factor > 1))
    theirs = functional.affine(photos, 0, [0, 0], factor, [0, 0], functional.InterpolationMode.BILINEAR)
    require_equal((ours[0], ours[1]), theirs, inside(0.7 * LARGE / 2 - 1) if factor < 1 else slice(None))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.4, 1.6])
def test_colours_are_torchvision_s(name: str, factor: float) -> None:
    photos, changed, masks = transformed(OFF.replace(**{name: 0.6}), **{name: float(factor > 1)})
    torch.testing.assert_close(changed, getattr(functional, f"adjust_{name}")(photos, factor), **ITS_GREY)
    torch.testing.assert_close(masks, photos[:, 1:2], **GRID)


# ---- the draws


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (1, 0), (2**31 - 1, 99_999)])
def test_draws_are_uniform_and_independent(seed: int, epoch: int) -> None:
    count = 50_000
    drawn = torch.stack(list(draw(torch.arange(count), epoch, seed).values()), dim=1).double().numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert min(kstest(column, "uniform").pvalue for column in drawn.T) > 1e-4
    # A correlation of independent numbers is normal, with a deviation of 1 / sqrt(count).
    others = [draw(torch.arange(count), *near) for near in ((epoch + 1, seed), (epoch, (seed + 1) % 2**31))]
    neighbours = [drawn[1:], *(torch.stack(list(near.values()), dim=1).double().numpy() for near in others)]
    for near in neighbours:
        together = np.corrcoef(drawn[: len(near)].T, near.T)
        assert np.abs(together - np.eye(len(together))).max() < 5 / math.sqrt(count)


@law
@given(SEEDS, st.integers(0, 100_000), st.integers(0, 2**40))
def test_draws_are_splitmix64(seed: int, epoch: int, photo: int) -> None:
    def mixed(state: int) -> int:
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        return state ^ state >> 31

    state, gamma = 0, 0x9E3779B97F4A7C15
    for part in (seed, epoch, photo):
        state = mixed((state + gamma * (part + 1)) % 2**64)
    for number, (name, drawn) in enumerate(draw(torch.tensor([photo]), epoch, seed).items(), start=1):
        assert name == DRAWN[number - 1]
        assert drawn.item() == (mixed((state + gamma * number) % 2**64) >> 40) / 2**24


def test_autocast_changes_nothing() -> None:
    photos, masks = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    plain = augment(photos, masks, torch.arange(2), epoch=0, config=TrainConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = augment(photos, masks, torch.arange(2), epoch=0, config=TrainConfig())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain, cast, strict=True))


def test_squares_grow_to_the_full_side() -> None:
    growing = TrainConfig(epochs=12, start_image_size=128)
    assert [side_at(epoch, growing) for epoch in range(12)] == [128] * 3 + [160] * 3 + [192] * 3 + [224] * 3
    assert side_at(0, TrainConfig()) is None


@law
@given(st.integers(1, 40), st.sampled_from([64, 96, 224]), st.sampled_from([64, 128, 224, 256]))
def test_squares_never_shrink_and_end_at_the_full_side(epochs: int, start: int, side: int) -> None:
    if start > side:
        return
    config = TrainConfig(epochs=epochs, start_image_size=start, image_size=side)
    sides = [side_at(epoch, config) for epoch in range(epochs)]
    assert sides == sorted(sides, key=lambda each: each or 0)
    assert all(each and start <= each <= side and each % 32 == 0 for each in sides)
    assert epochs < 4 or sides[-1] == side


def test_smaller_squares_show_the_whole_photo() -> None:
    photos = functional.gaussian_blur(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)), [15, 15])
    masks = torch.zeros(2, 1, 128, 128)
    masks[:, :, 32:96, :64] = 1
    config = OFF.replace(image_size=128, start_image_size=64, epochs=4)
    small, small_masks = augment(photos, masks, torch.arange(2), epoch=0, config=config)
    assert (small.shape, small_masks.shape) == ((2, 3, 64, 64), (2, 1, 64, 64))
    torch.testing.assert_close(small, functional.resize(photos, [64, 64], antialias=True), atol=0.02, rtol=0)
    assert torch.equal(small_masks, masks[:, :, ::2, ::2])
    large, _ = augment(photos, masks, torch.arange(2), epoch=3, config=config)
    torch.testing.assert_close(large, photos, atol=1e-5, rtol=0)
