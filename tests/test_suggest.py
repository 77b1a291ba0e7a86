"""Suggested settings: what the issue asks for, and laws that hold for every data folder."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from builders import CLASS_COUNT, law
from hypothesis import given
from hypothesis import strategies as st

from mtl.config import NO_CLASS, UNKNOWN, Classes, TrainConfig
from mtl.data.folder import DataFolder, Sample, require_trainable
from mtl.errors import MtlError
from mtl.training.suggest import Suggestion, suggest

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MASK = Path("mask.png")


def folder_of(train: list[tuple[int, bool]], val: list[tuple[int, bool]]) -> DataFolder:
    """A folder that is only named: of each photo the class id (or UNKNOWN, NO_CLASS) and whether it has a mask."""
    sides = {
        side: tuple(
            Sample(Path(f"{side}_{n}.jpg"), MASK if has_mask else None, _target(class_id), str(n))
            for n, (class_id, has_mask) in enumerate(photos)
        )
        for side, photos in (("train", train), ("val", val))
    }
    return DataFolder(Path("data"), Classes(), sides["train"], sides["val"])


def _target(class_id: int) -> tuple[int, int]:
    if class_id == NO_CLASS:
        return (NO_CLASS, NO_CLASS)
    return (class_id, UNKNOWN) if class_id < 5 else (UNKNOWN, class_id)


def even(photos: int, *, masks: bool = True) -> list[tuple[int, bool]]:
    return [(n % CLASS_COUNT, masks) for n in range(photos)]


def suggested(folder: DataFolder, device: torch.device = CPU) -> dict[str, object]:
    return {suggestion.setting: suggestion.value for suggestion in suggest(folder, device)}


photos = st.lists(st.tuples(st.integers(0, 9) | st.sampled_from([UNKNOWN, NO_CLASS]), st.booleans()), min_size=1)
folders = st.builds(folder_of, photos, photos)
devices = st.sampled_from([CPU, CUDA, torch.device("mps")])


@law
@given(folders, devices, st.booleans())
def test_suggestions_can_be_taken_together_or_one_by_one(folder: DataFolder, device: torch.device, all_: bool) -> None:
    suggestions = suggest(folder, device)
    assert max(Counter(s.setting for s in suggestions).values(), default=1) == 1
    for taken in [suggestions] if all_ else [[s] for s in suggestions]:
        config = TrainConfig(**{s.setting: s.value for s in taken})
        assert all(getattr(config, s.setting) != getattr(TrainConfig(), s.setting) for s in taken)


@law
@given(folders, devices)
def test_what_can_be_trained_stays_so_with_the_suggestions(folder: DataFolder, device: torch.device) -> None:
    taken = {s.setting: s.value for s in suggest(folder, device)}
    batch = {"batch_size": min(16, len(folder.train))}
    try:
        require_trainable(folder, TrainConfig(**batch))
    except MtlError:
        return
    require_trainable(folder, TrainConfig(**batch | taken))


@law
@given(folders, devices)
def test_each_reason_is_one_line(folder: DataFolder, device: torch.device) -> None:
    for suggestion in suggest(folder, device):
        assert "\n" not in suggestion.reason
        assert 10 < len(suggestion.reason) < 160


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_fewer_than_a_thousand_photos_freeze_the_encoder(device: torch.device) -> None:
    few = suggested(folder_of(even(799), even(200)), device)
    assert (few["freeze_backbone"], few["lr"]) == (True, 0.0001)
    assert not {"freeze_backbone", "lr"} & set(suggested(folder_of(even(800), even(200)), device))


@pytest.mark.parametrize(("photos", "size"), [(1, 1), (3, 2), (5, 4), (40, 4), (64, 8), (127, 8), (128, None)])
def test_few_photos_take_smaller_batches(photos: int, size: int | None) -> None:
    assert suggested(folder_of(even(photos), even(9))).get("batch_size") == size


def test_a_cpu_gets_fewer_epochs_only_where_they_take_long() -> None:
    many = folder_of(even(5000), even(500))
    on_cpu = suggested(many)
    assert 10 < on_cpu["epochs"] < 50  # type: ignore[operator]
    assert on_cpu["early_stopping_patience"] < on_cpu["epochs"]  # type: ignore[operator]
    assert "epochs" not in suggested(many, CUDA)
    assert "epochs" not in suggested(folder_of(even(1000), even(100)))
    assert suggested(folder_of(even(50_000), even(500)))["image_size"] == 160


def test_uneven_classes_are_weighted_and_named() -> None:
    (uneven,) = suggest(folder_of([(1, True)] * 1000 + [(5, True)] * 90, even(100)), CUDA)
    assert uneven == Suggestion(
        "class_weighting", "sqrt", "uneven classes: 90 training photos of straight, 1,000 of dry"
    )
    assert "class_weighting" not in suggested(folder_of(even(1000), even(100)))


@pytest.mark.parametrize(
    ("train", "setting"),
    [
        (even(1000, masks=False), "segmentation_weight"),
        ([(NO_CLASS, True)] * 1000, "classification_weight"),
        ([(3, True)] * 1000, "classification_weight"),
        (even(1000), None),
        ([(UNKNOWN, False)] * 1000, None),  # nothing to learn at all: refused, and no setting mends it
    ],
)
def test_a_task_that_cannot_be_learned_is_left_out(train: list[tuple[int, bool]], setting: str | None) -> None:
    weights = {name: value for name, value in suggested(folder_of(train, even(100)), CUDA).items() if "weight" in name}
    assert weights == ({setting: 0.0} if setting else {})


def test_few_validation_photos_ask_for_patience() -> None:
    assert suggested(folder_of(even(2000), even(49)), CUDA)["early_stopping_patience"] == 20
    assert "early_stopping_patience" not in suggested(folder_of(even(2000), even(50)), CUDA)
