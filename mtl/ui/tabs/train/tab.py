"""The Train tab: data, settings, the run as it stands on disk, and all runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.errors import ConfigError, MtlError
from mtl.training.jobs import JobManager
from mtl.ui import views
from mtl.ui.checks import DataChecks
from mtl.ui.choices import page_config, prepare_data, why_not
from mtl.ui.curves import CurveReader
from mtl.ui.events import QUIET
from mtl.ui.fields import to_settings
from mtl.ui.models import ModelShelf
from mtl.ui.run_views import step_heading
from mtl.ui.tabs.train.data import DataStep, build_data_step
from mtl.ui.tabs.train.run import LOOKING, RunStep, refresh, render_run_step, wire_run_step
from mtl.ui.tabs.train.runs import render_runs, wire_runs
from mtl.ui.tabs.train.settings import SettingsStep, build_settings_step
from mtl.ui.watch import LATEST, RunWatch


@dataclass(frozen=True)
class TrainTab:
    """What other parts of the page need of this tab."""

    use: gr.Button
    push: gr.Button
    run: gr.Dropdown


def build_train_tab(
    demo: gr.Blocks, jobs: JobManager, shelf: ModelShelf, watch: RunWatch, data_root: Path, kept: gr.BrowserState
) -> TrainTab:
    """Render the tab and wire it; every page shows the same, since all is read from the runs' folders.

    kept: what a browser keeps of the settings over a reload.
    """
    reader, checks = CurveReader(), DataChecks()
    with gr.Row(equal_height=False, elem_id="mtl-train"):
        with gr.Column(scale=4, min_width=320):
            gr.HTML(step_heading("Data", 1))
            data = build_data_step(demo, checks, data_root)
            gr.HTML(step_heading("Settings", 2))
            settings = build_settings_step(demo, data, shelf, data_root, jobs.runs_dir, kept)
        with gr.Column(scale=7, min_width=320, elem_id="mtl-follow"):
            run = render_run_step()
    gr.HTML(step_heading("Runs"))
    runs = render_runs(run.file, jobs.runs_dir)

    def start(name: str, *values: Any) -> Iterator[Any]:
        try:
            given = to_settings(list(settings.fields), values)
            config = page_config(data_root, name, jobs.runs_dir, shelf, given)
            for text in prepare_data(data_root, name):
                yield gr.skip(), gr.skip(), views.message("quiet", text)
            if reason := why_not(config, checks):
                raise ConfigError(reason)
            jobs.start(config)
        except MtlError as error:
            yield gr.update(value="Start"), gr.skip(), views.message("error", "Training cannot start", str(error))
            return
        watch.forget()
        yield gr.update(value="Start"), LATEST, ""

    _wire_start(start, data, settings, run, watch, reader)
    wire_run_step(demo, run, jobs, watch, reader)
    wire_runs(demo, runs, watch, reader, run.run)
    return TrainTab(run.use, run.push, run.run)


def _wire_start(
    start: Any, data: DataStep, settings: SettingsStep, step: RunStep, watch: RunWatch, reader: CurveReader
) -> None:
    """Start says at once that it was pressed, and shows the run as soon as there is one."""
    step.start.click(None, None, step.start, js="() => 'Starting…'", **QUIET)
    pressed = step.start.click(
        start, [data.folder, *settings.fields.values()], [step.start, step.run, step.notice], **QUIET
    )
    pressed.then(lambda *asked: refresh(watch, reader, *asked), step.asked, step.shown, **LOOKING)
    data.look_after(pressed)
    # What was said of other photos or settings goes.
    changes = [data.folder.change, *(field.change for field in settings.fields.values())]
    gr.on(changes, None, None, step.notice, js="() => ''", **QUIET)
