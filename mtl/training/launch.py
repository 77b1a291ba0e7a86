"""Starting the processes of one training on this machine, as torchrun does, from the command line of one."""

import logging
import os
import signal
from collections.abc import Sequence

from mtl.errors import ConfigError, RunError

RUN_ID = "mtl-train"  # what the launchers of several machines know one another by


def launch(arguments: Sequence[str], devices: int, machines: int, rendezvous: str | None) -> None:
    """Run `python -m mtl ARGUMENTS` in `devices` processes here, and in as many on each of the other machines.

    rendezvous: HOST:PORT on one of the machines, where all of their launchers meet.
    Returns when all processes have ended well. SystemExit with the status of the first that did not, which has told
    why; RunError where it could not.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The first process tells in one line how all ended; torchrun's account of it would come on top.
    logging.disable(logging.ERROR)
    options = ["--nproc-per-node", str(devices), "--nnodes", str(machines), *_meeting(machines, rendezvous)]
    try:
        run.run(run.parse_args([*options, "-m", "mtl", *arguments]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if rank == 0 and failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise RunError(f"process 0 was ended by {name} from outside; go on with --resume") from None
        raise SystemExit(max(1, failure.exitcode)) from None
    except SignalException:
        raise SystemExit(130) from None


def _meeting(machines: int, rendezvous: str | None) -> list[str]:
    if machines == 1:
        return []
    if not rendezvous:
        raise ConfigError(f"--num-nodes: got {machines}; give each machine the same --rendezvous HOST:PORT, too")
    return ["--rdzv-backend", "c10d", "--rdzv-endpoint", rendezvous, "--rdzv-id", RUN_ID]
