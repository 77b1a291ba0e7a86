"""Step 3 of the Train tab: start, stop, resume, and the run as it stands on disk. Every page shows the same."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from mtl.errors import MtlError, PhotoError
from mtl.training.jobs import JobManager
from mtl.training.run import Run
from mtl.ui import run_views, views
from mtl.ui.curves import PLOTS, SCORES, CurveReader, Plot, Version, Window, empty_frames
from mtl.ui.events import QUIET, in_turn
from mtl.ui.fields import with_chosen
from mtl.ui.live import Controls, View, make_view, sample_pictures
from mtl.ui.theme import CURVE_COLORS
from mtl.ui.watch import LATEST, RunWatch, choose

FOLDED_PLOTS = 2  # the last ones
LEGEND = "".join(
    [
        run_views.legend({label: CURVE_COLORS[label] for label in PLOTS[0].labels}),
        run_views.legend({label: CURVE_COLORS[label] for label in SCORES.values()}),
        '<p class="mtl-quiet">drag: zoom, double-click: back</p>',
    ]
)
COPY_JS = """
element.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  // Browsers offer no clipboard to pages that come neither from this computer nor over https.
  if (!navigator.clipboard) return prompt("The path", button.dataset.copy);
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy path"), 1500);
});
"""
# Presses the hidden download button once it has got its file.
SAVE_JS = "() => setTimeout(() => document.querySelector('#mtl-file').click(), 100)"


LOOKING = in_turn("run")
Pin = tuple[str, int]  # a run and one of its epochs


@dataclass(frozen=True)
class Zoom:
    """The epochs that a visitor has zoomed in on, and in which run."""

    run: str
    window: Window


@dataclass(frozen=True)
class Seen:
    """What a page shows, so that only what has changed is sent."""

    view: View | None = None
    before: View | None = None  # the view before; a part is sent where it differs from either, so twice
    version: Version | None = None  # of the curves; None: to be sent again
    zoom: Zoom | None = None
    filled: tuple[bool, ...] = (False,) * len(PLOTS)  # which plots have points
    sample: Pin | None = None


@dataclass(frozen=True)
class RunStep:
    """Components of step 3 that other parts of the page need."""

    run: gr.Dropdown
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    use: gr.Button
    push: gr.Button
    download: gr.Button
    file: gr.DownloadButton  # hidden: what was made for a download
    notice: gr.HTML
    card: gr.HTML
    details: gr.Column  # plots, samples and log; hidden while there is no run
    plots: list[gr.LinePlot]
    samples: gr.Column  # hidden while there are none
    epoch: gr.Slider
    picture: gr.HTML
    log: gr.HTML
    seen: gr.State  # Seen
    zoom: gr.State  # Zoom | None
    pin: gr.State  # Pin | None: the samples that the visitor went back to; None follows the newest

    @property
    def asked(self) -> list[Any]:
        """The inputs of `refresh`."""
        return [self.run, self.seen, self.zoom, self.pin]

    @property
    def shown(self) -> list[Any]:
        """The outputs of `refresh`, in its order."""
        buttons = [self.start, self.stop, self.resume, self.use, self.push, self.download]
        samples = [self.samples, self.epoch, self.picture]
        return [*buttons, self.card, self.details, self.log, *self.plots, *samples, self.seen]


# ---- components


def render_run_step() -> RunStep:
    with gr.Row(elem_id="mtl-run-head"):
        gr.HTML(run_views.step_heading("Run", 3))
        run = gr.Dropdown(
            [("Latest run", LATEST)], value=LATEST, container=False, filterable=False, label="Shown", elem_id="mtl-run"
        )
    with gr.Row():
        start = gr.Button("Start", variant="primary", size="md", elem_id="mtl-start", min_width=80)
        stop = gr.Button("Stop", size="md", elem_id="mtl-stop", interactive=False, min_width=80)
        resume = gr.Button("Resume", size="md", elem_id="mtl-resume", interactive=False, min_width=80)
        use = gr.Button("Use this model", size="md", elem_id="mtl-use", interactive=False, min_width=165)
        push = gr.Button("Push to the Hub", size="md", elem_id="mtl-push-run", interactive=False, min_width=165)
        download = gr.Button("Download", size="md", elem_id="mtl-download", interactive=False, min_width=90)
    file = gr.DownloadButton(visible="hidden", elem_id="mtl-file")
    notice = gr.HTML(elem_id="mtl-train-notice")
    card = gr.HTML(run_views.NO_RUN, elem_id="mtl-run-card", apply_default_css=False, js_on_load=COPY_JS)
    with gr.Column(visible=False) as details:
        plots = _render_plots()
        with gr.Column(visible=False, elem_id="mtl-run-samples") as samples:
            epoch = gr.Slider(
                1, 2, step=1, label="Sample predictions after epoch", elem_id="mtl-sample-epoch", buttons=[]
            )
            picture = gr.HTML(elem_id="mtl-sample-picture")
        with gr.Accordion("Log", open=False, elem_id="mtl-log"):
            log = gr.HTML()
    states = gr.State(Seen()), gr.State(None), gr.State(None)
    return RunStep(
        run,
        start,
        stop,
        resume,
        use,
        push,
        download,
        file,
        notice,
        card,
        details,
        plots,
        samples,
        epoch,
        picture,
        log,
        *states,
    )


def _render_plots() -> list[gr.LinePlot]:
    parts, shown = list(zip(PLOTS, empty_frames(), strict=True)), len(PLOTS) - FOLDED_PLOTS
    plots = []
    gr.HTML(LEGEND, elem_id="mtl-curves-legend")
    for first in range(0, shown, 2):
        with gr.Row():
            plots += [_render_plot(first + i, *part) for i, part in enumerate(parts[first : first + 2])]
    with gr.Accordion("Learning rate and gradients", open=False), gr.Row():
        plots += [_render_plot(shown + i, *part) for i, part in enumerate(parts[shown:])]
    return plots


def _render_plot(number: int, plot: Plot, frame: pd.DataFrame) -> gr.LinePlot:
    is_folded = number >= len(PLOTS) - FOLDED_PLOTS
    return gr.LinePlot(
        frame,
        x="epoch",
        y="value",
        color="curve",
        title=plot.title,
        x_title="epoch ",
        y_title=" ",
        x_axis_format="~f",
        y_axis_format=".2~g" if is_folded else ".4~g",
        color_title=" ",
        colors_in_legend=None if is_folded else [],
        height=200,
        min_width=260,
        buttons=["fullscreen"],
        color_map={label: CURVE_COLORS[label] for label in plot.labels},
        elem_id=f"mtl-plot-{number}",
    )


# ---- what is shown


def refresh(
    watch: RunWatch, reader: CurveReader, name: str, seen: Seen, zoom: Zoom | None, pin: Pin | None
) -> list[Any]:
    """Updates of what has changed on the page since `seen`."""
    run, view = make_view(watch.look(), name)
    zoom = zoom if run and zoom and zoom.run == run.name else None
    version, plots, filled = _curve_updates(reader, run, seen, zoom)
    sample, samples = _sample_updates(run, view.epochs, seen, pin)

    def is_new(part: Callable[[View], Any]) -> bool:
        return any(old is None or part(old) != part(view) for old in (seen.view, seen.before))

    return [
        *(_button_updates(view.controls) if is_new(lambda v: v.controls) else [gr.skip()] * 6),
        view.card if is_new(lambda v: v.card) else gr.skip(),
        gr.update(visible=run is not None) if is_new(lambda v: bool(v.log)) else gr.skip(),
        view.log if is_new(lambda v: v.log) else gr.skip(),
        *plots,
        *samples,
        Seen(view, seen.view, version, zoom, filled, sample),
    ]


def _button_updates(controls: Controls) -> list[Any]:
    return [
        gr.update(value="Start", interactive=controls.start),
        gr.update(value="Stopping…" if controls.stopping else "Stop", interactive=controls.stop),
        gr.update(value=controls.resume_word, interactive=controls.resume),
        *[gr.update(interactive=controls.use)] * 3,
    ]


def _curve_updates(
    reader: CurveReader, run: Run | None, seen: Seen, zoom: Zoom | None
) -> tuple[Version | None, list[Any], tuple[bool, ...]]:
    """The version that the plots show now, their updates, and which of them have points."""
    version = reader.version(run) if run else ("", 0, 0)
    if version == seen.version and zoom == seen.zoom:
        return version, [gr.skip()] * len(PLOTS), seen.filled
    frames = reader.frames(run, zoom.window if zoom else None) if run else empty_frames()
    filled = tuple(bool(frame["value"].notna().any()) for frame in frames)
    limits = {} if zoom == seen.zoom else {"x_lim": list(zoom.window) if zoom else [None, None]}
    updates = [_plot_update(frame, had, limits) for frame, had in zip(frames, seen.filled, strict=True)]
    # A plot misses what comes while it is being built, so it is sent once more; then also with its final title.
    is_rebuilt = filled != seen.filled or zoom != seen.zoom
    return (None if is_rebuilt else version), updates, filled


def _plot_update(frame: pd.DataFrame, has_points: bool, limits: dict[str, Any]) -> Any:
    # A plot lays out its legend and axes for what it shows when it is built, and builds itself anew when a title or
    # a limit changes: so its title changes once, after the first points have come.
    return gr.update(value=frame, x_title="epoch" if has_points else "epoch ", **limits)


def _sample_updates(
    run: Run | None, epochs: Sequence[int], seen: Seen, pin: Pin | None
) -> tuple[Pin | None, list[Any]]:
    """The sample that is shown now; updates of the samples' column, slider and picture."""
    if run is None or not epochs:
        return None, [gr.skip() if seen.sample is None else gr.update(visible=False), gr.skip(), gr.skip()]
    pinned = pin[1] if pin and pin[0] == run.name else epochs[-1]
    epoch = max((number for number in epochs if number <= pinned), default=epochs[0])
    limits: dict[str, Any] = {"minimum": epochs[0], "maximum": max(epochs[-1], epochs[0] + 1)}
    # Not the value where a visitor may still be dragging it.
    slider = gr.update(**limits) if pinned != epochs[-1] else gr.update(value=epoch, **limits)
    if seen.sample == (run.name, epoch):
        is_old = seen.view is not None and seen.view.epochs == epochs
        return seen.sample, [gr.skip(), gr.skip() if is_old else slider, gr.skip()]
    try:
        picture = run_views.samples_card(sample_pictures(run)[epoch], epoch)
    except (KeyError, OSError, PhotoError):  # it is being written, or has just been deleted
        return seen.sample, [gr.skip()] * 3
    return (run.name, epoch), [gr.update(visible=True), slider, picture]


# ---- events


def wire_run_step(demo: gr.Blocks, step: RunStep, jobs: JobManager, watch: RunWatch, reader: CurveReader) -> None:
    private: dict[str, Any] = {"api_visibility": "private"}

    def poll(name: str, seen: Seen, zoom: Zoom | None, pin: Pin | None) -> list[Any]:
        return refresh(watch, reader, name, seen, zoom, pin)

    def zoom_in(event: gr.SelectData, name: str, seen: Seen, _: Zoom | None, pin: Pin | None) -> list[Any]:
        run, _view = make_view(watch.look(), name)
        zoom = Zoom(run.name, (float(event.index[0]), float(event.index[1]))) if run else None
        return [zoom, *poll(name, seen, zoom, pin)]

    def zoom_out(name: str, seen: Seen, _: Zoom | None, pin: Pin | None) -> list[Any]:
        return [None, *poll(name, seen, None, pin)]

    def look_back(epoch: int, name: str, seen: Seen, zoom: Zoom | None, _: Pin | None) -> list[Any]:
        run, view = make_view(watch.look(), name)
        pin = (run.name, epoch) if run and view.epochs and epoch < view.epochs[-1] else None
        return [pin, *poll(name, seen, zoom, pin)]

    def stop(name: str) -> tuple[Any, str]:
        try:
            choose(watch.look(), name).run.request_stop()
        except MtlError as error:
            return gr.update(value="Stop"), views.message("error", "This run cannot be stopped", str(error))
        watch.forget()
        return gr.skip(), ""

    def resume(name: str) -> tuple[Any, str]:
        try:
            jobs.start(resume=choose(watch.look(), name).run)
        except MtlError as error:
            _, view = make_view(watch.look(), name)
            told = views.message("error", "This run cannot be resumed", str(error))
            return gr.update(value=view.controls.resume_word), told
        watch.forget()
        return gr.update(value="Resume"), ""

    def download(name: str) -> Iterator[Any]:
        try:
            run = choose(watch.look(), name).run
            with tempfile.TemporaryDirectory() as folder:
                yield shutil.copy(run.best_file, Path(folder) / f"{run.name}.pth")
        except (MtlError, OSError) as error:
            raise gr.Error(str(error)) from None

    def offer(name: str) -> Any:
        return gr.update(choices=run_choices(watch, name))

    gr.Timer(1).tick(poll, step.asked, step.shown, **LOOKING)
    demo.load(poll, step.asked, step.shown, **LOOKING)
    step.run.change(poll, step.asked, step.shown, **LOOKING)
    gr.on([demo.load, step.run.focus], offer, step.run, step.run, **QUIET)
    for button, word, handler in ((step.stop, "Stopping…", stop), (step.resume, "Resuming…", resume)):
        # Said at once; the next look at the run's folder says how it went.
        button.click(None, None, button, js=f"() => '{word}'", **private)
        pressed = button.click(handler, step.run, [button, step.notice], **QUIET)
        pressed.then(poll, step.asked, step.shown, **LOOKING)
    step.download.click(download, step.run, step.file, **private).success(None, None, None, js=SAVE_JS, **private)
    for plot in step.plots:
        plot.select(zoom_in, step.asked, [step.zoom, *step.shown], **LOOKING)
        plot.double_click(zoom_out, step.asked, [step.zoom, *step.shown], **LOOKING)
    step.epoch.input(
        look_back, [step.epoch, *step.asked], [step.pin, *step.shown], trigger_mode="always_last", **LOOKING
    )


def run_choices(watch: RunWatch, shown: str) -> list[tuple[str, str]]:
    """Label and value of what the choice of the shown run offers; `shown`: what is chosen now."""
    choices = [("Latest run", LATEST), *((watched.name, watched.name) for watched in watch.look())]
    return with_chosen(choices, shown)
