"""Photos unlike the training photos: the distance, its limit, what is kept of it, and whether it tells them apart."""

import logging
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import draw_photo, law, write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from tiny import ONE_THREAD, random_network, tiny_config

from mtl.analysis.engine import FEATURE_COUNT, EagerEngine
from mtl.analysis.unlike import MIN_PHOTOS, Familiarity, FamiliarityModel, fit_familiarity
from mtl.api import DEFAULT_CHECKPOINT, MultiTaskModel
from mtl.checkpoint import FEATURES_FILE, read_checkpoint
from mtl.data.folder import read_folder
from mtl.training import fit
from mtl.training.callbacks import StopRequested
from mtl.training.features import learn_features
from mtl.training.run import Run

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

VALIDATION = Path(__file__).parents[2] / "shared" / "data" / "multitask" / "images" / "val"


def correlated(count: int, seed: int) -> np.ndarray:
    """(count, FEATURE_COUNT) of a normal distribution far from a sphere, with a mean and units of its own."""
    mixing = np.random.default_rng(0).normal(size=(FEATURE_COUNT, FEATURE_COUNT)) / 10
    normal = np.random.default_rng(seed).normal(size=(count, FEATURE_COUNT))
    return (5 + normal @ mixing * np.geomspace(0.01, 100, FEATURE_COUNT)).astype(np.float32)


def fitted(train: np.ndarray, val: np.ndarray) -> FamiliarityModel:
    model = fit_familiarity(train, val)
    assert model is not None
    return model


@pytest.fixture(scope="module")
def made() -> FamiliarityModel:
    return fitted(correlated(600, 1), correlated(200, 2))


# ---- the distance


def test_one_of_a_hundred_of_the_same_kind_lies_beyond_the_limit(made: FamiliarityModel) -> None:
    assert (made.distances(correlated(200, 2)) > made.limit).sum() == 2
    assert (made.distances(correlated(1000, 3)) > made.limit).mean() < 0.05
    assert made.distances(correlated(1000, 3)).mean() == pytest.approx(1, abs=0.2)


def test_the_distance_is_mahalanobis_with_the_correlations_known(made: FamiliarityModel) -> None:
    """Two steps of one length: along the training photos' widest direction a short one, across it a long one."""
    standardised = (correlated(600, 1) - made.mean) / made.scale
    directions = np.linalg.svd(standardised, full_matrices=False)[2]
    wide, narrow = (made.distances((made.mean + 20 * made.scale * directions[i])[None])[0] for i in (0, -1))
    assert narrow > 2 * wide


@law
@given(st.floats(1.1, 50))
def test_farther_out_is_farther(made: FamiliarityModel, factor: float) -> None:
    step = correlated(1, 4) - made.mean
    near, far = made.distances(made.mean + np.concatenate([step, factor * step]))
    assert far == pytest.approx(factor * near, rel=1e-3)


@pytest.mark.parametrize(("distance", "unlike"), [(1.9, False), (2.0, False), (2.1, True)])
def test_unlike_is_what_lies_beyond_the_limit(distance: float, unlike: bool) -> None:
    assert Familiarity(distance, 2.0).unlike is unlike


@pytest.mark.parametrize(("train", "val"), [(MIN_PHOTOS - 1, 50), (50, MIN_PHOTOS - 1)])
def test_too_few_photos_give_no_limit(train: int, val: int) -> None:
    assert fit_familiarity(correlated(train, 1), correlated(val, 2)) is None


def test_few_photos_and_a_feature_without_spread_give_finite_distances() -> None:
    train, val = correlated(MIN_PHOTOS, 1), correlated(MIN_PHOTOS, 2)
    train[:, 0] = val[:, 0] = 7
    model = fitted(train, val)
    assert np.isfinite(model.distances(val)).all()
    assert model.familiarity(val[0] + 1000).unlike


# ---- what is kept


def test_it_comes_back_from_its_arrays(made: FamiliarityModel) -> None:
    arrays = made.to_arrays()
    assert sum(array.nbytes for array in arrays.values()) < 300_000
    back = FamiliarityModel.from_arrays(arrays)
    assert back is not None
    some = correlated(20, 5)
    assert np.array_equal(back.distances(some), made.distances(some))
    assert back.limit == pytest.approx(made.limit)


@pytest.mark.parametrize("wrong", ["missing", "more", "shape", "not finite", "no scale", "integers"])
def test_arrays_of_something_else_are_left_out(
    wrong: str, made: FamiliarityModel, caplog: pytest.LogCaptureFixture
) -> None:
    arrays = {key: array.copy() for key, array in made.to_arrays().items()}
    match wrong:
        case "missing":
            del arrays["limit"]
        case "more":
            arrays["other"] = arrays["mean"]
        case "shape":
            arrays["mean"] = arrays["mean"][:-1]
        case "not finite":
            arrays["whitening"][3, 3] = np.inf
        case "no scale":
            arrays["scale"][5] = 0
        case "integers":
            arrays["mean"] = arrays["mean"].astype(np.int64)
    with caplog.at_level(logging.WARNING):
        assert FamiliarityModel.from_arrays(arrays) is None
    assert "does not fit this version" in caplog.text


# ---- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = write_folder(tmp_path_factory.mktemp("unlike") / "skin", train=30, val=MIN_PHOTOS)
    return fit.train(tiny_config(data, epochs=1))


def test_a_run_keeps_what_its_photos_are_like(run: Run) -> None:
    model = MultiTaskModel.load(run.path, device="cpu")
    like = model.familiarity(model.analyze(draw_photo(4, 64, np.random.default_rng(99))[0]))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    unlike = model.familiarity(model.analyze(noise))
    assert like
    assert unlike
    assert unlike.distance > 2 * like.distance
    assert unlike.unlike
    assert run.status().state == "finished"


def test_a_run_of_few_photos_keeps_nothing(finished_run: Run) -> None:
    model = MultiTaskModel.load(finished_run.path, device="cpu")
    assert model.checkpoint.training_features is None
    assert model.familiarity(model.analyze(np.zeros((64, 64, 3), np.uint8))) is None


def test_a_failure_there_does_not_lose_the_run(tmp_path: Path) -> None:
    job = fit.open_job(tiny_config(write_folder(tmp_path / "skin", train=20, val=MIN_PHOTOS), epochs=1))
    (job.run.path / FEATURES_FILE / "in the way").mkdir(parents=True)
    fit.run_job(job)
    assert job.run.status().state == "finished"
    assert MultiTaskModel.load(job.run.path, device="cpu").checkpoint.training_features is None
    assert "will not tell photos unlike the training photos" in job.run.log_file.read_text()


def test_a_stop_breaks_it_off(run: Run) -> None:
    def stop(done: int, total: int) -> None:
        asked.append((done, total))
        raise StopRequested

    asked: list[tuple[int, int]] = []
    with pytest.raises(StopRequested):
        learn_features(read_checkpoint(run.best_file), read_folder(run.config), torch.device("cpu"), stop)
    assert asked == [(1, 30 + MIN_PHOTOS)]


# ---- the features


def test_each_photo_has_its_features_in_any_company() -> None:
    engine = EagerEngine(random_network(), torch.device("cpu"))
    squares = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    squares[1] = 128
    together = engine(squares).features
    assert (together.shape, together.dtype) == ((3, FEATURE_COUNT), np.float32)
    assert np.isfinite(together).all()
    assert together == pytest.approx(
        np.concatenate([engine(square[None]).features for square in squares]), rel=1e-3, abs=1e-3
    )


# ---- the shipped model


@pytest.fixture(scope="module")
def shipped() -> MultiTaskModel:
    if not DEFAULT_CHECKPOINT.is_dir():
        pytest.skip("no model is shipped with this checkout")
    return MultiTaskModel.load(device="cpu")


def share_unlike(model: MultiTaskModel, photos: list[np.ndarray]) -> float:
    familiar = [model.familiarity(analysis) for analysis in model.analyze_batch(list(photos))]
    return float(np.mean([one.unlike for one in familiar if one]))


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)


def flat(rng: np.random.Generator) -> np.ndarray:
    return np.full((224, 224, 3), rng.integers(0, 256, 3), np.uint8)


def page(rng: np.random.Generator) -> np.ndarray:
    image, font = Image.new("RGB", (600, 800), "white"), ImageFont.load_default(int(rng.integers(12, 30)))
    for top in range(20, 780, 40):
        line = " ".join(rng.choice(["dose", "twice", "daily", "for", "six", "weeks", "and", "then"], 8))
        ImageDraw.Draw(image).text((20, top), line, font=font, fill="black")
    return np.asarray(image)


@pytest.mark.parametrize("draw", [noise, flat, page])
def test_made_other_things_are_unlike(draw: object, shipped: MultiTaskModel) -> None:
    assert callable(draw)
    assert share_unlike(shipped, [draw(np.random.default_rng(number)) for number in range(8)]) == 1


def test_validation_photos_are_not(shipped: MultiTaskModel) -> None:
    if not VALIDATION.is_dir():
        pytest.skip("the validation photos are not beside the repository")
    paths = [sorted(VALIDATION.glob(f"{kind}_*"))[place] for kind, place in product(("isic18", "hair"), range(8))]
    familiar = [shipped.familiarity(shipped.analyze(path)) for path in paths]
    assert sum(one.unlike for one in familiar if one) <= 1


def test_weights_of_another_model_are_not_judged_by_these(shipped: MultiTaskModel) -> None:
    analysis = shipped.analyze(np.zeros((30, 30, 3), np.uint8))
    assert shipped.familiarity(replace(analysis, features=None)) is None
