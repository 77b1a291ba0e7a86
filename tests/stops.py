"""`python -m tests.stops`: how long a stop takes in every phase of a run, and what 20 simultaneous starts come to.

Runs of made 64 px photos on one thread, about two minutes. A stop is measured from the request until the run is no
longer live, its memory is free and the next may start.
"""

import logging
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from builders import write_folder
from tiny import tiny_config

from mtl.config import TrainConfig
from mtl.errors import MtlError
from mtl.training.fit import train
from mtl.training.jobs import JobManager
from mtl.training.run import Run, RunStatus, list_runs

STARTS = 20
POLL_SECONDS = 0.005
LIMIT_SECONDS = 60.0

# What is waited for before the stop, and how often. Of a state, some part is let pass, so that the stops spread.
PHASES: dict[str, tuple[int, Callable[[RunStatus], bool]]] = {
    "right after the start": (3, lambda status: True),
    "reading photos": (3, lambda status: status.message.startswith("reading")),
    "preparing": (2, lambda status: status.state == "training"),
    "first steps": (3, lambda status: status.step >= 1),
    "mid-epoch": (3, lambda status: status.step >= 12),
    "validating": (3, lambda status: status.state == "validating"),
    "saving, samples": (3, lambda status: status.state == "saving"),
}
LET_PASS_SECONDS = 0.2


def main() -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # the locks of devices, too: whatever else this machine trains stays out of it
        data = write_folder(Path(folder) / "photos", train=96, val=64)
        config = tiny_config(data, epochs=1000, early_stopping_patience=0)
        # First, since a process that has trained cannot be forked.
        print(f"{STARTS} starts by processes: {words(starts_of_processes(config))}", flush=True)
        print(f"{STARTS} starts by threads:   {words(starts_of_threads(config))}", flush=True)
        print(f"\n{'phase':24}{'state':>12}{'step':>6}{'seconds to idle':>18}")
        seconds = list(stops(JobManager(Path(config.output_dir)), config))
        print(f"\n{len(seconds)} stops, the longest {max(seconds):.2f} s")


# ---- stops


def stops(manager: JobManager, config: TrainConfig) -> Iterator[float]:
    """The seconds of each stop, as they are measured."""
    pick = random.Random(0)
    for phase, (times, reached) in PHASES.items():
        for _ in range(times):
            run = manager.start(config)
            wait_for(lambda run=run, reached=reached: reached(run.status()))  # type: ignore[misc]
            if phase not in ("right after the start", "reading photos"):
                time.sleep(pick.uniform(0, LET_PASS_SECONDS))
            status = run.status()
            yield (seconds := seconds_to_idle(manager, run))
            print(f"{phase:24}{status.state:>12}{status.step:>6}{seconds:>18.2f}", flush=True)


def seconds_to_idle(manager: JobManager, run: Run) -> float:
    begin = time.perf_counter()
    run.request_stop()
    manager.wait(LIMIT_SECONDS)
    assert run.status().state == "stopped", run.status()
    assert manager.live_run() is None
    return time.perf_counter() - begin


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(POLL_SECONDS)


# ---- starts


def starts_of_threads(config: TrainConfig) -> list[str]:
    """The answer to each start, each by a manager of its own: "" for the one that ran."""
    managers = [JobManager(Path(config.output_dir)) for _ in range(STARTS)]
    barrier = threading.Barrier(STARTS)

    def start(manager: JobManager) -> str:
        barrier.wait(LIMIT_SECONDS)
        try:
            manager.start(config)
        except MtlError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(STARTS) as pool:
        answers = list(pool.map(start, managers))
    end_runs(config)
    for manager in managers:
        manager.wait(LIMIT_SECONDS)
    return answers


def starts_of_processes(config: TrainConfig) -> list[str]:
    """The same, each in a process of its own."""
    context = multiprocessing.get_context("fork")
    answers: Queue[str] = context.Queue()
    barrier = context.Barrier(STARTS)
    processes = [context.Process(target=train_here, args=(config, barrier, answers)) for _ in range(STARTS)]
    for process in processes:
        process.start()
    refused = [answers.get(timeout=LIMIT_SECONDS) for _ in range(STARTS - 1)]
    end_runs(config)
    every = [*refused, answers.get(timeout=LIMIT_SECONDS)]
    for process in processes:
        process.join(LIMIT_SECONDS)
    return every


def train_here(config: TrainConfig, barrier: Barrier, answers: "Queue[str]") -> None:
    barrier.wait(LIMIT_SECONDS)
    try:
        train(config)
    except MtlError as error:
        answers.put(str(error))
    else:
        answers.put("")


def end_runs(config: TrainConfig) -> None:
    for run in list_runs(config.output_dir):
        run.request_stop()


def words(answers: list[str]) -> str:
    refused = [answer for answer in answers if answer]
    return f"{answers.count('')} ran, {len(refused)} refused: {', '.join(sorted(set(refused)))}"


if __name__ == "__main__":
    main()
