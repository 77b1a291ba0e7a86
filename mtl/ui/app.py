"""Puts the tabs together. Nothing happens on import; `build_app` receives what it needs."""

import atexit
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.model_files import DEFAULT_CHECKPOINT
from mtl.place import Place
from mtl.training.jobs import JobManager
from mtl.ui import views
from mtl.ui.desk import Desks
from mtl.ui.endpoint import add_endpoint
from mtl.ui.gate import gate, user_of
from mtl.ui.labels import label
from mtl.ui.model_desk import ModelDesk
from mtl.ui.models import ModelShelf
from mtl.ui.tabs.about import build_about_tab
from mtl.ui.tabs.analyse.tab import build_analyse_tab
from mtl.ui.tabs.models.tab import Links, build_models_tab
from mtl.ui.tabs.train.tab import TrainTab, build_train_tab
from mtl.ui.watch import RunWatch, choose

TITLE = "Skin analysis"
HEAD = (
    f'<div class="mtl-head"><h1 data-t="Skin analysis">{TITLE}</h1>'
    '<span class="mtl-notice" data-t="Research use only. Not a diagnosis, not a medical device."></span></div>'
)


@dataclass(frozen=True)
class AppSettings:
    """Where the application finds and puts things."""

    data_root: Path
    runs_dir: Path
    checkpoint: Path
    examples_dir: Path
    temporary: Path | None = None  # for visitors' photos while their pages are open; unset: the computer's own folder
    place: Place = field(default_factory=Place)
    checkpoints_dir: Path = DEFAULT_CHECKPOINT.parent  # where what is pulled from the Hub lands


def make_shelf(settings: AppSettings) -> ModelShelf:
    """The models that the page and the REST routes share."""
    return ModelShelf(settings.checkpoint, settings.runs_dir, settings.checkpoints_dir)


def build_app(settings: AppSettings, shelf: ModelShelf) -> gr.Blocks:
    """The whole page; no model is loaded before it is asked for."""
    examples = sorted(settings.examples_dir.glob("*.jpg"))
    models_desk = ModelDesk(shelf, settings.place, settings.data_root, settings.checkpoints_dir, examples)
    jobs, watch = JobManager(settings.runs_dir), RunWatch(settings.runs_dir)
    all_desks = Desks(place=settings.temporary)
    atexit.register(all_desks.close)
    # Read by every component that is made; a folder of this server alone, so that no other's files are in it.
    os.environ["GRADIO_TEMP_DIR"] = str(all_desks.transfers)
    # What is uploaded is moved to a desk at once, and what is saved has been downloaded by then: the rest goes.
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 300), fill_width=True) as demo:
        gr.HTML(HEAD)
        # Outside the tabs: within one it would be read when that is opened, after the page has asked for it. A secret
        # of its own would change with each start of the server, and nothing in it is one.
        kept = gr.BrowserState(None, storage_key="mtl-settings", secret="mtl")
        with gr.Tabs() as tabs:
            with gr.Tab(label("Analyse"), id="analyse"):
                analyse = build_analyse_tab(demo, shelf, all_desks, settings.examples_dir, models_desk.line)
            with gr.Tab(label("Train"), id="train"):
                train = _gated_train_tab(demo, jobs, shelf, watch, settings, kept)
            with gr.Tab(label("Models"), id="models"):
                models = build_models_tab(demo, models_desk, Links(analyse.model, tabs))
            with gr.Tab(label("About"), id="about"):
                build_about_tab()

        def use(name: str) -> tuple[object, object]:
            run = choose(watch.look(), name).run
            return gr.update(choices=shelf.names(), value=run.name), gr.update(selected="analyse")

        def push(name: str, request: gr.Request, profile: gr.OAuthProfile | None) -> list[object]:
            run = choose(watch.look(), name).run
            return [*models.open_push(run.name, request, profile), gr.update(selected="models")]

        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        train.use.click(use, train.run, [analyse.model, tabs], **hidden)
        add_endpoint(shelf)
        train.push.click(push, train.run, [*models.opened, tabs], **hidden)
        demo.load(lambda: gr.update(choices=shelf.names()), None, analyse.model, **hidden)
    return demo


def _gated_train_tab(
    demo: gr.Blocks,
    jobs: JobManager,
    shelf: ModelShelf,
    watch: RunWatch,
    settings: AppSettings,
    kept: gr.BrowserState,
) -> TrainTab:
    """The Train tab; where not everybody may train, one that the others neither see nor get answers from."""
    why_not = settings.place.why_no_training
    if not why_not(None):
        return build_train_tab(demo, jobs, shelf, watch, settings.data_root, kept)

    def show(profile: gr.OAuthProfile | None) -> tuple[object, object]:
        reason = why_not(user_of(profile))
        words = f"{reason[:1].upper()}{reason[1:]}."
        notice = gr.update(value=views.empty("No training here", words), visible=bool(reason))
        return notice, gr.update(visible=not reason)

    closed, first = gr.HTML(visible=False), len(demo.fns)
    with gr.Column(visible=False) as training:
        train = build_train_tab(demo, jobs, shelf, watch, settings.data_root, kept)
    gate(demo, first, why_not)
    demo.load(show, None, [closed, training], api_visibility="private", show_progress="hidden")
    return train
