"""From here to the Hub: one commit with all of a model, onto the known head; another head is named and refused."""

import json
import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from mtl.errors import DiskFullError, HubAccessError, HubConflictError, HubError, TransferCancelledError
from mtl.files import write_text
from mtl.hub.card_body import figure_at, group_names, one_line
from mtl.hub.client import TOKENS_PAGE, hub_client
from mtl.hub.hashes import blob_id_of, sha256_of
from mtl.hub.package import BEST_FILE, PACKAGE_FILES, Package, build_package, weights_file
from mtl.hub.reference import parse_reference
from mtl.hub.tokens import find_token
from mtl.hub.transfer import Transfer, TransferFile
from mtl.model_files import WEIGHTS_FILE

log = logging.getLogger(__name__)

HUB_FILE = "hub.json"  # beside the weights
BRANCH = "main"


@dataclass(frozen=True)
class Pushed:
    """What the Hub has now."""

    repo_id: str
    commit: str  # 40 hexadecimal digits
    url: str
    changed: bool  # False: it had all of this already, so there is no new commit
    tag: str | None = None
    private: bool = True  # as the repository is, whatever was asked for
    note: str = ""  # what a person should know of it; one line


@dataclass(frozen=True)
class _Remote:
    """A repository as it is."""

    private: bool
    head: str
    hashes: dict[str, str]  # by file: SHA-256 of a large one, git's blob id of another


@dataclass(frozen=True)
class _Change:
    """What a commit has to do."""

    added: list[Path]
    deleted: list[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.deleted)


def push(
    source: Path,
    repo_id: str,
    *,
    message: str | None = None,
    tag: str | None = None,
    private: bool | None = True,
    license: str | None = None,
    overwrite: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    transfer: Transfer | None = None,
    revision: str | None = None,
    known_from: Path | None = None,
    known_head: str | None = None,
) -> Pushed:
    """Push a model (a `.pth` file, a run's folder, or one with model.safetensors) to a repository, made where missing.

    message: of the commit. tag: for the commit; one that is elsewhere already is refused. private: unless it is False,
    a new repository is, and one that is there and public is refused. license, revision: as `build_package` takes them.
    overwrite: also onto a head that is not the one known from here, whose commits stay in the history. known_from:
    another model beside which that head is kept; known_head: this one, whatever is kept. Raises CheckpointError,
    HubConflictError for another head, and the other HubErrors.
    """
    _require_names(repo_id, tag)
    if (found := find_token(token)) is None:
        raise HubAccessError(
            f"{repo_id}: there is no token to push with; make one with write rights at {TOKENS_PAGE}, then set "
            "HF_TOKEN or run `hf auth login`"
        )
    transfer = transfer or Transfer("push", repo_id)
    with tempfile.TemporaryDirectory(prefix="mtl-push-") as folder:
        transfer.message = "reading the weights and writing the card"
        package = build_package(source, Path(folder), repo_id=repo_id, license=license, revision=revision)
        transfer.files = [TransferFile(path.name, path.stat().st_size, sha256_of(path)) for path in package.files]
        transfer.check()
        known = _Known.read(known_from or source, repo_id)
        job = _Push(repo_id, package, transfer, private is not False, known_head or known.head, overwrite)
        try:
            with hub_client(found, endpoint, transfer) as api:
                pushed = job.run(api, message or _default_message(package), tag)
        except TransferCancelledError as error:
            raise job.cancelled(error) from None
    known.remember(pushed.commit)
    if tag is not None and not job.is_tagged:
        _set_tag(repo_id, tag, pushed.commit, found, endpoint, transfer)
    transfer.message = f"{repo_id} has it, commit {pushed.commit[:7]}"
    return pushed


def _set_tag(repo_id: str, tag: str, commit: str, token: str, endpoint: str | None, transfer: Transfer) -> None:
    """Apart from the push, which has been done whatever becomes of the tag."""
    try:
        with hub_client(token, endpoint, transfer) as api:
            transfer.message = f"setting the tag {tag}"
            api.create_tag(repo_id, tag=tag, revision=commit)
    except HubError as error:
        reason = str(error).removesuffix("; nothing has changed")
        raise type(error)(f"pushed as {commit[:7]}; the tag {tag} could not be set: {reason}") from None


def _require_names(repo_id: str, tag: str | None) -> None:
    if parse_reference(repo_id).repo_id != repo_id:
        raise HubError(f"{repo_id[:120]}: needed owner/name alone; a push goes to main, a tag has an option of its own")
    if tag is not None:
        try:
            parse_reference(repo_id, tag)
        except HubError:
            raise HubError(f"tag: got {tag[:80]!r}; needed letters, digits, dots and hyphens, such as v1.0") from None


def _default_message(package: Package) -> str:
    """Which model, and how good it was measured to be."""
    dice = figure_at(package.evaluation, "segmentation", "dice")
    figures = [] if dice is None else [f"Dice {dice:.3f}"]
    for group in group_names(package.evaluation):
        accuracy = figure_at(package.evaluation, "classification", "groups", group, "balanced_accuracy")
        figures += [] if accuracy is None else [f"{one_line(group)} balanced accuracy {accuracy:.3f}"]
    return f"Weights {package.checkpoint.revision}: {', '.join(figures) or 'not evaluated'}"


@dataclass
class _Push:
    """One push, from what the Hub has to what it shall have."""

    repo_id: str
    package: Package
    transfer: Transfer
    private: bool
    known_head: str  # the commit that this push builds on; empty for none
    overwrite: bool
    created: bool = False
    is_tagged: bool = False  # the tag is at this commit already

    def run(self, api: HfApi, message: str, tag: str | None) -> Pushed:
        remote = self._find(api)
        tags = {} if remote is None or tag is None else _tags(api, self.repo_id)
        if remote is None:
            remote = self._create(api)
        change = _change(self.package, remote)
        if tag in tags and (change or tags[tag] != remote.head):
            raise HubConflictError(
                f"{self.repo_id}: the tag {tag} is at commit {tags[tag][:7]} already; choose another tag"
            )
        if change:
            self._require_known_head(api, remote)
        note = self._require_visibility(remote)
        commit = self._commit(api, remote, change, message) if change else remote.head
        self._show_all(done=bool(change))
        self.is_tagged = tag in tags
        url = f"{api.endpoint}/{self.repo_id}"
        return Pushed(self.repo_id, commit, url, bool(change), tag, remote.private, note)

    def _find(self, api: HfApi) -> _Remote | None:
        """The repository; None where there is none."""
        try:
            info = api.model_info(self.repo_id, files_metadata=True)
        except RepositoryNotFoundError:
            return None
        if info.sha is None:
            raise HubError(f"{self.repo_id}: the Hub names no commit of it; try again later")
        hashes = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id or "" for file in info.siblings or []}
        return _Remote(bool(info.private), info.sha, hashes)

    def _create(self, api: HfApi) -> _Remote:
        self.transfer.check()
        self.transfer.message = f"making the {'private' if self.private else 'public'} repository {self.repo_id}"
        api.create_repo(self.repo_id, private=self.private)
        self.created = True
        remote = self._find(api)
        if remote is None:
            raise HubError(f"{self.repo_id}: the Hub has made it, but does not show it yet; push again in a minute")
        return remote

    def _require_known_head(self, api: HfApi, remote: _Remote) -> None:
        """Refuse where somebody else's work would no longer be what people get."""
        has_model = not set(PACKAGE_FILES).isdisjoint(remote.hashes)
        if has_model and remote.head != self.known_head and not self.overwrite:
            raise self._conflict(api)

    def _conflict(self, api: HfApi) -> HubConflictError:
        head = next(iter(api.list_repo_commits(self.repo_id)))
        since = f"last pushed from here: {self.known_head[:7]}" if self.known_head else "never pushed from here"
        return HubConflictError(
            f"{self.repo_id}: it is at commit {head.commit_id[:7]} ({head.created_at:%Y-%m-%d %H:%M} UTC, "
            f"“{one_line(head.title)}”), {since}; pull it and look, or push with overwrite (--overwrite) on top of it"
        )

    def _require_visibility(self, remote: _Remote) -> str:
        """Refuse to show everybody what was meant to be private; the other way round is told only."""
        if self.private and not remote.private:
            raise HubConflictError(
                f"{self.repo_id} is public, so everybody would get this model; push as public (--public) if that is "
                "meant, or make it private in its settings on the Hub"
            )
        if self.private or not remote.private:
            return ""
        note = f"{self.repo_id} is private; a push does not change that, its settings on the Hub do"
        log.warning(note)
        return note

    def _commit(self, api: HfApi, remote: _Remote, change: _Change, message: str) -> str:
        added = {path.name for path in change.added}
        for file in self.transfer.files:
            file.state = "moving" if file.name in added else "unchanged"
        self.transfer.check()
        self.transfer.message = f"uploading {len(added)} files"
        operations = [CommitOperationAdd(path.name, path) for path in change.added]
        try:
            commit = api.create_commit(
                self.repo_id,
                [*operations, *(CommitOperationDelete(name) for name in change.deleted)],
                commit_message=message,
                revision=BRANCH,
                parent_commit=remote.head,
            )
        except HfHubHTTPError as error:
            if error.response.status_code == 412:
                raise self._conflict(api) from None
            raise
        return str(commit.oid)

    def _show_all(self, *, done: bool) -> None:
        for file in self.transfer.files:
            file.done = file.size
            file.state = "done" if done and file.state != "unchanged" else "unchanged"

    def cancelled(self, error: TransferCancelledError) -> TransferCancelledError:
        """A repository that was made for it stays: to delete one is nobody's but its owner's."""
        text = str(error).replace("nothing has changed", "its new repository is there, and empty")
        return TransferCancelledError(text) if self.created else error


def _change(package: Package, remote: _Remote) -> _Change:
    """Files that the Hub has otherwise or not at all, and those of another model that this one lacks."""
    added = [path for path in package.files if remote.hashes.get(path.name) not in (sha256_of(path), blob_id_of(path))]
    names = {path.name for path in package.files}
    return _Change(added, [name for name in PACKAGE_FILES if name in remote.hashes and name not in names])


def _tags(api: HfApi, repo_id: str) -> dict[str, str]:
    """Tag -> its commit."""
    return {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}


@dataclass(frozen=True)
class _Known:
    """`hub.json` beside the weights: where they came from, and what was pushed from here.

    That of a pulled model tells what was pulled, by which it is checked; a push adds to it and changes nothing of that.
    """

    path: Path
    repo_id: str
    saved: dict[str, Any]

    @classmethod
    def read(cls, source: Path, repo_id: str) -> "_Known":
        weights = weights_file(source)
        # Of files with other names, several can lie in one folder.
        has_folder = weights.name in (BEST_FILE, WEIGHTS_FILE)
        path = weights.with_name(HUB_FILE if has_folder else f"{weights.name}.{HUB_FILE}")
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            saved = {}
        return cls(path, repo_id, saved if isinstance(saved, dict) else {})

    @property
    def head(self) -> str:
        """The commit of this repository that was pushed from here or pulled to here last; empty for none."""
        pushed = self.saved.get("pushed")
        mine = pushed.get(self.repo_id) if isinstance(pushed, dict) else None
        if not isinstance(mine, dict) and self.saved.get("repo_id") == self.repo_id:
            mine = self.saved
        commit = mine.get("commit") if isinstance(mine, dict) else None
        return commit if isinstance(commit, str) else ""

    def remember(self, commit: str) -> None:
        entry = {"commit": commit, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        earlier = self.saved.get("pushed")
        pushed = {**(earlier if isinstance(earlier, dict) else {}), self.repo_id: entry}
        was_pulled = "files" in self.saved
        newest = {} if was_pulled else {"repo_id": self.repo_id, "revision": BRANCH, **entry}
        try:
            write_text(self.path, json.dumps({**self.saved, **newest, "pushed": pushed}, indent=2) + "\n")
        except (OSError, DiskFullError) as error:
            # The Hub has the model; the next push from here asks before it goes on top.
            log.warning("%s could not be written: %s", self.path.name, error)
