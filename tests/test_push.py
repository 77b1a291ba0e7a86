"""Pushing with the real client to a Hub on loopback: commits, conflicts, tags, cancelling, and the way back."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from loopback_hub import Fault, LoopbackHub
from tiny import ONE_THREAD, random_network

from mtl.api import MultiTaskModel
from mtl.checkpoint import Checkpoint, read_checkpoint, write_folder, write_pth
from mtl.config import ModelConfig
from mtl.errors import (
    CheckpointError,
    HubAccessError,
    HubBusyError,
    HubConflictError,
    HubError,
    TransferCancelledError,
)
from mtl.hub.pull import pull
from mtl.hub.push import push
from mtl.hub.reference import parse_reference
from mtl.hub.transfer import Transfer
from mtl.training.run import Run

pytestmark = [
    pytest.mark.usefixtures(ONE_THREAD),
]

CONFIG = ModelConfig(image_size=64)
REPO = "ada/skin"


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[LoopbackHub, str]]:
    """A Hub, and ada's token there."""
    with LoopbackHub() as hub:
        yield hub, hub.add_user("ada")


@pytest.fixture
def hub(running: tuple[LoopbackHub, str], monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """An empty Hub, which `push` finds as it would find the true one, with ada's token."""
    hub, token = running
    hub.faults, hub.repos, hub.contents = {}, {}, {}
    hub.log.clear()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", token)
    return hub


def write_model(folder: Path, seed: int = 0) -> Path:
    write_folder(folder, Checkpoint(folder.name, random_network(CONFIG, seed).state_dict(), CONFIG))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copied from, never pushed."""
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def mine(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "mine")


@pytest.fixture
def theirs(model: Path, tmp_path: Path) -> Path:
    """The same network with one weight changed."""
    folder = shutil.copytree(model, tmp_path / "theirs")
    checkpoint = read_checkpoint(folder)
    checkpoint.state_dict["classification_head.8.bias"] += 1
    write_folder(folder, checkpoint)
    return folder


def test_a_run_makes_the_round_trip(hub: LoopbackHub, finished_run: Run, tmp_path: Path) -> None:
    """Push, pull at a tag and at the commit, load: the same weights, and so the same answers."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("multitask_best.pth", "config.json", "run.json", "multitask_history.json"):
        shutil.copy(finished_run.path / name, run)
    pushed = push(run, REPO, tag="v1.0")
    assert (pushed.changed, pushed.tag, pushed.private, pushed.url) == (True, "v1.0", True, f"{hub.url}/{REPO}")
    assert hub.repos[REPO].private
    assert hub.repos[REPO].tags == {"v1.0": pushed.commit}
    assert ModelCard(hub.read(REPO, "README.md").decode()).data.library_name == "mtl"
    at_tag = pull(parse_reference(REPO, "v1.0"), tmp_path / "pulled").path
    at_commit = pull(parse_reference(REPO, pushed.commit), tmp_path / "pulled").path
    for path in (at_tag, at_commit):
        assert (path / "model.safetensors").read_bytes() == hub.read(REPO, "model.safetensors")
    photo = next((finished_run.path.parent.parent / "skin" / "images" / "val").iterdir())
    before, after = (MultiTaskModel.load(path, "cpu").analyze(photo) for path in (run, at_tag))
    assert before.probabilities.tolist() == after.probabilities.tolist()
    assert (before.mask_logits == after.mask_logits).all()


def test_again_without_a_change_makes_no_commit(hub: LoopbackHub, mine: Path) -> None:
    first = push(mine, REPO)
    hub.log.clear()
    transfer = Transfer("push", REPO)
    again = push(mine, REPO, transfer=transfer)
    assert (again.changed, again.commit) == (False, first.commit)
    assert len(hub.repos[REPO].log()) == 2  # its making, and the first push
    assert {call.route for call in hub.log} == {"info"}
    assert {file.state for file in transfer.files} == {"unchanged"}
    assert transfer.bytes_done == transfer.bytes_total > 20e6


def test_only_what_changed_is_sent_and_what_the_model_lacks_goes(hub: LoopbackHub, mine: Path) -> None:
    push(mine, REPO)
    revision = read_checkpoint(mine).revision
    (mine / "evaluation.json").write_text(json.dumps({"weights": revision, "segmentation": {"dice": 0.5}}))
    hub.log.clear()
    transfer = Transfer("push", REPO)
    push(mine, REPO, transfer=transfer)
    assert not hub.calls("upload")
    states = {file.name: file.state for file in transfer.files}
    assert states == {
        "model.safetensors": "unchanged", "config.json": "unchanged", "evaluation.json": "done", "README.md": "done",
    }  # fmt: skip
    assert hub.repos[REPO].head.title == f"Weights {revision}: Dice 0.500"
    (mine / "evaluation.json").unlink()
    hub.put(REPO, {"LICENSE": b"mine"})
    push(mine, REPO, overwrite=True)
    assert set(hub.repos[REPO].head.files) == {
        ".gitattributes", "LICENSE", "README.md", "config.json", "model.safetensors",
    }  # fmt: skip


def test_the_second_of_two_pushers_is_told_of_the_others_head(hub: LoopbackHub, mine: Path, theirs: Path) -> None:
    push(mine, REPO)
    other = push(theirs, REPO, overwrite=True, message="Theirs, with more photos")
    with pytest.raises(HubConflictError) as refused:
        push(mine, REPO, message="Mine again")
    line = str(refused.value)
    assert other.commit[:7] in line
    assert "“Theirs, with more photos”" in line
    assert "UTC" in line
    assert "last pushed from here: " in line
    assert "pull it and look, or push with overwrite" in line
    assert hub.repos[REPO].head.sha == other.commit
    last = push(mine, REPO, overwrite=True)
    assert [commit.sha for commit in hub.repos[REPO].log()][:2] == [last.commit, other.commit]


def test_a_push_between_look_and_commit_is_a_conflict_too(
    hub: LoopbackHub, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent commit is the lock: here somebody commits while our large file is being sent."""
    push(mine, REPO)
    checkpoint = read_checkpoint(mine)
    checkpoint.state_dict["classification_head.8.bias"] += 1
    write_folder(mine, checkpoint)
    take = hub._on_upload

    async def somebody_else_meanwhile(asked: Any) -> Any:
        hub.put(REPO, {"config.json": b"{}"}, title="In between")
        return await take(asked)

    monkeypatch.setattr(hub, "_on_upload", somebody_else_meanwhile)
    with pytest.raises(HubConflictError, match=r"“In between”.*, last pushed from here"):
        push(mine, REPO)
    assert hub.repos[REPO].head.title == "In between"


def test_a_repository_with_another_model_is_not_pushed_onto(hub: LoopbackHub, mine: Path) -> None:
    hub.put(REPO, {"model.safetensors": b"somebody's"}, title="Somebody's")
    with pytest.raises(HubConflictError, match=r"“Somebody's”.*, never pushed from here"):
        push(mine, REPO)


def test_what_is_meant_to_be_private_is_not_pushed_to_a_public_repository(hub: LoopbackHub, mine: Path) -> None:
    hub.put(REPO, {"LICENSE": b"mine"})
    with pytest.raises(HubConflictError, match=r"is public.*--public"):
        push(mine, REPO)
    assert "model.safetensors" not in hub.repos[REPO].head.files
    with pytest.raises(HubConflictError, match=r"is public"):
        push(mine, REPO, private=None)  # as it stands in the Hub's own client where nothing is said
    assert not push(mine, REPO, private=False).private


def test_a_private_repository_stays_private(hub: LoopbackHub, mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert push(mine, REPO, private=None).private
    pushed = push(mine, REPO, private=False)
    assert pushed.private
    assert pushed.note.startswith("ada/skin is private; a push does not change that")
    assert pushed.note in caplog.text


def test_what_was_pulled_can_be_pushed_back_and_stays_a_pulled_model(
    hub: LoopbackHub, mine: Path, tmp_path: Path
) -> None:
    first = push(mine, REPO)
    reference = parse_reference(REPO)
    pulled = pull(reference, tmp_path / "pulled")
    told = json.loads((pulled.path / "hub.json").read_text())
    assert not push(pulled.path, REPO).changed
    (pulled.path / "evaluation.json").write_text(json.dumps({"weights": read_checkpoint(pulled.path).revision}))
    second = push(pulled.path, REPO)
    assert second.changed
    assert second.commit != first.commit
    elsewhere = push(pulled.path, "ada/copy")
    now = json.loads((pulled.path / "hub.json").read_text())
    pushed = now.pop("pushed")
    assert now == told
    assert {repo: entry["commit"] for repo, entry in pushed.items()} == {
        REPO: second.commit, "ada/copy": elsewhere.commit,
    }  # fmt: skip


def test_a_repository_that_was_deleted_is_made_again(hub: LoopbackHub, mine: Path) -> None:
    push(mine, REPO)
    del hub.repos[REPO]
    assert push(mine, REPO).commit == hub.repos[REPO].head.sha


def test_tags(hub: LoopbackHub, mine: Path, theirs: Path) -> None:
    first = push(mine, REPO, tag="v1")
    assert push(mine, REPO, tag="v1").tag == "v1"  # it is there already, where it should be
    push(mine, REPO, tag="v1.1")
    assert hub.repos[REPO].tags == {"v1": first.commit, "v1.1": first.commit}
    with pytest.raises(HubConflictError, match=f"the tag v1 is at commit {first.commit[:7]} already; choose another"):
        push(theirs, REPO, tag="v1", overwrite=True)
    assert hub.repos[REPO].head.sha == first.commit


@pytest.mark.parametrize(("code", "kind"), [(403, HubAccessError), (409, HubConflictError)])
def test_a_tag_that_fails_forgets_no_head(hub: LoopbackHub, mine: Path, code: int, kind: type[HubError]) -> None:
    hub.faults["tag"] = Fault("status", status=code)
    with pytest.raises(kind, match=r"pushed as [0-9a-f]{7}; the tag v1 could not be set: ada/skin") as failed:
        push(mine, REPO, tag="v1")
    head = hub.repos[REPO].head.sha
    assert head[:7] in str(failed.value)
    assert "nothing has changed" not in str(failed.value)
    assert json.loads((mine / "hub.json").read_text())["commit"] == head
    hub.faults.clear()
    assert push(mine, REPO, tag="v1").commit == head
    assert hub.repos[REPO].tags == {"v1": head}


def test_a_head_that_is_kept_elsewhere(hub: LoopbackHub, mine: Path, theirs: Path) -> None:
    """What was made from a model builds on what that one has pushed."""
    first = push(mine, REPO)
    second = push(theirs, REPO, known_from=mine)
    assert json.loads((mine / "hub.json").read_text())["commit"] == second.commit
    assert not (theirs / "hub.json").exists()
    assert push(theirs, REPO, tag="again", known_head=second.commit).commit == second.commit
    with pytest.raises(HubConflictError, match=f"last pushed from here: {first.commit[:7]}"):
        push(write_model(theirs.with_name("third"), 2), REPO, known_head=first.commit)


def test_two_files_in_one_folder_keep_a_head_each(hub: LoopbackHub, tmp_path: Path) -> None:
    for seed, name in enumerate(("a.pth", "b.pth")):
        write_pth(tmp_path / name, Checkpoint(name, random_network(CONFIG, seed).state_dict(), CONFIG))
    push(tmp_path / "a.pth", REPO)
    with pytest.raises(HubConflictError, match="never pushed from here"):
        push(tmp_path / "b.pth", REPO)


def test_cancelled_in_the_middle_of_a_file(hub: LoopbackHub, mine: Path) -> None:
    hub.faults["upload"] = Fault("hang")
    transfer = Transfer("push", REPO)
    timer = threading.Thread(target=_cancel_when_moving, args=(transfer,))
    timer.start()
    with pytest.raises(TransferCancelledError) as cancelled:
        push(mine, REPO, transfer=transfer)
    timer.join()
    assert str(cancelled.value) == "ada/skin: the push was cancelled; its new repository is there, and empty"
    assert not (mine / "hub.json").exists()
    assert len(hub.repos[REPO].log()) == 1
    hub.faults.clear()
    assert push(mine, REPO).changed


def _cancel_when_moving(transfer: Transfer) -> None:
    deadline = time.monotonic() + 10
    while not any(file.state == "moving" for file in transfer.files) and time.monotonic() < deadline:
        time.sleep(0.01)
    transfer.cancel()


def test_an_answer_that_is_lost_is_found_by_the_next_push(hub: LoopbackHub, mine: Path) -> None:
    hub.faults["commit"] = Fault("status", status=503, done=True)
    with pytest.raises(HubBusyError, match="503"):
        push(mine, REPO)
    hub.faults.clear()
    found = push(mine, REPO)
    assert (found.changed, found.commit) == (False, hub.repos[REPO].head.sha)


@pytest.mark.parametrize(
    ("repo_id", "options", "kind", "named"),
    [
        ("eve/skin", {}, HubAccessError, "eve/skin: the token has no right to push"),
        ("ada/skin@v1", {}, HubError, "needed owner/name alone"),
        ("hf://ada/skin", {}, HubError, "needed owner/name alone"),
        ("skin", {}, HubError, "skin: it names no model on the Hub"),
        (REPO, {"tag": "v 1"}, HubError, "tag: got 'v 1'; needed letters"),
        (REPO, {"token": ""}, HubAccessError, "there is no token to push with"),
        (REPO, {"token": False}, HubAccessError, "there is no token to push with"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(
    repo_id: str, options: dict[str, Any], kind: type[HubError], named: str, hub: LoopbackHub, mine: Path
) -> None:
    with pytest.raises(kind) as refused:
        push(mine, repo_id, **options)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert hub.repos == {}


def test_a_token_that_can_only_read(hub: LoopbackHub, mine: Path) -> None:
    hub.put("bob/skin", {"LICENSE": b"mine"})
    with pytest.raises(HubAccessError, match="the token has no right to push"):
        push(mine, "bob/skin", token=hub.add_user("bob", "read"), private=False)


def test_weights_that_cannot_be_read_ask_the_hub_nothing(hub: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        push(tmp_path / "gone", REPO)
    assert hub.log == []
