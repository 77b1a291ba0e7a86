"""How runs read: plain data in, HTML out. Everything that came from a file is escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mtl.errors import RunError
from mtl.photo import read_photo
from mtl.training.run import Run, RunStatus
from mtl.ui.curves import SCORES
from mtl.ui.views import empty
from mtl.ui.watch import Watched

STATE_WORDS = {
    "preparing": "Preparing",
    "training": "Training",
    "validating": "Validating",
    "saving": "Saving",
    "stopping": "Stopping",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
BANNERS = {"finished": "good", "stopped": "quiet", "failed": "error", "interrupted": "warning"}
BEST_LABELS = {"val_loss": "loss", **SCORES}
SHOWN_WARNINGS = 3
UNKNOWN = "–"
NO_RUN = empty("No run yet", "Choose photos and settings, then press Start. Progress and curves appear here.")


def step_heading(title: str, number: int | None = None) -> str:
    """Of a step of the Train tab, where it has a number."""
    return f'<h2 class="mtl-step">{f"<span>{number}</span>" if number else ""}{title}</h2>'


# ---- one run


def run_card(run: Run, status: RunStatus, log_tail: str = "") -> str:
    """Progress of a live run, or the outcome of one that has ended; then what was noticed.

    log_tail: what a failed run wrote last.
    """
    state = _progress(run, status) if status.live else _outcome(run, status, log_tail)
    return state + _notices("Noticed while training", status.notices) + _notices("The photos", status.warnings)


def _progress(run: Run, status: RunStatus) -> str:
    share = status.step / status.steps if status.steps else 0.0
    left = f"{duration(status.seconds_left)} left" if status.seconds_left is not None else ""
    fill = "fill" if status.steps else "fill busy"
    return (
        f'<div class="mtl-progress mtl-live {status.state}"><div class="line"><span><b>{STATE_WORDS[status.state]}</b> '
        f"{escape(_doing(status))}</span><span>{left}</span></div>"
        f'<div class="track" role="progressbar" aria-label="training" aria-valuenow="{100 * share:.0f}"'
        f' aria-valuemin="0" aria-valuemax="100"><div class="{fill}" style="width:{100 * share:.1f}%"></div></div>'
        f'{_facts(_pace(status))}<p class="mtl-quiet">{escape(run.name)}</p></div>'
    )


def _doing(status: RunStatus) -> str:
    """The epoch it is in, or what it does before the first one."""
    if status.state == "stopping":
        return status.message
    if not status.steps:
        first = {"preparing": "photos and network", "training": "the first steps"}
        return status.message or first.get(status.state, "")
    current = status.epoch + (status.state in ("training", "validating"))
    return f"epoch {min(max(current, 1), status.epochs)} of {status.epochs}"


def _pace(status: RunStatus) -> dict[str, str]:
    return {
        "step": f"{status.step:,} of {status.steps:,}" if status.steps else UNKNOWN,
        "photos a second": f"{status.images_per_second:.1f}" if status.images_per_second else UNKNOWN,
        "trained for": duration(status.train_seconds) if status.train_seconds else UNKNOWN,
        "best epoch": str(status.best_epoch or UNKNOWN),
        "memory": size(status.memory_bytes) if status.memory_bytes else UNKNOWN,
        "device": status.device or UNKNOWN,
    }


def _outcome(run: Run, status: RunStatus, log_tail: str) -> str:
    lines = [f"<p>{escape(text[0].upper() + text[1:])}</p>" for text in (status.message, _how_far(status)) if text]
    best = f"<h3>Best, epoch {status.best_epoch}</h3>{_facts(best_figures(status))}" if status.best_epoch else ""
    log = f"<details><summary>End of the log</summary><pre>{escape(log_tail)}</pre></details>" if log_tail else ""
    return (
        f'<div class="mtl-message {BANNERS[status.state]} mtl-ended" role="status">'
        f"<b>{STATE_WORDS[status.state]}: {escape(run.name)}</b>{''.join(lines)}{best}{_files(run)}{log}</div>"
    )


def _how_far(status: RunStatus) -> str:
    """ "12 of 50 epochs in 3 min", and that it needed no more."""
    if not status.epoch:
        return "No epoch was finished." if status.state != "failed" else ""
    early = ", ended early: no more improvement" if status.state == "finished" and status.epoch < status.epochs else ""
    return f"{status.epoch} of {status.epochs} epochs in {duration(status.train_seconds)}{early}."


def best_figures(status: RunStatus) -> dict[str, str]:
    """The figures of the best epoch that have one, by name."""
    return {label: f"{status.best[key]:.3f}" for key, label in BEST_LABELS.items() if key in status.best}


def _files(run: Run) -> str:
    """Where things are; the button copies the whole path."""
    files = {"weights": run.best_file, "folder": run.path}
    rows = "".join(
        f"<div><dt>{name}</dt><dd><code>{escape(str(path.relative_to(run.path.parent)))}</code>"
        f'<button type="button" class="mtl-copy" data-copy="{escape(str(path.resolve()))}"'
        f' aria-label="copy the path of the {name}">Copy path</button></dd></div>'
        for name, path in files.items()
        if path.exists()
    )
    return f'<dl class="mtl-files">{rows}</dl>'


def _facts(facts: Mapping[str, str]) -> str:
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="mtl-facts">{cells}</dl>'


def _notices(headline: str, lines: Sequence[str]) -> str:
    """The first few; nothing to unfold, since the card is drawn anew each second."""
    more = [f"and {len(lines) - SHOWN_WARNINGS} more, see the log"] if len(lines) > SHOWN_WARNINGS else []
    items = "".join(f"<li>{escape(line)}</li>" for line in [*lines[:SHOWN_WARNINGS], *more])
    return f'<div class="mtl-message warning"><b>{headline}</b><ul>{items}</ul></div>' if lines else ""


def log_card(text: str) -> str:
    return f'<div class="mtl-log"><pre>{escape(text) or "nothing yet"}</pre></div>'


# ---- sample predictions


def samples_card(picture: Path, epoch: int) -> str:
    """The picture of an epoch under the headings of its three columns. Raises PhotoError while it is being written."""
    stat = picture.stat()
    heads = "".join(f"<span>{head}</span>" for head in ("photo", "truth", "prediction"))
    return (
        f'<figure class="mtl-samples"><figcaption>{heads}</figcaption>'
        f'<img src="{_as_uri(picture, stat.st_mtime_ns)}" alt="validation photos, their lesions, and the lesions '
        f'predicted after epoch {epoch}"></figure>'
    )


@lru_cache(maxsize=32)
def _as_uri(picture: Path, mtime_ns: int) -> str:
    """In the page itself: no file of a run has an address, and no copies of it are made."""
    buffer = io.BytesIO()
    Image.fromarray(read_photo(picture)).save(buffer, "webp", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# ---- all runs


def runs_table(runs: Sequence[Watched], differing: Mapping[str, Mapping[str, Any]]) -> str:
    """All runs, each with a box to tick; differing: setting -> run's name -> value, where not all have the same."""
    if not runs:
        return empty("No runs yet", "What you train is listed here, to compare, take along or delete.")
    heads = ["", "Run", "Photos", *(label.capitalize() for label in BEST_LABELS.values())]
    heads += ["Duration", "Started", "Size", "Settings that differ"]
    header = "".join(f"<th>{head}</th>" for head in heads)
    rows = "".join(_row(watched, differing) for watched in runs)
    return f'<div class="mtl-scroll"><table class="mtl-table mtl-runs"><tr>{header}</tr>{rows}</table></div>'


def _row(watched: Watched, differing: Mapping[str, Mapping[str, Any]]) -> str:
    run, status = watched.run, watched.status
    name, figures = escape(run.name), best_figures(status)
    cells = [
        f'<input type="checkbox" value="{name}" aria-label="tick {name}">',
        f'<button type="button" data-show="{name}">{name}</button>'
        f'<span class="state {status.state}">{STATE_WORDS[status.state]}</span>',
        escape(_photos(run)),
        *(figures.get(label, UNKNOWN) for label in BEST_LABELS.values()),
        duration(run.duration) if run.duration else UNKNOWN,
        moment(status.started),
        size(run.size_bytes),
        escape(differing_words(run.name, differing)) or UNKNOWN,
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _photos(run: Run) -> str:
    """The name of the data folder."""
    try:
        return Path(run.config.data_dir).name
    except RunError:
        return UNKNOWN


def differing_words(name: str, differing: Mapping[str, Mapping[str, Any]]) -> str:
    """ "lr 0.01, epochs 3"."""
    return ", ".join(
        f"{setting} {values[name]}"
        for setting, values in differing.items()
        if name in values and setting != "data_dir"  # a column of its own
    )


def legend(colors: Mapping[str, str], left_out: int = 0) -> str:
    """Names of curves with their colours; left_out: how many more there would be."""
    items = "".join(
        f'<li><span style="background:{color}"></span>{escape(name)}</li>' for name, color in colors.items()
    )
    more = f"<li>{left_out} more are not drawn</li>" if left_out else ""
    return f'<ul class="mtl-legend">{items}{more}</ul>'


def delete_question(runs: Sequence[Run]) -> str:
    """Names what goes, and how large it is."""
    names = "".join(f"<li>{escape(run.name)}, {size(run.size_bytes)}</li>" for run in runs)
    count = "this run" if len(runs) == 1 else f"these {len(runs)} runs"
    return (
        f'<div class="mtl-message warning"><b>Delete {count} for good?</b>'
        f"<ul>{names}</ul>Weights, curves, samples and log go; photos stay.</div>"
    )


# ---- words


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes as "512 kB", "64 MB", "1.3 GB"."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def moment(iso: str) -> str:
    """A time element that the page turns into the reader's own time; UTC where it cannot."""
    try:
        time = datetime.fromisoformat(iso).astimezone(UTC)
    except ValueError:
        return UNKNOWN
    return f'<time datetime="{time.isoformat()}">{time:%Y-%m-%d %H:%M} UTC</time>'
