"""From a photo to its answer: geometry there and back, EXIF, order, groups, thresholds."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from builders import draw_photo, law
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from tiny import ONE_THREAD, random_network

from mtl.analysis.engine import FEATURE_COUNT, EagerEngine, Engine, Outputs
from mtl.analysis.predict import Analysis, analyse, group_answers, joint_probabilities, to_dict
from mtl.config import Classes, ModelConfig
from mtl.errors import ConfigError
from mtl.frame import map_to_photo, map_to_square, photo_to_square
from mtl.photo import read_photo

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

MAP_SIZE = 112  # the network's mask logits for a 224 px square
CONFIG = ModelConfig(image_size=64)
SKIN_UNNAMED = CONFIG.replace(unnamed_groups=("skin type",))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return EagerEngine(random_network(CONFIG), torch.device("cpu"))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(72, 96, 3): wider than high, and like no turned copy of itself."""
    return draw_photo(3, 96, np.random.default_rng(0))[0][12:84]


class FixedEngine:
    """Answers each photo with logits that are given beforehand."""

    def __init__(self, class_logits: np.ndarray, mask_logits: np.ndarray):
        self.class_logits, self.mask_logits = class_logits, mask_logits

    def __call__(self, squares: np.ndarray) -> Outputs:
        count = len(squares)
        features = np.zeros((count, FEATURE_COUNT), np.float32)
        return Outputs(np.tile(self.class_logits, (count, 1)), np.tile(self.mask_logits, (count, 1, 1)), features)


# ---- geometry

sides = st.integers(24, 500)
spans = st.tuples(st.integers(8, 100), st.integers(8, 60)).map(lambda s: (s[0], min(s[0] + s[1], MAP_SIZE - 8)))


def rectangle(rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """Logits (112, 112): 8 within, -8 outside."""
    logits = np.full((MAP_SIZE, MAP_SIZE), -8, np.float32)
    logits[slice(*rows), slice(*columns)] = 8
    return logits


def centre(mask: np.ndarray) -> np.ndarray:
    """(row, column) of a 0/1 mask's middle, in pixels, from the outer corner."""
    return np.argwhere(mask).mean(axis=0) + 0.5


@law
@given(sides, sides, spans, spans)
def test_a_rectangle_comes_back_in_place(
    height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    logits = rectangle(rows, columns)
    on_photo = map_to_photo(logits, height, width, False, outside=-30.0)
    assert on_photo.shape == (height, width)
    assert on_photo.dtype == np.float32
    wanted = np.array([sum(rows) / 2 * height / MAP_SIZE, sum(columns) / 2 * width / MAP_SIZE])
    if (on_photo >= 0).any():  # a thin one on a small photo may fall between its pixels
        assert np.abs(centre(on_photo >= 0) - wanted).max() <= 0.5
    back = map_to_square(on_photo, MAP_SIZE, False)
    if (back >= 0).any():
        pixel = np.array([max(1, MAP_SIZE / height), max(1, MAP_SIZE / width)])  # of the coarser of the two grids
        assert (np.abs(centre(back >= 0) - centre(logits >= 0)) <= 0.5 * pixel).all()


@law
@given(sides, sides, spans, spans)
def test_a_centre_crop_maps_back_into_place(
    height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    on_photo = map_to_photo(rectangle(rows, columns), height, width, True, outside=-30.0)
    assert on_photo.shape == (height, width)
    inside = np.zeros((height, width), bool)
    inside[top : top + side, left : left + side] = True
    assert (on_photo[~inside] == -30).all()
    wanted = np.array([top + sum(rows) / 2 * side / MAP_SIZE, left + sum(columns) / 2 * side / MAP_SIZE])
    if (on_photo >= 0).any():
        assert np.abs(centre(on_photo >= 0) - wanted).max() <= 0.5


@law
@given(sides, sides, st.booleans())
def test_photo_and_map_take_the_same_way(height: int, width: int, center_crop: bool) -> None:
    values = np.linspace(0, 250, height * width, dtype=np.float32).reshape(height, width).astype(np.uint8)
    square = photo_to_square(np.stack([values] * 3, axis=2), 64, center_crop)
    assert square.shape == (64, 64, 3)
    assert np.abs(map_to_square(values.astype(np.float32), 64, center_crop) - square[..., 0]).max() <= 1.5


def test_the_mask_has_the_photos_size_and_the_threshold_cuts_it() -> None:
    logits = np.zeros((MAP_SIZE, MAP_SIZE), np.float32)
    logits[:, 56:] = 2  # a probability of 0.88 on the right half
    engine = FixedEngine(np.zeros(10), logits)
    photo = np.zeros((50, 200, 3), np.uint8)
    [at_half] = analyse([photo], engine, CONFIG)
    [higher] = analyse([photo], engine, CONFIG, threshold=0.6)
    [stored] = analyse([photo], engine, CONFIG.replace(mask_threshold=0.9))
    assert (at_half.lesion_area_ratio, stored.lesion_area_ratio) == (1, 0)
    assert higher.lesion_area_ratio == pytest.approx(0.5, abs=0.01)
    assert higher.mask.shape == higher.confidence_map.shape == (50, 200)
    assert (higher.mask.dtype, higher.confidence_map.dtype) == (np.uint8, np.float32)
    assert set(np.unique(higher.mask)) == {0, 1}
    assert higher.confidence_map[25, 150] == pytest.approx(1 / (1 + np.exp(-2)))


def test_far_logits_give_no_warning() -> None:
    [analysis] = analyse([np.zeros((9, 9, 3), np.uint8)], FixedEngine(np.zeros(10), np.full((8, 8), -500.0)), CONFIG)
    assert analysis.confidence_map.max() == 0


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_threshold_that_is_no_probability(threshold: float, engine: Engine, photo: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"conf_thresh: got .*; needed a probability between 0 and 1"):
        analyse([photo], engine, CONFIG, threshold=threshold)


# ---- the same photo, the same answer

# How an upright photo is stored so that the EXIF orientation turns it back.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_turned_photo_gets_the_same_answer(orientation: int, kind: str, engine: Engine, photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = BytesIO()
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(photo).transpose(STORED[orientation]).save(file, kind, exif=exif, **options)
    upright, turned = analyse([photo, read_photo(file.getvalue())], engine, CONFIG)
    assert turned.mask.shape == upright.mask.shape == (72, 96)
    tolerance = 0.02 if kind == "JPEG" else 1e-5
    assert np.abs(turned.probabilities - upright.probabilities).max() <= tolerance
    assert np.abs(turned.confidence_map - upright.confidence_map).max() <= 5 * tolerance


def test_another_order_or_company_changes_no_answer(engine: Engine) -> None:
    shapes = [(64, 64), (40, 90), (90, 40), (64, 64), (30, 31)]
    photos = [draw_photo(n, 96, np.random.default_rng(n))[0][:h, :w] for n, (h, w) in enumerate(shapes)]
    together = analyse(photos, engine, CONFIG)
    reverse = analyse(photos[::-1], engine, CONFIG)[::-1]
    alone = [analyse([photo], engine, CONFIG)[0] for photo in photos]
    assert np.ptp([analysis.probabilities for analysis in together], axis=0).max() > 1e-3
    for others in (reverse, alone):
        for ours, theirs in zip(together, others, strict=True):
            assert np.abs(ours.probabilities - theirs.probabilities).max() <= 1e-5
            assert np.abs(ours.confidence_map - theirs.confidence_map).max() <= 1e-5


# ---- classes

logit_rows = st.lists(st.floats(-30, 30), min_size=10, max_size=10).map(np.array)
counts = st.lists(st.integers(0, 3), min_size=10, max_size=10).filter(any).map(tuple)


@law
@given(logit_rows, counts, st.floats(0.1, 10))
def test_probabilities_are_a_softmax_over_the_trained_classes(
    logits: np.ndarray, class_counts: tuple[int, ...], temperature: float
) -> None:
    config = ModelConfig(class_counts=class_counts, temperature=temperature)
    [joint] = joint_probabilities(logits[None], config)
    trained = np.array(class_counts) > 0
    assert joint.sum() == pytest.approx(1)
    assert (joint[~trained] == 0).all()
    odds = np.exp((logits[trained] - logits[trained].max()) / temperature)
    assert joint[trained] == pytest.approx(odds / odds.sum())


@law
@given(logit_rows, counts)
def test_a_groups_probabilities_are_the_joint_ones_renormalised(
    logits: np.ndarray, class_counts: tuple[int, ...]
) -> None:
    config = ModelConfig(class_counts=class_counts)
    [joint] = joint_probabilities(logits[None], config)
    answers = group_answers(joint, config)
    assert [answer.group for answer in answers] == ["skin type", "hair type"]
    assert sum(answer.share for answer in answers) == pytest.approx(1)
    for answer, ids in zip(answers, config.classes.group_ids.values(), strict=True):
        assert np.array(answer.probabilities) * answer.share == pytest.approx(joint[ids.start : ids.stop])
        assert answer.names[int(np.argmax(answer.probabilities))] == answer.predicted_class
        if answer.share > 0:
            assert sum(answer.probabilities) == pytest.approx(1)


def analysis_of(logits: list[float], config: ModelConfig | None = None) -> Analysis:
    photo = np.zeros((8, 8, 3), np.uint8)
    [analysis] = analyse([photo], FixedEngine(np.array(logits), np.zeros((4, 4))), config or CONFIG)
    return analysis


@pytest.mark.parametrize(
    ("logits", "skin", "hair"),
    [
        ([0, 9, 0, 0, 0, 0, 0, 0, 0, 0], "dry", "not seen"),
        ([0, 0, 0, 0, 0, 0, 0, 9, 0, 0], "not seen", "curly"),
        ([0, 9, 0, 0, 0, 0, 0, 9, 0, 0], "dry", "curly"),
        ([9, 9, 9, 0, 0, 0, 0, 0, 0, 0], "uncertain", "not seen"),
        ([0] * 10, "not seen", "not seen"),
    ],
)
def test_what_is_said_of_a_group(logits: list[float], skin: str, hair: str) -> None:
    assert [answer.answer for answer in analysis_of(logits).groups] == [skin, hair]


@law
@given(logit_rows, st.floats(0, 1))
def test_a_class_is_named_from_the_set_confidence(logits: np.ndarray, name_confidence: float) -> None:
    analysis = analysis_of(logits.tolist())
    told = to_dict(analysis, CONFIG, name_confidence=name_confidence)["classification"]["groups"]
    for answer in analysis.groups:
        named = answer.predicted_class if answer.confidence >= name_confidence else "uncertain"
        assert (
            told[answer.group]["answer"]
            == answer.answer_at(name_confidence)
            == (named if answer.applies else "not seen")
        )
        assert answer.answer == answer.answer_at(0.5)


@law
@given(logit_rows, st.floats(0, 1))
def test_classes_of_an_unnamed_group_are_never_named_and_all_else_stays(
    logits: np.ndarray, name_confidence: float
) -> None:
    plain, unnamed = (analysis_of(logits.tolist(), config) for config in (CONFIG, SKIN_UNNAMED))
    skin, hair = unnamed.groups
    assert skin.answer_at(name_confidence) == ("uncertain" if skin.applies else "not seen")
    assert hair == plain.groups[1]
    assert replace(skin, named=True) == plain.groups[0]
    told = to_dict(unnamed, SKIN_UNNAMED, name_confidence=name_confidence)["classification"]["groups"]
    assert {group: answer["named"] for group, answer in told.items()} == {"skin type": False, "hair type": True}
    assert told["skin type"]["answer"] == skin.answer_at(name_confidence)


@pytest.mark.parametrize("name_confidence", [-0.1, 1.1, float("nan")])
def test_a_confidence_that_is_no_probability(name_confidence: float) -> None:
    with pytest.raises(ConfigError, match=r"name_confidence: got .*; needed a probability from 0 to 1"):
        to_dict(analysis_of([0] * 10), CONFIG, name_confidence=name_confidence)


def test_the_features_come_along(engine: Engine, photo: np.ndarray) -> None:
    [analysis, other] = analyse([photo, photo[:, ::-1]], engine, CONFIG)
    assert analysis.features is not None
    assert other.features is not None
    assert analysis.features.shape == (FEATURE_COUNT,)
    assert not np.array_equal(analysis.features, other.features)


# Ten skin and hair classes with the second group alone trained, and small sets of one group.
HAIR_ONLY = ModelConfig(image_size=64, class_counts=(0,) * 5 + (9,) * 5)


def one_group(count: int) -> ModelConfig:
    return ModelConfig(image_size=64, classes=Classes(groups={"class": tuple("abcde"[:count])}))


@pytest.mark.parametrize(
    ("percent", "config", "answer"),
    [
        ([70, 30], one_group(2), "a"),
        ([50, 50], one_group(2), "not seen"),
        ([55, 30, 15], one_group(3), "a"),
        ([45, 30, 25], one_group(3), "uncertain"),
        ([34, 33, 33], one_group(3), "not seen"),
        ([1] * 5 + [45, 25, 15, 10, 5], HAIR_ONLY, "uncertain"),
        ([1] * 5 + [55, 20, 15, 5, 5], HAIR_ONLY, "straight"),
        ([1] * 5 + [20] * 5, HAIR_ONLY, "not seen"),
    ],
)
def test_undecided_within_the_only_group_is_not_unseen(percent: list[float], config: ModelConfig, answer: str) -> None:
    assert analysis_of(np.log(percent).tolist(), config).groups[-1].answer == answer


def test_untrained_classes_give_no_answer() -> None:
    config = ModelConfig(image_size=64, class_counts=(0,) * 10)
    analysis = analysis_of([0, 9, 0, 0, 0, 0, 0, 0, 0, 0], config)
    assert [answer.answer for answer in analysis.groups] == ["not seen", "not seen"]
    answer = to_dict(analysis, config)["classification"]
    assert (answer["confidence"], answer["probabilities"]) == (0, [0.0] * 10)


def test_an_untrained_mask_shows_no_lesion() -> None:
    photo = np.zeros((9, 12, 3), np.uint8)
    lesion = FixedEngine(np.zeros(10), np.full((8, 8), 20.0, np.float32))
    for count, area in ((None, 1), (5, 1), (0, 0)):
        [analysis] = analyse([photo], lesion, CONFIG.replace(mask_count=count))
        assert analysis.mask_trained is (count != 0)
        assert analysis.lesion_area_ratio == analysis.mask.mean() == area
        assert analysis.confidence_map.shape == (9, 12)
        assert analysis.confidence_map.dtype == np.float32
    assert not analysis.confidence_map.any()


def test_the_answer_is_that_of_all_classes() -> None:
    analysis = analysis_of([0, 3, 0, 0, 0, 0, 0, 4, 0, 0])
    answer = to_dict(analysis, CONFIG)["classification"]
    assert (answer["predicted_class_id"], answer["predicted_class"]) == (7, "curly")
    assert answer["confidence"] == max(answer["probabilities"]) == analysis.confidence
    assert list(answer["groups"]["skin type"]["probabilities"]) == list(Classes().groups["skin type"])


def test_one_class_of_the_only_group() -> None:
    config = ModelConfig(image_size=64, classes=Classes(groups={"class": ("a", "b")}), class_counts=(3, 0))
    analysis = analysis_of([0.0, 9.0], config)
    assert analysis.probabilities.tolist() == [1, 0]
    assert to_dict(analysis, config)["classification"]["predicted_class"] == "a"
