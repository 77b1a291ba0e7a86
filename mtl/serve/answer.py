"""A photo's answer for programs: what REST and gradio's clients get, from the same record that the page shows."""

import base64
import logging
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from PIL import Image

from mtl.analysis.names import printable
from mtl.analysis.table import record_to_dict
from mtl.errors import MtlError, PhotoError
from mtl.photo import PhotoSource
from mtl.serve.codes import RestError
from mtl.serve.schema import Parameters

# Loaded with the first model: it takes seconds, and the routes are there before.
if TYPE_CHECKING:
    from mtl.api import Examination, MultiTaskModel

log = logging.getLogger(__name__)

NAME_CHARACTERS = 200  # of a file's name in an answer

MaskForm = Literal["list", "png", "rle", "none"]


class Models(Protocol):
    """The models that can be asked for."""

    @property
    def first(self) -> str:
        """The name of the one that answers where none is named."""
        ...

    def names(self) -> list[str]: ...

    def get(self, name: str) -> "MultiTaskModel":
        """Raises CheckpointError where there is none of this name or it cannot be read."""
        ...


@dataclass(frozen=True)
class Chosen:
    """The model that answers."""

    name: str
    model: "MultiTaskModel"


def answer_photo(photo: PhotoSource, name: str, chosen: Chosen, parameters: Parameters) -> dict[str, Any]:
    """Analyse a photo; `mtl.serve.schema.Answer` says what is in the answer. Raises PhotoError.

    With mask=list, `lesion_mask` is an array (H, W) uint8: as Python's integers it would take a hundred times as much.
    """
    examined = chosen.model.examine(
        photo,
        name=name,
        model_name=chosen.name,
        conf_thresh=parameters.conf_thresh,
        name_confidence=parameters.name_confidence,
        tta=parameters.tta,
    )
    return _answer(examined, chosen.model.config.classes.names, parameters)


def photo_error(error: PhotoError, name: str) -> PhotoError:
    """The same with the name that the photo was sent under."""
    return PhotoError(error.text, **{**error.values, "file": short_name(name)})


def short_name(name: str) -> str:
    """What a client calls a file, on one line and no longer than names are."""
    return printable(name)[:NAME_CHARACTERS]


def choose_model(models: Models, name: str | None) -> Chosen:
    """The model of this name; None: the first. Raises RestError where there is none, or it cannot be loaded."""
    if name is not None and name not in models.names():
        raise RestError("unknown_model", f"model: got {short_name(name)}; there is none of this name, so leave it out")
    name = models.first if name is None else name
    try:
        return Chosen(name, models.get(name))
    except MtlError as error:  # its line may name a folder of the server
        log.warning("no model: %s", error)
        raise RestError("no_model", "the model cannot be loaded; the log of the server has the reason") from error


def _answer(examined: "Examination", class_names: tuple[str, ...], parameters: Parameters) -> dict[str, Any]:
    from mtl.api import summarize

    analysis, record = examined.analysis, record_to_dict(examined.record)
    likeliest = {
        "predicted_class_id": analysis.predicted_class_id,
        "predicted_class": class_names[analysis.predicted_class_id],
        "confidence": analysis.confidence,
        "probabilities": analysis.probabilities.tolist(),
    }
    return {
        "file": record.pop("photo"),
        **summarize(analysis, lesion_threshold=parameters.lesion_threshold, name_confidence=parameters.name_confidence),
        **likeliest,
        **record,
        "classification": {**likeliest, **record["classification"]},
        "lesion_mask": encode_mask(analysis.mask, parameters.mask),
    }


def encode_mask(mask: np.ndarray, form: MaskForm) -> np.ndarray | str | dict[str, Any] | None:
    """A mask (H, W) uint8 0/1 as it is for "list", as data URL of a PNG of 0 and 255, as runs, or not at all."""
    if form == "list":
        return np.ascontiguousarray(mask)
    if form == "png":
        file = BytesIO()
        Image.fromarray(mask * np.uint8(255)).save(file, "PNG", compress_level=1)  # the higher ones gain little here
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return run_lengths(mask) if form == "rle" else None


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths of a mask (H, W) 0/1: down the columns, the first run is of zeros.

    [https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.h]
    """
    pixels = np.ravel(mask, order="F")
    starts = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], starts, [pixels.size]]))
    counts = [0, *runs.tolist()] if pixels[0] else runs.tolist()
    return {"size": list(mask.shape), "counts": counts}
