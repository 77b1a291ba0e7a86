"""Step 2 of the Train tab: the settings, what is suggested for the photos, and the command line that is the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from mtl.command import command_line, read_settings, settings_text
from mtl.config import SECTIONS, TrainConfig
from mtl.device import choose_device
from mtl.errors import MtlError
from mtl.training.suggest import Suggestion, suggest
from mtl.ui import views
from mtl.ui.choices import (
    MASK_SOURCES,
    READING,
    STARTS,
    data_choices,
    is_to_be_drawn,
    page_config,
    read_choice,
    why_not,
)
from mtl.ui.events import QUIET
from mtl.ui.fields import ELSEWHERE, SettingField, label_of, make_field, setting_names, to_settings, to_values
from mtl.ui.models import ModelShelf
from mtl.ui.tabs.train.data import DataStep, Reading

# What these settings may be on a page that others may open: less than on the command line.
PAGE_INFO = {
    "labels": "another label file (JSON or CSV) in the data folder",
    "classes": "another class file (JSON) in the data folder, or names with commas; "
    "unset: classes.json, else the ten defaults",
    "init": "weights to start from: auto (imagenet if cached, else lite0), imagenet, lite0, none, or a model",
    "generated_masks": "masks for lesion photos that have none, kept in the run's folder: off; otsu (by their "
    "contrast); or by a model",
}
DEFAULTS = TrainConfig()
# gradio fills in fields that were never unfolded a moment after the others.
SETTLE_JS = "() => new Promise(settled => setTimeout(settled, 300))"
# Without a file on the server.
SAVE_JS = """(text) => {
    if (!text) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    link.download = "settings.json";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


@dataclass(frozen=True)
class SettingsStep:
    """What the other steps need of this one: the field of each setting, by its name."""

    fields: dict[str, SettingField]


@dataclass(frozen=True)
class _Parts:
    fields: dict[str, SettingField]
    suggestions: gr.Accordion
    ticked: gr.CheckboxGroup
    offered: gr.State  # list[Suggestion]
    use: gr.Button
    save: gr.Button
    saved: gr.Textbox  # what the browser saves as a file
    load: gr.UploadButton
    reset: gr.Button
    file_notice: gr.HTML
    command: gr.Textbox
    notice: gr.HTML


def build_settings_step(
    demo: gr.Blocks, data: DataStep, shelf: ModelShelf, data_root: Path, runs_dir: Path, kept: gr.BrowserState
) -> SettingsStep:
    """Render the step and wire it. kept: what a browser keeps of it over a reload."""
    parts = _render()
    filled = [_wire_suggestions(parts, data, data_root), *_wire_file(parts)]
    filled.append(_wire_memory(demo, parts, data, filled, data_root, kept))
    _wire_judgement(parts, filled, data, shelf, data_root, runs_dir)
    _wire_models(demo, parts, shelf)
    return SettingsStep(parts.fields)


# ---- handlers


def reading_of(config: TrainConfig) -> Reading:
    """The settings that decide how the folder is read, as far as they differ from the defaults."""
    return {name: getattr(config, name) for name in READING if getattr(config, name) != getattr(DEFAULTS, name)}


def refusal_card(reason: str | None) -> str:
    return views.message("warning", "Start would be refused", reason) if reason else ""


def find_suggestions(data_root: Path, name: str, reading: Reading, device: str | None) -> list[Suggestion]:
    """What suits the chosen photos; nothing where they or the device cannot be used, which is said elsewhere."""
    try:
        return suggest(read_choice(data_root, name, reading), choose_device(device or "auto"))
    except MtlError:
        return []


def suggestion_words(suggestion: Suggestion) -> str:
    """ "Freeze backbone: on, since ..."."""
    value = {True: "on", False: "off"}[suggestion.value] if isinstance(suggestion.value, bool) else suggestion.value
    return f"{label_of(suggestion.setting)} {value}: {suggestion.reason}"


# ---- render


def _render() -> _Parts:
    with gr.Accordion("Suggestions", open=False, visible=False, elem_id="mtl-suggestions") as suggestions:
        ticked = gr.CheckboxGroup(label="Suggestions", show_label=False, container=False, elem_id="mtl-suggested")
        use = gr.Button("Use the ticked ones", size="sm", elem_id="mtl-use-suggested")
    fields: dict[str, SettingField] = {}
    for section in SECTIONS:
        fields |= _render_section(section)
    with gr.Row():
        save = gr.Button("Save settings", size="sm", elem_id="mtl-save", min_width=120)
        load = gr.UploadButton("Load settings", size="sm", file_types=[".json"], elem_id="mtl-load", min_width=120)
        reset = gr.Button("Reset", size="sm", elem_id="mtl-reset", min_width=120)
    saved, file_notice = gr.Textbox(visible="hidden"), gr.HTML(elem_id="mtl-file-notice")
    with gr.Accordion("The same on the command line", open=False):
        command = gr.Textbox(
            label="Command",
            buttons=["copy"],
            interactive=False,
            lines=2,
            max_lines=8,
            elem_id="mtl-command",
        )
    notice = gr.HTML(elem_id="mtl-settings-notice")
    return _Parts(
        fields, suggestions, ticked, gr.State([]), use, save, saved, load, reset, file_notice, command, notice
    )


def _render_section(section: str) -> dict[str, SettingField]:
    """The basic settings stand open, all others are folded."""
    names = setting_names(section)
    if section == "basic":
        with gr.Row(elem_classes="mtl-fields"):
            return {name: make_field(name, min_width=150) for name in names}
    with gr.Accordion(SECTIONS[section], open=False), gr.Row(elem_classes="mtl-fields"):
        page_info = {name: {"info": PAGE_INFO[name]} if name in PAGE_INFO else {} for name in names}
        return {name: make_field(name, min_width=240, **page_info[name]) for name in names}


# ---- wiring


def _wire_judgement(
    parts: _Parts, filled: Sequence[Dependency], data: DataStep, shelf: ModelShelf, data_root: Path, runs_dir: Path
) -> None:
    """The command and the notice follow every change of a field or of what is known of the photos.

    filled: the events that fill in fields, since fields that were never unfolded tell of no change.
    """
    names = list(parts.fields)

    def say(name: str, *values: Any) -> Iterator[tuple[str, Any, Any]]:
        try:
            config = page_config(data_root, name, runs_dir, shelf, to_settings(names, values))
            # At once; what the photos say against it takes longer, with many of them.
            yield command_line(config), gr.skip(), reading_of(config)
            reason = None if is_to_be_drawn(data_root, name) else why_not(config, data.checks)
            yield gr.skip(), refusal_card(reason), gr.skip()
        except MtlError as error:
            yield "", refusal_card(str(error)), gr.skip()

    changes = [field.change for field in parts.fields.values()]
    given, said = [data.folder, *parts.fields.values()], [parts.command, parts.notice, data.reading]
    gr.on([*changes, data.report.change], say, given, said, trigger_mode="always_last", **QUIET)
    for event in filled:
        event.then(None, None, None, js=SETTLE_JS).then(say, given, said, **QUIET)


def _wire_suggestions(parts: _Parts, data: DataStep, data_root: Path) -> Dependency:
    """Returns the event that fills in fields."""
    device = parts.fields["device"]
    assert isinstance(device, gr.Dropdown)

    def offer(name: str, reading: Reading, device: str | None) -> tuple[Any, Any, list[Suggestion]]:
        found = find_suggestions(data_root, name, reading, device)
        settings = [suggestion.setting for suggestion in found]
        choices = list(zip(map(suggestion_words, found), settings, strict=True))
        label = f"{len(found)} suggestion{'s' * (len(found) != 1)} for these photos"
        return gr.update(label=label, visible=bool(found)), gr.update(choices=choices, value=settings), found

    def use(ticked: list[str], offered: list[Suggestion]) -> list[Any]:
        values = {suggestion.setting: suggestion.value for suggestion in offered if suggestion.setting in ticked}
        return [gr.update(value=values[name]) if name in values else gr.skip() for name in parts.fields]

    gr.on(
        [data.contents.change, device.change],
        offer,
        [data.folder, data.reading, device],
        [parts.suggestions, parts.ticked, parts.offered],
        trigger_mode="always_last",
        **QUIET,
    )
    return parts.use.click(use, [parts.ticked, parts.offered], list(parts.fields.values()), **QUIET)


def _wire_file(parts: _Parts) -> list[Dependency]:
    """Returns the events that fill in fields."""
    names, fields = list(parts.fields), list(parts.fields.values())

    def save(*values: Any) -> tuple[str, str]:
        try:
            return settings_text(TrainConfig(**to_settings(names, values)), without=ELSEWHERE), ""
        except MtlError as error:
            return "", views.message("error", "These settings cannot be saved", str(error))

    def load(file: str) -> list[Any]:
        try:
            return [*to_values(names, TrainConfig(**read_settings(Path(file)))), ""]
        except MtlError as error:
            return [*[gr.skip()] * len(fields), views.message("error", "This file cannot be loaded", str(error))]

    parts.save.click(save, fields, [parts.saved, parts.file_notice], **QUIET).then(None, parts.saved, None, js=SAVE_JS)
    filled = [*fields, parts.file_notice]
    return [
        parts.load.upload(load, parts.load, filled, **QUIET),
        parts.reset.click(lambda: [*to_values(names, DEFAULTS), ""], None, filled, **QUIET),
    ]


def _wire_memory(
    demo: gr.Blocks,
    parts: _Parts,
    data: DataStep,
    filled: Sequence[Dependency],
    data_root: Path,
    kept: gr.BrowserState,
) -> Dependency:
    """What was chosen and set is there again after a reload, since the browser keeps it.

    filled: the events that fill in fields. Returns the one more that does.
    """
    fields = list(parts.fields.values())

    def restore(values: list[Any] | None) -> list[Any]:
        if not isinstance(values, list) or len(values) != 1 + len(fields):  # none, or those of another version
            return [gr.skip()] * (1 + len(fields))
        offered = [path for _, path in data_choices(data_root)]
        return [values[0] if values[0] in offered else gr.skip(), *values[1:]]

    chosen = [data.folder, *fields]
    keep: dict[str, Any] = {"fn": None, "inputs": chosen, "outputs": kept, "js": "(...values) => [values]"}
    # Not on every change: those of a page that is being loaded would wipe out what is kept.
    gr.on([data.folder.input, *(field.input for field in fields)], **keep, **QUIET)
    for event in filled:
        event.then(None, None, None, js=SETTLE_JS).then(**keep, **QUIET)
    return demo.load(restore, kept, chosen, **QUIET)


def _wire_models(demo: gr.Blocks, parts: _Parts, shelf: ModelShelf) -> None:
    """The two settings that may name a model list those that there are now."""
    for setting, words in (("init", STARTS), ("generated_masks", MASK_SOURCES)):
        field = parts.fields[setting]
        assert isinstance(field, gr.Dropdown)

        def choices(words: tuple[str, ...] = words) -> Any:
            return gr.update(choices=[*words, *shelf.names()])

        field.focus(choices, None, field, **QUIET)
        demo.load(choices, None, field, **QUIET)
