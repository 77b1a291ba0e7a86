"""One run a device: among threads and processes, after a kill, and whatever lies in the temporary folder."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from mtl.errors import RunError
from mtl.training import locks
from mtl.training.locks import DeviceLock, is_let_go, lock_device, require_let_go

ROOT = Path(__file__).parent.parent
# Says when it is there, then takes the CPU for the run given once it is told to; holds it until it is told again.
PROCESS = """
import sys
from pathlib import Path
from mtl.errors import RunError
from mtl.training.locks import DeviceLock
lock = DeviceLock("cpu")
print("ready", flush=True)
sys.stdin.readline()
try:
    lock.acquire()
    lock.hold(Path(sys.argv[1]))
    print("got it", flush=True)
    sys.stdin.readline()
except RunError as error:
    print(error, flush=True)
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folder(tmp_path, "20260102-030405-skin")


def folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def held(run: Path, device: str = "cpu") -> DeviceLock:
    lock = DeviceLock(device)
    lock.acquire()
    lock.hold(run)
    return lock


def start_process(run: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROCESS, str(run)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """20 processes, each about to take the CPU."""
    with ExitStack() as stack:
        started = [stack.enter_context(start_process(folder(tmp_path, f"run-{n}"))) for n in range(20)]
        yield started
        for process in started:
            process.kill()


def test_a_second_run_is_told_who_runs(run: Path, tmp_path: Path) -> None:
    lock = held(run)
    line = rf"^cpu is training {run.name} \(process {os.getpid()}, since \d\d:\d\d\); stop it, wait for its end, or "
    with pytest.raises(RunError, match=line + "choose another device$"):
        DeviceLock("cpu").acquire()
    lock.release()
    lock.release()
    other = folder(tmp_path, "other")
    assert held(other)


def test_a_device_has_one_lock_whatever_it_is_called(run: Path, tmp_path: Path) -> None:
    first, other = held(run, "cuda"), held(folder(tmp_path, "other"), "cpu")
    with pytest.raises(RunError, match=rf"cuda:0 is training {run.name}"):
        DeviceLock("cuda:0").acquire()
    first.release()
    DeviceLock("cuda:0").acquire()
    other.release()


def test_of_20_threads_one_runs(tmp_path: Path) -> None:
    barrier = threading.Barrier(20)

    def start(number: int) -> DeviceLock | str:
        run = folder(tmp_path, f"run-{number}")
        barrier.wait(10)
        try:
            return held(run)
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(start, range(20)))
    [winner] = [number for number, answer in enumerate(answers) if isinstance(answer, DeviceLock)]
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(refused) == 19
    assert all(line.startswith(f"cpu is training run-{winner} (process {os.getpid()}, ") for line in refused)


def test_of_20_processes_one_runs(processes: list["subprocess.Popen[str]"]) -> None:
    assert {answer(process) for process in processes} == {"ready"}
    for process in processes:
        tell(process)
    answers = [answer(process) for process in processes]
    [winner] = [number for number, line in enumerate(answers) if line == "got it"]
    expected = f"cpu is training run-{winner} (process {processes[winner].pid}, since "
    assert [line for line in answers if not line.startswith(expected)] == ["got it"]


def test_a_killed_process_lets_go_at_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "NOTE_SECONDS", 0.1)
    with start_process(run) as process:
        assert answer(process) == "ready"
        tell(process)
        assert answer(process) == "got it"
        assert not is_let_go(run)
        with pytest.raises(RunError, match=f"{run.name}: another process trains it"):
            held(run, "mps")
        with pytest.raises(RunError, match=f"cpu is training {run.name} .process {process.pid}, "):
            DeviceLock("cpu").acquire()
        process.kill()
        process.wait(10)
    assert is_let_go(run)
    lock = DeviceLock("cpu")
    lock.acquire()
    # Not the killed one, whose note was left.
    with pytest.raises(RunError, match="cpu is training another run; stop it"):
        DeviceLock("cpu").acquire()
    lock.release()


def test_a_note_that_cannot_be_read_refuses_all_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "NOTE_SECONDS", 0.1)
    lock = held(run)
    [note] = Path(tempfile.gettempdir()).glob("mtl*/cpu.json")
    note.write_text('{"run": ')
    with pytest.raises(RunError, match="cpu is training another run"):
        DeviceLock("cpu").acquire()
    lock.release()


def test_a_lock_nobody_refers_to_is_free(run: Path) -> None:
    held(run)
    assert is_let_go(run)
    DeviceLock("cpu").acquire()


def test_a_start_that_fails_lets_go(run: Path) -> None:
    with pytest.raises(RunError, match="no folder"), lock_device("cpu"):
        raise RunError("no folder can be made")
    with lock_device("cpu") as lock:
        lock.hold(run)
    with pytest.raises(RunError, match=run.name):
        DeviceLock("cpu").acquire()
    lock.release()


def test_the_lock_of_a_run(run: Path) -> None:
    # Of a run that an older version trained, or on a disk without locks, nothing can be said.
    assert not is_let_go(run)
    lock = held(run)
    assert not is_let_go(run)
    with pytest.raises(RunError, match=f"{run.name}: another process trains it right now; stop it first"):
        require_let_go(run)
    lock.release()
    assert is_let_go(run)
    require_let_go(run)


# ---- the temporary folder


def test_cleaners_that_go_by_age_find_nothing_old(run: Path, tmp_path: Path) -> None:
    lock = held(run)
    files = list(tmp_path.glob("mtl*/*"))
    assert {file.name for file in files} == {"cpu.lock", "cpu.json"}
    assert all(file.stat().st_mtime > time.time() + 300 * 86_400 for file in files)
    lock.release()


@pytest.mark.skipif(sys.platform == "win32", reason="there, each user has a temporary folder")
def test_users_have_folders_of_their_own(tmp_path: Path) -> None:
    own = tmp_path / f"mtl-{os.getuid()}"
    DeviceLock("cpu")
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    DeviceLock("cpu")
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="there, each user has a temporary folder")
def test_what_somebody_else_put_there_is_refused(tmp_path: Path) -> None:
    own, elsewhere = tmp_path / f"mtl-{os.getuid()}", folder(tmp_path, "elsewhere")
    own.symlink_to(elsewhere)
    with pytest.raises(RunError, match="needed a folder of your own for locks; remove this one, or set TMPDIR"):
        DeviceLock("cpu")
    own.unlink()
    own.write_text("")
    with pytest.raises(RunError, match="no lock can be made there"):
        DeviceLock("cpu")
    assert list(elsewhere.iterdir()) == []
