"""All photos as a table, and everything that can be saved: CSV, JSON, a zip, a report for one photo."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.analysis.names import safe_names
from mtl.analysis.table import table_columns, table_rows, write_csv, write_json
from mtl.errors import MtlError, PhotoError
from mtl.ui import desk as desks
from mtl.ui.answer_views import progress
from mtl.ui.desk import Desk, Desks
from mtl.ui.events import QUIET
from mtl.ui.labels import label
from mtl.ui.tabs.analyse.stage import desk_of

# The browser is given the link one moment after the event.
SAVE_JS = "() => setTimeout(() => document.querySelector('#mtl-saved-file').click(), 150)"

SAVE_STEP_S = 0.5  # between two looks at how far the zip is


@dataclass(frozen=True)
class Results:
    table: gr.Dataframe
    panel: gr.Column  # hidden while there is no answer
    file: gr.DownloadButton  # never seen: the other buttons fill and press it
    notice: gr.HTML
    buttons: dict[str, gr.Button]  # kind of file -> its button
    cancel: gr.Button  # of the zip, while it is made


def render_report_button() -> gr.Button:
    return gr.Button(label("Report of this photo (PDF)"), size="sm", scale=0, min_width=220, elem_id="mtl-report")


def render_results(report: gr.Button) -> Results:
    """Render the table with its buttons; `report` stands beside the answer."""
    with gr.Column(visible=False, elem_id="mtl-results") as panel:
        table = gr.Dataframe(
            label=label("All photos"),
            interactive=False,
            show_search="filter",
            max_height=420,
            wrap=True,
            elem_id="mtl-table",
        )
        with gr.Row():
            buttons = {
                "csv": gr.Button(label("Table (CSV)"), size="sm", elem_id="mtl-csv"),
                "json": gr.Button(label("Everything (JSON)"), size="sm", elem_id="mtl-json"),
                "zip": gr.Button(label("Masks, overlays and reports (zip)"), size="sm", elem_id="mtl-zip"),
            }
            cancel = gr.Button(label("Cancel"), size="sm", visible=False, elem_id="mtl-save-cancel")
        notice = gr.HTML("", elem_id="mtl-save-notice")
        file = gr.DownloadButton("saved file", visible="hidden", elem_id="mtl-saved-file")
    return Results(table, panel, file, notice, {**buttons, "pdf": report}, cancel)


def wire_results(results: Results, all_desks: Desks) -> None:
    cache = Path(results.file.GRADIO_CACHE)
    for kind, button in results.buttons.items():
        prepared = button.click(
            _preparer(kind, all_desks, cache),
            None,
            [results.file, results.notice, results.cancel],
            show_progress="hidden",
            api_visibility="private",
        )
        prepared.success(None, None, None, js=SAVE_JS)

    def cancel(request: gr.Request) -> None:
        desk_of(all_desks, request).stop_saving()

    results.cancel.click(cancel, None, None, **QUIET)


def table_value(desk: Desk) -> Any:
    """The table of all that has been answered."""
    outcomes = desk.outcomes()
    return {"headers": table_columns(outcomes, desk.words), "data": table_rows(outcomes, desk.words)}


def _preparer(kind: str, all_desks: Desks, cache: Path) -> Callable[[gr.Request], Iterator[tuple[Any, ...]]]:
    def prepare(request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """File, notice and Cancel, as the file is made."""
        desk = desk_of(all_desks, request)
        # Under gradio's own folder, which it empties; the name cannot be guessed.
        folder = cache / secrets.token_hex(16)
        folder.mkdir(mode=0o700, parents=True)
        handed_over = False
        try:
            for step in _WRITERS[kind](desk, folder):
                if isinstance(step, Path):
                    handed_over = True
                    yield str(step), "", gr.update(visible=False)
                else:
                    yield gr.skip(), progress(*step, None, desk.words), gr.update(visible=True)
        except MtlError as error:
            yield gr.skip(), "", gr.update(visible=False)
            # Not a value: nothing may be downloaded after it.
            raise gr.Error(desk.words.told(error), print_exception=False) from None
        finally:
            if not handed_over:
                shutil.rmtree(folder, ignore_errors=True)

    return prepare


Steps = Iterator[Path | tuple[int, int]]  # (photos done, in all), and at last the file


def _csv(desk: Desk, folder: Path) -> Steps:
    path = folder / f"{_batch_name()}.csv"
    path.write_text(write_csv(desk.outcomes()), encoding="utf-8", newline="")
    yield path


def _json(desk: Desk, folder: Path) -> Steps:
    path = folder / f"{_batch_name()}.json"
    path.write_text(write_json(desk.outcomes()), encoding="utf-8")
    yield path


def _zip(desk: Desk, folder: Path) -> Steps:
    from mtl.analysis.bundle import write_bundle

    path = folder / f"{_batch_name()}.zip"
    with desk.saving() as stopped, ThreadPoolExecutor(1) as thread:
        done = [0, 1]

        def note(photos: int, total: int) -> None:
            done[:] = photos, total
            if stopped():
                raise PhotoError(desk.words("the zip was cancelled; nothing was saved"))

        writing = thread.submit(write_bundle, path, desk.bundle(), desk.words, note)
        while not writing.done():
            yield done[0], done[1]
            wait([writing], SAVE_STEP_S)
        writing.result()
    yield path


def _pdf(desk: Desk, folder: Path) -> Steps:
    from mtl.analysis.overlay import draw_overlay
    from mtl.analysis.report import write_report

    photo = desk.photo(desk.selected)
    if photo is None or photo.record is None:
        raise PhotoError(desk.words("there is no answer for a report; choose a photo that has one"))
    image = desks.pixels(photo)
    overlay = draw_overlay(image, desks.mask(photo), photo.record.measures.lesions)
    path = folder / f"{safe_names([photo.name])[0]}.pdf"
    path.write_bytes(write_report(photo.record, image, overlay, desk.words))
    yield path


_WRITERS: dict[str, Callable[[Desk, Path], Steps]] = {"csv": _csv, "json": _json, "zip": _zip, "pdf": _pdf}


def _batch_name() -> str:
    return f"skin-analysis-{date.today():%Y-%m-%d}"
