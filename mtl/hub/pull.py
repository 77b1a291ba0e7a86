"""From the Hub into `<folder>/<owner>--<name>@<revision>/`: all of a model or nothing, every byte checked.

Downloaded into a hidden folder beside it, checked against the Hub's hashes, loaded once, and only then put in the old
one's place. What a person put or changed there is never lost. What was pulled before works without a network.
"""

import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils._headers import build_hf_headers

from mtl.checkpoint import read_checkpoint
from mtl.errors import DiskFullError, HubBusyError, HubConnectionError, HubError, HubFileError, HubNotFoundError
from mtl.files import FULL_BYTES, is_full, keep_copy, write_text
from mtl.hub.client import Limits, hub_client
from mtl.hub.hashes import blob_id_of, sha256_of
from mtl.hub.reference import HubReference, parse_reference
from mtl.hub.transfer import Transfer, TransferFile
from mtl.model_files import CONFIG_FILE, FEATURES_FILE, MAX_BYTES, MAX_FEATURES_BYTES, WEIGHTS_FILE

log = logging.getLogger(__name__)

HUB_FILE = "hub.json"
NEEDED = (WEIGHTS_FILE, CONFIG_FILE)
# What a model of this project consists of, and the most bytes of each that are taken.
MAX_SIZES = {
    WEIGHTS_FILE: MAX_BYTES,
    CONFIG_FILE: 1_000_000,
    FEATURES_FILE: MAX_FEATURES_BYTES,
    "README.md": 1_000_000,
    "multitask_history.json": 20_000_000,
    "evaluation.json": 20_000_000,
    "curves.png": 20_000_000,
}
# What its answers depend on; the others may be written anew beside it, as `evaluate --save` does.
ANSWERING = (WEIGHTS_FILE, CONFIG_FILE, FEATURES_FILE)
LOCK_FILE = ".pull.lock"
STAGING, ASIDE = ".pull-new-", ".pull-old-"
_LOCK_WAIT_S = 0.2
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Pulled:
    """A model from the Hub on this disk."""

    reference: HubReference
    path: Path
    commit: str  # 40 hexadecimal digits
    pulled_at: str  # ISO 8601, UTC
    files: dict[str, dict[str, Any]]  # name -> size (bytes), sha256


@dataclass(frozen=True)
class _Listed:
    """A file as the Hub lists it: with the SHA-256 of its content, or with its git blob id."""

    name: str
    size: int
    sha256: str
    blob_id: str


@dataclass(frozen=True)
class _Head:
    """What a revision is just now. A branch may move on while its files come, and those of two heads do not fit."""

    api: HfApi
    reference: HubReference
    commit: str

    def address(self, name: str) -> str:
        return hf_hub_url(self.reference.repo_id, name, revision=self.commit, endpoint=self.api.endpoint)


def pull(
    reference: HubReference,
    folder: Path,
    *,
    token: str | bool | None = None,
    endpoint: str | None = None,
    transfer: Transfer | None = None,
    limits: Limits | None = None,
    force: bool = False,
) -> Pulled:
    """Bring a model into `folder/<reference.folder_name>/`; what is there already, and whole, is not brought again.

    Until all of it has come, has the Hub's hashes and has been loaded once, the old one stays as it is. What a
    person put beside it goes along; where they changed what was pulled, the old folder is kept under another name, with
    a warning in the log. force: bring all of it again. Raises HubError, DiskFullError, and CheckpointError where the
    weights are not this network's.
    """
    transfer = transfer or Transfer("pull", reference.repo_id)
    if not force and (known := _find_whole(reference, folder, reference.revision)):
        return _unchanged(known, transfer)
    try:
        with hub_client(token, endpoint, transfer, limits) as api:
            # Nothing is written, not even the lock, where nothing has to be.
            if not force and (known := _find_whole(reference, folder, _ask(api, reference)[0].commit)):
                return _unchanged(known, transfer)
            with _only_one(folder, transfer):
                return _pull_locked(api, reference, folder, transfer, force=force)
    except OSError as error:
        raise _not_written(folder, error) from error


def _pull_locked(api: HfApi, reference: HubReference, folder: Path, transfer: Transfer, *, force: bool) -> Pulled:
    head, listed = _ask(api, reference)  # while this waited, it may have moved on, and another may have pulled it
    if not force and (known := _find_whole(reference, folder, head.commit)):
        return _unchanged(known, transfer)
    known = None if force else find_pulled(reference, folder)
    with _staging(folder, reference) as staging:
        transfer.files = [TransferFile(file.name, file.size, file.sha256) for file in listed]
        _check_space(folder, sum(file.size for file in listed))
        for file, shown in zip(listed, transfer.files, strict=True):
            _bring(head, file, shown, staging, known, transfer)
        pulled = _describe(head, folder, staging, listed)
        transfer.message = "loading the weights"
        read_checkpoint(staging).network()
        transfer.check()
        _swap(staging, pulled.path)
    transfer.message = f"{reference} is here, commit {pulled.commit[:7]}"
    return pulled


def resolve(
    reference: HubReference,
    folder: Path,
    *,
    token: str | bool | None = None,
    endpoint: str | None = None,
    transfer: Transfer | None = None,
    limits: Limits | None = None,
    offline_ok: bool = True,
) -> Pulled:
    """As `pull`; where the Hub cannot be reached, what was pulled before, with a warning in the log."""
    try:
        return pull(reference, folder, token=token, endpoint=endpoint, transfer=transfer, limits=limits)
    except (HubConnectionError, HubBusyError) as error:
        if not offline_ok or find_pulled(reference, folder) is None:
            raise
        known = require_whole(reference, folder)
        log.warning("%s; using %s as it was pulled at %s", error, reference, known.pulled_at)
        return known


def find_pulled(reference: HubReference, folder: Path) -> Pulled | None:
    """What was pulled before, without asking the Hub; None where it is not there or not complete."""
    pulled = _read(folder / reference.folder_name)
    return pulled if pulled is not None and pulled.reference == reference else None


def require_whole(reference: HubReference, folder: Path) -> Pulled:
    """What was pulled before, every byte that its answers depend on as it came.

    Raises HubNotFoundError where it is not there, HubFileError where it was changed since.
    """
    pulled = find_pulled(reference, folder)
    if pulled is None:
        raise HubNotFoundError(f"{reference}: it was not pulled before, or not all of it is there; pull it")
    if changed := _changed(pulled):
        raise HubFileError(
            f"{reference}: {changed[0]} is no longer as it was pulled; pull it again, or name the folder "
            f"{pulled.path.name} to use it as it is"
        )
    return pulled


def _find_whole(reference: HubReference, folder: Path, commit: str) -> Pulled | None:
    pulled = find_pulled(reference, folder)
    return pulled if pulled is not None and pulled.commit == commit and not _changed(pulled) else None


def holds_pulled(folder: Path) -> bool:
    """Has a model been pulled into this very folder, whatever became of it since?"""
    return bool(_told(folder))


def list_pulled(folder: Path) -> list[Pulled]:
    """All that was pulled into a folder, by name; what is damaged is left out."""
    found = sorted(folder.glob(f"*/{HUB_FILE}"))
    return [pulled for file in found if (pulled := _read(file.parent)) is not None]


def _read(path: Path) -> Pulled | None:
    try:
        saved = json.loads((path / HUB_FILE).read_text(encoding="utf-8"))
        reference = parse_reference(saved["repo_id"], saved["revision"])
        files = {str(name): {"size": file["size"], "sha256": file["sha256"]} for name, file in saved["files"].items()}
        sizes = {name: (path / name).stat().st_size for name in NEEDED}
        pulled = Pulled(reference, path, str(saved["commit"]), str(saved["at"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, HubError):
        return None
    whole = all(files.get(name, {}).get("size") == size for name, size in sizes.items())
    return pulled if whole and path.name == reference.folder_name else None


def _changed(pulled: Pulled) -> list[str]:
    """The files that its answers depend on which are gone or not as they came."""
    kept = [name for name in ANSWERING if name in pulled.files]
    return [name for name in kept if sha256_of(pulled.path / name) != pulled.files[name]["sha256"]]


def _unchanged(known: Pulled, transfer: Transfer) -> Pulled:
    transfer.files = [
        TransferFile(name, file["size"], file["sha256"], file["size"], "unchanged")
        for name, file in known.files.items()
    ]
    transfer.message = f"{known.reference} is here already, commit {known.commit[:7]}"
    return known


# What is asked of the Hub.


def _ask(api: HfApi, reference: HubReference) -> tuple[_Head, list[_Listed]]:
    """The commit that a revision is just now, and the files of a model in it."""
    try:
        info = api.model_info(reference.repo_id, revision=reference.revision, files_metadata=True)
    except RevisionNotFoundError:
        raise HubNotFoundError(
            f"{reference}: it has no branch, tag or commit of that name; look at its page for those that it has"
        ) from None
    if not _COMMIT.fullmatch(info.sha or ""):
        raise HubError(f"{reference}: the Hub names no commit; check $HF_ENDPOINT")
    if _COMMIT.fullmatch(reference.revision) and info.sha != reference.revision:
        raise HubError(f"{reference}: the Hub has another commit, {info.sha}, by that name; name a commit that it has")
    return _Head(api, reference, str(info.sha)), _listed(info, reference)


def _listed(info: ModelInfo, reference: HubReference) -> list[_Listed]:
    """The files that are taken, in the order of MAX_SIZES; all others stay on the Hub."""
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    if missing := [name for name in NEEDED if name not in siblings]:
        pickles = [name for name in siblings if name.endswith(_PICKLES)]
        also = f"; {pickles[0][:80]} is a pickle, which can run code and is never loaded" if pickles else ""
        raise HubFileError(
            f"{reference}: it has no {' and no '.join(missing)}{also}; needed a model that this project pushed"
        )
    return [_checked(siblings[name], reference) for name in MAX_SIZES if name in siblings]


def _checked(sibling: RepoSibling, reference: HubReference) -> _Listed:
    name, size = sibling.rfilename, sibling.lfs.size if sibling.lfs else sibling.size
    sha256, blob_id = sibling.lfs.sha256 if sibling.lfs else "", sibling.blob_id or ""
    if not isinstance(size, int) or not (re.fullmatch("[0-9a-f]{64}", sha256) or re.fullmatch("[0-9a-f]{40}", blob_id)):
        raise HubFileError(
            f"{reference}: the Hub gives no size or hash of {name}, so it cannot be checked; try again later"
        )
    if size > MAX_SIZES[name]:
        raise HubFileError(
            f"{reference}: {name} has {size:,} bytes; needed at most {MAX_SIZES[name]:,}: another project's?"
        )
    return _Listed(name, size, sha256, blob_id)


# One file.


def _bring(
    head: _Head, file: _Listed, shown: TransferFile, staging: Path, known: Pulled | None, transfer: Transfer
) -> None:
    """Into `staging`: from what was pulled before where that is the same, else from the Hub."""
    target = staging / file.name
    if known is not None and _is_same(known.path / file.name, file):
        keep_copy(known.path / file.name, target)
        shown.done, shown.state = file.size, "unchanged"
        return
    transfer.message, shown.state = f"downloading {file.name}", "moving"
    with target.open("wb") as opened:
        _receive(head, file, opened)
    shown.state = "checking"
    if not _is_same(target, file):
        raise HubFileError(f"{head.reference}: {file.name} came with other content than the Hub lists; pull it again")
    shown.done, shown.state = file.size, "done"


def _receive(head: _Head, file: _Listed, opened: BinaryIO) -> None:
    headers = build_hf_headers(token=head.api.token, headers={"Accept-Encoding": "identity"})
    name = f"{head.reference}: {file.name}"
    bounded: Any = _Bounded(opened, file.size)
    try:
        http_get(head.address(file.name), bounded, headers=headers, expected_size=file.size)
    except OSError as error:
        if error.errno is not None or isinstance(error, HfHubHTTPError):
            raise
        # So it says that the file came to its end with another size.
        raise HubFileError(f"{name} came with {opened.tell():,} of {file.size:,} bytes; pull it again") from None
    except _TooMuchError:
        raise HubFileError(f"{name} is longer than the {file.size:,} bytes that the Hub lists; pull it again") from None


class _TooMuchError(Exception):
    pass


class _Bounded:
    """A file that takes so many bytes and no more: of what `http_get` needs."""

    def __init__(self, file: BinaryIO, limit: int):
        self._file, self._limit = file, limit
        self.seek, self.tell, self.truncate = file.seek, file.tell, file.truncate

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._limit:
            raise _TooMuchError
        return self._file.write(data)


def _is_same(path: Path, file: _Listed) -> bool:
    """Has it the size and the hash that the Hub lists?"""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return sha256_of(path) == file.sha256 if file.sha256 else blob_id_of(path) == file.blob_id


def _describe(head: _Head, folder: Path, staging: Path, listed: list[_Listed]) -> Pulled:
    """Write hub.json beside the files, and give what it says."""
    reference, at = head.reference, datetime.now(UTC).isoformat(timespec="seconds")
    files = {file.name: {"size": file.size, "sha256": sha256_of(staging / file.name)} for file in listed}
    saved = {"repo_id": reference.repo_id, "revision": reference.revision, "commit": head.commit, "at": at}
    write_text(staging / HUB_FILE, json.dumps(saved | {"files": files}, indent=2) + "\n")
    return Pulled(reference, folder / reference.folder_name, head.commit, at, files)


# The folders.


@contextmanager
def _only_one(folder: Path, transfer: Transfer) -> Iterator[None]:
    """One pull at a time into a folder, over all processes; what a killed one left there is cleared first."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    while True:
        try:
            lock.acquire(timeout=_LOCK_WAIT_S)
            break
        except Timeout:
            transfer.message = "another process pulls into this folder; this pull begins when that ends"
            transfer.check()
    try:
        _clear(folder)
        yield
    finally:
        lock.release()


def _clear(folder: Path) -> None:
    for aside in folder.glob(f"{ASIDE}*"):
        target = folder / aside.name.removeprefix(ASIDE)
        if not target.exists():  # killed between the two steps of `_swap`
            aside.rename(target)
    for left in [*folder.glob(f"{STAGING}*"), *folder.glob(f"{ASIDE}*")]:
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _staging(folder: Path, reference: HubReference) -> Iterator[Path]:
    """A hidden folder of the model's name, gone at the end."""
    hidden = folder / f"{STAGING}{uuid.uuid4().hex}"
    staging = hidden / reference.folder_name
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + FULL_BYTES:
        raise DiskFullError(
            f"{folder.name}: {size / 1e6:.0f} MB to come, {free / 1e6:.0f} MB free; free some, then pull again"
        )


def _swap(staging: Path, target: Path) -> None:
    """Put the new folder in the old one's place; the old one is back where that fails.

    What a person put there goes along. Where they changed what was pulled, the old folder stays under another name.
    """
    aside = target.with_name(f"{ASIDE}{target.name}")
    own, changed = _of_a_person(target, staging)
    if changed:
        aside = target.with_name(f"{target.name}.mine-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        log.warning(
            "%s: %s is not as it was pulled; the folder is kept as %s", target.name, changed[0].name, aside.name
        )
    else:
        for path in own:
            _copy(path, staging / path.name)
    if target.exists():
        target.rename(aside)
    try:
        staging.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    if not changed:
        shutil.rmtree(aside, ignore_errors=True)


def _of_a_person(folder: Path, staging: Path) -> tuple[list[Path], list[Path]]:
    """What is not as it was pulled: own files, and those for which others come or that were pulled."""
    if not folder.is_dir():
        return [], []
    told = _told(folder)
    paths = [path for path in sorted(folder.iterdir()) if path.name != HUB_FILE]
    own = [path for path in paths if path.name not in told or sha256_of(path) != told[path.name]]
    return own, [path for path in own if path.name in told or (staging / path.name).exists()]


def _told(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of what was pulled into it."""
    try:
        files = json.loads((folder / HUB_FILE).read_text(encoding="utf-8"))["files"]
        return {str(name): str(file["sha256"]) for name, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _copy(path: Path, copy: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, copy, symlinks=True)
    else:
        shutil.copy2(path, copy, follow_symlinks=False)


def _not_written(folder: Path, error: OSError) -> DiskFullError | HubError:
    if is_full(folder, error):
        return DiskFullError(
            f"{folder.name}: no space left on the disk; free some, then pull again; the old model is whole"
        )
    reason = error.strerror or type(error).__name__
    return HubError(f"{folder.name}: the model cannot be written there ({reason}); choose a folder that can be written")
