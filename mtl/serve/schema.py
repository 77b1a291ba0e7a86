"""What programs send and get, as /openapi.json tells it. A test holds real answers against it."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mtl.analysis.names import printable
from mtl.analysis.predict import LESION_THRESHOLD, NAME_CONFIDENCE
from mtl.analysis.turned import Tta
from mtl.serve.codes import CODES


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Parameters(_Closed):
    mask: Literal["list", "png", "rle", "none"] = Field(
        "list",
        description="`lesion_mask` as rows of 0 and 1 (two bytes a pixel: 24 MB for 12 megapixels), as data URL of a "
        "PNG of 0 and 255, as COCO's uncompressed run lengths, or not at all",
    )
    conf_thresh: float | None = Field(
        None, gt=0, lt=1, description="probability from which a pixel is lesion; unset: the one kept with the weights"
    )
    name_confidence: float = Field(
        NAME_CONFIDENCE, ge=0, le=1, description="probability within its group below which no class is named"
    )
    lesion_threshold: float = Field(
        LESION_THRESHOLD, ge=0, le=1, description="`has_lesions` is true where they cover more than this share"
    )
    model: str | None = Field(None, max_length=200, description="a model of the page's list; unset: the first of them")
    tta: Tta = Field(
        "off",
        description="the mean over views of the photo: flips: 4, mirrored; turns: 8, turned by 90 degrees too; as many "
        "times the time",
    )


def told(errors: Sequence[Any]) -> str:
    """The first of pydantic's errors about `Parameters` in one line."""
    error = errors[0]
    name = printable(str(error["loc"][-1]))[:60]
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such parameter; there are {', '.join(Parameters.model_fields)}"
    came, needed = printable(str(error["input"]))[:60], error["msg"].removeprefix("Input should be ")
    return f"{name}: got {came}; needed: {needed[0].lower()}{needed[1:]}"


# ---- the answer


class RunLengths(_Closed):
    """COCO's uncompressed run lengths: down the columns, the first run is of zeros."""

    size: tuple[int, int] = Field(description="height, width")
    counts: list[int]


class Group(_Closed):
    answer: str = Field(
        description='the class\'s name, "uncertain" below `name_confidence` and where `named` is false, or "not seen"'
    )
    predicted_class: str = Field(description="the likeliest class of the group, whether it is to be named or not")
    confidence: float = Field(description="its probability within the group")
    probabilities: dict[str, float] = Field(description="within the group, by class; 0 for a class not trained")
    trained: dict[str, bool]
    share: float = Field(description="the group's part of the probability over all classes")
    applies: bool = Field(description="whether the photo shows anything of this group")
    named: bool = Field(description="false: no class of it is the answer, which on test photos was wrong too often")


class Likeliest(_Closed):
    predicted_class_id: int
    predicted_class: str = Field(description="the likeliest of all classes, whether it is to be named or not")
    confidence: float = Field(description="its probability over all classes")
    probabilities: list[float] = Field(description="over all classes, in the order of GET /health's `classes`")


class Classification(Likeliest):
    """As `MultiTaskModel.predict` gives it."""

    name_confidence: float
    groups: dict[str, Group]


class Lesion(_Closed):
    """One connected lesion; the three lengths and areas in mm are there where the scale is known."""

    number: int = Field(description="from 1, largest first")
    area_px: int
    area_ratio: float = Field(description="of the photo, 0..1")
    box: tuple[int, int, int, int] = Field(description="top, left, bottom, right (exclusive), in pixels")
    equivalent_diameter_px: float = Field(description="of the disc with the same area")
    perimeter_px: float
    asymmetry: float = Field(description="0 for a shape that mirrors in both principal axes, towards 1 else")
    border_irregularity: float = Field(description="1 for a disc, more for a ragged border")
    colour_variegation: float | None = Field(description="mean ΔE*ab from the mean colour")
    colour_lab: tuple[float, float, float] | None = Field(description="mean CIELAB colour")
    area_mm2: float | None = None
    equivalent_diameter_mm: float | None = None
    perimeter_mm: float | None = None


class Segmentation(_Closed):
    trained: bool = Field(description="else the mask is empty")
    threshold: float = Field(description="probability from which a pixel is lesion")
    corrected: bool = Field(description="whether a person drew in the mask: false here")
    lesions: list[Lesion]
    area_px: int = Field(description="of all lesion pixels, specks included")
    area_ratio: float = Field(description="of the photo, 0..1")
    area_interval_px: tuple[float, float] | None = Field(description="between these at about 80 %")
    certainty: float | None = Field(description="expected overlap with the truth, 0..1; null without lesion pixels")
    area_mm2: float | None = None
    area_interval_mm2: tuple[float, float] | None = None


class Scale(_Closed):
    mm_per_px: float
    source: str = Field(description='"DICOM"')


class QualityIssue(_Closed):
    kind: str = Field(description='"blurred", "dark", "overexposed", "uneven light", "glare", "too small" or so')
    edges: list[str] = Field(description='of "lesion cut off": "top", "left", "bottom", "right"')


class Quality(_Closed):
    issues: list[QualityIssue] = Field(description="none: sharp and well lit")


class SkinTone(_Closed):
    """Of the photo, not of the person."""

    ita_degrees: float = Field(description="individual typology angle")
    category: str
    caveat: str


class Familiarity(_Closed):
    distance: float = Field(description="from the training photos")
    limit: float
    unlike: bool = Field(description="farther than the limit: trust the answer less")


class Model(_Closed):
    name: str
    revision: str = Field(description="the first 12 hexadecimal digits of the SHA-256 over the weights")
    calibrated: bool
    untrained: list[str] = Field(description="classes without training photos")


class Answer(Likeliest):
    """One photo's answer. Research use: not a diagnosis. Probabilities and shares are 0..1."""

    file: str = Field(description="the photo's name as it was sent, on one line")
    skin_type: str | None = Field(description='a class, "uncertain" or "not seen"; null: the model knows none')
    skin_confidence: float
    hair_type: str | None
    hair_confidence: float
    has_lesions: bool
    lesion_coverage: float = Field(description="share of the photo")
    lesion_mask: list[list[int]] | str | RunLengths | None = Field(description="at the photo's size; see `mask`")
    height: int = Field(description="pixels, turned upright")
    width: int
    classification: Classification
    segmentation: Segmentation
    scale: Scale | None
    quality: Quality
    skin_tone: SkinTone | None = Field(description="null where too little skin is seen")
    familiarity: Familiarity | None = Field(description="null where the model knows nothing of its training photos")
    model: Model
    tta: Tta = Field(description="the views of the photo that this is the mean of")
    seconds: float
    at: str = Field(description="ISO 8601 with its time zone")
    disclaimer: str


class Fault(_Closed):
    code: str = Field(json_schema_extra={"enum": list(CODES)})
    message: str = Field(description="one line for a person: what came, what was needed, what to do")


class Error(_Closed):
    error: Fault


class FileError(_Closed):
    """In place of the answer of one photo among several."""

    file: str
    error: Fault


class Results(_Closed):
    """Of a request with several photos, in its order."""

    results: list[Answer | FileError]


class HealthModel(_Closed):
    name: str
    revision: str
    classes: list[str]


class Health(_Closed):
    status: Literal["ok"]
    model: HealthModel
    version: str


class NoHealth(_Closed):
    status: Literal["no model"]
    version: str
    error: Fault
