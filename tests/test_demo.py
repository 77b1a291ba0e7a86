"""Made photos: the same arguments draw the same photo, masks are exact, a folder of them has every kind of target."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl.config import DEFAULT_CLASSES, Classes
from mtl.data.demo import write_demo_data, write_examples
from mtl.data.labels import parse_label
from mtl.data.made.photo import KINDS, LESION, make_photo
from mtl.errors import DataError

NAMES = [name for names in DEFAULT_CLASSES.values() for name in names]
SKIN_TYPES = DEFAULT_CLASSES["skin type"]
SIDE_PX = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("demo") / "data", photos=80, size=SIDE_PX)


def labels_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "labels.json").read_text(encoding="utf-8")))


def photos_of(folder: Path, split: str = "*") -> list[Path]:
    return sorted(folder.glob(f"images/{split}/*.jpg"))


def mask_of(photo: Path) -> Path:
    return photo.parents[2] / "masks" / photo.parent.name / f"{photo.stem}.png"


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_draw_the_same_photo(kind: str) -> None:
    first, again, other = (make_photo(kind, seed, (72, 48)) for seed in (3, 3, 4))
    assert first.image.shape == (48, 72, 3)
    assert first.image.dtype == first.mask.dtype == np.uint8
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_label_and_mask_fit_the_kind(kind: str) -> None:
    photo = make_photo(kind, 0, (SIDE_PX, SIDE_PX))
    assert photo.mask.shape == photo.image.shape[:2]
    assert photo.label == ("none" if kind == LESION else NAMES.index(kind))
    assert photo.mask.any() == (kind == LESION)


@pytest.mark.parametrize("kind", [LESION, *SKIN_TYPES])
@pytest.mark.parametrize("seed", range(6))
def test_lesion_is_darker_than_its_surroundings(kind: str, seed: int) -> None:
    photo = make_photo(kind, seed, (96, 96), lesion=True)
    inside = photo.mask == 1
    assert set(np.unique(photo.mask)) == {0, 1}
    near = _widened(inside, 8) & ~_widened(inside, 2)
    assert photo.image[inside].mean() < photo.image[near].mean() - 6


@pytest.mark.parametrize("kind", SKIN_TYPES)
def test_mask_covers_just_what_the_lesion_changes(kind: str) -> None:
    bare, marked = (make_photo(kind, 5, (128, 128), lesion=lesion) for lesion in (False, True))
    # The lesion is drawn after the skin, so that most of the difference between the two photos is the lesion.
    change = np.abs(bare.image.astype(int) - marked.image.astype(int)).mean(axis=2)
    inside = marked.mask == 1
    assert change[inside].mean() > 3 * change[~_widened(inside, 6)].mean()


def _widened(mask: np.ndarray, pixels: int) -> np.ndarray:
    padded = np.pad(mask, pixels)
    span = range(2 * pixels + 1)
    height, width = mask.shape
    widened: np.ndarray = np.any([padded[y : y + height, x : x + width] for y in span for x in span], axis=0)
    return widened


def test_photo_depends_on_seed_and_number_only(folder: Path, tmp_path: Path) -> None:
    fewer = write_demo_data(tmp_path / "fewer", photos=6, size=SIDE_PX)
    other = write_demo_data(tmp_path / "other", photos=6, size=SIDE_PX, seed=1)
    contents = {photo.name: photo.read_bytes() for photo in photos_of(folder)}
    assert all(photo.read_bytes() == contents[photo.name] for photo in photos_of(fewer))
    assert all(photo.read_bytes() != contents[photo.name] for photo in photos_of(other))


def test_folder_has_every_class_in_both_splits(folder: Path) -> None:
    train, val = photos_of(folder, "train"), photos_of(folder, "val")
    assert len(train) + len(val) == 80
    assert 0.15 <= len(val) / 80 <= 0.25
    for photos in (train, val):
        assert {photo.stem.split("_")[-1] for photo in photos} == set(KINDS)
    assert sum(photo.stem.endswith(LESION) for photo in train + val) == 40


def test_labels_parse_and_name_the_class_drawn(folder: Path) -> None:
    labels = labels_of(folder)
    classes = Classes(groups=json.loads((folder / "classes.json").read_text(encoding="utf-8")))
    assert {type(label) for label in labels.values()} == {int, str, dict}
    assert set(labels) < {photo.name for photo in photos_of(folder)}
    for name, label in labels.items():
        kind = Path(name).stem.split("_")[-1]
        assert parse_label(label, classes) == parse_label("none" if kind == LESION else kind, classes)


def test_folder_has_partial_targets(folder: Path) -> None:
    labels = labels_of(folder)
    targets = {(photo.name in labels, mask_of(photo).exists()) for photo in photos_of(folder)}
    assert targets == {(True, True), (True, False), (False, True), (False, False)}
    skin = [photo for photo in photos_of(folder) if photo.stem.split("_")[-1] in SKIN_TYPES and mask_of(photo).exists()]
    assert {bool(np.asarray(Image.open(mask_of(photo))).any()) for photo in skin} == {True, False}


def test_masks_have_the_photo_s_size_and_two_values(folder: Path) -> None:
    sizes = set()
    for photo in photos_of(folder):
        with Image.open(photo) as image:
            sizes.add(image.size)
        if mask_of(photo).exists():
            mask = np.asarray(Image.open(mask_of(photo)))
            assert mask.shape == image.size[::-1]
            assert set(np.unique(mask)) <= {0, 255}
    assert {(64, 64), (64, 48), (48, 64)} <= sizes


def test_progress_counts_every_photo(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_demo_data(tmp_path, photos=3, size=48, progress=lambda done, photos: seen.append((done, photos)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DataError, match="not empty"):
        write_demo_data(tmp_path, photos=2)
    with pytest.raises(DataError, match="not empty"):
        write_demo_data(tmp_path / "mine.txt", photos=2)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_unknown_kind_and_tiny_size_are_refused() -> None:
    with pytest.raises(DataError, match="'bald' is no kind"):
        make_photo("bald", 0)
    with pytest.raises(DataError, match="64x20"):
        make_photo("dry", 0, (64, 20))


def test_examples_are_photos(tmp_path: Path) -> None:
    files = write_examples(tmp_path)
    assert len(files) >= 6
    for file in files:
        with Image.open(file) as image:
            assert image.size == (512, 512)
