"""What a push and a pull do with each fault of a Hub: `python -m tests.faults [pull | push]` prints the table.

Of each: seconds to the first word of trouble, seconds to the end, what it said, whether the model that was pulled
before (or the head on the Hub) is still the same, and what lies around on the disk. It takes some minutes.
"""

import hashlib
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch

from mtl.checkpoint import Checkpoint, write_folder
from mtl.config import ModelConfig
from mtl.errors import MtlError
from mtl.hub.client import Limits
from mtl.hub.pull import LOCK_FILE, pull
from mtl.hub.push import push
from mtl.hub.reference import HubReference
from mtl.hub.transfer import Transfer
from mtl.model import MultiTaskNetwork
from tests.loopback_hub import Fault, LoopbackHub

REPO = HubReference("ada", "skin")
TROUBLE = ("trying again", "still waiting", "begins when")
POLL_S = 0.01


@dataclass(frozen=True)
class Case:
    """A fault by name: at a route of the Hub, or of this machine."""

    name: str
    faults: dict[str, Fault] = field(default_factory=dict)
    of_machine: Callable[["Scene"], AbstractContextManager[None]] | None = None
    cancel_s: float | None = None  # after so many seconds
    succeeds: bool = False


@dataclass
class Scene:
    """A Hub, and a folder where an older commit of the model has been pulled to."""

    hub: LoopbackHub
    folder: Path
    token: str


@dataclass
class Outcome:
    first_s: float
    end_s: float
    message: str
    error: type[Exception] | None


@contextmanager
def refused(scene: Scene) -> Iterator[None]:
    scene.hub.stop()
    try:
        yield
    finally:
        scene.hub.start()


@contextmanager
def no_such_host(scene: Scene) -> Iterator[None]:
    with mock.patch.dict(os.environ, HF_ENDPOINT="http://hub.invalid"):
        yield


@contextmanager
def little_space(scene: Scene) -> Iterator[None]:
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=5_000_000)):
        yield


@contextmanager
def full_disk(scene: Scene) -> Iterator[None]:
    """Writing fails in the middle of a file."""
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def statuses(route: str) -> list[Case]:
    return [Case(f"{code} at {route}", {route: Fault("status", status=code)}) for code in (401, 403, 404, 409, 412)]


def busy(route: str) -> list[Case]:
    once = Case(f"429 once, Retry-After 1, at {route}", succeeds=True)
    once.faults[route] = Fault("status", status=429, retry_after=1, times=1)
    long = Case(f"429, Retry-After 300, at {route}", {route: Fault("status", status=429, retry_after=300)})
    always = [Case(f"{code} at {route}", {route: Fault("status", status=code)}) for code in (429, 500, 503)]
    return [once, long, *always]


ANY = [
    Case("connection refused", of_machine=refused),
    Case("no such host", of_machine=no_such_host),
    Case("silence", {"info": Fault("hang")}),
    Case("silence, cancelled after 1 s", {"info": Fault("hang")}, cancel_s=1.0),
    Case("connection closed", {"info": Fault("close")}),
]
PULL = [
    *ANY,
    *statuses("info"),
    *busy("info"),
    *statuses("storage")[:3],
    *busy("storage"),
    Case("silence within a file", {"storage": Fault("hang", after_bytes=100_000)}),
    Case("the same, cancelled after 1 s", {"storage": Fault("hang", after_bytes=100_000)}, cancel_s=1.0),
    Case("slow drip", {"storage": Fault("drip")}),
    Case("broken off once", {"storage": Fault("cut", times=1)}, succeeds=True),
    Case("broken off each time", {"storage": Fault("cut", after_bytes=1000)}),
    Case("truncated", {"storage": Fault("short")}),
    Case("corrupt, right size", {"storage": Fault("corrupt")}),
    Case("corrupt small file", {"download": Fault("corrupt")}),
    Case("too little space", of_machine=little_space),
    Case("disk full within a file", of_machine=full_disk),
]
PUSH = [
    *ANY,
    *statuses("preupload"),
    *statuses("commit"),
    *busy("info"),
    *busy("upload"),
    *busy("commit"),
    Case("silence at upload", {"upload": Fault("hang")}),
    Case("the same, cancelled after 1 s", {"upload": Fault("hang")}, cancel_s=1.0),
    Case("silence at commit", {"commit": Fault("hang")}),
    Case("commit done, answer lost", {"commit": Fault("close", done=True)}),
]


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """The older commit is pulled; the newer one is on the Hub; a third model lies in `mine`."""
    model_files(folder / "mine", 2)
    with LoopbackHub() as hub, mock.patch.dict(os.environ, HF_ENDPOINT=hub.url):
        token = hub.add_user(REPO.owner)
        hub.put(REPO.repo_id, model_files(folder / "old", 0), title="older", private=True)
        pull(REPO, folder / "pulled", token=token)
        hub.put(REPO.repo_id, model_files(folder / "new", 1), title="newer", private=True)
        yield Scene(hub, folder / "pulled", token)


def model_files(folder: Path, seed: int) -> dict[str, bytes]:
    """What a small model's folder holds; another seed, other weights."""
    torch.manual_seed(seed)
    config = ModelConfig(image_size=64)
    write_folder(folder, Checkpoint("made", MultiTaskNetwork(config).state_dict(), config))
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# model {seed}\n", encoding="utf-8")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def outcome(act: Callable[[Transfer], object], transfer: Transfer, cancel_s: float | None = None) -> Outcome:
    """Run a transfer, and note when it said what."""
    began, first, ended = time.monotonic(), [], threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            seconds = time.monotonic() - began
            if not first and any(word in transfer.message for word in TROUBLE):
                first.append(seconds)
            if cancel_s is not None and seconds > cancel_s:
                transfer.cancel()

    watcher = threading.Thread(target=watch)
    watcher.start()
    error = None
    try:
        act(transfer)
    except MtlError as raised:
        error = raised
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    return Outcome(
        first[0] if first else seconds, seconds, str(error or transfer.message), type(error) if error else None
    )


def run_case(case: Case, here: Scene, kind: str = "pull", limits: Limits | None = None) -> Outcome:
    """One fault, from its beginning to its end; the Hub is whole again afterwards."""
    here.hub.faults = {route: replace(fault) for route, fault in case.faults.items()}  # each counts for itself

    def act(transfer: Transfer) -> object:
        if kind == "pull":
            return pull(REPO, here.folder, token=here.token, transfer=transfer, limits=limits)
        return push(here.folder.parent / "mine", REPO.repo_id, token=here.token, overwrite=True, transfer=transfer)

    transfer = Transfer("push" if kind == "push" else "pull", REPO.repo_id)
    with case.of_machine(here) if case.of_machine else nullcontext():
        seen = outcome(act, transfer, case.cancel_s)
    here.hub.faults = {}
    return seen


def fingerprint(folder: Path) -> str:
    """Over the names and bytes of all files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}".encode() + path.read_bytes())
    return digest.hexdigest()


def leftovers(folder: Path) -> list[str]:
    """What lies in the folder of pulled models and is no model."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (LOCK_FILE, REPO.folder_name))


def main() -> None:
    for kind in sys.argv[1:] or ("pull", "push"):
        print(f"\n### {kind}\n\n| fault | first word (s) | end (s) | what it says | before it | left on the disk |")
        print("| --- | ---: | ---: | --- | --- | --- |")
        for case in PULL if kind == "pull" else PUSH:
            with tempfile.TemporaryDirectory() as folder, scene(Path(folder)) as here:
                print(_row(case, here, kind), flush=True)


def _row(case: Case, here: Scene, kind: str) -> str:
    target = here.folder / REPO.folder_name
    before, head = fingerprint(target), here.hub.repos[REPO.repo_id].head.sha
    seen = run_case(case, here, kind)
    if kind == "pull":
        state = "unchanged" if fingerprint(target) == before else "replaced by the new one"
    else:
        state = "unchanged" if here.hub.repos[REPO.repo_id].head.sha == head else "one new commit"
    message = seen.message.replace(f":{here.hub.url.rpartition(':')[2]}", "")
    left = ", ".join(leftovers(here.folder)) or "nothing"
    return f"| {case.name} | {seen.first_s:.1f} | {seen.end_s:.1f} | {message} | {state} | {left} |"


if __name__ == "__main__":
    main()
