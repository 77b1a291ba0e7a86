"""Generated masks: what Otsu's threshold finds, for which photos, and that the data folder stays untouched."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import draw_photo, law, save, write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny import ONE_THREAD, random_network

from mtl.checkpoint import Checkpoint, write_pth
from mtl.config import ModelConfig, TrainConfig
from mtl.data.folder import DataFolder, read_folder
from mtl.data.generate import generate_masks, otsu_mask, require_lesion_photos
from mtl.errors import CheckpointError, ConfigError
from mtl.photo import read_mask, read_photo, resize_map
from mtl.training.masks import mask_maker

REAL = Path(__file__).parents[2] / "shared" / "data" / "multitask"
SKIN, LESION = np.array([205, 160, 140]), np.array([110, 70, 60])


def draw_lesion(height: int, width: int, row: float, column: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo with a soft-edged disc, all as shares of the shorter side, and the disc's mask."""
    rows, columns = np.mgrid[:height, :width]
    side = min(height, width)
    disc = np.hypot(rows - row * height, columns - column * width) < radius * side
    share = gaussian_filter(disc.astype(float), side / 100)[..., None]
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    return (SKIN + share * (LESION - SKIN) + noise).clip(0, 255).astype(np.uint8), disc


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


# ---- Otsu's mask


@law
@given(
    st.sampled_from([(256, 256), (300, 200), (90, 120), (512, 700)]),
    st.floats(0.4, 0.6),
    st.floats(0.4, 0.6),
    st.floats(0.15, 0.3),
)
def test_a_disc_is_found_at_any_size(size: tuple[int, int], row: float, column: float, radius: float) -> None:
    photo, disc = draw_lesion(*size, row, column, radius)
    mask = otsu_mask(photo)
    assert mask is not None
    assert (mask.shape, mask.dtype) == (size, bool)
    # Drawn around the fading edge: all of the disc, and a rim.
    assert mask[disc].mean() > 0.98
    assert jaccard(mask, disc) > 0.7


def test_mirrored_photos_have_mirrored_masks() -> None:
    photo, _ = draw_lesion(256, 256, 0.4, 0.55, 0.2)
    mask, mirrored = otsu_mask(photo), otsu_mask(photo[:, ::-1])
    assert mask is not None
    assert mirrored is not None
    assert jaccard(mask, mirrored[:, ::-1]) > 0.97


def test_hair_does_not_hide_the_lesion() -> None:
    photo, disc = draw_lesion(256, 256, 0.5, 0.5, 0.2)
    rows, columns = np.mgrid[:256, :256]
    photo[(rows + 2 * columns) % 50 < 8] = 20
    mask = otsu_mask(photo)
    assert mask is not None
    assert jaccard(mask, disc) > 0.7


def test_dark_corners_do_not_hide_a_pale_lesion() -> None:
    photo, disc = draw_lesion(256, 256, 0.5, 0.5, 0.2)
    photo[disc] = photo[disc] // 2 + SKIN // 2
    rows, columns = np.mgrid[:256, :256]
    photo[np.hypot(rows - 127.5, columns - 127.5) > 128] = 5
    mask = otsu_mask(photo)
    assert mask is not None
    assert jaccard(mask, disc) > 0.7


def test_a_white_sticker_does_not_hide_the_lesion() -> None:
    photo, disc = draw_lesion(256, 256, 0.5, 0.5, 0.12)
    photo[20:50, 100:130] = 255
    photo[disc] = photo[disc] // 2 + SKIN // 2  # paler than the sticker is bright
    mask = otsu_mask(photo)
    assert mask is not None
    assert jaccard(mask, disc) > 0.5


def gradient() -> np.ndarray:
    return np.broadcast_to(np.linspace(60, 220, 256)[None, :, None], (256, 256, 3)).astype(np.uint8)


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(150, 20, (256, 256, 3)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "photo",
    [
        pytest.param(np.full((100, 80, 3), 200, np.uint8), id="plain"),
        pytest.param(np.zeros((1, 1, 3), np.uint8), id="one pixel"),
        pytest.param(np.tile(np.uint8([[[9, 9, 9], [200, 200, 200]]]), (1, 2000, 1)), id="one row"),
        pytest.param(gradient(), id="gradient"),
        pytest.param(noise(), id="noise"),
        pytest.param(draw_lesion(256, 256, 0.5, 0.5, 0.7)[0], id="nearly all lesion"),
        pytest.param(draw_lesion(256, 256, 0.5, 0.5, 0.01)[0], id="a speck"),
        pytest.param((draw_lesion(256, 256, 0.5, 0.5, 0.2)[0] // 40 + 150).astype(np.uint8), id="hardly darker"),
    ],
)
def test_no_mask_where_nothing_looks_like_a_lesion(photo: np.ndarray) -> None:
    assert otsu_mask(photo) is None


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real photos")
def test_masks_of_real_photos_agree_with_the_drawn_ones() -> None:
    photos = sorted((REAL / "images/val").glob("isic18_*"))
    agreement = []
    for path in random.Random(0).sample(photos, 60):
        mask, true = otsu_mask(read_photo(path, min_side=224)), read_mask(REAL / "masks/val" / f"{path.stem}.png")
        if mask is not None:
            agreement.append(jaccard(resize_map(mask, *true.shape) >= 0.5, true > 0))
    assert len(agreement) > 45
    assert np.mean(agreement) > 0.7


# ---- for which photos, and where


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """6 + 3 photos labelled none, of which the first has a mask, and one in a class; the third shows no lesion."""
    folder = write_folder(tmp_path / "skin", train=7, val=3, masks=False, labels=False)
    names = [path.name for path in sorted(folder.rglob("*.jpg"))]
    (folder / "labels.json").write_text(json.dumps(dict.fromkeys(names, "none") | {"train_006.jpg": 3}))
    save(draw_photo(0, 64, np.random.default_rng(0))[1] * np.uint8(255), folder / "masks/train/train_000.png")
    save(np.full((64, 64, 3), 200, np.uint8), folder / "images/train/train_002.jpg")
    return folder


def config_for(data: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(**{"data_dir": str(data), "generated_masks": "otsu", "image_size": 64, **settings})


def generate(data: Path, into: Path, make: Callable[[np.ndarray], Any] = otsu_mask, **settings: Any) -> DataFolder:
    config = config_for(data, **settings)
    return generate_masks(read_folder(config), config, into, make)


def generated_names(folder: DataFolder) -> list[str]:
    return [sample.name for sample in (*folder.train, *folder.val) if sample.mask_is_generated]


def never(photo: np.ndarray) -> np.ndarray:
    raise AssertionError("a mask that is there, or was refused, is not made again")


def test_lesion_photos_without_mask_get_one(data: Path, tmp_path: Path) -> None:
    before = read_folder(config_for(data))
    folder = generate(data, tmp_path / "run/masks")
    assert generated_names(folder) == ["train_001.jpg", "train_003.jpg", "train_004.jpg"]
    assert folder.val == before.val
    assert folder.digest() == before.digest()
    for old, new in zip(before.train, folder.train, strict=True):
        assert (new.photo, new.target, new.group) == (old.photo, old.target, old.group)
        if new.mask_is_generated:
            assert new.mask == tmp_path / "run/masks" / f"{new.photo.stem}.png"
            written = np.asarray(Image.open(new.mask))
            assert (written.shape, written.dtype, set(np.unique(written))) == ((64, 64), np.uint8, {0, 255})
            assert np.array_equal(written > 0, otsu_mask(read_photo(new.photo)))
        else:
            assert new.mask == old.mask


def test_a_pattern_names_the_lesion_photos(data: Path, tmp_path: Path) -> None:
    folder = generate(data, tmp_path / "masks", lesion_photos="*_00[36]*")
    assert generated_names(folder) == ["train_003.jpg", "train_006.jpg"]


@pytest.mark.parametrize("settings", [{"lesion_photos": "isic_*"}, {"labels": "classes_only.json"}])
def test_no_lesion_photo_at_all_is_an_error(data: Path, settings: dict[str, str]) -> None:
    (data / "classes_only.json").write_text('{"train_000.jpg": 1}')
    config = TrainConfig(data_dir=str(data), generated_masks="otsu", **settings)
    with pytest.raises(
        ConfigError, match=r"^generated_masks: got otsu, but no training photo .*lesion_photos, or take"
    ):
        require_lesion_photos(read_folder(config), config)
    require_lesion_photos(read_folder(config), config.replace(generated_masks="off"))


def test_the_data_folder_is_never_written_to(data: Path, tmp_path: Path) -> None:
    def listing() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [data, *data.rglob("*")]}

    before = listing()
    generate(data, tmp_path / "masks")
    generate(data, tmp_path / "masks")
    assert listing() == before


def test_a_second_time_gives_the_same_without_making_any(data: Path, tmp_path: Path) -> None:
    folder = generate(data, tmp_path / "masks")
    assert generate(data, tmp_path / "masks", never) == folder


def test_a_stop_leaves_whole_masks_and_the_rest_is_made_later(data: Path, tmp_path: Path) -> None:
    config, into = config_for(data), tmp_path / "masks"
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        generate_masks(read_folder(config), config, into, otsu_mask, stop)
    assert seen == [(1, 5), (2, 5)]
    assert threading.active_count() == threads
    assert all(path.suffix in (".png", ".none") for path in into.iterdir())
    for path in into.glob("*.png"):
        read_mask(path)
    assert generated_names(generate(data, into)) == generated_names(generate(data, tmp_path / "uninterrupted"))


def test_a_photo_that_cannot_be_read_is_left_to_the_data_check(data: Path, tmp_path: Path) -> None:
    (data / "images/train/train_001.jpg").write_bytes(b"no photo")
    assert generated_names(generate(data, tmp_path / "masks")) == ["train_003.jpg", "train_004.jpg"]
    assert not list((tmp_path / "masks").glob("train_001*"))


# ---- by a model


def write_model(path: Path, **settings: Any) -> Path:
    network = random_network(ModelConfig(image_size=64, **settings))
    write_pth(path, Checkpoint(path.name, network.state_dict(), network.config))
    return path


def test_off_makes_no_masks() -> None:
    assert mask_maker(TrainConfig()) is None
    assert mask_maker(TrainConfig(generated_masks="otsu")) is otsu_mask


@pytest.mark.usefixtures(ONE_THREAD)
def test_a_model_makes_the_masks_that_it_would_predict(data: Path, tmp_path: Path) -> None:
    from mtl.api import MultiTaskModel

    model = write_model(tmp_path / "model.pth", mask_threshold=0.4)
    make = mask_maker(config_for(data, generated_masks=str(model), device="cpu"))
    assert make is not None
    folder = generate(data, tmp_path / "masks", make)
    predicted = MultiTaskModel.load(model, "cpu")
    assert generated_names(folder)
    for sample in folder.train:
        if sample.mask_is_generated and sample.mask:
            assert np.array_equal(read_mask(sample.mask), predicted.predict(sample.photo)["segmentation"]["mask"])


@pytest.mark.usefixtures(ONE_THREAD)
def test_a_model_that_finds_no_lesion_makes_no_mask(data: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.pth", mask_threshold=0.999999)
    make = mask_maker(config_for(data, generated_masks=str(model), device="cpu"))
    assert make is not None
    assert make(np.zeros((64, 64, 3), np.uint8)) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ostu", "generated_masks: ostu: there is no such checkpoint; .*; or take otsu or off"),
        (
            "untrained.pth",
            "generated_masks: .*untrained.pth was trained without masks; needed a model that finds lesions",
        ),
    ],
)
def test_models_that_cannot_make_masks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "untrained.pth", mask_count=0)
    with pytest.raises(CheckpointError, match=f"^{message}"):
        mask_maker(TrainConfig(generated_masks=name, device="cpu"))
