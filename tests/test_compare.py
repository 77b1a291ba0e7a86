"""Two photos of one lesion: what stays, what is found to have changed, and what cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from records import record as any_record
from skimage.color import lab2rgb, rgb2lab

from mtl.analysis.compare import Comparison, compare
from mtl.analysis.lesion import measure_mask
from mtl.analysis.quality import assess_quality
from mtl.analysis.record import Record, Scale

SKIN, LESION = (68.0, 13.0, 18.0), (42.0, 14.0, 16.0)
Answered = tuple[Record, np.ndarray]


def answered(
    radius: float = 40,
    *,
    size: tuple[int, int] = (240, 320),
    skin: tuple[float, float, float] = SKIN,
    lesion: tuple[float, float, float] = LESION,
    mm_per_px: float | None = None,
) -> Answered:
    """A photo with a disc as its lesion, none where the radius is 0; and its record."""
    row, column = np.mgrid[: size[0], : size[1]]
    mask = (np.hypot(row - size[0] / 2 + 0.5, column - size[1] / 2 + 0.5) < radius).astype(np.uint8)
    photo = (255 * lab2rgb(np.where(mask[..., None], lesion, skin))).round().astype(np.uint8)
    record = replace(
        any_record(scale=Scale(mm_per_px, "ruler") if mm_per_px else None),
        height=size[0],
        width=size[1],
        measures=measure_mask(mask, photo),
        quality=assess_quality(photo, mask),
    )
    return record, photo


def compared(first: Answered, second: Answered) -> Comparison:
    return compare(first[0], second[0], first[1], second[1])


@pytest.mark.parametrize("mm_per_px", [None, 0.05])
def test_a_photo_with_itself_changes_nothing(mm_per_px: float | None) -> None:
    photo = answered(mm_per_px=mm_per_px)
    result = compared(photo, photo)
    assert (result.area_ratio, result.diameter_ratio) == (1, 1)
    assert result.colour_change == pytest.approx(0, abs=1e-6)
    assert result.not_comparable == ()
    assert result.in_mm == (mm_per_px is not None)


@law
@given(st.integers(25, 60), st.integers(25, 60), st.floats(0.01, 1), st.floats(0.01, 1))
def test_exchanging_the_photos_turns_the_ratios_round(first: int, second: int, mm_1: float, mm_2: float) -> None:
    one, other = answered(first, mm_per_px=mm_1), answered(second, mm_per_px=mm_2)
    there, back = compared(one, other), compared(other, one)
    assert there.area_ratio == pytest.approx(1 / back.area_ratio)
    assert there.diameter_ratio == pytest.approx(there.area_ratio**0.5)
    assert there.area_ratio == pytest.approx((second * mm_2 / (first * mm_1)) ** 2, rel=0.03)
    assert there.not_comparable == back.not_comparable == ()
    assert there.colour_change == pytest.approx(back.colour_change, abs=0.2)


def test_twice_the_scale_is_twice_the_diameter() -> None:
    result = compared(answered(mm_per_px=0.05), answered(mm_per_px=0.1))
    assert result.diameters == pytest.approx((4, 8), rel=0.01)
    assert result.areas == pytest.approx((np.pi * 4, np.pi * 16), rel=0.01)
    assert result.area_ratio == 4
    assert "framing" not in result.not_comparable


def test_with_one_scale_only_shares_are_compared() -> None:
    result = compared(answered(mm_per_px=0.05), answered(50))
    assert not result.in_mm
    assert result.areas == pytest.approx((np.pi * 40**2 / 76800, np.pi * 50**2 / 76800), rel=0.01)


def test_more_pixels_are_no_change() -> None:
    result = compared(answered(40), answered(120, size=(720, 960)))
    assert result.area_ratio == pytest.approx(1, rel=0.01)
    assert result.not_comparable == ()


@pytest.mark.parametrize(
    "other", [answered(80), answered(40, size=(320, 320)), answered(20)], ids=["nearer", "square", "farther"]
)
def test_another_framing_is_told_unless_both_have_a_scale(other: Answered) -> None:
    assert compared(answered(), other).not_comparable == ("framing",)
    scaled = (replace(other[0], scale=Scale(0.1, "DICOM")), other[1])
    assert compared(answered(mm_per_px=0.1), scaled).not_comparable == ()


@pytest.mark.parametrize(("skin", "differs"), [((53, 13, 18), True), ((68, 2, 12), True), ((63, 11, 20), False)])
def test_another_light_is_told(skin: tuple[float, float, float], differs: bool) -> None:
    assert compared(answered(), answered(skin=skin)).not_comparable == (("light",) if differs else ())


def test_the_colour_is_that_against_the_skin() -> None:
    shift = np.array([-6, 2, 3])
    lit_otherwise = answered(skin=tuple(SKIN + shift), lesion=tuple(LESION + shift))
    darker = answered(lesion=tuple(LESION + shift))
    assert compared(answered(), lit_otherwise).colour_change == pytest.approx(0, abs=0.6)
    # Mostly a change of lightness at L* about 40, where a unit of ΔE2000 is one of L* and a bit.
    assert compared(answered(), darker).colour_change == pytest.approx(6, abs=1)


def test_without_a_lesion_there_are_no_figures() -> None:
    result = compared(answered(), answered(0))
    assert result.not_comparable == ("no lesion",)
    assert result.areas is result.diameters is result.colour_change is None
    assert result.area_ratio is result.diameter_ratio is None


def test_without_skin_neither_light_nor_colour_is_judged() -> None:
    result = compared(answered(), answered(skin=(60.0, 0.0, -30.0)))
    assert result.not_comparable == ("skin not seen",)
    assert result.colour_change is None
    assert result.area_ratio == pytest.approx(1)


def test_a_lesion_that_is_cut_off_is_told() -> None:
    assert compared(answered(), answered(125, mm_per_px=1)).not_comparable == (
        "framing",
        "lesion cut off",
    )


def test_a_corrected_mask_is_compared_like_any_other() -> None:
    record, photo = answered()
    assert compared((record, photo), (replace(record, corrected=True), photo)).not_comparable == ()


def test_the_drawn_colours_are_those_meant() -> None:
    assert rgb2lab(answered()[1])[0, 0] == pytest.approx(SKIN, abs=0.5)
