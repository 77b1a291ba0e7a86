"""What check-data finds: files that cannot be read, counts, photos on both sides."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import law, lay_out, save, write_folder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mtl.config import TrainConfig
from mtl.data.alike import MAX_DIFFERENT_BITS, look_alikes
from mtl.data.check import ALL_LESION, CURES, OTHER_SHAPE, TOO_DARK, DataReport, check_folder
from mtl.data.folder import DataFolder, read_folder
from mtl.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "skin", train=12, val=6)


def open_folder(data: Path, **settings: Any) -> DataFolder:
    return read_folder(TrainConfig(data_dir=str(data), **settings))


def check(data: Path) -> DataReport:
    return check_folder(open_folder(data))


def cut_short(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def test_a_sound_folder(data: Path) -> None:
    report = check(data)
    report.require_readable()
    train, val = report.splits["train"], report.splits["val"]
    assert (train.photos, train.labelled, train.none_labels, train.masks, train.lesion_free_masks) == (12, 12, 0, 12, 2)
    assert (val.photos, val.labelled, val.none_labels, val.masks, val.lesion_free_masks) == (6, 6, 0, 6, 1)
    assert list(train.classes.values()) == [2, 2, 1, 1, 1, 1, 1, 1, 1, 1]
    assert list(val.classes.values()) == [1] * 6 + [0] * 4
    assert 0.05 < train.mean_mask_coverage < 0.3
    assert report.unreadable == {}
    assert report.duplicates_across_splits == []
    assert report.look_alikes_across_splits == []
    assert report.doubtful_masks == {}
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_nothing_is_said_of_a_folder_that_is_large_and_even(tmp_path: Path) -> None:
    assert check(write_folder(tmp_path, train=100, val=20)).warnings == []


def test_unreadable_photos_and_masks_are_listed_by_name(data: Path) -> None:
    cut_short(data / "images/train/train_003.jpg")
    lay_out(data, {"images/val/val_001.jpg": "no picture\n", "masks/train/train_005.png": "no mask\n"})
    cut_short(data / "masks/val/val_002.png")
    report = check(data)
    assert set(report.unreadable) == {"train_003.jpg", "val_001.jpg", "train_005.png", "val_002.png"}
    assert report.unreadable["train_003.jpg"].startswith("train_003.jpg: the file is cut short; needed: ")
    assert report.unreadable["val_001.jpg"].startswith("val_001.jpg: no picture that can be read; needed: ")
    assert report.unreadable["train_005.png"].startswith("mask train_005.png: no picture that can be read; needed: ")
    assert report.unreadable["val_002.png"].startswith("mask val_002.png: ")
    assert (report.splits["train"].photos, report.splits["train"].masks) == (12, 11)


def test_training_is_refused_in_one_line_that_names_three(data: Path) -> None:
    check(data).require_readable()
    for number in range(5):
        (data / f"images/train/train_{number:03}.jpg").write_bytes(b"")
    with pytest.raises(DataError) as error:
        check(data).require_readable()
    message = str(error.value)
    assert message.startswith("5 files cannot be read: train_000.jpg: ")
    assert "train_001.jpg: " in message
    assert "train_002.jpg: " in message
    assert "train_003.jpg" not in message
    assert message.endswith("and 2 more (check-data lists them); replace or remove them")
    assert message.isprintable()
    assert str(data) not in message


def test_the_same_photo_on_both_sides(data: Path) -> None:
    shutil.copy(data / "images/train/train_002.jpg", data / "images/val/copy.jpg")
    shutil.copy(data / "images/train/train_002.jpg", data / "images/train/harmless.jpg")
    shutil.copy(data / "images/train/train_004.jpg", data / "images/train/also_harmless.jpg")
    report = check(data)
    [names] = report.duplicates_across_splits
    assert sorted(names) == ["copy.jpg", "harmless.jpg", "train_002.jpg"]
    assert report.look_alikes_across_splits == []
    assert any(warning.startswith("1 photo in both splits (the first: ") for warning in report.warnings)
    assert report.unreadable == {}


def test_groups_on_both_sides_are_told(data: Path) -> None:
    lay_out(data, {"groups.csv": "image,group\ntrain_000.jpg,anna\ntrain_001.jpg,anna\nval_000.jpg,anna\n"})
    assert "1 group on both sides of the split (the first: anna); move each to one side" in check(data).warnings


def test_classes_without_photos_are_told(data: Path) -> None:
    lay_out(data, {"labels.json": '{"train_000.jpg": 0, "train_001.jpg": "none", "val_000.jpg": 2}'})
    report = check(data)
    assert (report.splits["train"].labelled, report.splits["train"].none_labels) == (1, 1)
    [missing] = [warning for warning in report.warnings if warning.startswith("no training photo shows")]
    assert missing.startswith("no training photo shows dry, oily, combination, sensitive, straight, ")
    assert "1 validation photos show oily, which no training photo shows; move some to the training side" in (
        report.warnings
    )


@pytest.mark.parametrize(
    ("left_out", "warning"),
    [("labels", "no training photo has a class label"), ("masks", "no training photo has a mask")],
)
def test_a_missing_task_is_told(tmp_path: Path, left_out: str, warning: str) -> None:
    report = check(write_folder(tmp_path, train=2, val=2, **{left_out: False}))
    assert [text.partition(",")[0] for text in report.warnings if "no training photo has" in text] == [warning]


def test_masks_of_any_size_and_kind_are_read(data: Path) -> None:
    shutil.rmtree(data / "masks")
    half = np.zeros((30, 40), np.uint8)
    half[:, :20] = 1
    save(half, data / "masks/train_000.png")  # 0 and 1
    save(half * np.uint8(255), data / "masks/train_001.gif")
    save(half * np.uint8(200), data / "masks/train/train_002.bmp")
    save(half.astype(np.uint16) * np.uint16(65535), data / "masks/train/train_003.tiff")
    train = check(data).splits["train"]
    assert (train.masks, train.lesion_free_masks, train.mean_mask_coverage) == (4, 0, 0.5)


def test_progress_counts_photos_and_may_break_off(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_folder(open_folder(data), lambda done, total: seen.append((done, total)))
    assert seen == [(done, 18) for done in range(1, 19)]

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_folder(open_folder(data), stop)


def test_only_what_is_included_is_read(data: Path) -> None:
    (data / "images/train/train_000.jpg").write_bytes(b"")
    report = check_folder(open_folder(data, include="*_00[1-5]*"))
    assert report.unreadable == {}
    assert report.splits["train"].photos == 5


def test_few_photos_and_uneven_classes_are_told(tmp_path: Path) -> None:
    data = write_folder(tmp_path, train=49, val=19, labels=False)
    photos = sorted(path.name for path in (data / "images/train").iterdir())
    classes = dict.fromkeys(photos[:44], 0) | dict.fromkeys(photos[44:48], 1) | {"val_000.jpg": 0}
    lay_out(data, {"labels.json": json.dumps(classes), "classes.json": '["dry", "oily"]'})
    assert check(data).warnings == [
        "only 49 training photos; add more (50 at the least), or expect little",
        "only 19 validation photos, so the figures jump by chance; hold out more (20 at the least)",
        "fewer than 10 training photos show oily (4); add some, or join classes",
        "the classes are uneven, 4 to 44 training photos; try class_weighting sqrt or balanced",
    ]


def test_photos_saved_anew_look_alike_and_others_do_not(data: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    original = Image.fromarray(blocks).resize((320, 240), Image.Resampling.BICUBIC)
    original.save(data / "images/train/original.jpg")
    original.save(data / "images/train/again.webp", quality=80)
    original.resize((480, 360)).save(data / "images/val/larger.png")
    original.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(data / "images/val/other.jpg")
    report = check(data)
    assert report.look_alikes_across_splits == [["again.webp", "larger.png"], ["original.jpg", "larger.png"]]
    assert report.duplicates_across_splits == []
    assert any(warning.startswith("2 pairs of photos across the split look alike") for warning in report.warnings)


def test_what_looks_alike_is_looked_for_within_bounds(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in ("train", "val"):
        for number in range(3):
            Image.new("RGB", (64, 64), (number, 0, 0)).save(data / f"images/{side}/even_{side}_{number}.png")
    monkeypatch.setattr("mtl.data.check.MAX_LOOK_ALIKES", 2)
    report = check(data)
    assert len(report.look_alikes_across_splits) == 2
    assert any(warning.startswith("2 pairs or more of photos across") for warning in report.warnings)
    monkeypatch.setattr("mtl.data.check.MAX_COMPARISONS", 0)
    assert check(data).look_alikes_across_splits == []


@law
@given(hnp.arrays(np.uint64, (70, 2)), hnp.arrays(np.uint64, (3, 2)), st.data())
def test_look_alikes_are_the_pairs_within_the_distance(
    ours: np.ndarray, theirs: np.ndarray, draw: st.DataObject
) -> None:
    place, flips = draw.draw(st.integers(0, 69)), draw.draw(st.sets(st.integers(0, 127), max_size=10))
    theirs[1] = ours[place]
    for bit in flips:
        theirs[1, bit // 64] ^= np.uint64(1 << bit % 64)
    pairs = {(i, j) for i in range(70) for j in range(3) if bits(ours[i], theirs[j]) <= MAX_DIFFERENT_BITS}
    assert ((place, 1) in pairs) == (len(flips) <= MAX_DIFFERENT_BITS)
    assert set(look_alikes(ours, theirs)) == pairs


def bits(ours: np.ndarray, theirs: np.ndarray) -> int:
    return sum((int(a) ^ int(b)).bit_count() for a, b in zip(ours, theirs, strict=True))


def test_masks_that_look_wrong_are_told(data: Path) -> None:
    square = np.zeros((64, 64, 3), np.uint8)
    square[16:48, 16:48] = (255, 0, 0)
    masks = data / "masks/train"
    save(square, masks / "train_000.png")  # red on black: grey 76
    save(np.full((64, 64), 255, np.uint8), masks / "train_001.png")
    save(square[:32, :, 0], masks / "train_002.png")
    save(square[::2, ::2, 0], masks / "train_003.png")  # half the size, and right
    speck = np.zeros((64, 64), np.uint8)
    speck[0, 0] = 40
    save(speck, masks / "train_004.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(masks / "train_005.png")  # transparent: nothing is drawn
    report = check(data)
    assert report.doubtful_masks == {
        TOO_DARK: ["train_000.png"],
        ALL_LESION: ["train_001.png"],
        OTHER_SHAPE: ["train_002.png"],
    }
    assert f"1 mask {OTHER_SHAPE} (the first: train_002.png); {CURES[OTHER_SHAPE]}" in report.warnings
    assert report.splits["train"].masks == 12


def test_generated_masks_are_counted_apart(data: Path) -> None:
    folder = open_folder(data)
    as_given = check_folder(folder).splits["train"]
    whole = save(np.full((64, 64), 255, np.uint8), data.parent / "generated/train_000.png")
    generated = replace(folder.train[0], mask=whole, mask_is_generated=True)
    train = check_folder(replace(folder, train=(generated, *folder.train[1:]))).splits["train"]
    assert (train.masks, train.generated_masks, as_given.generated_masks) == (as_given.masks - 1, 1, 0)
    assert train.mean_mask_coverage < 0.3

    report = check_folder(replace(folder, train=(generated, *(replace(s, mask=None) for s in folder.train[1:]))))
    assert report.doubtful_masks == {}
    assert "lesions are learned from 1 generated masks only; draw some in masks/" in report.warnings
