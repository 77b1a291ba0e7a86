"""How the pages look: one accent colour, neutral greys, system fonts; light and dark."""

import gradio as gr

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]

# The two curves of a plot; both keep their contrast on light and dark.
TRAIN_COLOR, VALIDATION_COLOR = "#0e9aa7", "#e07a2f"


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
        block_shadow="none",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
    )


CSS = """
.gradio-container { width: 100%; max-width: 1360px !important; margin: 0 auto; }
.gradio-container :is(.main, .wrap, .contain, .column, .row, .block) { min-width: 0; }
footer { display: none !important; }
.tab-container button.selected { color: var(--primary-700); }
.dark .tab-container button.selected { color: var(--primary-400); }

.mtl-head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; padding: 6px 2px; }
.mtl-head h1 { font-size: 1.35rem; font-weight: 650; margin: 0; letter-spacing: -0.01em; }
.mtl-head span { color: var(--body-text-color-subdued); font-size: 0.86rem; }
.mtl-head .mtl-notice { margin-left: auto; }

.mtl-card { padding: 4px 2px; color: var(--body-text-color); font-size: 0.94rem; line-height: 1.45; }
.mtl-card h2 { font-size: 1.3rem; font-weight: 650; margin: 0 0 2px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
.mtl-card h3 { font-size: 0.8rem; font-weight: 600; margin: 20px 0 6px; color: var(--body-text-color-subdued); }
.mtl-card p { margin: 0 0 6px; }
.mtl-quiet { color: var(--body-text-color-subdued); font-size: 0.86rem; overflow-wrap: anywhere; }
.mtl-empty { padding: 40px 16px; text-align: center; color: var(--body-text-color-subdued); }
.mtl-empty b { display: block; color: var(--body-text-color); font-size: 1.05rem; margin-bottom: 4px; }

.mtl-bar { display: grid; grid-template-columns: 7.2em 1fr 3.2em; align-items: center; gap: 10px; margin: 5px 0; }
.mtl-bar .track { height: 10px; border-radius: 5px; background: var(--border-color-primary); overflow: hidden; }
.mtl-bar .fill { height: 100%; border-radius: 5px; background: #8494a8; }
.mtl-bar.best .fill { background: var(--primary-600); }
.mtl-bar.best { font-weight: 600; }
.mtl-bar .value { text-align: right; font-variant-numeric: tabular-nums; }
.mtl-bar.untrained { color: var(--body-text-color-subdued); grid-template-columns: 7.2em 1fr; font-size: 0.86rem; }

.mtl-table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
.mtl-table th { text-align: left; font-weight: 500; color: var(--body-text-color-subdued); font-size: 0.82rem; }
.mtl-table td, .mtl-table th { padding: 5px 10px 5px 0; border: 0; border-bottom: 1px solid var(--border-color-primary); }
.mtl-scroll { overflow-x: auto; }

#mtl-train-notice:not(:has(.mtl-message)) { display: none; }
.mtl-message { border-left: 4px solid; border-radius: 6px; padding: 10px 14px; overflow-wrap: anywhere; }
.mtl-message b { display: block; }
.mtl-message.error { border-color: #d1495b; background: rgba(209, 73, 91, 0.10); }
.mtl-message.good { border-color: var(--primary-600); background: rgba(14, 154, 167, 0.10); }
.mtl-message.quiet { border-color: #8494a8; background: rgba(132, 148, 168, 0.12); }

.mtl-progress { margin: 4px 0; }
.mtl-progress .line { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 16px; margin-bottom: 6px; }
.mtl-progress .line b { font-weight: 650; }
.mtl-progress .track { height: 8px; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; }
.mtl-progress .fill { height: 100%; background: var(--primary-600); transition: width 0.6s linear; }

#mtl-photo img { object-fit: contain; }
/* Two strips of photos that scroll sideways. */
:is(#mtl-strip, #mtl-examples) { height: auto !important; border: 0 !important; background: transparent; }
:is(#mtl-strip, #mtl-examples) :is(.gallery-container, .grid-wrap) { height: auto !important; min-height: 0 !important; }
:is(#mtl-strip, #mtl-examples) .grid-wrap { padding: 3px; overflow-x: auto; }
:is(#mtl-strip, #mtl-examples) .grid-container { display: flex; flex-wrap: nowrap; gap: 8px; padding: 0; }
:is(#mtl-strip, #mtl-examples) .gallery-item { flex: 0 0 auto; width: 88px; }
:is(#mtl-strip, #mtl-examples) button { width: 88px; height: auto; border: 0; background: transparent; overflow: visible; }
:is(#mtl-strip, #mtl-examples) img { width: 88px; height: 88px; border-radius: 6px; }
#mtl-strip .thumbnail-item { aspect-ratio: auto; box-shadow: none; }
#mtl-strip .thumbnail-item.selected img { outline: 3px solid var(--primary-600); outline-offset: -1px; }
#mtl-strip .caption-label {
  position: static; max-width: 88px; padding: 3px 2px 0; border: 0; background: transparent;
  font-size: 0.78rem; text-align: left; color: var(--body-text-color); opacity: 1;
}
#mtl-examples .caption-label { display: none; }
#mtl-examples .thumbnail-item:hover img { filter: brightness(1.08); }
:focus-visible { outline: 2px solid var(--primary-500); outline-offset: 2px; }

@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; }
  .mtl-head .mtl-notice { margin-left: 0; }
  button:not(.label-wrap, .icon-button) { min-height: 44px; }
  #mtl-photo .image-container { height: 340px !important; }
  #mtl-photo { height: 340px !important; }
}
"""
