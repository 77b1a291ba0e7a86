"""The runs below the Train tab's steps: a table, several runs' curves in one plot, taking along and deleting."""

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.errors import MtlError
from mtl.training.run import differing_settings
from mtl.ui import run_views, views
from mtl.ui.curves import METRICS, SLOTS, CurveReader, Version
from mtl.ui.events import QUIET, in_turn
from mtl.ui.tabs.train.run import SAVE_JS, run_choices
from mtl.ui.theme import RUN_COLORS
from mtl.ui.watch import RunWatch, Watched

LOOKING = in_turn("runs")
RUNS_JS = Path(__file__).parents[2] / "runs.js"
Rows = tuple[tuple[str, str, int], ...]  # of each run its name, state and epochs


@dataclass(frozen=True)
class Seen:
    """What a page shows, so that only what has changed is sent."""

    rows: Rows | None = None
    compared: tuple[str, tuple[Version, ...]] = ("", ())  # the metric, and of what
    settled: bool = True  # else all is sent again: a plot misses what comes while it is being built, too


@dataclass(frozen=True)
class RunsPart:
    """The components of the table and what belongs to it."""

    table: gr.HTML
    download: gr.Button
    delete: gr.Button
    notice: gr.HTML
    confirm: gr.Column  # shown between Delete and its confirmation
    question: gr.HTML
    yes: gr.Button
    no: gr.Button
    compare: gr.Column  # shown where runs are ticked
    metric: gr.Dropdown
    legend: gr.HTML
    plot: gr.LinePlot
    file: gr.DownloadButton  # hidden: what was made for a download
    seen: gr.State  # Seen
    ticked: gr.State  # list[str]: names

    @property
    def asked(self) -> list[Any]:
        """The inputs of `refresh`."""
        return [self.seen, self.ticked, self.metric]

    @property
    def shown(self) -> list[Any]:
        """The outputs of `refresh`, in its order."""
        return [self.table, self.download, self.delete, self.compare, self.legend, self.plot, self.seen]


# ---- components


def render_runs(file: gr.DownloadButton, runs_dir: Path) -> RunsPart:
    script = RUNS_JS.read_text(encoding="utf-8")
    table = gr.HTML(run_views.runs_table([], {}), elem_id="mtl-runs", apply_default_css=False, js_on_load=script)
    with gr.Row(elem_id="mtl-runs-tools"):
        small: dict[str, Any] = {"interactive": False, "size": "md", "scale": 0}
        download = gr.Button("Download as zip", elem_id="mtl-runs-download", min_width=170, **small)
        delete = gr.Button("Delete", elem_id="mtl-runs-delete", min_width=100, **small)
    gr.HTML(
        '<p class="mtl-quiet">Tick runs to compare their curves. Also: '
        f"<code>tensorboard --logdir {escape(shlex.quote(str(runs_dir)))}</code></p>"
    )
    notice = gr.HTML(elem_id="mtl-runs-notice")
    with gr.Column(visible=False, elem_id="mtl-confirm") as confirm:
        question = gr.HTML()
        with gr.Row():
            kept: dict[str, Any] = {"size": "md", "scale": 0}
            yes = gr.Button("Delete for good", variant="stop", elem_id="mtl-confirm-yes", min_width=170, **kept)
            no = gr.Button("Keep", elem_id="mtl-confirm-no", min_width=100, **kept)
    with gr.Column(visible=False, elem_id="mtl-compare") as compare:
        metric = gr.Dropdown(list(METRICS), label="Compare", filterable=False, elem_id="mtl-compare-metric")
        legend = gr.HTML()
        plot = gr.LinePlot(
            None,
            x="epoch",
            y="value",
            color="curve",
            tooltip=["run"],
            x_title="epoch",
            y_title=" ",
            x_axis_format="~f",
            y_axis_format=".3~g",
            color_map=dict(zip(SLOTS, RUN_COLORS, strict=True)),
            colors_in_legend=[],
            height=300,
            buttons=["fullscreen"],
            elem_id="mtl-compare-plot",
        )
    states = gr.State(Seen()), gr.State([])
    return RunsPart(
        table, download, delete, notice, confirm, question, yes, no, compare, metric, legend, plot, file, *states
    )


# ---- what is shown


def refresh(watch: RunWatch, reader: CurveReader, seen: Seen, ticked: Sequence[str], metric: str) -> list[Any]:
    """Updates of what has changed on the page since `seen`."""
    runs = watch.look()
    rows = tuple((watched.name, watched.status.state, watched.status.epoch) for watched in runs)
    again = not seen.settled
    is_same_table = rows == seen.rows and not again
    table = gr.skip() if is_same_table else run_views.runs_table(runs, differing_settings(w.run for w in runs))
    chosen = [watched for watched in runs if watched.name in ticked]
    compared = metric, tuple(reader.version(watched.run) for watched in chosen[: len(SLOTS)])
    comparison = _comparison(reader, chosen, metric) if again or compared != seen.compared else [gr.skip()] * 3
    buttons = [gr.update(interactive=len(chosen) == 1), gr.update(interactive=bool(chosen))]
    return [table, *buttons, *comparison, Seen(rows, compared, settled=(rows, compared) == (seen.rows, seen.compared))]


def _comparison(reader: CurveReader, chosen: Sequence[Watched], metric: str) -> list[Any]:
    """Updates of the comparison, its legend and its plot."""
    if not chosen:
        return [gr.update(visible=False), gr.skip(), gr.skip()]
    runs = [watched.run for watched in chosen[: len(SLOTS)]]
    colors = dict(zip((run.name for run in runs), RUN_COLORS, strict=False))
    legend = run_views.legend(colors, len(chosen) - len(runs))
    return [gr.update(visible=True), legend, reader.compare(runs, metric)]


# ---- events


def wire_runs(demo: gr.Blocks, part: RunsPart, watch: RunWatch, reader: CurveReader, shown: gr.Dropdown) -> None:
    """shown: the choice of the run that step 3 shows."""
    private: dict[str, Any] = {"api_visibility": "private"}

    def look(seen: Seen, ticked: list[str], metric: str) -> list[Any]:
        return refresh(watch, reader, seen, ticked, metric)

    def tick(event: gr.EventData, seen: Seen, _: list[str], metric: str) -> list[Any]:
        ticked = [str(name) for name in event.names]
        return [ticked, *look(seen, ticked, metric)]

    def show(event: gr.EventData) -> Any:
        names = [watched.name for watched in watch.look()]
        return gr.update(choices=run_choices(watch, event.name), value=event.name) if event.name in names else gr.skip()

    def ask(ticked: list[str]) -> tuple[Any, str, str]:
        chosen = [watched for watched in watch.look() if watched.name in ticked]
        live = [watched.name for watched in chosen if watched.status.live]
        if live or not chosen:
            reason = f"{live[0]} is being trained; stop it first" if live else "Tick the runs to delete first"
            return gr.update(visible=False), "", views.message("error", "Nothing was deleted", reason)
        return gr.update(visible=True), run_views.delete_question([watched.run for watched in chosen]), ""

    def delete(ticked: list[str]) -> tuple[Any, str]:
        problem = ""
        for watched in [watched for watched in watch.look() if watched.name in ticked]:
            try:
                watched.run.delete()
            except MtlError as error:
                problem = views.message("error", "Not everything was deleted", str(error))
        watch.forget()
        return gr.update(visible=False), problem

    def download(ticked: list[str]) -> Iterator[Any]:
        run = next(watched.run for watched in watch.look() if watched.name in ticked)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{run.name}.zip"
            try:
                run.write_archive(path)
            except MtlError as error:
                raise gr.Error(str(error)) from None
            yield path

    gr.Timer(2).tick(look, part.asked, part.shown, **LOOKING)
    demo.load(look, part.asked, part.shown, **LOOKING)
    # Every tick counts.
    part.table.input(tick, part.asked, [part.ticked, *part.shown], trigger_mode="multiple", **LOOKING)
    part.table.select(show, None, shown, **QUIET)
    part.metric.change(look, part.asked, part.shown, **LOOKING)
    part.delete.click(ask, part.ticked, [part.confirm, part.question, part.notice], **QUIET)
    part.no.click(lambda: gr.update(visible=False), None, part.confirm, **QUIET)
    gone = part.yes.click(delete, part.ticked, [part.confirm, part.notice], **private)
    gone.then(look, part.asked, part.shown, **LOOKING)
    part.download.click(download, part.ticked, part.file, **private).success(None, None, None, js=SAVE_JS, **private)
