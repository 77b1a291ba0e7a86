"""Background runs: one at a time, stopped and resumed from outside, and their state read from their folders."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import write_folder
from tiny import ONE_THREAD, tiny_config

from mtl.config import TrainConfig
from mtl.errors import ConfigError, DataError, RunError
from mtl.training.jobs import JobManager
from mtl.training.run import Run, list_runs

pytestmark = pytest.mark.usefixtures(ONE_THREAD)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "skin", train=8, val=2)


@pytest.fixture
def manager(data: Path) -> Iterator[JobManager]:
    manager = JobManager(data.parent / "runs")
    yield manager
    manager.stop()
    manager.wait(30)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
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
    # Another page, or another process, sees the same folder.
    with pytest.raises(RunError, match=run.name):
        JobManager(manager.runs_dir).start(endless(data))
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
