"""Step 1 of the Train tab: which photos, what is in them, and what would go wrong with them."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.config import TrainConfig
from mtl.errors import MtlError
from mtl.ui import data_views, views
from mtl.ui.checks import DataChecks, Work, folder_key
from mtl.ui.choices import (
    MADE_FOLDER,
    MADE_NUMBER,
    data_choices,
    draw_made_photos,
    is_to_be_drawn,
    read_choice,
    unpack_upload,
)
from mtl.ui.samples import SampleGrids

AUTO_CHECK_PHOTOS = 500  # so many are read in a few seconds, so nobody needs to ask for it
DRAW, CHECK = "Draw the photos", "Check the photos"
LAYOUT = (
    "A zip with `images/train` and `images/val` (or just `images`), and where you have them `masks/`, `labels.json` or "
    "`labels.csv`, `splits.json`, `classes.json`, `groups.csv`. It is unpacked on the computer that runs this page."
)

Reading = dict[str, Any]  # the settings that decide how the folder is read, as far as they differ from the defaults


@dataclass(frozen=True)
class DataStep:
    """What the other steps need of this one; `report` changes whenever what is known of the photos does."""

    folder: gr.Dropdown
    report: gr.HTML
    reading: gr.State  # Reading, set by the settings step
    contents: gr.State  # str, another one whenever the photos, their targets or generated masks change; "": none
    checks: DataChecks


@dataclass(frozen=True)
class _Parts:
    folder: gr.Dropdown
    upload: gr.File
    progress: gr.HTML
    report: gr.HTML
    check: gr.Button
    cancel: gr.Button
    samples: gr.HTML
    others: gr.Button
    timer: gr.Timer
    watched: gr.State  # str, the key of the work that this page follows
    reading: gr.State
    contents: gr.State
    draw: gr.State  # int, which of the sample grids is shown


@dataclass(frozen=True)
class Look:
    """What is to be shown of a choice."""

    card: str
    contents: str = ""
    offer: str = ""  # what the button does; "": nothing
    key: str = ""  # of the work to follow
    work: Work | None = None


class Folders:
    """What stands behind the step: the same for every page. No gradio here."""

    def __init__(self, checks: DataChecks, data_root: Path):
        self.checks, self.data_root = checks, data_root
        self._grids = SampleGrids()

    def look(self, name: str, reading: Reading) -> Look:
        """What is known of a choice now; a small folder is checked without being asked."""
        try:
            if is_to_be_drawn(self.data_root, name):
                card = views.quiet(f"{MADE_NUMBER} photos with labels and masks, drawn now or when you press Start")
                return Look(card, offer=DRAW, key=DRAW, work=self.checks.get(DRAW))
            folder = read_choice(self.data_root, name, reading)
        except MtlError as error:
            return Look(views.message("error", "This folder cannot be used", str(error)))
        key = folder_key(folder)
        work = self.checks.get(key)
        if work is None and len(folder.train) + len(folder.val) <= AUTO_CHECK_PHOTOS:
            work = self.checks.check(folder)
        report = work.result if work and work.state == "done" else None
        contents = " ".join([key, *(str(reading.get(name)) for name in ("generated_masks", "lesion_photos"))])
        return Look(data_views.data_card(folder, report), contents, "" if report else CHECK, key, work)

    def begin(self, name: str, reading: Reading) -> None:
        """Draw or check the photos of a choice in the background."""
        if is_to_be_drawn(self.data_root, name):
            self.checks.begin(DRAW, "Drawing made photos", lambda report: draw_made_photos(self.data_root, report))
        else:
            self.checks.check(read_choice(self.data_root, name, reading))

    def unpack(self, upload: str) -> str:
        """Unpack an uploaded zip in the background; the key of that work, whose result is the new choice."""
        self.checks.begin(
            upload, "Unpacking", lambda report: unpack_upload(Path(upload), self.data_root, report), "bytes"
        )
        return upload

    def samples(self, name: str, reading: Reading, contents: str, draw: int) -> str:
        """The grid of sample photos; empty where there are none to show."""
        if not contents:
            return ""
        try:
            folder = read_choice(self.data_root, name, reading)
            config = TrainConfig(data_dir=str(folder.path), **reading)
            return data_views.grid(self._grids.get(contents, folder, config, draw))
        except MtlError as error:
            return views.message("error", "No sample photos", str(error))


def build_data_step(demo: gr.Blocks, checks: DataChecks, data_root: Path) -> DataStep:
    """Render the step and wire it."""
    parts = _render(data_root)
    _wire(demo, parts, Folders(checks, data_root))
    return DataStep(parts.folder, parts.report, parts.reading, parts.contents, checks)


def _render(data_root: Path) -> _Parts:
    folder = gr.Dropdown(
        data_choices(data_root),
        value=MADE_FOLDER,
        label="Photos",
        elem_id="mtl-data",
        filterable=False,
        info=f"Folders in {data_root.resolve().name}, or photos made by this program",
    )
    with gr.Accordion("Upload a zip of photos", open=False):
        upload = gr.File(file_types=[".zip"], show_label=False, height=140, elem_id="mtl-data-upload")
        gr.Markdown(LAYOUT, elem_classes="mtl-hint")
    progress = gr.HTML(elem_id="mtl-data-progress")
    report = gr.HTML(elem_id="mtl-data-card")
    with gr.Row(elem_id="mtl-check-row"):
        check = gr.Button(CHECK, size="sm", visible=False, elem_id="mtl-check", min_width=120)
        cancel = gr.Button("Cancel", size="sm", visible=False, elem_id="mtl-check-cancel", min_width=120)
    samples = gr.HTML(elem_id="mtl-samples")
    others = gr.Button("Other photos", size="sm", visible=False, elem_id="mtl-others", min_width=120)
    timer = gr.Timer(1, active=False)
    states = gr.State(""), gr.State({}), gr.State(""), gr.State(0)
    return _Parts(folder, upload, progress, report, check, cancel, samples, others, timer, *states)


def _wire(demo: gr.Blocks, parts: _Parts, folders: Folders) -> None:
    quiet: dict[str, Any] = {
        "api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None,
    }  # fmt: skip
    chosen = [parts.folder, parts.reading]
    shown = [parts.report, parts.progress, parts.check, parts.cancel, parts.timer, parts.watched, parts.contents]

    def show(name: str, reading: Reading) -> list[Any]:
        return _updates(folders.look(name, reading))

    def begin(name: str, reading: Reading) -> list[Any]:
        with suppress(MtlError):  # the look says why
            folders.begin(name, reading)
        return show(name, reading)

    def poll(key: str, name: str, reading: Reading) -> list[Any]:
        work = folders.checks.get(key)
        if work is not None and work.state == "running":
            return [gr.skip(), data_views.progress(work), *[gr.skip()] * (len(shown) - 1)]
        updates = show(name, reading)
        if work is not None and work.state != "done":
            updates[1] = data_views.progress(work)
        if work is not None and work.unit == "bytes" and work.state == "done":
            return [*updates, gr.update(choices=data_choices(folders.data_root), value=work.result)]
        return [*updates, gr.skip()]

    def upload(file: str) -> list[Any]:
        work = folders.checks.get(key := folders.unpack(file))
        return [None, *_following(key, work)]

    def cancel(key: str) -> Any:
        if work := folders.checks.get(key):
            work.cancel()
        return gr.update(value="Cancelling…", interactive=False)

    def choices() -> Any:
        return gr.update(choices=data_choices(folders.data_root))

    def first_samples(name: str, reading: Reading, contents: str) -> tuple[str, Any, int]:
        return folders.samples(name, reading, contents, 0), gr.update(visible=bool(contents)), 0

    def other_samples(name: str, reading: Reading, contents: str, draw: int) -> tuple[str, int]:
        return folders.samples(name, reading, contents, draw + 1), draw + 1

    demo.load(choices, None, parts.folder, **quiet)
    demo.load(show, chosen, shown, **quiet)
    parts.folder.focus(choices, None, parts.folder, **quiet)
    gr.on([parts.folder.change, parts.reading.change], show, chosen, shown, trigger_mode="always_last", **quiet)
    parts.check.click(begin, chosen, shown, **quiet)
    parts.cancel.click(cancel, parts.watched, parts.cancel, **quiet)
    parts.timer.tick(poll, [parts.watched, *chosen], [*shown, parts.folder], **quiet)
    parts.upload.upload(
        upload, parts.upload, [parts.upload, parts.progress, parts.cancel, parts.timer, parts.watched], **quiet
    )
    shown_of = [*chosen, parts.contents]
    parts.contents.change(first_samples, shown_of, [parts.samples, parts.others, parts.draw], **quiet)
    parts.others.click(other_samples, [*shown_of, parts.draw], [parts.samples, parts.draw], **quiet)


def _updates(look: Look) -> list[Any]:
    """Report, progress, check, cancel, timer, watched, contents."""
    progress, cancel, timer, watched = _following(look.key, look.work)
    is_running = look.work is not None and look.work.state == "running"
    check = gr.update(value=look.offer or CHECK, visible=bool(look.offer) and not is_running)
    return [look.card, progress, check, cancel, timer, watched, look.contents]


def _following(key: str, work: Work | None) -> list[Any]:
    """Progress, cancel, timer, watched."""
    is_running = work is not None and work.state == "running"
    return [
        data_views.progress(work) if work and is_running else "",
        gr.update(value="Cancel", interactive=True, visible=is_running),
        gr.Timer(active=is_running),
        key,
    ]
