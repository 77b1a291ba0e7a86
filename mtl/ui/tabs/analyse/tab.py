"""The Analyse tab: photos in, answers out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.analysis.predict import NAME_CONFIDENCE
from mtl.analysis.turned import VIEWS, Tta
from mtl.errors import MtlError
from mtl.ui import desk as desks
from mtl.ui.answer_views import progress
from mtl.ui.desk import Desk, Desks
from mtl.ui.events import QUIET
from mtl.ui.labels import label
from mtl.ui.models import ModelShelf
from mtl.ui.tabs.analyse.pair import Pair, render_pair, wire_pair
from mtl.ui.tabs.analyse.results import Results, render_report_button, render_results, table_value, wire_results
from mtl.ui.tabs.analyse.stage import Stage, apply_edit, card_of, desk_of, look, render_stage, strip_value, viewer_value
from mtl.ui.texts import Words, words_for
from mtl.ui.views import message

EXAMPLES_JS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", { index: Number(button.dataset.index) });
});"""
TIMES_JS = Path(__file__).parents[2].joinpath("times.js").read_text(encoding="utf-8")
ASK_JS = "() => window.mtl.sureToRemove()"
EXAMPLE_PX = 96
TABLE_EVERY_S = 2.0  # while photos are analysed: drawing it anew each time would be most of the work
AT_ONCE = 2  # visitors whose photos are analysed at a time; more would each wait longer


@dataclass(frozen=True)
class AnalyseTab:
    """What other parts of the page need of this tab."""

    model: gr.Dropdown


@dataclass(frozen=True)
class _Parts:
    model: gr.Dropdown
    model_line: gr.HTML  # what there is to know of the chosen model
    confidence: gr.Slider
    tta: gr.Dropdown
    upload: gr.File
    camera: gr.Image
    examples: gr.HTML
    progress: gr.HTML
    stop: gr.Button
    go_on: gr.Button
    clear: gr.Button
    sure: gr.Checkbox  # never seen: what a person answered to "remove all?"
    bar: gr.Row  # what can be done with the photos
    stage: Stage
    results: Results
    pair: Pair

    @property
    def shown(self) -> list[Any]:
        """What an analysis changes: see `_shown`."""
        return [*self.stage.parts, self.progress, self.stop, self.go_on, self.bar, self.results.panel]


def build_analyse_tab(
    demo: gr.Blocks, shelf: ModelShelf, all_desks: Desks, examples_dir: Path, describe: Callable[[str, Words], str]
) -> AnalyseTab:
    """Render the tab and wire it; describe: what is said of the model of that name."""
    examples = sorted(examples_dir.glob("*.jpg"))
    parts = _render(shelf, all_desks, examples)
    _wire_photos(demo, parts, shelf, all_desks, examples)
    _wire_choices(parts, all_desks)
    _wire_model_line(demo, parts, describe)
    wire_results(parts.results, all_desks)
    wire_pair(parts.pair, all_desks)
    return AnalyseTab(parts.model)


def _render(shelf: ModelShelf, all_desks: Desks, examples: list[Path]) -> _Parts:
    with gr.Row(equal_height=False, elem_id="mtl-intake"):
        with gr.Column(scale=3, min_width=300):
            upload = gr.File(file_count="multiple", label=label("Photos"), height=150, elem_id="mtl-upload")
            # Not within what folds: a part that is not on the page tells nobody that it was changed.
            model = gr.Dropdown(
                shelf.names(),
                value=shelf.first,
                label=label("Model"),
                elem_id="mtl-model",
                interactive=True,
                filterable=False,
                min_width=200,
            )
            model_line = gr.HTML("<p class='mtl-model-line'></p>", elem_id="mtl-model-line", js_on_load=TIMES_JS)
        with gr.Column(scale=5, min_width=300):
            example_list = gr.HTML(_example_buttons(examples), js_on_load=EXAMPLES_JS, elem_id="mtl-examples")
            with gr.Accordion(label("Camera and settings"), open=False, elem_id="mtl-more"):
                with gr.Row():
                    confidence = gr.Slider(
                        0.0,
                        1.0,
                        value=NAME_CONFIDENCE,
                        step=0.05,
                        label=label("Name a class from this probability on"),
                        elem_id="mtl-confidence",
                        min_width=200,
                    )
                    tta = _render_views()
                camera = gr.Image(
                    sources=["webcam"], type="filepath", label=label("Camera"), height=280, elem_id="mtl-camera"
                )
    with gr.Row(visible=False, elem_id="mtl-bar") as bar:
        with gr.Column(scale=1, min_width=200):
            progress_bar = gr.HTML("", elem_id="mtl-progress")
        stop = gr.Button(label("Stop"), size="sm", visible=False, scale=0, min_width=110, elem_id="mtl-stop-analysis")
        go_on = gr.Button(
            label("Analyse the rest"), size="sm", visible=False, scale=0, min_width=160, elem_id="mtl-go-on"
        )
        report = render_report_button()
        clear = gr.Button(label("Remove all photos"), size="sm", scale=0, min_width=160, elem_id="mtl-clear")
        sure = gr.Checkbox(visible=False)
    stage = render_stage(all_desks, shelf)
    results = render_results(report)
    with results.panel:
        pair = render_pair()
    return _Parts(
        model,
        model_line,
        confidence,
        tta,
        upload,
        camera,
        example_list,
        progress_bar,
        stop,
        go_on,
        clear,
        sure,
        bar,
        stage,
        results,
        pair,
    )


def _render_views() -> gr.Dropdown:
    # Their number is the choice: the choices of a list are not looked up in the visitor's language.
    return gr.Dropdown(
        [(str(len(views)), kind) for kind, views in VIEWS.items()],
        value="off",
        label=label("Views of each photo, averaged (8 take 8 times as long)"),
        elem_id="mtl-views",
        interactive=True,
        filterable=False,
        min_width=200,
    )


def _example_buttons(examples: list[Path]) -> str:
    """The made photos as small pictures to press; they are part of the page, so no copies of them lie anywhere."""
    buttons = "".join(
        f'<button type="button" data-index="{index}" data-label="{escape(_title(path))}">'
        f'<img alt="" src="{desks.thumbnail_of(path, EXAMPLE_PX)}"></button>'
        for index, path in enumerate(examples)
    )
    return f'<p class="mtl-quiet" data-t="Or try a made photo"></p><div class="mtl-examples">{buttons}</div>'


def _title(path: Path) -> str:
    return path.stem.replace("-", " ")


# ---- photos come and go


def _wire_photos(demo: gr.Blocks, parts: _Parts, shelf: ModelShelf, all_desks: Desks, examples: list[Path]) -> None:
    # Of all visitors' photos a few at a time; what is only looked at never waits for them.
    queued = QUIET | {"concurrency_id": "analysis", "concurrency_limit": AT_ONCE}

    def take_files(files: list[str] | None, request: gr.Request) -> tuple[Any, ...]:
        return None, *_take(desk_of(all_desks, request), [Path(file) for file in files or []])

    def take_picture(file: str | None, request: gr.Request) -> tuple[Any, ...]:
        return None, *_take(desk_of(all_desks, request), [Path(file)] if file else [])

    def take_example(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        place = min(max(int(event.index), 0), len(examples) - 1)
        return _take(desk_of(all_desks, request), [examples[place]])

    def wait_again(request: gr.Request) -> tuple[Any, ...]:
        desk = desk_of(all_desks, request)
        desk.forget_answers()
        return *_shown(desk), *_answers(desk), ""

    def work(model: str, tta: Tta, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        desk = desk_of(all_desks, request)
        if desk.waiting:
            yield from _work(desk, shelf, model, tta)

    def stop(request: gr.Request) -> tuple[Any, ...]:
        desk = desk_of(all_desks, request)
        desk.stop()
        return gr.update(visible=False), gr.update(visible=desk.waiting > 0)

    def clear(sure: bool, request: gr.Request) -> tuple[Any, ...]:
        desk = desk_of(all_desks, request)
        if not sure:
            return *_shown(desk), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        desk.clear()
        # What was compared goes too: the next photos may be another person's.
        return *_shown(desk), *_answers(desk), ""

    shown, answers = parts.shown, [*parts.shown, parts.results.table, *parts.pair.choices]
    for event in (
        parts.upload.upload(take_files, parts.upload, [parts.upload, *shown], **QUIET),
        parts.camera.input(take_picture, parts.camera, [parts.camera, *shown], **QUIET),
        parts.examples.select(take_example, None, shown, **QUIET),
        # Also where the Train tab chose the model.
        parts.model.change(wait_again, None, [*answers, parts.pair.card], **QUIET),
        parts.tta.change(wait_again, None, [*answers, parts.pair.card], **QUIET),
        parts.go_on.click(lambda: gr.update(visible=False), None, parts.go_on, **QUIET),
    ):
        event.success(work, [parts.model, parts.tta], answers, **queued)
    parts.stop.click(stop, None, [parts.stop, parts.go_on], **QUIET)
    parts.clear.click(clear, parts.sure, [*answers, parts.pair.card], js=ASK_JS, **QUIET)
    demo.load(_opener(all_desks), None, shown, **QUIET)
    demo.unload(_leaver(all_desks))


def _opener(all_desks: Desks) -> Callable[[gr.Request], tuple[Any, ...]]:
    def open_desk(request: gr.Request) -> tuple[Any, ...]:
        return _shown(desk_of(all_desks, request))

    return open_desk


def _leaver(all_desks: Desks) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        all_desks.leave(str(request.session_hash))

    return leave


def _take(desk: Desk, files: list[Path]) -> tuple[Any, ...]:
    """Put files onto the desk; the first of them is shown, and its answer comes first."""
    try:
        desk.take(files)
    except MtlError as error:
        gr.Warning(desk.words.told(error))
    else:
        desk.selected = len(desk.photos) - len(files) + 1 if files else desk.selected
    return _shown(desk)


def _work(desk: Desk, shelf: ModelShelf, model_name: str, tta: Tta) -> Iterator[tuple[Any, ...]]:
    """Analyse what waits; each answer is on the page before the next photo is begun."""
    try:
        model = shelf.get(model_name)
    except MtlError as error:
        problem = message("error", desk.words("This model cannot be used"), desk.words.told(error))
        yield *_shown(desk)[:2], problem, *_shown(desk)[3:], gr.skip(), gr.skip(), gr.skip()
        return
    start, drawn_at = time.monotonic(), 0.0
    table = _answers(desk)
    yield *_shown(desk), *table
    for done, number in enumerate(desk.analyse_waiting(model, model_name, tta), start=1):
        now = time.monotonic()
        if now - drawn_at > TABLE_EVERY_S:
            drawn_at, table = now, _answers(desk)
        shown = _shown(desk, (now - start) / done * desk.waiting)
        if number != desk.selected:
            shown = (shown[0], gr.skip(), gr.skip(), *shown[3:])
        yield *shown, *table
    # All of it once more: on a slow machine the photo and its answer were seen to be missing beside the list.
    yield *_shown(desk), *_answers(desk)


def _told(desk: Desk, seconds_left: float | None) -> str:
    total = len(desk.photos)
    return progress(total - desk.waiting, total, seconds_left, desk.words)


def _shown(desk: Desk, seconds_left: float | None = None) -> tuple[Any, ...]:
    """For each of `_Parts.shown`."""
    working = desk.working and desk.waiting > 0
    return (
        *look(desk),
        _told(desk, seconds_left) if working else "",
        gr.update(visible=working),
        gr.update(visible=not working and 0 < desk.waiting < len(desk.photos)),
        gr.update(visible=bool(desk.photos)),
        gr.update(visible=bool(desk.outcomes())),
    )


def _answers(desk: Desk) -> tuple[Any, ...]:
    """The table, and the two choices of the comparison."""
    choices = [(f"{n} {p.name}", n) for n, p in enumerate(desk.photos, start=1) if p.record]
    update = gr.update(choices=choices) if choices else gr.update(choices=[], value=None)
    return table_value(desk), update, update


def _wire_model_line(demo: gr.Blocks, parts: _Parts, describe: Callable[[str, Words], str]) -> None:
    def look(model: str, request: gr.Request) -> str:
        return describe(model, words_for(request.headers.get("accept-language")))

    gr.on(
        [demo.load, parts.model.change],
        look,
        parts.model,
        parts.model_line,
        **QUIET,
    )


# ---- what a person chooses and draws


def _wire_choices(parts: _Parts, all_desks: Desks) -> None:

    def select(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        desk = desk_of(all_desks, request)
        desk.selected = int(event.number)
        return look(desk)

    def edit(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        desk = desk_of(all_desks, request)
        photo = desk.photo(int(event.number))
        try:
            with desk.editing:
                if photo is not None and photo.record is not None:
                    apply_edit(photo, event._data)
        except MtlError as error:
            gr.Warning(desk.words.told(error))
        return strip_value(desk), viewer_value(desk), card_of(desk), table_value(desk)

    def choose_confidence(confidence: float, request: gr.Request) -> tuple[Any, ...]:
        desk = desk_of(all_desks, request)
        desk.set_name_confidence(confidence)
        return *look(desk), table_value(desk)

    answers = [*parts.stage.parts, parts.results.table]
    # The last of what comes while an answer is under way is not dropped: a stroke carries those before it.
    free = QUIET | {"trigger_mode": "always_last"}
    parts.stage.strip.select(select, None, parts.stage.parts, **free)
    parts.stage.viewer.edit(edit, None, answers, **free)
    parts.confidence.change(choose_confidence, parts.confidence, answers, **free)
