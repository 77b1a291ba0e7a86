"""The Python API and the Hub: what is pushed comes back as it was, at a branch and a tag, and without a network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import draw_photo
from huggingface_hub import constants
from loopback_hub import LoopbackHub

from mtl.api import DEFAULT_CHECKPOINT, MultiTaskModel
from mtl.checkpoint import WEIGHTS_FILE
from mtl.errors import CheckpointError, HubConflictError, HubError, HubFileError, HubNotFoundError
from mtl.hub.package import BEST_FILE
from mtl.hub.reference import parse_reference
from mtl.training.run import Run

PHOTO = draw_photo(1, 64, np.random.default_rng(0))[0]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[LoopbackHub, str]]:
    """A Hub, and ada's token there."""
    with LoopbackHub() as hub:
        yield hub, hub.add_user("ada")


@pytest.fixture
def hub(running: tuple[LoopbackHub, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoopbackHub:
    hub, token = running
    hub.repos = {}
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("MTL_CHECKPOINTS_DIR", str(tmp_path / "checkpoints"))
    return hub


def same_answer(one: MultiTaskModel, other: MultiTaskModel) -> bool:
    first, second = one.predict(PHOTO), other.predict(PHOTO)
    equal = first["classification"]["probabilities"] == second["classification"]["probabilities"]
    return equal and np.array_equal(first["segmentation"]["confidence_map"], second["segmentation"]["confidence_map"])


def change(model: MultiTaskModel) -> None:
    with torch.no_grad():
        model.network.classification_head[-1].bias += 1


@pytest.mark.usefixtures("one_thread")
def test_the_shipped_model_comes_back_byte_for_byte(hub: LoopbackHub, tmp_path: Path) -> None:
    shipped = MultiTaskModel.from_pretrained(DEFAULT_CHECKPOINT, device="cpu")
    shipped.save_pretrained(tmp_path / "own")  # float32; hub.json is written beside this one, not the shipped one
    own = MultiTaskModel.load(tmp_path / "own", "cpu")
    address = own.push_to_hub("ada/skin", tag="v1")
    assert address.startswith(hub.url)
    assert own.push_to_hub("ada/skin") == address  # nothing new, so no commit
    for name in ("hf://ada/skin", "hf://ada/skin@v1"):
        pulled = MultiTaskModel.load(name, "cpu")
        assert pulled.source == tmp_path / "checkpoints" / parse_reference(name).folder_name
        assert (pulled.source / WEIGHTS_FILE).read_bytes() == (tmp_path / "own" / WEIGHTS_FILE).read_bytes()
        assert same_answer(shipped, pulled)
    assert hub.repos["ada/skin"].private


@pytest.mark.usefixtures("one_thread")
def test_a_run_goes_with_its_history_and_a_changed_network_goes_alone(
    hub: LoopbackHub, finished_run: Run, tmp_path: Path
) -> None:
    model = MultiTaskModel.load(finished_run.path, "cpu")
    model.source = None  # the session's run must not get a hub.json
    model.push_to_hub("ada/alone")
    assert "multitask_history.json" not in hub.repos["ada/alone"].head.files
    change(model)
    model.push_to_hub("ada/changed")
    changed = MultiTaskModel.from_pretrained("ada/changed", device="cpu")
    assert same_answer(model, changed)
    assert (changed.checkpoint.metrics, changed.checkpoint.epoch) == ({}, 0)  # those were of the old weights
    assert not same_answer(MultiTaskModel.load(finished_run.path, "cpu"), changed)


@pytest.mark.usefixtures("one_thread")
def test_what_was_pulled_works_without_the_hub(
    hub: LoopbackHub, finished_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MultiTaskModel.load(finished_run.best_file, "cpu")
    model.source = None
    model.push_to_hub("ada/skin")
    with pytest.raises(HubNotFoundError, match="was not pulled before"):
        MultiTaskModel.from_pretrained("ada/skin", local_files_only=True)
    with pytest.raises(HubNotFoundError, match="no token was given"):
        MultiTaskModel.from_pretrained("ada/skin", token=False)
    MultiTaskModel.from_pretrained("ada/skin", token=True, device="cpu")
    hub.log.clear()
    MultiTaskModel.from_pretrained("ada/skin", force_download=True, device="cpu")
    assert hub.calls("download")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same_answer(model, MultiTaskModel.from_pretrained("ada/skin", local_files_only=True, device="cpu"))
    pulled = MultiTaskModel.load("hf://ada/skin", "cpu")
    assert same_answer(model, pulled)
    assert pulled.source is not None
    weights = pulled.source / WEIGHTS_FILE
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(HubFileError, match="is no longer as it was pulled"):
        MultiTaskModel.from_pretrained("ada/skin", local_files_only=True)


@pytest.mark.usefixtures("one_thread")
def test_the_second_of_two_pushers_is_told(hub: LoopbackHub, finished_run: Run, tmp_path: Path) -> None:
    def pusher(name: str) -> MultiTaskModel:
        return MultiTaskModel.load(
            MultiTaskModel.load(finished_run.path, "cpu").save_pretrained(tmp_path / name), "cpu"
        )

    first, second = pusher("first"), pusher("second")
    change(second)
    first.push_to_hub("ada/skin", commit_message="the first one")
    with pytest.raises(HubConflictError, match="the first one"):
        second.push_to_hub("ada/skin")
    second.push_to_hub("ada/skin", overwrite=True)
    assert len({commit.sha for commit in hub.repos["ada/skin"].log()}) >= 2


@pytest.mark.usefixtures("one_thread")
def test_a_changed_model_builds_on_what_it_came_from(hub: LoopbackHub, finished_run: Run) -> None:
    """Pulled, changed and pushed back, twice; and one that was never in a file."""
    made = MultiTaskModel(MultiTaskModel.load(finished_run.path, "cpu").checkpoint, "cpu")
    made.push_to_hub("ada/skin", private=None)
    assert hub.repos["ada/skin"].private
    change(made)
    made.push_to_hub("ada/skin")
    pulled = MultiTaskModel.load("hf://ada/skin", "cpu")
    for _ in range(2):
        change(pulled)
        pulled.push_to_hub("ada/skin")


@pytest.mark.usefixtures("one_thread")
def test_what_was_replaced_on_the_disk_meanwhile_is_not_pushed(
    hub: LoopbackHub, finished_run: Run, tmp_path: Path
) -> None:
    first, second = (MultiTaskModel.load(finished_run.path, "cpu") for _ in range(2))
    mine = MultiTaskModel.load(first.save_pretrained(tmp_path / "mine"), "cpu")
    change(second)
    second.save_pretrained(tmp_path / "mine")
    with pytest.raises(CheckpointError, match="replaced since they were loaded"):
        mine.push_to_hub("ada/skin")
    assert hub.repos == {}


@pytest.mark.usefixtures("one_thread")
def test_the_folders_of_a_run_and_of_a_pulled_model_are_not_saved_into(finished_run: Run, tmp_path: Path) -> None:
    model = MultiTaskModel.load(finished_run.path, "cpu")
    for name, content in (("hub.json", '{"files": {"a": {"sha256": ""}}}'), ("run.json", "{}"), (BEST_FILE, "")):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(CheckpointError, match="which stays; name another folder"):
            model.save_pretrained(folder)
        assert [path.name for path in folder.iterdir()] == [name]
    model.save_pretrained(tmp_path / "own")
    (tmp_path / "own" / "hub.json").write_text('{"repo_id": "ada/skin"}')  # of a push from here
    model.save_pretrained(tmp_path / "own")


def test_names_that_no_model_has() -> None:
    for name in ("skin", "../skin", "ada/../skin", "ada/skin@../x", "hf://ada"):
        with pytest.raises(HubError, match="names no model"):
            MultiTaskModel.from_pretrained(name)
