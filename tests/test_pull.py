"""A model comes whole, checked and of one commit, or not at all; what was there before stays."""

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from faults import PULL, REPO, TROUBLE, Case, Scene, fingerprint, leftovers, model_files, outcome, run_case
from filelock import FileLock
from loopback_hub import Fault, LoopbackHub, Repo

from mtl.checkpoint import MAX_FEATURES_BYTES, read_checkpoint
from mtl.errors import (
    CheckpointError,
    DiskFullError,
    HubConnectionError,
    HubError,
    HubFileError,
    HubNotFoundError,
    TransferCancelledError,
)
from mtl.hub import pull as module
from mtl.hub.client import Limits
from mtl.hub.pull import HUB_FILE, Pulled, find_pulled, list_pulled, pull, require_whole, resolve
from mtl.hub.reference import HubReference, parse_reference
from mtl.hub.transfer import Transfer

QUICK = Limits(connect_s=0.5, told_s=0.2, silent_s=1.2, waits_s=(0.05, 0.1), longest_wait_s=2.0, poll_s=0.02)
FILES = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """What two models of the same kind consist of."""
    folder = tmp_path_factory.mktemp("models")
    return [model_files(folder / str(seed), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.add_user(REPO.owner)
        yield hub


@pytest.fixture(scope="module")
def once(
    running: LoopbackHub, models: list[dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Repo, Path]:
    """The repository with the first of the two models, and a folder that it was pulled to."""
    running.put(REPO.repo_id, models[0], private=True)
    folder = tmp_path_factory.mktemp("once")
    pull(REPO, folder, token=next(iter(running.tokens)), endpoint=running.url, limits=QUICK)
    return deepcopy(running.repos[REPO.repo_id]), folder


@pytest.fixture
def hub(running: LoopbackHub, once: tuple[Repo, Path], monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    running.faults, running.repos = {}, {REPO.repo_id: deepcopy(once[0])}
    running.log.clear()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setenv("HF_TOKEN", next(iter(running.tokens)))
    return running


@pytest.fixture
def old(hub: LoopbackHub, once: tuple[Repo, Path], tmp_path: Path) -> Pulled:
    """As pulled before, into tmp_path."""
    shutil.copytree(once[1], tmp_path, dirs_exist_ok=True)
    found = find_pulled(REPO, tmp_path)
    assert found is not None
    return found


def get(folder: Path, revision: str = "main") -> Pulled:
    return pull(HubReference(REPO.owner, REPO.name, revision), folder, limits=QUICK)


def test_it_comes_whole(hub: LoopbackHub, models: list[dict[str, bytes]], tmp_path: Path) -> None:
    transfer = Transfer("pull", REPO.repo_id)
    pulled = pull(REPO, tmp_path, transfer=transfer, limits=QUICK)
    assert pulled.path == tmp_path / "ada--skin@main"
    assert {path.name for path in pulled.path.iterdir()} == FILES | {HUB_FILE}
    assert all((pulled.path / name).read_bytes() == content for name, content in models[0].items())
    assert pulled.commit == hub.repos[REPO.repo_id].head.sha
    assert pulled.files == {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in models[0].items()
    }
    assert transfer.bytes_done == transfer.bytes_total == sum(map(len, models[0].values()))
    assert {file.state for file in transfer.files} == {"done"}
    read_checkpoint(pulled.path).network()
    saved = json.loads((pulled.path / HUB_FILE).read_text(encoding="utf-8"))
    assert set(saved) == {"repo_id", "revision", "commit", "at", "files"}


def test_it_asks_for_the_files_of_one_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    commit = get(tmp_path).commit
    asked = [call.path.split("/resolve/")[1].split("/")[0] for call in hub.calls("download")]
    assert asked == [commit] * len(FILES)


def test_unchanged_nothing_is_downloaded(hub: LoopbackHub, old: Pulled, tmp_path: Path) -> None:
    before = fingerprint(tmp_path)
    assert get(tmp_path) == old
    assert [call.route for call in hub.log] == ["info"]
    assert fingerprint(tmp_path) == before


def test_a_newer_commit_brings_only_what_changed(
    hub: LoopbackHub, old: Pulled, models: list[dict[str, bytes]], tmp_path: Path
) -> None:
    hub.put(REPO.repo_id, {"README.md": b"# better words\n"})
    transfer = Transfer("pull", REPO.repo_id)
    new = pull(REPO, tmp_path, transfer=transfer, limits=QUICK)
    assert new.commit != old.commit
    assert [call.path.rpartition("/")[2] for call in hub.calls("download")] == ["README.md"]
    assert {file.name: file.state for file in transfer.files}["model.safetensors"] == "unchanged"
    assert (new.path / "README.md").read_bytes() == b"# better words\n"
    assert (new.path / "model.safetensors").read_bytes() == models[0]["model.safetensors"]
    assert not leftovers(tmp_path)


def test_a_revision_stays_what_it_is(hub: LoopbackHub, models: list[dict[str, bytes]], tmp_path: Path) -> None:
    repo = hub.repos[REPO.repo_id]
    first = repo.head.sha
    repo.tags["v1.0"] = first
    hub.put(REPO.repo_id, models[1])
    assert get(tmp_path, "v1.0").commit == first
    assert get(tmp_path, first).commit == first
    assert get(tmp_path).commit == repo.head.sha != first
    assert [pulled.reference.revision for pulled in list_pulled(tmp_path)] == sorted([first, "main", "v1.0"])
    hub.log.clear()
    get(tmp_path, first)
    assert not hub.log  # a commit cannot change


def test_a_damaged_one_is_brought_again(old: Pulled, models: list[dict[str, bytes]], tmp_path: Path) -> None:
    path = old.path / "model.safetensors"
    path.write_bytes(bytes(len(models[0]["model.safetensors"])))
    assert (get(tmp_path).path / "model.safetensors").read_bytes() == models[0]["model.safetensors"]


def mine_in(folder: Path) -> list[Path]:
    """The folders that were kept for what a person changed in them."""
    return list(folder.glob(f"{REPO.folder_name}.mine-*"))


def test_changed_weights_are_kept_beside_the_new_ones(
    hub: LoopbackHub, old: Pulled, models: list[dict[str, bytes]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (old.path / "model.safetensors").write_bytes(models[1]["model.safetensors"])
    (old.path / "model.onnx").write_bytes(b"of the changed ones")
    new = get(tmp_path)
    assert (new.path / "model.safetensors").read_bytes() == models[0]["model.safetensors"]
    (kept,) = mine_in(tmp_path)
    assert (kept / "model.safetensors").read_bytes() == models[1]["model.safetensors"]
    assert (kept / "model.onnx").read_bytes() == b"of the changed ones"
    assert f"model.safetensors is not as it was pulled; the folder is kept as {kept.name}" in caplog.text
    assert [pulled.path for pulled in list_pulled(tmp_path)] == [new.path]


def test_own_files_go_along_to_a_newer_commit(hub: LoopbackHub, old: Pulled, tmp_path: Path) -> None:
    (old.path / "model.onnx").write_bytes(b"exported")
    (old.path / "notes" / "deep").mkdir(parents=True)
    (old.path / "notes" / "deep" / "a.txt").write_bytes(b"mine")
    hub.put(REPO.repo_id, {"README.md": b"# better words\n"})
    path = get(tmp_path).path
    assert (path / "README.md").read_bytes() == b"# better words\n"
    assert (path / "model.onnx").read_bytes() == b"exported"
    assert (path / "notes" / "deep" / "a.txt").read_bytes() == b"mine"
    assert not leftovers(tmp_path)


def test_what_no_pull_put_there_is_kept(hub: LoopbackHub, models: list[dict[str, bytes]], tmp_path: Path) -> None:
    folder = tmp_path / REPO.folder_name
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"an own model, of the same name")
    get(tmp_path)
    assert [path.name for path in mine_in(tmp_path)[0].iterdir()] == ["model.safetensors"]


def test_all_of_it_comes_again_where_that_is_asked(hub: LoopbackHub, old: Pulled, tmp_path: Path) -> None:
    pull(REPO, tmp_path, limits=QUICK, force=True)
    assert len(hub.calls("download")) == len(FILES)
    assert not leftovers(tmp_path)


def test_what_is_there_needs_no_folder_that_can_be_written(hub: LoopbackHub, old: Pulled, tmp_path: Path) -> None:
    (tmp_path / module.LOCK_FILE).unlink(missing_ok=True)
    (tmp_path / module.LOCK_FILE).mkdir()  # so that no lock can be had, for any user
    assert get(tmp_path) == old
    hub.put(REPO.repo_id, {"README.md": b"# better words\n"})
    with pytest.raises(HubError, match="cannot be written there"):
        get(tmp_path)


def test_a_branch_cannot_pass_for_a_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    repo, name = hub.repos[REPO.repo_id], "a" * 40
    repo.branches[name] = repo.head.sha
    with pytest.raises(HubError, match=f"the Hub has another commit, {repo.head.sha}, by that name"):
        get(tmp_path, name)
    assert not hub.calls("download")


def test_an_own_evaluation_beside_it_stays(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put(REPO.repo_id, {"evaluation.json": b'{"of": "theirs"}'})
    path = get(tmp_path).path / "evaluation.json"
    path.write_text('{"of": "mine"}', encoding="utf-8")
    get(tmp_path)
    assert path.read_text(encoding="utf-8") == '{"of": "mine"}'


# Faults: the table that `python -m tests.faults` prints, with short waits.


@pytest.mark.parametrize("case", PULL, ids=lambda case: case.name)
def test_each_fault_is_told_and_leaves_the_old_one_whole(
    case: Case, hub: LoopbackHub, old: Pulled, models: list[dict[str, bytes]], tmp_path: Path
) -> None:
    hub.put(REPO.repo_id, models[1])
    before, token = fingerprint(old.path), os.environ["HF_TOKEN"]
    seen = run_case(case, Scene(hub, tmp_path, token), limits=Limits() if case.cancel_s else QUICK)
    assert seen.end_s < (case.cancel_s or 0) + 4
    assert "\n" not in seen.message
    assert token not in seen.message
    assert not leftovers(tmp_path)
    if case.succeeds:
        assert seen.error is None
        assert fingerprint(old.path) != before
    else:
        assert seen.error is not None
        assert issubclass(seen.error, HubError | DiskFullError)
        assert fingerprint(old.path) == before
        assert find_pulled(REPO, tmp_path) == old
    if case.cancel_s is not None:
        assert seen.error is TransferCancelledError
        assert seen.end_s < case.cancel_s + 1
    elif any(fault.kind in ("hang", "drip") for fault in case.faults.values()):
        assert seen.first_s < QUICK.told_s + 0.5 < seen.end_s


def test_a_full_disk_is_told_as_that(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "http_get", full)
    with pytest.raises(DiskFullError, match="no space left on the disk; free some"):
        get(tmp_path)
    assert not leftovers(tmp_path)


def test_a_folder_that_cannot_be_written(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HubError, match="cannot be written there"):
        get(tmp_path / "file" / "below")


def test_a_repository_of_another_kind(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put("ada/pickle", {"pytorch_model.bin": b"\x80\x04cos\nsystem\n."})
    with pytest.raises(HubFileError, match=r"no config\.json; pytorch_model\.bin is a pickle"):
        pull(HubReference("ada", "pickle"), tmp_path, limits=QUICK)
    hub.put("ada/text", {"config.json": b"{}"})
    with pytest.raises(HubFileError, match=r"no model\.safetensors; needed"):
        pull(HubReference("ada", "text"), tmp_path, limits=QUICK)
    assert not hub.calls("download")


def test_other_files_stay_on_the_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put(REPO.repo_id, {"pytorch_model.bin": b"evil", "../evil.py": b"evil", "sub/config.json": b"{}", "a.py": b""})
    assert {path.name for path in get(tmp_path).path.iterdir()} == FILES | {HUB_FILE}
    assert {path.name for path in tmp_path.iterdir()} == {module.LOCK_FILE, REPO.folder_name}


def test_too_large_is_refused_before_it_comes(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put(REPO.repo_id, {"training_features.safetensors": bytes(MAX_FEATURES_BYTES + 1)})
    with pytest.raises(HubFileError, match=r"training_features\.safetensors has 1,000,001 bytes"):
        get(tmp_path)
    assert not hub.calls("download")


def test_weights_that_do_not_load_replace_nothing(hub: LoopbackHub, old: Pulled, tmp_path: Path) -> None:
    before = fingerprint(old.path)
    for files, part in (
        ({"config.json": b'{"image_size": 3}'}, "config does not fit"),
        ({"model.safetensors": b"no weights"}, "cannot be read as safetensors"),
    ):
        hub.put(REPO.repo_id, files)
        with pytest.raises(CheckpointError, match=part) as caught:
            get(tmp_path)
        assert "ada--skin@main" in str(caught.value)
        assert fingerprint(tmp_path / REPO.folder_name) == before
        assert not leftovers(tmp_path)


def test_no_such_revision(hub: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(HubNotFoundError, match=r"hf://ada/skin@v9: it has no branch, tag or commit"):
        get(tmp_path, "v9")


# Killed, twice at once, and without a network.

KILLED = """
import sys, threading
from pathlib import Path
from mtl.hub.pull import pull
from mtl.hub.reference import HubReference
pull(HubReference("ada", "skin"), Path(sys.argv[1]))
"""


def test_what_a_killed_pull_left_is_cleared(hub: LoopbackHub, models: list[dict[str, bytes]], tmp_path: Path) -> None:
    before = fingerprint(get(tmp_path).path)
    hub.put(REPO.repo_id, models[1])
    hub.faults["storage"] = Fault("hang", after_bytes=200_000)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    try:
        wait_for(lambda: bool(list(tmp_path.glob(".pull-new-*/*/model.safetensors"))))
    finally:
        process.kill()
        process.wait()
    assert leftovers(tmp_path)
    assert fingerprint(tmp_path / REPO.folder_name) == before
    hub.faults = {}
    assert get(tmp_path).commit == hub.repos[REPO.repo_id].head.sha
    assert not leftovers(tmp_path)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_killed_between_the_two_steps_of_the_swap_the_old_one_is_back(
    hub: LoopbackHub, old: Pulled, tmp_path: Path
) -> None:
    old.path.rename(tmp_path / f"{module.ASIDE}{old.path.name}")
    assert get(tmp_path) == old
    assert not hub.calls("storage")
    assert not leftovers(tmp_path)


def test_two_at_once_into_the_same_folder(hub: LoopbackHub, tmp_path: Path) -> None:
    found: list[Pulled] = []
    threads = [threading.Thread(target=lambda: found.append(get(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({pulled.commit for pulled in found}) == 1
    assert len(found) == 3
    assert len(hub.calls("storage")) == 1


def test_another_process_that_pulls_is_waited_for(hub: LoopbackHub, tmp_path: Path) -> None:
    with FileLock(tmp_path / module.LOCK_FILE):
        seen = outcome(
            lambda transfer: pull(REPO, tmp_path, transfer=transfer, limits=QUICK), Transfer("pull", "ada/skin"), 0.6
        )
    assert seen.error is TransferCancelledError
    assert seen.first_s < 0.6


def test_without_a_network_what_was_pulled_is_used(
    old: Pulled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert list_pulled(tmp_path) == [old]
    with caplog.at_level(logging.WARNING):
        assert resolve(REPO, tmp_path, limits=QUICK) == old
    assert "refused the connection" in caplog.text
    assert "using hf://ada/skin@main as it was pulled" in caplog.text
    with pytest.raises(HubConnectionError):
        resolve(REPO, tmp_path, limits=QUICK, offline_ok=False)
    with pytest.raises(HubConnectionError):
        resolve(HubReference("ada", "other"), tmp_path, limits=QUICK)


def test_what_was_changed_is_not_used_without_the_hub(
    old: Pulled, models: list[dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same number of bytes, but other ones."""
    (old.path / "model.safetensors").write_bytes(models[1]["model.safetensors"])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for act in (lambda: resolve(REPO, tmp_path, limits=QUICK), lambda: require_whole(REPO, tmp_path)):
        with pytest.raises(HubFileError, match=r"model\.safetensors is no longer as it was pulled; pull it again"):
            act()


def test_a_refusal_is_not_taken_for_no_network(old: Pulled, tmp_path: Path) -> None:
    with pytest.raises(HubNotFoundError):
        resolve(REPO, tmp_path, token="", limits=QUICK)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"repo_id": "ada/skin"}', '{"repo_id": 1, "revision": 2, "files": 3}', "[" * 100_000],
)
def test_damaged_ones_are_not_listed(old: Pulled, tmp_path: Path, content: str) -> None:
    (tmp_path / "notes.txt").write_text("no model", encoding="utf-8")
    (old.path / HUB_FILE).write_text(content, encoding="utf-8")
    assert list_pulled(tmp_path) == []
    assert find_pulled(REPO, tmp_path) is None


def test_half_a_model_is_not_listed(old: Pulled, tmp_path: Path) -> None:
    weights = old.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert list_pulled(tmp_path) == []
    weights.unlink()
    assert list_pulled(tmp_path) == []
    assert list_pulled(tmp_path / "no such folder") == []


def test_a_reference_is_a_folder_of_its_own(tmp_path: Path) -> None:
    names = [
        parse_reference(text).folder_name
        for text in ("hf://ada/skin", "ada/skin@v1", "ada/skin@refs/pr/1", "ada/s-k.i_n", "ad/askin")
    ]
    assert len(set(names)) == len(names)
    assert all(Path(name).name == name and not name.startswith(".") for name in names)


def test_the_address_of_a_page_is_that_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = HubReference("ada", "skin", "v1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8080/hub/")
    for hub in ("https://huggingface.co", "https://hf.co", "http://127.0.0.1:8080/hub"):
        assert parse_reference(f"{hub}/ada/skin/tree/v1") == wanted
        assert parse_reference(f" {hub}/ada/skin/ ", "v1") == wanted
    for other in (
        "https://evil.example",
        "https://huggingface.co.evil.example",
        "http://127.0.0.1:8080",
        "https://a@hf.co",
    ):
        with pytest.raises(HubError, match="names no model"):
            parse_reference(f"{other}/ada/skin")


def test_words_of_trouble_are_those_that_the_code_says() -> None:
    source = Path(module.__file__).read_text(encoding="utf-8")
    source += Path(module.__file__).with_name("client.py").read_text(encoding="utf-8")
    assert all(words in source for words in TROUBLE)
