"""Several processes that train one run, as torchrun would start them, but forked from one that has imported all."""

import multiprocessing
import multiprocessing.util
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from mtl.errors import MtlError

SECONDS = 120  # a process that takes longer hangs
# It outlives the tests' own temporary folder, so it is made while that is not yet the place for such.
multiprocessing.util.get_temp_dir()
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mtl.training.fit", "pytest"])


def in_processes(number: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(*arguments)` gives in each of them: its result, the line of an MtlError, or how the process ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(number)]
    processes = [
        CONTEXT.Process(target=_work, args=(rank, number, port, sender, work, arguments), daemon=True)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()
    for process in processes:
        process.join(SECONDS)
    hanging = [process.name for process in processes if process.is_alive()]
    for process in processes:
        process.kill()
    assert not hanging, "these did not end"
    return [_received(receiver, process.exitcode) for process, (receiver, _) in zip(processes, pipes, strict=True)]


def _work(
    rank: int, number: int, port: int, sender: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    try:
        sender.send(work(*arguments))
    except MtlError as error:
        sender.send(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sender.send("interrupted")


def _received(receiver: Connection, exitcode: int | None) -> Any:
    try:
        return receiver.recv()
    except EOFError:
        return signal.Signals(-exitcode).name if exitcode and exitcode < 0 else f"exit {exitcode}"
