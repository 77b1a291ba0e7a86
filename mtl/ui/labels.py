"""Labels of gradio's own components in the visitor's language: gradio looks them up in the browser."""

import gradio as gr
from gradio.i18n import I18nData

from mtl.ui.texts import LANGUAGES, translations

# A full stop or a brace would mean something else to gradio's look-up, so labels have none.
_TRANSLATIONS = gr.I18n(**{language: dict(translations(language)) for language in LANGUAGES})


def label(text: str) -> I18nData:
    """An English text that has a translation."""
    return _TRANSLATIONS(text)


def page_translations() -> gr.I18n:
    """What `launch` needs."""
    return _TRANSLATIONS
