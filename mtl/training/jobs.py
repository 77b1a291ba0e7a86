"""Background runs: one at a time in this process, in a thread; what is shown of them comes from their folders."""

import logging
import threading
from pathlib import Path

from mtl.config import TrainConfig
from mtl.errors import MtlError, RunError
from mtl.training.fit import Job, open_job, run_job
from mtl.training.run import Run, list_runs

log = logging.getLogger(__name__)


class JobManager:
    """Starts and stops runs under one folder. Safe to call from any thread."""

    def __init__(self, runs_dir: Path):
        self.runs_dir = runs_dir
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, config: TrainConfig | None = None, resume: Run | None = None) -> Run:
        """Check the settings and the folder, then train in the background. Raises MtlError before anything starts."""
        with self._lock:
            if (running := self.live_run()) or self._is_busy():
                raise RunError(f"{running.name if running else 'a run'} is being trained; stop it, or wait for its end")
            job = open_job(config, resume.path if resume else None)
            self._thread = threading.Thread(target=self._train, args=(job,), name=f"train {job.run.name}", daemon=True)
            self._thread.start()
            return job.run

    @staticmethod
    def _train(job: Job) -> None:
        try:
            run_job(job)
        except MtlError:
            pass  # told in run.json
        # The edge of a thread: run_job has noted and logged the error in the run's folder.
        except Exception:
            log.error("%s failed, see its log.txt", job.run.name)

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def live_run(self) -> Run | None:
        """The run that is being trained now, by this or another process."""
        return next((run for run in list_runs(self.runs_dir) if run.status().live), None)

    def stop(self) -> None:
        """Ask the live run to stop at its next batch; nothing happens where there is none."""
        if run := self.live_run():
            run.request_stop()

    def wait(self, seconds: float | None = None) -> None:
        """Until the background run has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
