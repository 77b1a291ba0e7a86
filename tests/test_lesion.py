"""Measurements on shapes whose figures are known, and how far the probability map can be trusted."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ellipe
from skimage.color import rgb2lab
from skimage.draw import line

from mtl.analysis.lesion import Lesion, MaskMeasures, area_interval_px, expected_jaccard, measure_mask
from mtl.analysis.record import scale_from_ruler
from mtl.errors import ConfigError

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "multitask"
SKIN, BROWN, BLACK = (224, 172, 140), (120, 70, 50), (40, 25, 25)

Figures = tuple[np.ndarray, float, float]  # mask, area in pixels, perimeter in pixels


def grid(side: int, turn: float = 0.0, middle: tuple[float, float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (side, side) of the pixel centres about `middle` (row, column), turned by radians."""
    y, x = np.mgrid[:side, :side] + 0.5 - np.array(middle or (side / 2, side / 2))[:, None, None]
    return np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x


def disc(side: int, across: float) -> Figures:
    y, x = grid(side)
    return np.hypot(y, x) < across / 2, math.pi * across**2 / 4, math.pi * across


def ellipse(side: int, across: float) -> Figures:
    """Half as broad again as high, turned by 0.6."""
    y, x = grid(side, 0.6)
    a, b = 0.75 * across, across / 2
    return np.hypot(y / b, x / a) < 1, math.pi * a * b, 4 * a * ellipe(1 - (b / a) ** 2)


def square(side: int, across: float, turn: float = 0.0) -> Figures:
    y, x = grid(side, turn)
    return np.maximum(abs(y), abs(x)) < across / 2, across**2, 4 * across


def turned_square(side: int, across: float) -> Figures:
    return square(side, across, math.radians(30))


SHAPES = (disc, ellipse, square, turned_square)


def only_lesion(mask: np.ndarray, photo: np.ndarray | None = None) -> Lesion:
    [lesion] = measure_mask(mask.astype(np.uint8), photo).lesions
    return lesion


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("side", "across"), [(64, 24), (64, 40), (200, 60), (640, 380), (1000, 30), (1800, 1100)])
def test_shapes_come_out_within_two_percent(shape, side: int, across: int) -> None:
    lesion, (_, area, perimeter) = only_lesion(shape(side, across)[0]), shape(side, across)
    assert lesion.area_px == pytest.approx(area, rel=0.02)
    assert lesion.area_ratio == pytest.approx(area / side**2, rel=0.02)
    assert lesion.equivalent_diameter_px == pytest.approx(math.sqrt(4 * area / math.pi), rel=0.02)
    assert lesion.perimeter_px == pytest.approx(perimeter, rel=0.02)
    assert lesion.border_irregularity == pytest.approx(perimeter / math.sqrt(4 * math.pi * area), rel=0.03)


def test_a_lesion_on_a_photo_of_16_megapixels() -> None:
    y, x = np.ogrid[:4000, :4000]
    lesion = only_lesion((y - 1999.5) ** 2 + (x - 1999.5) ** 2 < 1200**2)
    assert lesion.area_px == pytest.approx(math.pi * 1200**2, rel=0.001)
    assert lesion.perimeter_px == pytest.approx(math.pi * 2400, rel=0.005)
    assert lesion.asymmetry < 0.01


@law
@given(st.floats(24, 150), st.floats(0, 1), st.floats(0, 1), st.sampled_from([1.0, 0.7, 0.5]))
def test_a_disc_or_ellipse_may_lie_anywhere(across: float, down: float, right: float, flatness: float) -> None:
    y, x = grid(360, 0.3, (180 + down, 180 + right))
    a, b = across / 2 / flatness, across / 2
    lesion = only_lesion(np.hypot(y / b, x / a) < 1)
    # The pixels of a disc of 25 alone cover up to 2.6 % more than it.
    assert lesion.perimeter_px == pytest.approx(4 * a * ellipe(1 - flatness**2), rel=0.03)


def test_two_discs_are_two_lesions() -> None:
    y, x = grid(600, 0, (200, 150))
    large = np.hypot(y, x) < 100
    y, x = grid(600, 0, (400, 450))
    small = np.hypot(y, x) < 50
    measures = measure_mask((large | small).astype(np.uint8))
    assert [lesion.number for lesion in measures.lesions] == [1, 2]
    for lesion, radius, box in zip(
        measures.lesions, (100, 50), ((100, 50, 300, 250), (350, 400, 450, 500)), strict=True
    ):
        assert lesion.area_px == pytest.approx(math.pi * radius**2, rel=0.02)
        assert lesion.perimeter_px == pytest.approx(2 * math.pi * radius, rel=0.02)
        assert lesion.box == box
    assert measures.area_px == sum(lesion.area_px for lesion in measures.lesions)
    assert measures.area_ratio == measures.area_px / 600**2


blobs = arrays(np.uint8, (12, 12), elements=st.integers(0, 1))


@law
@given(blobs, st.integers(1, 3), st.booleans())
def test_turning_and_mirroring_change_no_figure(blob: np.ndarray, turns: int, mirrored: bool) -> None:
    mask = np.kron(blob, np.ones((7, 7), np.uint8))
    other = np.rot90(mask[:, ::-1] if mirrored else mask, turns)
    before, after = ({_figures(lesion) for lesion in measure_mask(each).lesions} for each in (mask, other))
    assert before == after


def _figures(lesion: Lesion) -> tuple[float, ...]:
    # Where a shape has no principal axes of its own, its asymmetry follows the pixels.
    return lesion.area_px, round(lesion.perimeter_px, 3), round(lesion.border_irregularity, 5)


@law
@given(blobs)
def test_figures_keep_their_bounds(blob: np.ndarray) -> None:
    measures = measure_mask(blob)
    assert measures.area_px == blob.sum() >= sum(lesion.area_px for lesion in measures.lesions)
    areas = [lesion.area_px for lesion in measures.lesions]
    assert areas == sorted(areas, reverse=True)
    for lesion in measures.lesions:
        assert 0 <= lesion.asymmetry <= 1
        assert lesion.border_irregularity >= 1 - 1e-9
        assert lesion.perimeter_px >= math.pi * lesion.equivalent_diameter_px - 1e-6


def test_a_hole_leaves_the_border() -> None:
    mask, _, perimeter = disc(200, 120)
    y, x = grid(200)
    ring = mask & (np.hypot(y, x) > 30)
    assert only_lesion(ring).perimeter_px == pytest.approx(perimeter, rel=0.02)
    assert only_lesion(ring).border_irregularity == pytest.approx(1, abs=0.02)
    assert only_lesion(ring).area_px < only_lesion(mask).area_px


def test_specks_are_no_lesions_but_count_in_the_area() -> None:
    mask = disc(200, 60)[0].astype(np.uint8)
    lesion_px = int(mask.sum())
    mask[5:8, 5:8] = 1
    measures = measure_mask(mask)
    assert [lesion.area_px for lesion in measures.lesions] == [lesion_px]
    assert measures.area_px == lesion_px + 9


def test_an_empty_mask_has_nothing() -> None:
    nothing = np.zeros((30, 40), np.uint8)
    assert measure_mask(nothing) == MaskMeasures((), 0, 0.0)
    assert measure_mask(nothing, confidence_map=np.zeros((30, 40), np.float32)).certainty is None


def test_pixels_that_touch_at_a_corner_are_connected() -> None:
    assert len(measure_mask(np.kron(np.eye(2, dtype=np.uint8), np.ones((9, 9), np.uint8))).lesions) == 1


# Shape


@pytest.mark.parametrize("turn", [0.0, 0.4, 1.2])
@pytest.mark.parametrize("across", [60, 1100])
def test_an_ellipse_mirrors_in_both_axes_and_a_triangle_in_one(turn: float, across: int) -> None:
    y, x = grid(int(1.8 * across), turn)
    assert only_lesion(np.hypot(y / 0.3, x / 0.5) < across).asymmetry < 0.04
    # Isosceles: mirrored through its centroid across the base's direction, two thirds find something opposite.
    triangle = (y > -across / 3) & (abs(x) < (2 * across / 3 - y) * 0.3)
    assert only_lesion(triangle).asymmetry == pytest.approx(1 / 6, abs=0.02)


def test_a_ragged_border_is_more_irregular_than_a_smooth_one() -> None:
    y, x = grid(400)
    angle = np.arctan2(y, x)
    figures = [
        only_lesion(np.hypot(y, x) < 120 * (1 + depth * np.cos(12 * angle))).border_irregularity
        for depth in (0, 0.05, 0.1, 0.2)
    ]
    assert figures == sorted(figures)
    assert figures[0] == pytest.approx(1, abs=0.01)
    assert figures[-1] > 1.5


# Colour


def painted(mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.where(mask[..., None], np.uint8(colour), np.uint8(SKIN))


@pytest.mark.parametrize("side", [120, 900])
def test_one_colour_varies_by_nothing_and_two_by_half_their_distance(side: int) -> None:
    mask = disc(side, 0.6 * side)[0]
    plain = painted(mask, BROWN)
    lesion = only_lesion(mask, plain)
    brown, black = (rgb2lab(np.uint8([[colour]]))[0, 0] for colour in (BROWN, BLACK))
    assert lesion.colour_variegation == pytest.approx(0, abs=0.5)
    assert lesion.colour_lab == pytest.approx(tuple(brown), abs=0.5)
    plain[: side // 2][mask[: side // 2]] = BLACK
    halves = only_lesion(mask, plain)
    assert halves.colour_variegation == pytest.approx(np.linalg.norm(brown - black) / 2, rel=0.05)
    assert halves.colour_lab == pytest.approx(tuple((brown + black) / 2), abs=1)


def test_without_a_photo_there_are_no_colours() -> None:
    lesion = only_lesion(disc(100, 50)[0])
    assert (lesion.colour_variegation, lesion.colour_lab) == (None, None)


def test_a_lesion_too_thin_for_the_colours_still_has_its_shape() -> None:
    mask = np.zeros((8000, 4), np.uint8)
    mask[1:3999:2, 1] = mask[2:4000:2, 2] = 1
    lesion = only_lesion(mask, np.full((8000, 4, 3), 99, np.uint8))
    assert lesion.area_px == 3998
    assert lesion.perimeter_px > 3998  # far above the disc's of that area


# The probability map

maps = arrays(np.float32, (9, 11), elements=st.floats(0, 1, width=32))


@law
@given(maps, st.floats(0.05, 0.95))
def test_the_interval_holds_the_area_and_the_certainty_is_a_share(map_: np.ndarray, threshold: float) -> None:
    mask = (map_ >= threshold).astype(np.uint8)
    measures = measure_mask(mask, confidence_map=map_, threshold=threshold)
    assert measures.area_interval_px is not None
    low, high = measures.area_interval_px
    assert 0 <= low <= measures.area_px <= high <= map_.size
    assert (measures.certainty is None) == (not mask.any())
    assert measures.certainty is None or 0 <= measures.certainty <= 1 + 1e-6


def test_a_map_without_doubt_leaves_no_interval() -> None:
    mask = disc(90, 50)[0]
    assert area_interval_px(mask.astype(np.float32), 0.5) == (mask.sum(), mask.sum())
    assert expected_jaccard(mask.astype(np.uint8), mask.astype(np.float32)) == pytest.approx(1)


def test_the_certainty_is_the_jaccard_index_to_be_expected() -> None:
    rng = np.random.default_rng(0)
    y, x = grid(120)
    map_ = 1 / (1 + np.exp((np.hypot(y, x) - 30) / 5)).astype(np.float32)
    mask = map_ >= 0.5
    truths = [rng.random(map_.shape) < map_ for _ in range(50)]
    expected = np.mean([(mask & truth).sum() / (mask | truth).sum() for truth in truths])
    assert expected_jaccard(mask.astype(np.uint8), map_) == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared/data, which is not part of the repository")
def test_the_interval_holds_the_experts_area_for_four_of_five_photos() -> None:
    from mtl.api import MultiTaskModel
    from mtl.photo import read_mask, read_photo

    model, names = MultiTaskModel.load(), json.loads((PHOTOS / "splits.json").read_text())["val"]
    within, certainties, indices = [], [], []
    for name in [name for name in names if name.startswith("isic18_")]:
        analysis = model.analyze(read_photo(next((PHOTOS / "images").rglob(name)), min_side=256))
        truth = read_mask(next((PHOTOS / "masks").rglob(f"{Path(name).stem}.png")))
        map_ = analysis.confidence_at(*truth.shape)
        mask = map_ >= 0.5
        low, high = area_interval_px(map_, 0.5)
        within.append(low <= truth.sum() <= high)
        certainties.append(expected_jaccard(mask.astype(np.uint8), map_))
        indices.append((mask & (truth > 0)).sum() / (mask | (truth > 0)).sum())
    assert np.mean(within) == pytest.approx(0.8, abs=0.05)
    assert np.corrcoef(certainties, indices)[0, 1] > 0.7


# Millimetres


@pytest.mark.parametrize("px_per_mm", [3.0, 11.7, 40.0])
def test_a_drawn_ruler_gives_millimetres(px_per_mm: float) -> None:
    """A ruler of 30 mm, aslant; its end ticks are clicked to the pixel, a disc of 12 mm is measured."""
    side = round(40 * px_per_mm)
    photo = np.full((side, side), 255, np.uint8)
    ticks = [(3 * px_per_mm + 0.6 * mm * px_per_mm, 4 * px_per_mm + 0.8 * mm * px_per_mm) for mm in range(31)]
    for number, (row, column) in enumerate(ticks):
        photo[line(round(row), round(column), round(row) - (2 if number % 5 else 4), round(column))] = 1 + number
    start, end = (tuple(np.argwhere(photo == tick).max(axis=0).tolist()) for tick in (1, 31))
    scale = scale_from_ruler(start, end, 30)
    assert scale.source == "ruler"
    lesion = only_lesion(disc(side, 12 * px_per_mm)[0])
    assert lesion.equivalent_diameter_px * scale.mm_per_px == pytest.approx(12, rel=0.02)
    assert lesion.area_px * scale.mm_per_px**2 == pytest.approx(math.pi * 36, rel=0.03)
    assert lesion.perimeter_px * scale.mm_per_px == pytest.approx(math.pi * 12, rel=0.03)


@pytest.mark.parametrize("length", [0, -1, math.nan, math.inf])
def test_a_ruler_without_a_length_is_refused(length: float) -> None:
    with pytest.raises(ConfigError, match="needed more than 0"):
        scale_from_ruler((0, 0), (3, 4), length)


def test_a_ruler_of_one_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="same point"):
        scale_from_ruler((3, 4), (3, 4), 10)
