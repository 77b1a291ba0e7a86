"""The photo with its lesion, the list of photos beside it and the answer: what they show of a desk."""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mtl.analysis.record import Record
from mtl.errors import ConfigError, MtlError, PhotoError
from mtl.frame import map_to_photo, photo_region
from mtl.ui import desk as desks
from mtl.ui.answer_views import alt_text, answer_card, caption, lesion_marks
from mtl.ui.desk import MAX_PHOTOS, Desk, DeskPhoto, Desks
from mtl.ui.models import ModelShelf
from mtl.ui.texts import Words, words_for
from mtl.ui.views import empty, message

UI = Path(__file__).parents[2]
STRIP_HTML = '<ol class="mtl-strip"></ol>'


@dataclass(frozen=True)
class Stage:
    """The three parts that follow the chosen photo."""

    strip: gr.HTML
    viewer: gr.HTML
    card: gr.HTML

    @property
    def parts(self) -> list[gr.HTML]:
        return [self.strip, self.viewer, self.card]


def render_stage(desks_: Desks, shelf: ModelShelf) -> Stage:
    """Render them; the page fetches photos by its desk's token, never by a path."""
    with gr.Row(equal_height=False, elem_id="mtl-stage"):
        with gr.Column(scale=2, min_width=150, elem_id="mtl-strip-column"):
            strip = gr.HTML(
                "",
                html_template=STRIP_HTML,
                js_on_load=(UI / "strip.js").read_text(encoding="utf-8"),
                apply_default_css=False,
                server_functions=[thumbnails_of(desks_)],
                elem_id="mtl-strip",
            )
        with gr.Column(scale=8, min_width=320):
            viewer = gr.HTML(
                "",
                html_template=(UI / "viewer.html").read_text(encoding="utf-8"),
                js_on_load=(UI / "viewer.js").read_text(encoding="utf-8"),
                apply_default_css=False,
                server_functions=[photo_of(desks_), mask_of(desks_), attention_of(desks_, shelf)],
                elem_id="mtl-viewer",
            )
        with gr.Column(scale=6, min_width=300):
            card = gr.HTML("", elem_id="mtl-answer")
    return Stage(strip, viewer, card)


def desk_of(all_desks: Desks, request: gr.Request) -> Desk:
    """The desk of the page that asks, in its language."""
    desk = all_desks.of(str(request.session_hash))
    desk.words = words_for(request.headers.get("accept-language"))
    return desk


# ---- what the parts show


def look(desk: Desk) -> tuple[str, str, str]:
    """Strip, viewer and card as the desk stands."""
    return strip_value(desk), viewer_value(desk), card_of(desk)


# Both as JSON text: a dictionary from a generator is altered in place, in the browser, when the generator sends the
# next one, and a component that has not yet read it then finds something of each.


def strip_value(desk: Desk) -> str:
    items = [[photo.state, caption(photo, desk.words), f"{photo.id}/{photo.version}"] for photo in desk.photos]
    return json.dumps({"token": desk.token, "selected": desk.selected, "items": items})


def viewer_value(desk: Desk) -> str:
    """All that the viewer needs but the pixels; the map is small: the network's own, 50 KB."""
    photo = desk.photo(desk.selected)
    if photo is None or photo.analysis is None or photo.record is None:
        return json.dumps({"number": 0})
    analysis, record = photo.analysis, photo.record
    logits = analysis.mask_logits if analysis.mask_trained else np.full_like(analysis.mask_logits, -30)
    value = {
        "token": desk.token,
        "number": desk.selected,
        "id": photo.id,
        "width": record.width,
        "height": record.height,
        "alt": alt_text(desk.selected, photo, desk.words),
        **_logits_value(logits, record, analysis.center_crop),
        "threshold": record.threshold,
        "corrected": record.corrected,
        "scaled": record.scale is not None,
        "lesions": lesion_marks(record.measures),
    }
    return json.dumps(value)


def _logits_value(logits: np.ndarray, record: Record, center_crop: bool) -> dict[str, Any]:
    """The map as the server cuts it: enlarged it is the same anywhere, but shrunk it is not."""
    if min(record.height, record.width) >= max(logits.shape):
        return _map_value(logits, record.height, record.width, center_crop, "logits")
    whole = map_to_photo(logits, record.height, record.width, center_crop, outside=-30.0)
    return _map_value(whole, record.height, record.width, False, "logits")


def _map_value(values: np.ndarray, height: int, width: int, center_crop: bool, name: str) -> dict[str, Any]:
    """A small map (h, w) and where on the photo it lies."""
    data = b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")
    return {name: data, "map_size": list(values.shape), "box": list(photo_region(height, width, center_crop))}


def card_of(desk: Desk) -> str:
    t = desk.words
    photo = desk.photo(desk.selected)
    if photo is not None:
        return answer_card(photo, t)
    if desk.photos:
        return message("quiet", t("Choose a photo"))
    if desk.selected:
        return message("quiet", t("The photos are gone"), t("The page was away for too long; add them again."))
    return empty(
        t("Add a photo"),
        t("Drop photos above, paste them, or press an example. They go to the computer that runs this page only."),
    )


# ---- what the page fetches


def thumbnails_of(all_desks: Desks) -> Any:
    def thumbnails(asked: dict[str, Any]) -> list[str]:
        """Of the photos with these numbers, as data URLs."""
        desk = all_desks.by_token(str(asked.get("token")))
        photos = [desk.photo(int(number)) if desk else None for number in asked.get("numbers", [])[:MAX_PHOTOS]]
        return [photo.thumbnail if photo else "" for photo in photos]

    return thumbnails


def photo_of(all_desks: Desks) -> Any:
    def photo(asked: dict[str, Any]) -> dict[str, str]:
        """The photo itself, or why it cannot be shown."""
        found, t = _asked(all_desks, asked)
        try:
            return {"url": desks.shown(found)} if found else {"url": "", "problem": t.told(PhotoError(desks.GONE))}
        except PhotoError as error:
            return {"url": "", "problem": t.told(error)}

    return photo


def mask_of(all_desks: Desks) -> Any:
    def mask(asked: dict[str, Any]) -> dict[str, str]:
        """The mask as it was drawn."""
        found, _ = _asked(all_desks, asked)
        return {"url": desks.shown_mask(found) if found and found.correction else ""}

    return mask


def attention_of(all_desks: Desks, shelf: ModelShelf) -> Any:
    def attention(asked: dict[str, Any]) -> dict[str, Any]:
        """Grad-CAM for the likeliest class, as a small map over the photo."""
        found, t = _asked(all_desks, asked)
        if not found or not found.record or not found.analysis or not any(any(g.trained) for g in found.record.groups):
            return {"words": t("This model names no classes.")}
        try:
            model = shelf.get(found.record.model.name)
            class_id = found.analysis.predicted_class_id
            values = model.grad_cam(desks.pixels(found), class_id)
        except MtlError as error:
            return {"words": t.told(error)}
        record, name = found.record, t(model.config.classes.names[class_id])
        seen = any(group.applies for group in record.groups)
        words = (
            t("What spoke for {name} most (Grad-CAM).", name=name)
            if seen
            else t("No class is seen; this spoke for the likeliest one, {name} (Grad-CAM).", name=name)
        )
        return {**_map_value(values, record.height, record.width, found.analysis.center_crop, "values"), "words": words}

    return attention


def _asked(all_desks: Desks, asked: dict[str, Any]) -> tuple[DeskPhoto | None, Words]:
    desk = all_desks.by_token(str(asked.get("token")))
    return (desk.photo(int(asked.get("number", 0))), desk.words) if desk else (None, Words())


# ---- what the viewer asks for


def apply_edit(photo: DeskPhoto, edit: dict[str, Any]) -> None:
    """A threshold, a drawn mask or a scale, as the viewer sends it. Raises MtlError."""
    try:
        _apply(photo, edit)
    except (KeyError, TypeError, ValueError, OverflowError):  # the viewer sends none of these
        raise ConfigError("what was drawn or set could not be read; reload the page") from None


def _apply(photo: DeskPhoto, edit: dict[str, Any]) -> None:
    match edit.get("kind"):
        case "threshold":
            desks.cut_at(photo, float(edit["threshold"]))
        case "mask":
            desks.correct(photo, b64decode(str(edit["mask"]).partition(",")[2], validate=True))
        case "reset":
            desks.correct(photo, b"")
        case "scale":
            (x, y), (to_x, to_y) = edit["points"]
            desks.set_scale(photo, (y, x), (to_y, to_x), float(edit["mm"] or 0))
        case "unscale":
            desks.remove_scale(photo)
