"""Step 1 of the Train tab: which photos, what is in them, and what would go wrong with them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.events import Dependency

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
from mtl.ui.events import QUIET
from mtl.ui.fields import with_chosen
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
    look_after: Callable[[Dependency], object]  # looks at the photos anew after an event that may have drawn them


@dataclass(frozen=True)
class _Following:
    """What shows how far a piece of work is, and cancels it."""

    progress: gr.HTML
    cancel: gr.Button
    timer: gr.Timer
    key: gr.State  # str, of the work

    @property
    def all(self) -> list[gr.components.Component]:
        return [self.progress, self.cancel, self.timer, self.key]


@dataclass(frozen=True)
class _Parts:
    folder: gr.Dropdown
    upload: gr.File
    unpacking: _Following
    report: gr.HTML
    checking: _Following
    check: gr.Button
    samples: gr.HTML
    others: gr.Button
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
        key = f"unpack {uuid4()}"  # the same zip may be uploaded twice, at the same place
        self.checks.begin(key, "Unpacking", lambda report: unpack_upload(Path(upload), self.data_root, report), "bytes")
        return key

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
    folders = Folders(checks, data_root)
    look_after = _wire_check(demo, parts, folders)
    _wire_upload(demo, parts, folders)
    _wire_samples(parts, folders)
    return DataStep(parts.folder, parts.report, parts.reading, parts.contents, checks, look_after)


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
    unpacking = _render_following("upload")
    report = gr.HTML(elem_id="mtl-data-card")
    checking = _render_following("check")
    check = gr.Button(CHECK, size="sm", visible=False, elem_id="mtl-check", min_width=120)
    samples = gr.HTML(elem_id="mtl-samples")
    others = gr.Button("Other photos", size="sm", visible=False, elem_id="mtl-others", min_width=120)
    states = gr.State({}), gr.State(""), gr.State(0)
    return _Parts(folder, upload, unpacking, report, checking, check, samples, others, *states)


def _wire_check(demo: gr.Blocks, parts: _Parts, folders: Folders) -> Callable[[Dependency], object]:
    """Returns what looks at the photos anew after an event."""
    chosen = [parts.folder, parts.reading]
    shown = [parts.report, parts.check, parts.contents, *parts.checking.all]

    def show(name: str, reading: Reading) -> list[Any]:
        look = folders.look(name, reading)
        is_running = look.work is not None and look.work.state == "running"
        check = gr.update(value=look.offer or CHECK, visible=bool(look.offer) and not is_running)
        return [look.card, check, look.contents, *_follow(look.key, look.work)]

    def begin(name: str, reading: Reading) -> list[Any]:
        with suppress(MtlError):  # the look says why
            folders.begin(name, reading)
        return show(name, reading)

    def poll(key: str, name: str, reading: Reading) -> list[Any]:
        work = folders.checks.get(key)
        if work is not None and work.state == "running":
            return [*[gr.skip()] * 3, *_follow_on(work)]
        return show(name, reading)

    demo.load(show, chosen, shown, **QUIET)
    gr.on([parts.folder.change, parts.reading.change], show, chosen, shown, trigger_mode="always_last", **QUIET)
    parts.check.click(begin, chosen, shown, **QUIET)
    parts.checking.timer.tick(poll, [parts.checking.key, *chosen], shown, **QUIET)
    _wire_cancel(parts.checking, folders)
    return lambda event: event.then(show, chosen, shown, **QUIET)


def _wire_upload(demo: gr.Blocks, parts: _Parts, folders: Folders) -> None:
    unpacking = parts.unpacking

    def upload(file: str) -> list[Any]:
        key = folders.unpack(file)
        return [None, *_follow(key, folders.checks.get(key))]

    def poll(key: str) -> list[Any]:
        work = folders.checks.get(key)
        if work is not None and work.state == "running":
            return [gr.skip(), *_follow_on(work)]
        if work is None or work.state != "done":
            return [gr.skip(), *_follow(key, work)]
        return [gr.update(choices=data_choices(folders.data_root), value=work.result), *_follow(key, work)]

    def choices(name: str) -> Any:
        return gr.update(choices=with_chosen(data_choices(folders.data_root), name))

    gr.on([demo.load, parts.folder.focus], choices, parts.folder, parts.folder, **QUIET)
    parts.upload.upload(upload, parts.upload, [parts.upload, *unpacking.all], **QUIET)
    unpacking.timer.tick(poll, unpacking.key, [parts.folder, *unpacking.all], **QUIET)
    _wire_cancel(unpacking, folders)


def _wire_samples(parts: _Parts, folders: Folders) -> None:
    chosen = [parts.folder, parts.reading, parts.contents]

    def first(name: str, reading: Reading, contents: str) -> tuple[str, Any, int]:
        return folders.samples(name, reading, contents, 0), gr.update(visible=bool(contents)), 0

    def others(name: str, reading: Reading, contents: str, draw: int) -> tuple[str, int]:
        return folders.samples(name, reading, contents, draw + 1), draw + 1

    parts.contents.change(first, chosen, [parts.samples, parts.others, parts.draw], **QUIET)
    parts.others.click(others, [*chosen, parts.draw], [parts.samples, parts.draw], **QUIET)


# ---- following work


def _render_following(name: str) -> _Following:
    progress = gr.HTML(elem_id=f"mtl-{name}-progress")
    cancel = gr.Button("Cancel", size="sm", visible=False, elem_id=f"mtl-{name}-cancel", min_width=120)
    return _Following(progress, cancel, gr.Timer(1, active=False), gr.State(""))


def _follow(key: str, work: Work | None) -> list[Any]:
    """Updates of a _Following: work that runs is followed from now on, what did not work out is said."""
    is_running = work is not None and work.state == "running"
    return [
        data_views.progress(work) if work and work.state != "done" else "",
        gr.update(value="Cancel", interactive=True, visible=is_running),
        gr.Timer(active=is_running),
        key,
    ]


def _follow_on(work: Work) -> list[Any]:
    """Updates of a _Following while its work runs."""
    return [data_views.progress(work), gr.skip(), gr.skip(), gr.skip()]


def _wire_cancel(following: _Following, folders: Folders) -> None:
    def cancel(key: str) -> Any:
        if work := folders.checks.get(key):
            work.cancel()
        return gr.update(value="Cancelling…", interactive=False)

    following.cancel.click(cancel, following.key, following.cancel, **QUIET)
