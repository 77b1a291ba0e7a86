"""The processes that train one run together, as torchrun starts them. One process alone needs nothing of this.

They meet in `joined`. The first of them (rank 0) does all that is done once and owns the run's folder; the others wait
for it and end with it. Why one of them ends stands in the store that all can read, so that a single line tells it.
"""

import logging
import os
import pickle
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from mtl.errors import ConfigError, DeviceError, MtlError, RunError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
TIMEOUT = timedelta(minutes=30)  # what one process may wait for another within a step or at a checkpoint
LOOK_SECONDS = 0.05  # between two looks of a process that waits for the first one
ECHO_SECONDS = 3.0  # the connections of a process may close a little before its reason can be read
NOTED_SECONDS = 60.0  # what the first process may take to note in the run's folder how it ended
ENDS, ENDED, NOTED = "ends", "ended", "noted"  # keys of the store


class _World:
    """What this process knows of the others."""

    def __init__(self) -> None:
        self.everything: Any = None  # torchrun's store
        self.store: Any = None  # the part of it for this meeting
        self.meetings = 0
        self.turns = 0  # of the first process, for all
        self.signals = 0  # to end, which this process got

    def meet(self) -> None:
        """Wait for the others. A script may train several times; each time they meet in a part of the store anew."""
        self.everything = self.everything or next(rendezvous("env://"))[0]
        self.meetings, self.turns, self.signals = self.meetings + 1, 0, 0
        self.store = PrefixStore(f"mtl-{self.meetings}", self.everything)
        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
        # gloo also carries what hosts agree on beside the GPUs, which nobody then waits for.
        backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
        dist.init_process_group(backend, store=self.store, rank=rank(), world_size=launched(), timeout=TIMEOUT)


_world = _World()


def launched() -> int:
    """How many processes torchrun has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ["RANK"]) if launched() > 1 else 0


def is_first() -> bool:
    return rank() == 0


def size() -> int:
    """How many processes train together now, once they have met."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def local_size() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if size() > 1 else 1


def local_rank() -> int:
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


def require_joined() -> None:
    """ConfigError where torchrun has started several processes that have not met, as those of the page."""
    if launched() > size():
        raise ConfigError(
            f"WORLD_SIZE: got {launched()}; several processes train by `python -m mtl train` or `mtl.train` alone; "
            "start this without torchrun"
        )


def own_device(device: torch.device) -> torch.device:
    """The device of this process, where `device` is what was chosen for all of them."""
    if size() == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise DeviceError(f"device: got {device} for {size()} processes, which need one each; take cuda, or cpu")
    if local_size() > torch.cuda.device_count():
        raise DeviceError(
            f"{local_size()} processes on a machine with {torch.cuda.device_count()} CUDA devices, which need one "
            "each; start fewer, or take --device cpu"
        )
    return torch.device("cuda", local_rank())


class SummedByHand(DDPStrategy):
    """Lightning's DDP, without the wrapper that averages gradients while they are computed.

    The step adds them up itself, once and at its end. So each process may cut its photos into as many parts as its
    memory asks for, or have none, and nobody waits for a parameter that got no gradient. What it gives up, sending
    while computing, is little for a network of 23 MB.
    """

    def configure_ddp(self) -> None:
        pass


# ---- how they meet, and how they end


@contextmanager
def joined() -> Iterator[None]:
    """The processes that torchrun has started, connected; nothing happens where there is but one.

    Where one of them fails, all end: the first raises why, the others leave without a word.
    """
    if launched() == 1:
        yield
        return
    _world.meet()
    first = is_first()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    keep_signals()
    try:
        yield
    except BaseException as error:
        _tell_end(error)
        if first:
            raise
        _leave(error)
    finally:
        if first:
            with suppress(RuntimeError):  # the store is gone with its machine
                _world.store.set(NOTED, "")
        if dist.is_initialized():
            dist.destroy_process_group()
        for number, handler in before.items():
            _handle(number, handler)


def _leave(error: BaseException) -> NoReturn:
    """End this process, but not before the first has noted why, or is ended: torchrun ends all once one has."""
    dist.destroy_process_group()  # wakes those that wait for this one
    _looked_for(NOTED, NOTED_SECONDS, unless=lambda: _world.signals > 0)
    raise SystemExit(130 if isinstance(error, KeyboardInterrupt | SystemExit) else 1)


def keep_signals() -> None:
    """Note SIGTERM and SIGINT, for all processes to end after the same step; a second one interrupts at once.

    To be called again where Lightning has set its own handler, which begins a collective in the midst of any other.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        _handle(number, _note_signal)


def _handle(number: int, handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


def _note_signal(number: int, frame: Any) -> None:
    _world.signals += 1
    if _world.signals > 1:
        raise KeyboardInterrupt


def asked_to_end() -> bool:
    """Has this process got a signal to end?"""
    return size() > 1 and _world.signals > 0


def _tell_end(error: BaseException) -> None:
    """Let the others know why this process ends; only the first to end is heard."""
    trace = "" if isinstance(error, MtlError) else traceback.format_exc()
    with suppress(RuntimeError):
        if _world.store.add(ENDS, 1) == 1:
            _world.store.set(ENDED, pickle.dumps((rank(), _portable(error), trace)))


def _portable(error: BaseException) -> BaseException:
    """The error as another process can have it."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return KeyboardInterrupt()
    try:
        return error if isinstance(pickle.loads(pickle.dumps(error)), MtlError) else _foreign(error)
    except Exception:
        return _foreign(error)


def _foreign(error: BaseException) -> RunError:
    return RunError(f"process {rank()}: {type(error).__name__}: {error}")


@contextmanager
def explained() -> Iterator[None]:
    """What is but the echo of another process's end is raised as that one's reason."""
    try:
        yield
    except RuntimeError as error:
        if size() == 1:
            raise
        if reason := _end_elsewhere():
            raise reason from error
        if re.search("gloo|nccl|peer", str(error), re.IGNORECASE):
            raise RunError(
                "one of the processes was ended from outside, as the system does where memory is short, or its machine "
                "is gone; resume the run"
            ) from error
        raise


def _end_elsewhere() -> BaseException | None:
    """Why another process has ended, if it said so."""
    if _looked_for(ENDED, ECHO_SECONDS):
        number, error, trace = pickle.loads(_world.store.get(ENDED))
        assert isinstance(error, BaseException)
        if trace and number != rank():
            log.info("process %d ended:\n%s", number, trace)
        return error
    return None


def _looked_for(key: str, seconds: float, unless: Callable[[], bool] = lambda: False) -> bool:
    """Does this key come into the store within that time? Not by its own waiting, which warns where it is in vain."""
    deadline = time.monotonic() + seconds
    with suppress(RuntimeError):  # the store is gone with its machine
        while time.monotonic() < deadline and not unless():
            if _world.store.check([key]):
                return True
            time.sleep(LOOK_SECONDS)
    return False


# ---- what they do together


def on_first(work: Callable[[], Result]) -> Result:
    """What `work` gives or raises in the first process, in all of them; the others wait as long as it takes."""
    if size() == 1:
        return work()
    _world.turns += 1
    key = f"turn-{_world.turns}"
    if not is_first():
        _wait_for(key)
        return _received()
    try:
        result = work()
    except Exception as error:
        _world.store.set(key, "")
        dist.broadcast_object_list([(None, _portable(error))])
        raise
    _world.store.set(key, "")
    dist.broadcast_object_list([(result, None)])
    return result


def _received() -> Any:
    held: list[Any] = [None]
    dist.broadcast_object_list(held)
    result, error = held[0]
    if error is not None:
        raise error
    return result


def _wait_for(key: str) -> None:
    """Not in a collective, whose time limit would end a check of 100,000 photos."""
    while not _world.store.check([key]):
        if _world.signals:
            raise KeyboardInterrupt
        if _world.store.check([ENDED]) and (reason := _end_elsewhere()):
            raise reason
        time.sleep(LOOK_SECONDS)


def add_up(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def largest(value: int) -> int:
    """Over all processes."""
    if size() == 1:
        return value
    held = torch.tensor(value)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return int(held)


def gathered(value: Result) -> list[Result]:
    """What each process has, in their order."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def copy_from_first(modules: Iterable[nn.Module]) -> None:
    """The weights and statistics of the first process, in all of them."""
    if size() > 1:
        for module in modules:
            for held in module.state_dict().values():
                dist.broadcast(held, src=0)
