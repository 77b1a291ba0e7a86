"""The analysis for `gradio_client`: the one endpoint of the page that programs may call, and see in its list."""

import logging
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api
from gradio.utils import get_upload_folder
from pydantic import ValidationError

from mtl.analysis.predict import LESION_THRESHOLD, NAME_CONFIDENCE
from mtl.analysis.turned import Tta
from mtl.errors import MtlError, PhotoError, RequestError
from mtl.serve.answer import Models, answer_photo, choose_model, photo_error
from mtl.serve.rest import RestLimits
from mtl.serve.schema import Parameters, told

log = logging.getLogger(__name__)

DESCRIPTION = (
    "Skin and hair type and the lesion's mask of one photo, as POST /api/v1/analyze/multitask gives them; mask: png (a "
    "data URL), rle (COCO's run lengths) or none. Research use: not a diagnosis."
)


def add_endpoint(models: Models) -> None:
    """Add /analyze to the page that is being built."""

    def analyze(
        photo: FileData,
        mask: Literal["png", "rle", "none"] = "png",
        conf_thresh: float | None = None,
        name_confidence: float = NAME_CONFIDENCE,
        lesion_threshold: float = LESION_THRESHOLD,
        model: str | None = None,
        tta: Tta = "off",
    ) -> dict[str, Any]:
        asked = {
            "mask": mask,
            "conf_thresh": conf_thresh,
            "name_confidence": name_confidence,
            "lesion_threshold": lesion_threshold,
            "model": model,
            "tta": tta,
        }
        try:
            return _answer(photo, asked, models)
        except MtlError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:  # the edge of a request: told without details
            log.exception("a photo could not be analysed")
            raise gr.Error("a fault of this program; the log of the server has it", print_exception=False) from error

    api(
        analyze,
        api_name="analyze",
        api_description=DESCRIPTION,
        concurrency_limit=RestLimits().at_once,
        concurrency_id="analyze",
    )


def _answer(photo: object, asked: dict[str, Any], models: Models) -> dict[str, Any]:
    """Raises MtlError; whatever a program may send comes here, of any type."""
    if asked["mask"] == "list":
        raise RequestError("mask: got list; needed: png, rle or none (REST gives lists)")
    try:
        parameters = Parameters.model_validate(asked)
    except ValidationError as error:
        raise RequestError(told(error.errors())) from error
    path, name = _uploaded(photo)
    chosen = choose_model(models, parameters.model)
    try:
        return answer_photo(path, name, chosen, parameters)
    except PhotoError as error:
        raise photo_error(error, name) from error


def _uploaded(photo: object) -> tuple[Path, str]:
    """The file and its own name. Gradio looks only at what calls itself a file; any other path is refused here."""
    sent = photo if isinstance(photo, dict) else {}
    folder = Path(get_upload_folder()).resolve()
    try:
        path = Path(sent["path"]).resolve()
        inside = path.is_relative_to(folder) and path.is_file()
    except (KeyError, TypeError, ValueError, OSError):
        inside = False
    if not inside:
        raise RequestError('photo: got no uploaded file; needed: one, as handle_file("photo.jpg")')
    return path, str(sent.get("orig_name") or path.name)
