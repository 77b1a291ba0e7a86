"""The forms of the Models tab: evaluate, export, push and delete one model, and pull another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mtl.hub.reference import DEFAULT_REVISION
from mtl.ui.choices import data_choices
from mtl.ui.labels import label

LICENSES = ["apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "openrail", "other"]
FORMATS = [("ONNX", "onnx"), ("safetensors", "safetensors")]


@dataclass(frozen=True)
class Forms:
    """One of the first four is open at most; `title` says which, and of which model."""

    panel: gr.Column
    title: gr.HTML
    notice: gr.HTML
    columns: dict[str, gr.Column]  # action -> its form
    close: gr.Button
    data: gr.Dropdown
    split: gr.Radio
    evaluate: gr.Button
    format: gr.Radio
    export: gr.Button
    repo_id: gr.Textbox
    private: gr.Checkbox
    message: gr.Textbox
    tag: gr.Textbox
    license: gr.Dropdown
    push: gr.Button
    question: gr.HTML
    delete: gr.Button

    @property
    def order(self) -> list[Any]:
        """What a push is filled in with, in the order of PushOrder."""
        return [self.repo_id, self.private, self.message, self.tag, self.license]


@dataclass(frozen=True)
class PullForm:
    reference: gr.Textbox
    revision: gr.Textbox
    pull: gr.Button
    notice: gr.HTML


def render_forms(data_root: Path) -> Forms:
    with gr.Column(visible=False, elem_id="mtl-model-form") as panel:
        title = gr.HTML()
        with gr.Column(visible=False, elem_id="mtl-evaluate") as evaluating:
            data, split, evaluate = _render_evaluate(data_root)
        with gr.Column(visible=False, elem_id="mtl-export") as exporting:
            format_, export = _render_export()
        with gr.Column(visible=False, elem_id="mtl-push") as pushing:
            repo_id, private, message, tag, license_, push = _render_push()
        with gr.Column(visible=False, elem_id="mtl-delete") as deleting:
            question = gr.HTML()
            delete = gr.Button(label("Delete for good"), variant="stop", size="md", elem_id="mtl-delete-go")
        notice = gr.HTML(elem_id="mtl-model-notice")
        close = gr.Button(label("Close"), size="md", elem_id="mtl-form-close")
    columns = {"evaluate": evaluating, "export": exporting, "push": pushing, "delete": deleting}
    return Forms(
        panel,
        title,
        notice,
        columns,
        close,
        data,
        split,
        evaluate,
        format_,
        export,
        repo_id,
        private,
        message,
        tag,
        license_,
        push,
        question,
        delete,
    )


def _render_evaluate(data_root: Path) -> tuple[gr.Dropdown, gr.Radio, gr.Button]:
    data = gr.Dropdown(
        data_choices(data_root), label=label("Data folder"), filterable=False, elem_id="mtl-evaluate-data"
    )
    sides = [(label("Validation photos"), "val"), (label("Training photos"), "train")]
    split = gr.Radio(sides, value="val", label=label("Photos"))
    return data, split, gr.Button(label("Evaluate"), variant="primary", size="md", elem_id="mtl-evaluate-go")


def _render_export() -> tuple[gr.Radio, gr.Button]:
    format_ = gr.Radio(
        FORMATS,
        value="onnx",
        label=label("Format"),
        info=label("ONNX runs anywhere without this program; safetensors holds the weights alone"),
        elem_id="mtl-export-format",
    )
    return format_, gr.Button(label("Export"), variant="primary", size="md", elem_id="mtl-export-go")


def _render_push() -> tuple[Any, ...]:
    repo_id = gr.Textbox(
        label=label("Repository on the Hub"),
        placeholder="owner/name",
        max_length=200,
        max_lines=1,
        elem_id="mtl-push-repo",
    )
    private = gr.Checkbox(
        True, label=label("Private"), info=label("A new repository is private, and one that is public is refused")
    )
    message = gr.Textbox(label=label("Commit message"), max_length=200, max_lines=1, elem_id="mtl-push-message")
    tag = gr.Textbox(
        label=label("Tag (optional)"), placeholder="v1", max_length=60, max_lines=1, elem_id="mtl-push-tag"
    )
    license_ = gr.Dropdown(
        [(label("Unchanged"), ""), *((name, name) for name in LICENSES)],
        value="",
        label=label("Licence of the weights"),
        info=label("Where none was named before: research only"),
        filterable=False,
        elem_id="mtl-push-license",
    )
    push = gr.Button(label("Push"), variant="primary", size="md", elem_id="mtl-push-go")
    return repo_id, private, message, tag, license_, push


def render_pull() -> PullForm:
    gr.HTML('<h2 class="mtl-step" data-t="Pull a model from the Hub"></h2>')
    reference = gr.Textbox(
        label=label("Model"),
        placeholder="owner/name",
        info=label("owner/name, hf://owner/name or the address of its page"),
        max_length=500,
        max_lines=1,
        elem_id="mtl-pull-reference",
    )
    revision = gr.Textbox(
        label=label("Revision"),
        placeholder=DEFAULT_REVISION,
        info=label("A branch, a tag or a commit"),
        max_length=256,
        max_lines=1,
        elem_id="mtl-pull-revision",
    )
    pull = gr.Button(label("Pull"), variant="primary", size="md", elem_id="mtl-pull-go")
    return PullForm(reference, revision, pull, gr.HTML(elem_id="mtl-pull-notice"))
