"""Two photos of one lesion side by side."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from mtl.errors import PhotoError
from mtl.ui import desk as desks
from mtl.ui.answer_views import comparison_card
from mtl.ui.desk import Desks
from mtl.ui.labels import label
from mtl.ui.tabs.analyse.stage import desk_of
from mtl.ui.views import message

SIDE_PX = 700


@dataclass(frozen=True)
class Pair:
    first: gr.Dropdown
    second: gr.Dropdown
    button: gr.Button
    card: gr.HTML

    @property
    def choices(self) -> list[gr.Dropdown]:
        return [self.first, self.second]


def render_pair() -> Pair:
    with gr.Accordion(label("Compare two photos of one lesion"), open=False, elem_id="mtl-pair"):
        with gr.Row():
            first = gr.Dropdown([], label=label("Earlier photo"), interactive=True, elem_id="mtl-pair-first")
            second = gr.Dropdown([], label=label("Later photo"), interactive=True, elem_id="mtl-pair-second")
            button = gr.Button(label("Compare"), scale=0, min_width=140, elem_id="mtl-pair-compare")
        card = gr.HTML("", elem_id="mtl-pair-card")
    return Pair(first, second, button, card)


def wire_pair(pair: Pair, all_desks: Desks) -> None:
    def show(first: int | None, second: int | None, request: gr.Request) -> Any:
        from mtl.analysis.compare import compare

        desk = desk_of(all_desks, request)
        t = desk.words
        photos = [desk.photo(number or 0) for number in (first, second)]
        earlier, later = photos
        if earlier is None or later is None or earlier.record is None or later.record is None or earlier is later:
            return message("quiet", t("Choose two photos that have an answer"))
        try:
            result = compare(earlier.record, later.record, desks.pixels(earlier), desks.pixels(later))
            pictures = [desks.drawn(photo, SIDE_PX) for photo in (earlier, later)]
        except PhotoError as error:
            return message("error", t("These photos cannot be compared"), t.told(error))
        return comparison_card(result, [(earlier.name, pictures[0]), (later.name, pictures[1])], t)

    pair.button.click(show, pair.choices, pair.card, api_visibility="private", show_progress_on=[pair.card])
