"""Data folders: every form that is read, every mistake that is named, and the laws of the split."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from builders import law, lay_out
from hypothesis import given
from hypothesis import strategies as st

from mtl.config import NO_CLASS, UNKNOWN, Classes, TrainConfig
from mtl.data.folder import DataFolder, read_folder, require_trainable
from mtl.data.labels import Target, parse_label
from mtl.data.split import stratified_group_split
from mtl.errors import ConfigError, DataError, MtlError

Files = dict[str, str | bytes]
Read = Callable[..., DataFolder]

LOOSE: Files = {f"images/{name}.jpg": "" for name in "abcdefghij"}
SPLIT: Files = {
    "images/train/a.jpg": "",
    "images/train/b.jpg": "",
    "images/train/c.jpg": "",
    "images/val/d.jpg": "",
    "images/val/e.jpg": "",
}
LABELS = '{"a.jpg": 0, "b.jpg": 1}'
MASKS: Files = {"masks/a.png": "", "masks/d.png": ""}


def csv_of(*lines: str) -> str:
    return "\n".join(lines) + "\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write files, then read them as a data folder with these settings."""

    def write_and_read(files: Files, **settings: Any) -> DataFolder:
        return read_folder(TrainConfig(data_dir=str(lay_out(tmp_path / "skin", files)), **settings))

    return write_and_read


def targets_of(folder: DataFolder) -> dict[str, Target]:
    return {sample.name: sample.target for sample in folder.train + folder.val}


def names_of(folder: DataFolder) -> tuple[list[str], list[str]]:
    return [sample.name for sample in folder.train], [sample.name for sample in folder.val]


# Layouts


def test_folders_are_the_split(read: Read) -> None:
    folder = read(SPLIT, seed=3, val_fraction=0.9)
    assert names_of(folder) == (["a.jpg", "b.jpg", "c.jpg"], ["d.jpg", "e.jpg"])
    assert set(targets_of(folder).values()) == {(UNKNOWN, UNKNOWN)}
    assert all(sample.mask is None and sample.group == sample.name for sample in folder.train)


def test_loose_photos_are_split_by_seed_and_fraction(read: Read) -> None:
    train, val = names_of(read(LOOSE, val_fraction=0.3))
    assert (len(train), len(val)) == (7, 3)
    assert sorted(train + val) == [f"{name}.jpg" for name in "abcdefghij"]
    assert names_of(read(LOOSE, val_fraction=0.3)) == (train, val)
    assert len({tuple(names_of(read(LOOSE, val_fraction=0.3, seed=seed))[1]) for seed in range(20)}) > 10


@pytest.mark.parametrize("photos", [LOOSE, SPLIT])
def test_splits_json_wins_and_leaves_the_rest_out(read: Read, photos: Files) -> None:
    folder = read(photos | {"splits.json": '{"train": ["d.jpg", "b.jpg"], "val": ["a.jpg"]}'})
    assert names_of(folder) == (["b.jpg", "d.jpg"], ["a.jpg"])


def test_include_uses_a_part(read: Read) -> None:
    photos: Files = {f"images/train/{name}.jpg": "" for name in ("isic18_1", "isic18_2", "made_1")}
    photos |= {f"images/val/{name}.jpg": "" for name in ("isic18_3", "made_2")}
    assert names_of(read(photos, include="isic18_*")) == (["isic18_1.jpg", "isic18_2.jpg"], ["isic18_3.jpg"])
    assert names_of(read(photos, include="*_[13].jpg")) == (["isic18_1.jpg", "made_1.jpg"], ["isic18_3.jpg"])


def test_labels_masks_and_splits_of_photos_left_out_are_no_error(read: Read) -> None:
    others: Files = {"labels.json": '{"d.jpg": 1}', "masks/e.png": "", "groups.csv": csv_of("image,group", "e.jpg,x")}
    split: Files = {"splits.json": '{"train": ["a.jpg", "e.jpg"], "val": ["b.jpg"]}'}
    assert names_of(read(LOOSE | others | split, include="[abc]*")) == (["a.jpg"], ["b.jpg"])


@pytest.mark.parametrize("suffix", ["png", "PNG", "gif", "bmp", "tif", "tiff"])
@pytest.mark.parametrize("place", ["masks", "masks/train"])
def test_masks_are_found_by_stem(read: Read, suffix: str, place: str) -> None:
    folder = read(SPLIT | {f"{place}/a.{suffix}": "", f"{place}/.DS_Store": "", "images/train/Thumbs.db": ""})
    assert [sample.mask and sample.mask.name for sample in folder.train] == [f"a.{suffix}", None, None]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "gif", "tif", "tiff", "avif"])
def test_photos_of_every_kind_are_found(read: Read, suffix: str) -> None:
    assert names_of(read(SPLIT | {f"images/val/f.{suffix}": ""}))[1] == ["d.jpg", "e.jpg", f"f.{suffix}"]


def test_groups_stay_on_one_side(read: Read) -> None:
    rows = [f"{name}.jpg,{'one' if name in 'abc' else 'two' if name in 'hij' else name}" for name in "abchij"]
    for seed in range(10):
        folder = read(LOOSE | {"groups.csv": csv_of("image,group", *rows)}, seed=seed)
        assert not {sample.group for sample in folder.train} & {sample.group for sample in folder.val}


def test_classes_come_from_setting_file_or_default(read: Read) -> None:
    assert read(SPLIT).classes == Classes()
    listed: Files = {"classes.json": '["red", "green"]', "other.json": '{"size": ["big", "small"]}'}
    assert read(SPLIT | listed).classes.groups == {"class": ("red", "green")}
    assert read(SPLIT, classes="other.json").classes.groups == {"size": ("big", "small")}
    assert read(SPLIT, classes="calm, sad").classes.groups == {"class": ("calm", "sad")}


def test_class_counts_are_of_one_side(read: Read) -> None:
    labels = '{"a.jpg": "dry", "b.jpg": {"skin type": "dry", "hair type": "wavy"}, "c.jpg": "none", "d.jpg": "oily"}'
    folder = read(SPLIT | {"labels.json": labels})
    assert folder.class_counts() == (0, 2, 0, 0, 0, 0, 1, 0, 0, 0)
    assert folder.class_counts("val") == (0, 0, 1, 0, 0, 0, 0, 0, 0, 0)


# Labels


@pytest.mark.parametrize(
    ("label", "target"),
    [
        (0, (0, UNKNOWN)),
        (9, (UNKNOWN, 9)),
        ("3", (3, UNKNOWN)),
        ("dry", (1, UNKNOWN)),
        (" Dry ", (1, UNKNOWN)),
        ("kinky", (UNKNOWN, 8)),
        ("coily", (UNKNOWN, 8)),
        ("none", (NO_CLASS, NO_CLASS)),
        ("None", (NO_CLASS, NO_CLASS)),
        ({"skin type": "dry"}, (1, UNKNOWN)),
        ({"hair type": 7}, (UNKNOWN, 7)),
        ({"hair type": "kinky", "skin type": 2}, (2, 8)),
    ],
)
def test_every_form_of_label(label: Any, target: Target) -> None:
    assert parse_label(label, Classes()) == target


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (10, "got 10; needed an id from 0 to 9"),
        (-1, "got -1; needed an id from 0 to 9"),
        ("-1", "got '-1'"),
        ("wary", "got 'wary'; needed an id from 0 to 9, \"none\" or one of normal, dry"),
        (1.0, "got 1.0"),
        (True, "got True"),
        (None, "got None"),
        ([1], r"got \[1\]"),
        ("", "got ''"),
        ({}, "the label is empty"),
        ({"mood": "calm"}, "there is no group 'mood'; the groups are skin type, hair type"),
        ({"skin type": "curly"}, "'curly' is no skin type; use one of normal, dry"),
        ({"skin type": None}, "got None"),
        ({"skin type": "none"}, "got 'none'; needed an id from 0 to 9 or one of normal, dry"),
    ],
)
def test_a_label_outside_the_classes(label: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_label(label, Classes())


CSV_FILES = {
    "plain": csv_of("image,label", "a.jpg,dry", "b.jpg,7"),
    "more columns, another order": csv_of("who,label,image", "me,dry,a.jpg", "you,7,b.jpg"),
    "byte order mark": "\ufeff" + csv_of("image,label", "a.jpg,dry", "b.jpg,7"),
    "semicolons": csv_of("image;label", "a.jpg;dry", "b.jpg;7"),
    "byte order mark, semicolons, Windows line ends": "\ufeffimage;label\r\na.jpg;dry\r\nb.jpg;7\r\n",
    "quotes": csv_of('"image","label"', '"a.jpg","dry"', '"b.jpg","7"'),
    "spaces and empty lines": csv_of("image, label", "", " a.jpg , dry", "b.jpg, 7", "", ""),
}


@pytest.mark.parametrize("content", CSV_FILES.values(), ids=CSV_FILES)
def test_csv_as_spreadsheets_write_it(read: Read, content: str) -> None:
    targets = targets_of(read(SPLIT | {"labels.csv": content}))
    assert (targets["a.jpg"], targets["b.jpg"], targets["c.jpg"]) == ((1, UNKNOWN), (UNKNOWN, 7), (UNKNOWN, UNKNOWN))


def test_labels_setting_chooses_a_file(read: Read, tmp_path: Path) -> None:
    files = SPLIT | {"labels.json": LABELS, "labels.csv": csv_of("image,label", "a.jpg,4")}
    outside = lay_out(tmp_path, {"mine.json": '{"a.jpg": 5}'}) / "mine.json"
    assert targets_of(read(files, labels="labels.csv"))["a.jpg"] == (4, UNKNOWN)
    assert targets_of(read(files, labels=str(outside)))["a.jpg"] == (UNKNOWN, 5)


def test_json_with_a_byte_order_mark(read: Read) -> None:
    assert targets_of(read(SPLIT | {"labels.json": "\ufeff" + LABELS}))["b.jpg"] == (1, UNKNOWN)


# Mistakes: (what is wrong, files, settings, what the message must hold)

MISTAKES: list[tuple[str, Files, dict[str, Any], tuple[str, ...]]] = [
    ("no images folder", {"labels.json": LABELS}, {}, ("skin", "no photos", "images/")),
    ("no photos", {"images/train/.gitkeep": "", "images/val/.gitkeep": ""}, {}, ("skin", "no photos", "images/")),
    ("id outside", LOOSE | {"labels.json": '{"a.jpg": 10}'}, {}, ("labels.json", "a.jpg", "got 10", "0 to 9")),
    ("name outside", LOOSE | {"labels.json": '{"a.jpg": "wary"}'}, {}, ("labels.json", "a.jpg", "'wary'", "normal")),
    (
        "label outside in CSV",
        LOOSE | {"labels.csv": csv_of("image,label", "a.jpg,1", "", "b.jpg,wary")},
        {},
        ("labels.csv line 4", "b.jpg", "'wary'", "normal"),
    ),
    (
        "label outside own classes",
        LOOSE | {"labels.json": '{"a.jpg": 3}'},
        {"classes": "x,y,z"},
        ("a.jpg", "got 3", "0 to 2"),
    ),
    ("label without photo", LOOSE | {"labels.json": '{"z.jpg": 1}'}, {}, ("labels.json", "z.jpg", "remove its entry")),
    (
        "labels without photos",
        LOOSE | {"labels.csv": csv_of("image,label", "x.jpg,1", "y.jpg,2", "z.jpg,3")},
        {},
        ("labels.csv", "x.jpg and 2 more", "remove its entry"),
    ),
    ("photo's name with a line break", LOOSE | {"labels.json": '{"z\\n.jpg": 1}'}, {}, ("labels.json", "z .jpg")),
    ("group without photo", LOOSE | {"groups.csv": csv_of("image,group", "z.jpg,1")}, {}, ("groups.csv", "z.jpg")),
    (
        "two groups",
        LOOSE | {"groups.csv": csv_of("image,group", "a.jpg,1", "a.jpg,2")},
        {},
        ("groups.csv", "a.jpg has two groups", "keep one"),
    ),
    ("mask of another name", LOOSE | {"masks/a_mask.png": ""}, {}, ("masks/", "a_mask.png", "no photo named a_mask")),
    ("two masks", LOOSE | {"masks/a.png": "", "masks/a.gif": ""}, {}, ("masks/", "a has two masks", "remove one")),
    ("mask that is JPEG", LOOSE | {"masks/a.jpg": ""}, {}, ("masks/", "a.jpg", "png")),
    ("text among masks", LOOSE | {"masks/readme.txt": ""}, {}, ("masks/", "readme.txt", "remove it")),
    ("text among photos", LOOSE | {"images/notes.txt": "hi"}, {}, ("images/", "notes.txt", "jpg", "remove it")),
    ("no validation folder", {"images/train/a.jpg": ""}, {}, ("skin", "val split", "put photos on both sides")),
    ("empty side", SPLIT | {"splits.json": '{"train": [], "val": ["a.jpg"]}'}, {}, ("skin", "train split")),
    ("side empty by include", SPLIT, {"include": "[de].jpg"}, ("skin", "train split")),
    ("one photo", {"images/a.jpg": ""}, {}, ("one group", "add photos")),
    (
        "one group",
        LOOSE | {"groups.csv": csv_of("image,group", *[f"{n}.jpg,me" for n in "abcdefghij"])},
        {},
        ("one group",),
    ),
    ("one class in the file", LOOSE | {"classes.json": '["dry"]'}, {}, ("classes.json", "at least two classes")),
    (
        "classes are no names",
        LOOSE | {"classes.json": '{"skin": [1, 2]}'},
        {},
        ("classes.json", "groups.skin.0: got 1"),
    ),
    ("classes are a number", LOOSE | {"classes.json": "7"}, {}, ("classes.json", "got 7")),
    ("same photo twice", SPLIT | {"images/val/a.jpg": ""}, {}, ("images/", "a stands twice", "rename")),
    ("same stem twice", LOOSE | {"images/a.png": ""}, {}, ("images/", "a stands twice", "rename")),
    ("photos beside the sides", SPLIT | {"images/z.jpg": ""}, {}, ("images/", "z.jpg", "move it into train/ or val/")),
    (
        "two label files",
        LOOSE | {"labels.json": LABELS, "labels.csv": csv_of("image,label", "a.jpg,1")},
        {},
        ("labels.json", "labels.csv", "remove one"),
    ),
    ("no such label file", LOOSE, {"labels": "mine.csv"}, ("--labels mine.csv", "check its name")),
    ("no such class file", LOOSE, {"classes": "mine.json"}, ("--classes mine.json", "check its name")),
    (
        "on both sides",
        LOOSE | {"splits.json": '{"train": ["a.jpg", "b.jpg"], "val": ["a.jpg"]}'},
        {},
        ("splits.json", "a.jpg is listed twice", "keep it on one side"),
    ),
    (
        "split without photo",
        LOOSE | {"splits.json": '{"train": ["z.jpg"], "val": ["a.jpg"]}'},
        {},
        ("splits.json", "z.jpg"),
    ),
    ("split of one side", LOOSE | {"splits.json": '{"train": ["a.jpg"]}'}, {}, ("splits.json", '"val": [photo names]')),
    ("split of numbers", LOOSE | {"splits.json": '{"train": [1], "val": [2]}'}, {}, ("splits.json", "[photo names]")),
    ("split is a list", LOOSE | {"splits.json": '["train", "val"]'}, {}, ("splits.json", "[photo names]")),
    ("broken labels", LOOSE | {"labels.json": '{"a.jpg": 1,'}, {}, ("labels.json", "cannot be read as JSON", "line 1")),
    ("broken splits", LOOSE | {"splits.json": "train: a"}, {}, ("splits.json", "cannot be read as JSON")),
    ("broken classes", LOOSE | {"classes.json": ""}, {}, ("classes.json", "cannot be read as JSON")),
    ("JSON in UTF-16", LOOSE | {"labels.json": LABELS.encode("utf-16")}, {}, ("labels.json", "cannot be read as JSON")),
    ("very deep JSON", LOOSE | {"labels.json": "[" * 100_000}, {}, ("labels.json", "cannot be read as JSON")),
    ("labels as a list", LOOSE | {"labels.json": "[1, 2]"}, {}, ("labels.json", "list", "{photo name: label}")),
    (
        "photo twice in JSON",
        LOOSE | {"labels.json": '{"a.jpg": 1, "a.jpg": 2}'},
        {},
        ("labels.json", "a.jpg stands twice"),
    ),
    (
        "photo twice in CSV",
        LOOSE | {"labels.csv": csv_of("image,label", "a.jpg,1", "a.jpg,2")},
        {},
        ("labels.csv line 3", "a.jpg has two labels", "keep one"),
    ),
    (
        "no columns",
        LOOSE | {"labels.csv": csv_of("a.jpg,1", "b.jpg,2")},
        {},
        ("labels.csv", "'a.jpg,1'", "image, label"),
    ),
    ("one column", LOOSE | {"labels.csv": csv_of("image,class", "b.jpg,2")}, {}, ("labels.csv", "label missing")),
    ("empty CSV", LOOSE | {"labels.csv": ""}, {}, ("labels.csv", "image, label")),
    ("empty cell", LOOSE | {"labels.csv": csv_of("image,label", "a.jpg,")}, {}, ("labels.csv line 2", "is empty")),
    ("short row", LOOSE | {"labels.csv": csv_of("image,label", "a.jpg")}, {}, ("labels.csv line 2", "is empty")),
    (
        "quote never closed",
        LOOSE | {"labels.csv": 'image,label\n"a.jpg,1\n' + "b" * 200_000},
        {},
        ("labels.csv", "as CSV"),
    ),
    (
        "CSV in UTF-16",
        LOOSE | {"labels.csv": csv_of("image,label", "a.jpg,1").encode("utf-16")},
        {},
        ("labels.csv", "UTF-8", "save it as"),
    ),
    ("a third side", SPLIT | {"images/test/f.jpg": ""}, {}, ("images/", "test/", "move its files into train/ or val/")),
    ("folder in a side", SPLIT | {"images/train/more/f.jpg": ""}, {}, ("train/", "more/", "up into train/")),
    ("masks of a third side", SPLIT | {"masks/test/a.png": ""}, {}, ("masks/", "test/", "into train/ or val/")),
    ("folder among a side's masks", SPLIT | {"masks/val/x/d.png": ""}, {}, ("val/", "x/", "up into val/")),
    ("masks that are a file", SPLIT | {"masks": ""}, {}, ("masks: it is a file", "needed a folder of masks")),
    ("nothing included", LOOSE, {"include": "isic_*"}, ("skin", "none of 10 photos", "--include isic_*", "try *")),
]


@pytest.mark.parametrize(("_", "files", "settings", "parts"), MISTAKES, ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_named_in_one_line(
    read: Read, tmp_path: Path, _: str, files: Files, settings: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(DataError) as error:
        read(files, **settings)
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert message.isprintable()
    assert str(tmp_path) not in message


@pytest.mark.parametrize("place", ["images/train/f.jpg", "masks/train/a.png", "masks", "labels.json", "splits.json"])
def test_a_link_to_nothing_is_no_skip(place: str, tmp_path: Path) -> None:
    link = lay_out(tmp_path / "skin", SPLIT) / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"/: {link.name} is a link to nothing; restore what it links to or remove"):
        read_folder(TrainConfig(data_dir=str(tmp_path / "skin")))


def test_hidden_folders_are_skipped(read: Read) -> None:
    assert names_of(read(SPLIT | {"images/.cache/f.jpg": "", "images/train/.trash/g.jpg": ""})) == names_of(read(SPLIT))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder; needed one with images/"):
        read_folder(TrainConfig(data_dir="nowhere"))


def test_the_current_folder_has_its_name_in_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lay_out(tmp_path / "skin", {}))
    with pytest.raises(DataError, match=r"^skin: no photos"):
        read_folder(TrainConfig(data_dir="."))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["dry", "none", "a.jpg"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("skin type"), inner, max_size=3),
    max_leaves=6,
)


@law
@given(
    st.sampled_from(["labels.json", "splits.json", "classes.json"]),
    JSON_VALUES | st.dictionaries(st.sampled_from(["a.jpg", "b.jpg", "train", "val"]) | st.text(), JSON_VALUES),
)
def test_any_json_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: object
) -> None:
    folder = lay_out(tmp_path_factory.getbasetemp() / "any", SPLIT)
    for earlier in folder.glob("*.json"):
        earlier.unlink()
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    try:
        read_folder(TrainConfig(data_dir=str(folder)))
        return
    except MtlError as error:
        message = str(error)
    assert message.isprintable()
    assert name in message or "split" in message


# What cannot be learned from


BOTH_LABELLED = '{"a.jpg": 0, "b.jpg": 1, "d.jpg": 1}'


def test_a_batch_larger_than_the_data(read: Read) -> None:
    config = TrainConfig(batch_size=4)
    with pytest.raises(ConfigError, match="batch_size: got 4, but there are only 3 training photos; take 3 or less"):
        require_trainable(read(SPLIT | {"labels.json": BOTH_LABELLED}), config)
    require_trainable(read(SPLIT | {"labels.json": BOTH_LABELLED}), config.replace(batch_size=3))


def test_a_single_class(read: Read) -> None:
    folder = read(SPLIT | {"labels.json": '{"a.jpg": "dry", "b.jpg": 1, "d.jpg": 2}', **MASKS})
    config = TrainConfig(batch_size=2)
    with pytest.raises(DataError, match=r"skin: all labelled training photos show dry.*; add photos of another class"):
        require_trainable(folder, config)
    require_trainable(folder, config.replace(classification_weight=0))


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        ({}, {}),
        ({"labels.json": '{"d.jpg": 1, "e.jpg": 2}', "masks/d.png": ""}, {}),  # of validation photos only
        ({"labels.json": LABELS}, {"classification_weight": 0}),
        ({"masks/a.png": ""}, {"segmentation_weight": 0}),
        ({"labels.json": '{"a.jpg": "none", "d.jpg": "none"}'}, {}),  # no class is there to be far from
    ],
)
def test_nothing_to_learn(read: Read, files: Files, weights: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"skin: no training photo has a label or a mask.*; add labels.json or masks/"):
        require_trainable(read(SPLIT | files), TrainConfig(batch_size=1, **weights))


@pytest.mark.parametrize("files", [{"labels.json": BOTH_LABELLED}, MASKS])
def test_one_task_is_enough(read: Read, files: Files) -> None:
    require_trainable(read(SPLIT | files), TrainConfig(batch_size=1))


@pytest.mark.parametrize(
    "files",
    [
        {"labels.json": LABELS},
        {"masks/a.png": ""},
        {"labels.json": LABELS, "masks/d.png": ""},  # each task on one side
        {"labels.json": '{"a.jpg": 0, "b.jpg": 1, "d.jpg": 2}'},  # a class that is not trained
    ],
)
def test_nothing_to_measure(read: Read, files: Files) -> None:
    with pytest.raises(DataError, match=r"skin: no validation photo has a label or a mask of what is learned"):
        require_trainable(read(SPLIT | files), TrainConfig(batch_size=1))


@pytest.mark.parametrize(
    ("files", "metric", "missing"),
    [
        ({"labels.json": BOTH_LABELLED}, "val_jaccard", "mask"),
        ({"labels.json": BOTH_LABELLED, "masks/a.png": ""}, "val_dice", "mask"),
        (MASKS, "val_accuracy", "label"),
        ({"labels.json": '{"a.jpg": 0, "b.jpg": 1, "d.jpg": "none"}'}, "val_balanced_accuracy", "label"),
    ],
)
def test_a_best_metric_that_nothing_measures(read: Read, files: Files, metric: str, missing: str) -> None:
    config = TrainConfig(batch_size=1)
    require_trainable(read(SPLIT | files), config)
    with pytest.raises(ConfigError, match=rf"best_metric: got {metric}, but no validation photo has a {missing} of"):
        require_trainable(read(SPLIT | files), config.replace(best_metric=metric))


# The split's laws


@st.composite
def photo_groups(draw: st.DrawFn) -> tuple[dict[str, int], list[list[str]]]:
    """Up to 60 photos, each with one of four strata, in two or more groups."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=20))
    names = [f"photo{number}" for number in range(sum(sizes))]
    strata = dict(zip(names, draw(st.lists(st.integers(0, 3), min_size=len(names), max_size=len(names))), strict=True))
    rest = iter(names)
    return strata, [[next(rest) for _ in range(size)] for size in sizes]


SHARES = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**31 - 1)


@law
@given(photo_groups(), SHARES, SEEDS)
def test_split_is_disjoint_complete_and_keeps_groups(
    drawn: tuple[dict[str, int], list[list[str]]], share: float, seed: int
) -> None:
    strata, groups = drawn
    train, val = stratified_group_split(strata, groups, share, seed)
    assert train
    assert val
    assert sorted(train + val) == sorted(strata)
    assert all(set(group) <= set(train) or set(group) <= set(val) for group in groups)


@law
@given(photo_groups(), SHARES, SEEDS, st.randoms(use_true_random=False))
def test_split_depends_on_the_seed_alone(
    drawn: tuple[dict[str, int], list[list[str]]], share: float, seed: int, order: Random
) -> None:
    strata, groups = drawn
    expected = stratified_group_split(strata, groups, share, seed)
    names = list(strata)
    order.shuffle(names)
    shuffled = [order.sample(group, len(group)) for group in order.sample(groups, len(groups))]
    assert stratified_group_split({name: strata[name] for name in names}, shuffled, share, seed) == expected


@law
@given(st.lists(st.integers(0, 5), min_size=2, max_size=200), SHARES, SEEDS)
def test_single_photos_are_split_at_the_share_in_all_and_in_each_stratum(
    strata: list[int], share: float, seed: int
) -> None:
    by_name = {f"photo{number}": stratum for number, stratum in enumerate(strata)}
    _, val = stratified_group_split(by_name, [[name] for name in by_name], share, seed)
    assert abs(len(val) - share * len(strata)) <= 1
    chosen = Counter(by_name[name] for name in val)
    for stratum, count in Counter(strata).items():
        assert abs(chosen[stratum] - share * count) <= 2  # a rounding of its own, and one carried over


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(DataError, match="which cannot be split; add photos or correct"):
        stratified_group_split({"a": 0, "b": 0}, [["a", "b"]], 0.2, 0)
