"""Records of photos for tests of what is made of them: one that is ordinary, and one with too much of everything."""

from dataclasses import replace
from datetime import UTC, datetime

from mtl.analysis.lesion import Lesion, MaskMeasures
from mtl.analysis.predict import GroupAnswer
from mtl.analysis.quality import Quality, QualityIssue
from mtl.analysis.record import ModelIdentity, Record, Scale
from mtl.analysis.skin_tone import SkinTone
from mtl.analysis.unlike import Familiarity

SKIN = GroupAnswer(
    "skin type",
    ("normal", "dry", "oily", "combination", "sensitive"),
    (0.12, 0.05, 0.81, 0.02, 0.0),
    (True, True, True, True, False),
    0.97,
    True,
)
SKIN_UNNAMED = replace(SKIN, named=False)
HAIR = GroupAnswer(
    "hair type",
    ("straight", "wavy", "curly", "coily", "dreadlocks"),
    (0.4, 0.2, 0.3, 0.06, 0.04),
    (True,) * 5,
    0.03,
    False,
)


def lesion(number: int, area_px: int = 40_000) -> Lesion:
    diameter_px = (4 * area_px / 3.14159265) ** 0.5
    return Lesion(number, area_px, area_px / 12e6, (0, 0, 9, 9), diameter_px, 709.0, 0.18, 1.31, 12.3)


def record(name: str = "left arm.jpg", lesions: int = 1, scale: Scale | None = None) -> Record:
    """An ordinary photo of 12 megapixels: oily skin, no hair seen, lesions of 40,000 pixels each."""
    found = tuple(lesion(number) for number in range(1, lesions + 1))
    area_px = sum(each.area_px for each in found)
    return Record(
        name=name,
        height=3000,
        width=4000,
        groups=(SKIN, HAIR),
        mask_trained=True,
        measures=MaskMeasures(found, area_px, area_px / 12e6, (0.9 * area_px, 1.2 * area_px), 0.87),
        threshold=0.5,
        corrected=False,
        quality=Quality(),
        skin_tone=SkinTone(-12.3, "brown"),
        familiarity=Familiarity(1.2, 2.0),
        model=ModelIdentity("default", "3f2a99b01c77", True, ("sensitive",)),
        name_confidence=0.5,
        seconds=0.84,
        at=datetime(2025, 3, 4, 10, 22, tzinfo=UTC),
        scale=scale,
    )


def crowded_record() -> Record:
    """As much of everything as there can be, and all of it long."""
    groups = tuple(
        GroupAnswer(f"group with a long name {n}", tuple(f"class {c} of {n}" for c in range(20)), (0.05,) * 20,
                    (True,) * 20, 0.1, n != 1, named=n % 2 == 0)
        for n in range(9)
    )  # fmt: skip
    kinds = ("blurred", "dark", "overexposed", "uneven light", "glare", "too small")
    edges = ("top", "left", "bottom", "right")
    return replace(
        record("W" * 300 + ".jpg", 30, Scale(0.0123, "ruler")),
        groups=groups,
        corrected=True,
        quality=Quality((*map(QualityIssue, kinds), QualityIssue("lesion cut off", edges))),
        familiarity=Familiarity(9.0, 2.0),
        model=ModelIdentity("M" * 200, "3f2a99b01c77", False),
        tta="turns",
    )
