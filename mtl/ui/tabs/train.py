"""The Train tab: data, settings, and the run as it stands on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from mtl.config import SECTIONS, TrainConfig
from mtl.errors import MtlError, RunError
from mtl.training.jobs import JobManager
from mtl.training.run import Run, list_runs
from mtl.ui import views
from mtl.ui.choices import MADE_FOLDER, STARTS, data_choices, data_path, describe_data, prepare_data, settle
from mtl.ui.curves import CURVES, CurveReader, Version, empty_curves
from mtl.ui.fields import make_field, setting_names, to_settings
from mtl.ui.models import ModelShelf
from mtl.ui.theme import TRAIN_COLOR, VALIDATION_COLOR

NEWEST = "newest"
Seen = tuple[Version | None, tuple[bool, ...]]  # the version of the curves, and which plots have points
UNSEEN: Seen = (None, ())
NO_RUN = views.empty("No run yet", "Choose photos, then press Start. The curves appear here.")
# What these settings may be on a page that others may open: less than on the command line.
PAGE_INFO = {
    "labels": "another label file (JSON or CSV) in the data folder",
    "classes": "another class file (JSON) in the data folder, or names with commas; "
    "unset: classes.json, else the ten defaults",
    "init": "weights to start from: auto (imagenet if cached, else lite0), imagenet, lite0, none, or a model",
}
SCORE_COLORS = {"Dice": "#0e9aa7", "Jaccard": "#7b61c9", "balanced accuracy": "#e07a2f"}


@dataclass(frozen=True)
class TrainTab:
    """What other parts of the page need of this tab."""

    use: gr.Button
    run: gr.Dropdown


@dataclass(frozen=True)
class _Parts:
    data: gr.Dropdown
    data_card: gr.HTML
    fields: dict[str, gr.components.Component]
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    use: gr.Button
    notice: gr.HTML
    run: gr.Dropdown
    card: gr.HTML
    plots: list[gr.LinePlot]
    seen: gr.State  # Seen: what the plots show, so that they are sent only when they changed


def build_train_tab(demo: gr.Blocks, jobs: JobManager, shelf: ModelShelf, data_root: Path) -> TrainTab:
    """Render the tab and wire it; every page shows the same, since all is read from the runs' folders."""
    parts = _render(data_root)
    _wire(demo, parts, jobs, shelf, data_root)
    return TrainTab(parts.use, parts.run)


def _render(data_root: Path) -> _Parts:
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            data = gr.Dropdown(
                data_choices(data_root),
                value=MADE_FOLDER,
                label="Photos",
                elem_id="mtl-data",
                filterable=False,
                info=f"Folders in {data_root.resolve().name}, or photos made by this program",
            )
            data_card = gr.HTML(elem_id="mtl-data-card")
            fields = _render_fields()
        with gr.Column(scale=5, min_width=320):
            with gr.Row():
                start = gr.Button("Start", variant="primary", elem_id="mtl-start", min_width=90)
                stop = gr.Button("Stop", elem_id="mtl-stop", interactive=False, min_width=90)
                resume = gr.Button("Resume", elem_id="mtl-resume", interactive=False, min_width=90)
                use = gr.Button("Use this model", elem_id="mtl-use", interactive=False, min_width=130)
            notice = gr.HTML(elem_id="mtl-train-notice")
            run = gr.Dropdown([NEWEST], value=NEWEST, label="Run", elem_id="mtl-run", filterable=False)
            card = gr.HTML(NO_RUN, elem_id="mtl-run-card", min_height=96)
            plots = _render_plots()
    return _Parts(data, data_card, fields, start, stop, resume, use, notice, run, card, plots, gr.State(UNSEEN))


def _render_fields() -> dict[str, gr.components.Component]:
    fields: dict[str, gr.components.Component] = {}
    basic = setting_names("basic")
    for row in (basic[:2], basic[2:4], basic[4:]):
        with gr.Row():
            for name in row:
                fields[name] = make_field(name, min_width=120)
    for section in list(SECTIONS)[1:]:
        with gr.Accordion(SECTIONS[section], open=False):
            for name in setting_names(section):
                fields[name] = make_field(name, **({"info": PAGE_INFO[name]} if name in PAGE_INFO else {}))
    return fields


def _render_plots() -> list[gr.LinePlot]:
    plots: list[gr.LinePlot] = []
    colors = {"training": TRAIN_COLOR, "validation": VALIDATION_COLOR}
    empty = empty_curves()
    titles = [*CURVES, "Scores on validation photos"]
    for row in (titles[:2], titles[2:]):
        with gr.Row():
            for title in row:
                plots.append(
                    gr.LinePlot(
                        empty[len(plots)],
                        x="epoch",
                        y="value",
                        color="curve",
                        title=title,
                        x_title="epoch ",
                        y_title=" ",
                        y_axis_format=".3f",
                        color_title=" ",
                        height=230,
                        min_width=280,
                        buttons=["fullscreen"],
                        color_map=SCORE_COLORS if title == titles[-1] else colors,
                        elem_id=f"mtl-plot-{len(plots)}",
                    )
                )
    return plots


def _wire(demo: gr.Blocks, parts: _Parts, jobs: JobManager, shelf: ModelShelf, data_root: Path) -> None:
    names = list(parts.fields)
    private: dict[str, Any] = {"api_visibility": "private"}
    quiet = private | {"show_progress": "hidden", "concurrency_limit": None}

    def start(data: str, *values: Any) -> Iterator[Any]:
        try:
            yield from (_pressed(text) for text in prepare_data(data_root, data))
            folder = data_path(data_root, data)
            settings = settle(to_settings(names, values), folder, shelf)
            run = jobs.start(TrainConfig(data_dir=str(folder), output_dir=str(jobs.runs_dir), **settings))
            yield gr.skip(), NEWEST if is_newest(jobs, run) else run.name, ""
        except MtlError as error:
            yield gr.update(interactive=True), gr.skip(), views.message("error", "Training cannot start", str(error))

    def resume(name: str) -> Any:
        try:
            jobs.start(resume=chosen_run(list_runs(jobs.runs_dir), name))
        except MtlError as error:
            return views.message("error", "This run cannot be resumed", str(error))
        return ""

    def run_list() -> Any:
        return gr.update(choices=[NEWEST, *(run.name for run in list_runs(jobs.runs_dir))])

    def start_list() -> Any:
        return gr.update(choices=[*STARTS, *shelf.names()])

    reader = CurveReader()

    def poll(name: str, seen: Seen) -> list[Any]:
        return refresh(list_runs(jobs.runs_dir), name, reader, seen)

    shown = [parts.start, parts.stop, parts.resume, parts.use, parts.card, *parts.plots, parts.seen]
    pressed = [parts.start, parts.run, parts.notice]
    parts.start.click(start, [parts.data, *parts.fields.values()], pressed, show_progress_on=[parts.notice], **private)
    parts.stop.click(jobs.stop, None, None, **quiet)
    parts.resume.click(resume, parts.run, parts.notice, **private)
    parts.data.change(lambda name: describe_data(data_root, name), parts.data, parts.data_card, **quiet)
    parts.run.focus(run_list, None, parts.run, **quiet)
    parts.run.change(poll, [parts.run, parts.seen], shown, **quiet)
    gr.Timer(1).tick(poll, [parts.run, parts.seen], shown, **quiet)
    demo.load(poll, [parts.run, parts.seen], shown, **quiet)
    demo.load(run_list, None, parts.run, **quiet)
    start_field = parts.fields["init"]
    assert isinstance(start_field, gr.Dropdown)
    start_field.focus(start_list, None, start_field, **quiet)
    demo.load(start_list, None, start_field, **quiet)
    demo.load(lambda: gr.update(choices=data_choices(data_root)), None, parts.data, **quiet)
    demo.load(lambda name: describe_data(data_root, name), parts.data, parts.data_card, **quiet)


def _pressed(text: str) -> tuple[Any, Any, str]:
    return gr.update(interactive=False), gr.skip(), views.message("quiet", text)


# ---- the run


def chosen_run(runs: Sequence[Run], name: str) -> Run:
    """The run of a choice, of runs with the newest first."""
    run = next((run for run in runs if name in (NEWEST, run.name)), None)
    if run is None:
        raise RunError(f"{name}: there is no such run; press Start to begin one")
    return run


def is_newest(jobs: JobManager, run: Run) -> bool:
    return chosen_run(list_runs(jobs.runs_dir), NEWEST).name == run.name


def refresh(runs: Sequence[Run], name: str, reader: CurveReader, seen: Seen) -> list[Any]:
    """Buttons, card and plots for the chosen run; the plots only where they changed."""
    statuses = {run.name: run.status() for run in runs}
    is_live = any(status.live for status in statuses.values())
    start = gr.update(interactive=not is_live)
    try:
        run = chosen_run(runs, name)
    except RunError:
        off = gr.update(interactive=False)
        return [start, off, off, off, NO_RUN, *(_plot_update(frame, False) for frame in empty_curves()), UNSEEN]
    status = statuses[run.name]
    resumable = not is_live and status.state != "finished" and run.last_file.is_file()
    is_stopping = any(status.state == "stopping" for status in statuses.values())
    buttons = [
        start,
        gr.update(interactive=is_live and not is_stopping),
        gr.update(interactive=resumable),
        gr.update(interactive=run.best_file.is_file()),
    ]
    version, frames = reader.read(run)
    filled = tuple(bool(frame["value"].notna().any()) for frame in frames)
    shown = seen[1] or (False,) * len(frames)
    plots = [gr.skip()] * len(frames) if version == seen[0] else list(map(_plot_update, frames, shown))
    # Once more where points have just come, for the title.
    return [*buttons, views.run_card(run, status), *plots, (version if filled == shown else None, filled)]


def _plot_update(frame: pd.DataFrame, has_points: bool) -> Any:
    # A plot lays out its legend and axes for what it shows when it is built, and builds itself anew when a title
    # changes: so its title changes once, after the first points have come.
    return gr.update(value=frame, x_title="epoch" if has_points else "epoch ")
