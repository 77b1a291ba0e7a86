"""The Analyse tab: photos in, answers out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mtl.errors import MtlError, PhotoError
from mtl.ui import views
from mtl.ui.models import ModelShelf
from mtl.ui.session import Entry, analyse_entry, shown_photo

GONE = views.message(
    "error", "This photo is gone", "It is no longer in the server's temporary folder, or cannot be read; add it again."
)
KEYS = (
    '<p class="mtl-quiet mtl-keys"><kbd>\u2190</kbd> <kbd>\u2192</kbd> other photos · <kbd>O</kbd> lesion on, off</p>'
)
START = views.empty(
    "Add a photo", "Drop photos above, or press an example. They go to the computer that runs this page, nowhere else."
)
NOTICE = "Research use only. Not a diagnosis, not a medical device."

# For each output of an analysis: stage, strip, photo, card, selected, entries, thumbnails.
UNCHANGED = tuple(gr.skip() for _ in range(7))


@dataclass(frozen=True)
class AnalyseTab:
    """What other parts of the page need of this tab."""

    model: gr.Dropdown


@dataclass(frozen=True)
class _Parts:
    model: gr.Dropdown
    upload: gr.File
    examples: gr.Gallery
    stage: gr.Column  # the photo and its tools; hidden while there is none
    strip: gr.Gallery
    photo: gr.Image
    overlay: gr.Checkbox
    clear: gr.Button
    card: gr.HTML
    entries: gr.State  # list[Entry], of this visitor
    thumbnails: gr.State  # list[np.ndarray], one for each entry
    selected: gr.State  # index of the entry that is shown


def build_analyse_tab(shelf: ModelShelf, examples_dir: Path) -> AnalyseTab:
    """Render the tab and wire it."""
    parts = _render(shelf, sorted(examples_dir.glob("*.jpg")))
    _wire(parts, shelf, examples_dir)
    return AnalyseTab(parts.model)


def _render(shelf: ModelShelf, examples: list[Path]) -> _Parts:
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            upload = gr.File(
                file_count="multiple", label="Photos", height=188, elem_id="mtl-upload", file_types=["image"]
            )
        with gr.Column(scale=5, min_width=300):
            gr.HTML('<div class="mtl-quiet">Or try a made photo</div>')
            gallery = gr.Gallery(
                [(str(path), path.stem.replace("-", " ")) for path in examples],
                show_label=False,
                columns=len(examples),
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="mtl-examples",
            )
            model = gr.Dropdown(
                shelf.names(), value=shelf.first, label="Model", elem_id="mtl-model", interactive=True, filterable=False
            )
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, visible=False) as stage:
            photo = gr.Image(
                show_label=False,
                format="png",
                height=520,
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="mtl-photo",
            )
            with gr.Row():
                overlay = gr.Checkbox(
                    True, label="Show the lesion", container=False, elem_id="mtl-overlay", min_width=140
                )
                clear = gr.Button("Remove all photos", size="sm", min_width=140, scale=0, elem_id="mtl-clear")
            strip = gr.Gallery(
                show_label=False,
                columns=8,
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="mtl-strip",
            )
            gr.HTML(KEYS)
        with gr.Column(scale=3, min_width=300):
            card = gr.HTML(START, elem_id="mtl-answer")
    return _Parts(
        model, upload, gallery, stage, strip, photo, overlay, clear, card, gr.State([]), gr.State([]), gr.State(0)
    )


def _wire(parts: _Parts, shelf: ModelShelf, examples_dir: Path) -> None:
    shown = [parts.photo, parts.card, parts.selected]
    answers = [parts.stage, parts.strip, *shown, parts.entries, parts.thumbnails]
    private: dict[str, Any] = {"api_visibility": "private"}

    def add_files(
        files: list[str] | None, model: str, overlay: bool, entries: list[Entry], thumbnails: list[np.ndarray]
    ) -> Iterator[Any]:
        yield from _add([Path(file) for file in files or []], shelf, model, overlay, entries, thumbnails)

    def add_example(
        event: gr.SelectData, model: str, overlay: bool, entries: list[Entry], thumbnails: list[np.ndarray]
    ) -> Iterator[Any]:
        path = sorted(examples_dir.glob("*.jpg"))[int(event.index)]
        yield from _add([path], shelf, model, overlay, entries, thumbnails)

    def add_again(model: str, overlay: bool, entries: list[Entry]) -> Iterator[Any]:
        if not entries:
            yield UNCHANGED
            return
        yield from _add([entry.path for entry in entries], shelf, model, overlay, [], [])

    def select(event: gr.SelectData, overlay: bool, entries: list[Entry]) -> Any:
        return _show(entries, int(event.index), overlay)

    def redraw(overlay: bool, entries: list[Entry], selected: int) -> Any:
        return _show(entries, selected, overlay)[:2]

    session = [parts.model, parts.overlay, parts.entries, parts.thumbnails]
    # One analysis at a time over all visitors: two at once would each take twice as long.
    queued = private | {"concurrency_id": "analysis", "concurrency_limit": 1, "show_progress_on": [parts.card]}
    uploaded = parts.upload.upload(add_files, [parts.upload, *session], answers, **queued)
    uploaded.then(lambda: None, None, parts.upload, **private)
    picked = parts.examples.select(add_example, session, answers, **queued)
    # Also where the Train tab chose the model.
    changed = parts.model.change(add_again, session[:3], answers, **queued)
    parts.strip.select(select, [parts.overlay, parts.entries], shown, show_progress="hidden", **private)
    parts.overlay.change(
        redraw, [parts.overlay, parts.entries, parts.selected], shown[:2], show_progress="hidden", **private
    )
    # First: an analysis that went on would bring the removed photos back.
    parts.clear.click(None, None, None, cancels=[uploaded, picked, changed])
    parts.clear.click(
        lambda: (gr.update(visible=False), [], None, START, 0, [], [], None),
        None,
        [*answers, parts.upload],
        show_progress="hidden",
        **private,
    )


def _add(
    paths: list[Path],
    shelf: ModelShelf,
    model_name: str,
    overlay: bool,
    entries: list[Entry],
    thumbnails: list[np.ndarray],
) -> Iterator[Any]:
    """Analyse photos one by one; each answer is on the page before the next photo is begun."""
    entries, thumbnails = list(entries), list(thumbnails)
    first = len(entries)
    try:
        model = shelf.get(model_name)
    except MtlError as error:
        problem = views.message("error", "This model cannot be used", str(error))
        yield *UNCHANGED[:3], problem, *UNCHANGED[4:]
        return
    for path in paths:
        entry, thumbnail = analyse_entry(path, model)
        entries.append(entry)
        thumbnails.append(thumbnail)
        captions = [views.caption(number, e) for number, e in enumerate(entries, start=1)]
        strip: dict[str, Any] = {"value": list(zip(thumbnails, captions, strict=True))}
        shown: tuple[Any, ...] = (gr.skip(), gr.skip(), gr.skip())
        if len(entries) == first + 1:
            # The first of the new photos is shown; what the visitor chooses meanwhile stays.
            strip["selected_index"] = first
            shown = _show(entries, first, overlay)
        yield gr.update(visible=True), gr.update(**strip), *shown, entries, thumbnails


def _show(entries: list[Entry], index: int, overlay: bool) -> tuple[Any, str, int]:
    """Photo, card and index of one entry."""
    if not 0 <= index < len(entries):
        return None, START, 0
    entry = entries[index]
    if entry.analysis is None:
        problem = views.message("error", "This photo cannot be analysed", entry.error)
        return None, problem, index
    try:
        pixels = shown_photo(entry, overlay=overlay)
    except PhotoError:
        return None, GONE, index
    photo = gr.update(value=pixels, alt_text=views.alt_text(index + 1, entry))
    return photo, views.answer_card(entry), index
