"""Puts the tabs together. Nothing happens on import; `build_app` receives what it needs."""

import atexit
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.training.jobs import JobManager
from mtl.ui.desk import Desks
from mtl.ui.labels import label
from mtl.ui.models import ModelShelf
from mtl.ui.tabs.about import build_about_tab
from mtl.ui.tabs.analyse.tab import build_analyse_tab
from mtl.ui.tabs.train.tab import build_train_tab
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


def build_app(settings: AppSettings) -> gr.Blocks:
    """The whole page; no model is loaded before it is asked for."""
    shelf = ModelShelf(settings.checkpoint, settings.runs_dir)
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
                analyse = build_analyse_tab(demo, shelf, all_desks, settings.examples_dir)
            with gr.Tab(label("Train"), id="train"):
                train = build_train_tab(demo, jobs, shelf, watch, settings.data_root, kept)
            with gr.Tab(label("About"), id="about"):
                build_about_tab()

        def use(name: str) -> tuple[object, object]:
            run = choose(watch.look(), name).run
            return gr.update(choices=shelf.names(), value=run.name), gr.update(selected="analyse")

        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        train.use.click(use, train.run, [analyse.model, tabs], **hidden)
        demo.load(lambda: gr.update(choices=shelf.names()), None, analyse.model, **hidden)
    return demo
