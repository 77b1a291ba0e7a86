"""What check-data finds: files that cannot be read, counts, photos on both sides."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import lay_out, save, write_folder

from mtl.config import TrainConfig
from mtl.data.check import DataReport, check_folder
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
    assert report.warnings == []


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
    assert any(warning.startswith("1 photos stand in both splits") for warning in report.warnings)
    assert report.unreadable == {}


def test_groups_on_both_sides_are_told(data: Path) -> None:
    lay_out(data, {"groups.csv": "image,group\ntrain_000.jpg,anna\ntrain_001.jpg,anna\nval_000.jpg,anna\n"})
    assert check(data).warnings == ["1 groups stand on both sides of the split (the first: anna)"]


def test_classes_without_photos_are_told(data: Path) -> None:
    lay_out(data, {"labels.json": '{"train_000.jpg": 0, "train_001.jpg": "none", "val_000.jpg": 2}'})
    report = check(data)
    assert (report.splits["train"].labelled, report.splits["train"].none_labels) == (1, 1)
    assert "no training photo shows dry: the class will never be predicted" in report.warnings
    assert "1 validation photos show oily, which has no training photo" in report.warnings
    assert not any("normal" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("left_out", "warning"),
    [("labels", "no training photo has a class label"), ("masks", "no training photo has a mask")],
)
def test_a_missing_task_is_told(tmp_path: Path, left_out: str, warning: str) -> None:
    report = check(write_folder(tmp_path, train=2, val=2, **{left_out: False}))
    assert [text.partition(":")[0] for text in report.warnings if "no training photo has" in text] == [warning]


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
