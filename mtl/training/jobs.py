"""Background runs: one at a time in this process, in a thread; what is shown of them comes from their folders."""

import gc
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.config import TrainConfig
from mtl.errors import MtlError, RunError
from mtl.training.run import Run, list_runs

# Loaded with the first run that is started: torch and Lightning take seconds, and what runs there are is asked before.
if TYPE_CHECKING:
    from mtl.training.fit import Job

log = logging.getLogger(__name__)

CLEAR_SECONDS = 30.0  # what a run that has told its end may take to free its memory


class JobManager:
    """Starts and stops runs under one folder. Safe to call from any thread."""

    def __init__(self, runs_dir: Path):
        self.runs_dir = runs_dir
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._run: Run | None = None  # the latest that was started here

    def start(self, config: TrainConfig | None = None, resume: Run | None = None) -> Run:
        """Check the settings and the folder, then train in the background.

        Raises MtlError before anything starts; where another run has this process or the device, it names that run.
        """
        from mtl.training.fit import open_job

        with self._lock:
            self._require_idle()
            # After a divergence, what diverged would diverge again.
            overrides = dict(resume.status().resume_with) if resume else None
            job = open_job(config, resume.path if resume else None, overrides)
            self._run = job.run
            self._thread = threading.Thread(target=_train, args=(job,), name=f"train {job.run.name}", daemon=True)
            self._thread.start()
            return job.run

    def _require_idle(self) -> None:
        if self._run is None:
            return
        if self._run.status().live:
            raise RunError(f"{self._run.name} is being trained; stop it, or wait for its end")
        self.wait(CLEAR_SECONDS)
        if self._thread is not None and self._thread.is_alive():
            raise RunError(f"{self._run.name} has ended but still holds its memory; try again in a minute")

    def live_run(self) -> Run | None:
        """The run that is being trained now, by this or another process."""
        ours = [self._run] if self._run else []
        return next((run for run in (*ours, *list_runs(self.runs_dir)) if run.status().live), None)

    def stop(self) -> None:
        """Ask the live run to stop at its next batch; nothing happens where there is none."""
        if run := self.live_run():
            run.request_stop()

    def wait(self, seconds: float | None = None) -> None:
        """Until the background run has ended, and its memory is free."""
        if self._thread is not None:
            self._thread.join(seconds)


def _train(job: "Job") -> None:
    import torch

    from mtl.training.fit import run_job

    try:
        run_job(job)
    except MtlError:
        pass  # told in run.json
    # The edge of a thread: run_job has noted and logged the error in the run's folder.
    except Exception:
        log.error("%s failed, see its log.txt", job.run.name)
    finally:
        # The trainer, the network and the optimizer know one another, so nothing else frees them soon.
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
