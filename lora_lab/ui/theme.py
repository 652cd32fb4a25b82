"""How the page looks: dark words on quiet ground, amber for what can be moved, fonts that every machine has."""

import gradio as gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

WORDS_AND_GROUND = {
    "body_background_fill": "*neutral_50",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_background_fill": "white",
    "block_border_width": "1px",
    "block_shadow": "none",
    "block_title_background_fill": "none",
    "block_title_text_color": "*neutral_800",
    "block_title_text_color_dark": "*neutral_100",
    "block_title_text_weight": "600",
    "block_title_padding": "0",
    "block_label_background_fill": "*neutral_50",
    "block_label_text_color": "*neutral_800",
    "block_label_text_color_dark": "*neutral_100",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_400",
    "button_primary_background_fill": "*primary_400",
    "button_primary_background_fill_hover": "*primary_300",
    "button_primary_background_fill_dark": "*primary_400",
    "button_primary_background_fill_hover_dark": "*primary_300",
    "button_primary_text_color": "*neutral_950",
    "button_primary_text_color_dark": "*neutral_950",
    "button_secondary_background_fill": "*neutral_100",
    "button_secondary_border_color": "*neutral_300",
    "slider_color": "*primary_500",
    "link_text_color": "*secondary_700",
    "link_text_color_dark": "*secondary_300",
    "checkbox_label_background_fill_selected": "*primary_200",
    "checkbox_label_text_color_selected": "*neutral_950",
    "checkbox_label_background_fill_selected_dark": "*primary_300",
    "checkbox_label_text_color_selected_dark": "*neutral_950",
}
"""What is set beside what Gradio derives from the hues; "_dark" is by night."""


def theme() -> gr.themes.Base:
    """Light and dark. Words reach a contrast of 4.5 to 1 on their ground in both."""
    base = gr.themes.Base(
        primary_hue="amber",
        secondary_hue="sky",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="md",
        font=SANS,
        font_mono=MONO,
    )
    return base.set(**WORDS_AND_GROUND)
