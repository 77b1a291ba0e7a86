"""The About tab: what this is and is not for, its limits, privacy, versions."""

from importlib.metadata import version

import gradio as gr

from mtl import __version__
from mtl.ui.texts import FOLDER, LANGUAGES

PACKAGES = ("torch", "gradio", "pytorch-lightning")


def build_about_tab() -> None:
    """Render it in every language; the style sheet shows the visitor's."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    with gr.Column(elem_id="mtl-about"):
        for language in LANGUAGES:
            text = (FOLDER / f"about.{language}.md").read_text(encoding="utf-8")
            gr.Markdown(text, elem_classes=f"mtl-in-{language}")
        gr.Markdown(f"mtl {__version__}, {versions}. Apache-2.0.")
