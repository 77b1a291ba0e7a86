"""What step 3 of the Train tab shows of a run at one moment, read from the runs' folders. No gradio here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import RunError
from mtl.training.run import Run, RunStatus
from mtl.ui import run_views
from mtl.ui.views import message
from mtl.ui.watch import Watched, choose

LOG_LINES = 40
FAILED_LOG_LINES = 12


@dataclass(frozen=True)
class Controls:
    """What can be pressed now; `stopping`: a stop was asked for already."""

    start: bool = True
    stop: bool = False
    stopping: bool = False
    resume: bool = False
    resume_word: str = "Resume"  # with what it is resumed, where that is to change
    use: bool = False


@dataclass(frozen=True)
class View:
    """Everything but the curves; equal where the page needs no update."""

    controls: Controls = Controls()
    card: str = run_views.NO_RUN
    log: str = ""
    epochs: tuple[int, ...] = ()  # those with a picture of sample predictions


def make_view(runs: Sequence[Watched], name: str) -> tuple[Run | None, View]:
    """The chosen run and how it stands; no run where there is none of this name."""
    is_live = any(watched.status.live for watched in runs)
    if not runs:
        return None, View()
    try:
        watched = choose(runs, name)
    except RunError as error:  # another page has deleted it
        return None, View(Controls(start=not is_live), message("quiet", "This run is gone", str(error)))
    run, status = watched.run, watched.status
    controls = Controls(
        start=not is_live,
        stop=status.live and status.state != "stopping",
        stopping=status.state == "stopping",
        resume=not is_live and status.state != "finished" and run.last_file.is_file(),
        resume_word=_resume_word(status),
        use=run.best_file.is_file(),
    )
    log = run.log_tail(LOG_LINES)
    last_words = "\n".join(log.splitlines()[-FAILED_LOG_LINES:]) if status.state == "failed" else ""
    card = run_views.run_card(run, status, last_words)
    return run, View(controls, card, run_views.log_card(log), tuple(sample_pictures(run)))


def _resume_word(status: RunStatus) -> str:
    changes = ", ".join(f"{setting} {value:g}" for setting, value in status.resume_with.items())
    return f"Resume with {changes}" if changes else "Resume"


def sample_pictures(run: Run) -> dict[int, Path]:
    """The pictures of sample predictions by epoch, in order."""
    named = (
        (re.fullmatch(r"epoch_(\d+)\.png", path.name), path) for path in (run.path / "samples").glob("epoch_*.png")
    )
    return dict(sorted((int(match[1]), path) for match, path in named if match))
