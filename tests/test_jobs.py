"""Background runs: one at a time, stopped and resumed from outside, and their state read from their folders."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders import write_folder
from tiny import ONE_THREAD, tiny_config

from mtl.cli import main
from mtl.config import TrainConfig
from mtl.errors import ConfigError, DataError, MtlError, RunError
from mtl.model import MultiTaskNetwork
from mtl.training.fit import open_job
from mtl.training.jobs import JobManager
from mtl.training.run import Run, list_runs

pytestmark = pytest.mark.usefixtures(ONE_THREAD)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "skin", train=8, val=2)


@pytest.fixture
def manager(data: Path) -> Iterator[JobManager]:
    manager = JobManager(data.parent / "runs")
    yield manager
    manager.stop()
    manager.wait(30)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def endless(data: Path) -> TrainConfig:
    return tiny_config(data, epochs=1000, early_stopping_patience=0)


def test_a_run_in_the_background_from_its_start_to_its_end(manager: JobManager, data: Path) -> None:
    assert manager.live_run() is None
    run = manager.start(endless(data))
    assert manager.live_run() is not None
    assert run.status().live
    with pytest.raises(RunError, match=f"{run.name} is being trained; stop it, or wait for its end"):
        manager.start(endless(data))
    # Another server, whatever its folder.
    with pytest.raises(
        RunError, match=rf"cpu is training {run.name} \(process {os.getpid()}, since \d\d:\d\d\); stop it"
    ):
        JobManager(data.parent / "elsewhere").start(endless(data).replace(output_dir=str(data.parent / "elsewhere")))
    assert not (data.parent / "elsewhere").exists()
    wait_for(run.last_file.exists)
    JobManager(manager.runs_dir).stop()
    manager.wait(30)
    assert run.status().state == "stopped"
    assert manager.live_run() is None

    epochs = run.status().epoch + 1
    assert manager.start(run.config.replace(epochs=epochs), resume=run).path == run.path
    manager.wait(60)
    assert run.status().state == "finished"
    assert [event["epoch"] for event in run.events() if event["event"] == "epoch"] == list(range(1, epochs + 1))
    assert len(list_runs(manager.runs_dir)) == 1


def test_a_stop_right_after_the_start_counts(manager: JobManager, data: Path) -> None:
    run = manager.start(endless(data))
    manager.stop()
    assert run.status().state in ("stopping", "stopped")
    manager.wait(30)
    assert run.status().state == "stopped"
    assert not run.stop_file.exists()


def test_stop_without_a_run_does_nothing(manager: JobManager) -> None:
    manager.stop()
    manager.wait()
    assert manager.live_run() is None


def test_a_failed_run_says_why(manager: JobManager, data: Path) -> None:
    (data / "images/val/val_001.jpg").write_text("no photo")
    run = manager.start(tiny_config(data))
    manager.wait(30)
    assert run.status().state == "failed"
    assert "val_001.jpg" in run.status().message
    assert manager.live_run() is None


def test_what_is_wrong_at_once_is_raised_and_leaves_nothing(manager: JobManager, data: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        manager.start(tiny_config(data, batch_size=9))
    with pytest.raises(DataError, match="there is no such folder"):
        manager.start(tiny_config(data / "nowhere"))
    assert manager.live_run() is None
    assert list_runs(manager.runs_dir) == []


def test_of_20_starts_one_runs(manager: JobManager, data: Path) -> None:
    # Half of them on one page's server, half on servers of their own.
    managers = [manager] * 10 + [JobManager(manager.runs_dir) for _ in range(10)]
    barrier = threading.Barrier(len(managers))

    def start(manager: JobManager) -> Run | str:
        barrier.wait(30)
        try:
            return manager.start(endless(data))
        except MtlError as error:
            return str(error)

    with ThreadPoolExecutor(len(managers)) as pool:
        answers = list(pool.map(start, managers))
    [run] = [answer for answer in answers if isinstance(answer, Run)]
    assert [listed.path for listed in list_runs(manager.runs_dir)] == [run.path]
    assert all(run.name in answer and "stop it" in answer for answer in answers if isinstance(answer, str))
    run.request_stop()
    for each in managers:
        each.wait(30)
    assert run.status().state == "stopped"


def test_a_run_leaves_nothing_in_memory(manager: JobManager, data: Path) -> None:
    before = networks()
    stopped = manager.start(endless(data))
    wait_for(lambda: stopped.status().step > 1)
    assert networks() > before
    manager.stop()
    manager.wait(60)
    assert (stopped.status().state, networks()) == ("stopped", before)
    finished = manager.start(tiny_config(data, epochs=1))
    manager.wait(60)
    assert (finished.status().state, networks()) == ("finished", before)


def networks() -> int:
    # Not isinstance: some of all the objects warn when they are asked what they are.
    return sum(issubclass(type(thing), MultiTaskNetwork) for thing in gc.get_objects())


def test_a_start_right_after_the_end_is_not_refused(manager: JobManager, data: Path) -> None:
    run = manager.start(tiny_config(data, epochs=1))
    wait_for(lambda: not run.status().live)
    assert manager.start(tiny_config(data, epochs=1)).path != run.path


# ---- other processes


def test_a_run_of_the_command_line_is_shown_and_stopped_from_the_page_and_back(manager: JobManager, data: Path) -> None:
    options = [word for pair in options_of(endless(data)) for word in pair]
    command = [sys.executable, "-m", "mtl", "train", "--json", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (run := manager.live_run()) and run.status().step > 1)
        run = manager.live_run()
        assert run
        with pytest.raises(RunError, match=rf"cpu is training {run.name} \(process {process.pid}, "):
            manager.start(endless(data))
        manager.stop()
        printed, _ = process.communicate(timeout=60)
    assert json.loads(printed)["state"] == run.status().state == "stopped"

    step = run.status().step
    manager.start(resume=run)
    wait_for(lambda: run.status().step > step)
    assert main(["runs", "--output-dir", str(manager.runs_dir), "--stop", run.name]) == 0
    manager.wait(30)
    assert run.status().state == "stopped"


def options_of(config: TrainConfig) -> list[tuple[str, str]]:
    settings = config.model_dump(exclude_defaults=True)
    return [(f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items()]


SERVER = """
import sys
from pathlib import Path
from mtl.config import TrainConfig
from mtl.training.jobs import JobManager
manager = JobManager(Path(sys.argv[1]))
manager.start(TrainConfig.model_validate_json(sys.argv[2]))
manager.wait()
"""


def test_the_run_of_a_killed_server_is_interrupted_and_can_be_resumed(manager: JobManager, data: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(manager.runs_dir), endless(data).model_dump_json()]
    with subprocess.Popen(command, cwd=ROOT) as server:
        wait_for(lambda: (run := manager.live_run()) and run.last_file.is_file() and run.status().epoch >= 1)
        server.send_signal(signal.SIGKILL)
        server.wait(10)
    [run] = list_runs(manager.runs_dir)
    assert run.status().state == "interrupted"
    assert run.status().message == "its process ended before the run did; it can be resumed"
    epochs = run.status().epoch + 2
    manager.start(run.config.replace(epochs=epochs), resume=run)
    manager.wait(60)
    assert (run.status().state, run.status().epoch) == ("finished", epochs)
    steps = [event["step"] for event in run.events() if event["event"] == "step"]
    assert steps == list(range(1, 2 * epochs + 1))


def test_a_run_that_nobody_trains_any_more_is_interrupted_though_its_process_lives(data: Path) -> None:
    job = open_job(tiny_config(data))
    run = Run(job.run.path)
    assert run.status().state == "preparing"
    # As if its thread had died without a word.
    job.lock.release()
    assert run.status().state == "interrupted"
    assert "it broke off" in run.status().message


# ---- the state of a run whose process is gone


def note_process(run: Run, pid: int, started: float) -> None:
    run.status_file.write_text(json.dumps({"state": "training", "pid": pid, "pid_started": started}))


def test_a_run_whose_process_died_reads_as_interrupted(manager: JobManager, data: Path) -> None:
    run = Run.create(tiny_config(data))
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    note_process(run, process, time.time())
    status = run.status()
    assert (status.state, status.live) == ("interrupted", False)
    assert "its process ended" in status.message
    assert manager.live_run() is None


def test_a_process_number_that_is_another_process_by_now(data: Path) -> None:
    run = Run.create(tiny_config(data))
    run.claim(epochs=1)
    assert run.status().state == "preparing"
    note_process(run, os.getpid(), run.status().pid_started - 60)
    assert run.status().state == "interrupted"


def test_a_stop_shows_until_it_is_obeyed(data: Path) -> None:
    run = Run.create(tiny_config(data))
    run.claim(epochs=1)
    run.update(state="training")
    run.request_stop()
    assert run.status().state == "stopping"
    run.update(state="stopped")
    assert run.status().state == "stopped"


def test_runs_never_share_a_folder(data: Path) -> None:
    runs = [Run.create(tiny_config(data, name="twin")) for _ in range(4)]
    assert len({run.path for run in runs}) == 4
    assert {run.path for run in list_runs(data.parent / "runs")} == {run.path for run in runs}


def test_what_is_no_run(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nothing") == []
    with pytest.raises(RunError, match=r"run\.json is missing"):
        Run(tmp_path)
