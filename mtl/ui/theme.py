"""How the pages look: one accent colour, neutral greys, system fonts; light and dark."""

from pathlib import Path

import gradio as gr

CSS_FILE = Path(__file__).with_name("style.css")

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]

# All keep their contrast on light and dark, and apart for colour-blind eyes.
CURVE_COLORS = {
    "training": "#0e9aa7",
    "validation": "#e07a2f",
    "Dice": "#3b82c4",
    "Jaccard": "#7b61c9",
    "balanced accuracy": "#c2437e",
    "accuracy": "#7a9a2e",
    "learning rate": "#0e9aa7",
    "encoder": "#0e9aa7",
    "class head": "#e07a2f",
    "mask head": "#7b61c9",
}
# Of compared runs, by their places.
RUN_COLORS = ("#0e9aa7", "#e07a2f", "#7b61c9", "#c2437e", "#7a9a2e", "#3b82c4", "#b58900", "#8a6d5b")


def make_theme() -> gr.themes.Base:
    """System fonts only: the page fetches nothing from other servers."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=SYSTEM_FONTS,
        font_mono=MONO_FONTS,
        radius_size="md",
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0d1117",
        background_fill_primary_dark="#141a22",
        background_fill_secondary_dark="#10151c",
        block_background_fill_dark="#141a22",
        block_border_color_dark="#242c37",
        border_color_primary_dark="#242c37",
        input_background_fill_dark="#10151c",
        block_label_background_fill="transparent",
        block_label_border_width="0px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_cancel_background_fill="#b3364a",
        button_cancel_background_fill_hover="#962b3d",
        button_cancel_background_fill_dark="#b3364a",
        button_cancel_background_fill_hover_dark="#c9465b",
        button_cancel_text_color="white",
        button_cancel_text_color_dark="white",
        block_shadow="none",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
    )
