"""Calibration: what is fitted is what was put in, and it is kept with the weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from tiny import random_network, tiny_config

from mtl.checkpoint import Checkpoint, read_checkpoint, rewrite_config, write_folder, write_pth
from mtl.config import NO_CLASS, UNKNOWN, ModelConfig
from mtl.evaluation import calibration
from mtl.evaluation.calibration import (
    at_temperature,
    calibrate,
    calibration_figures,
    choose_threshold,
    cross_fitted,
    fit_temperature,
)
from mtl.evaluation.figures import Labels, class_figures, read_labels
from mtl.evaluation.measure import THRESHOLDS, Answers, Masks, Results
from mtl.training.fit import train

CONFIG = ModelConfig()
SKIN = 4  # trained classes: ids 0 to 3
pytestmark = pytest.mark.usefixtures("one_thread")


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def drawn(photos: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 10) whose logits are so many times too large, and labels drawn from the true ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (photos, 10))
    labels = np.array([random.choice(10, p=row) for row in softmax(logits)])
    return softmax(logits * temperature), labels


def labels_of(probabilities: np.ndarray, labels: np.ndarray) -> Labels:
    return Labels(labels, probabilities.argmax(axis=1), probabilities, np.arange(len(labels)))


def results_of(probabilities: np.ndarray, labels: np.ndarray, masks: Masks | None = None) -> Results:
    targets = np.array([(label, UNKNOWN) if label < 5 else (UNKNOWN, label) for label in labels])
    answers = Answers(probabilities, targets, np.full((len(labels), 2), -1))
    return Results(tuple(f"{n}.jpg" for n in range(len(labels))), answers, masks or no_masks())


def no_masks() -> Masks:
    return Masks.of([], *[((), int)] * 5, ((), float), ((2,), int), ((2,), int), ((len(THRESHOLDS), 2), int))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    fitted = fit_temperature(labels_of(*drawn(4000, temperature)))
    assert fitted == pytest.approx(temperature, rel=0.1)


@law
@given(st.integers(0, 2**31 - 1), st.floats(0.3, 4), st.integers(10, 80))
def test_fitting_never_hurts_and_changes_no_answer(seed: int, temperature: float, photos: int) -> None:
    labels = labels_of(*drawn(photos, temperature, seed))
    fitted = at_temperature(labels, fit_temperature(labels))
    before, after = class_figures(labels), class_figures(fitted)
    assert (after["nll"] or 0) <= (before["nll"] or 0) + 1e-6
    assert (fitted.probabilities.argmax(axis=1) == labels.probabilities.argmax(axis=1)).all()
    np.testing.assert_allclose(fitted.probabilities.sum(axis=1), 1)


def test_cross_fitting_never_looks_at_a_photos_own_label() -> None:
    labels = labels_of(*drawn(100, 2.0))
    other = labels.ids.copy()
    other[17] = (other[17] + 1) % 10
    before, after = cross_fitted(labels), cross_fitted(replace(labels, ids=other))
    np.testing.assert_array_equal(before.probabilities[17], after.probabilities[17])
    assert not np.array_equal(before.probabilities, after.probabilities)


def test_figures_before_and_after() -> None:
    results = results_of(*drawn(600, 3.0))
    found = calibration_figures(results, CONFIG)
    assert found["temperature"] == 1
    assert found["cross_fitted"]["nll"] < found["uncalibrated"]["nll"]
    assert found["cross_fitted"]["ece"] < found["uncalibrated"]["ece"]
    assert calibration_figures(results_of(*drawn(10, 1.0)), CONFIG) == {}


def test_a_calibrated_config_is_fitted_from_where_it_stands() -> None:
    """Answers that were read at a temperature already give the same in the end."""
    probabilities, labels = drawn(800, 2.0)
    first = calibrate(results_of(probabilities, labels), CONFIG)
    read_at = at_temperature(labels_of(probabilities, labels), 1.7).probabilities
    again = calibrate(results_of(read_at, labels), CONFIG.replace(temperature=1.7))
    assert again.temperature == pytest.approx(first.temperature, rel=1e-3)


def masks_with(jaccard_peaks: float, photos: int = 30) -> Masks:
    """Lesions of 100 pixels of which what is marked fits best at one threshold."""
    marked = np.array([[round(100 + 200 * (jaccard_peaks - cut)), 100] for cut in THRESHOLDS])
    marked[:, 0] = marked[:, 0].clip(min=1)
    at = np.stack([marked[:, 0], marked.min(axis=1)], axis=1)
    row = (100, 100, 100, 10_000, 0.0, (1, 1), (1, 1), at)
    shapes = [*[((), int)] * 5, ((), float), ((2,), int), ((2,), int), ((len(THRESHOLDS), 2), int)]
    return Masks.of([(number, *row) for number in range(photos)], *shapes)


def test_the_masks_threshold_is_where_they_fit_best() -> None:
    assert choose_threshold(masks_with(0.35)) == pytest.approx(0.35)
    assert choose_threshold(masks_with(0.5)) == 0.5


def test_what_too_few_photos_tell_stays_as_it_is() -> None:
    config = CONFIG.replace(temperature=1.3, mask_threshold=0.4, unnamed_groups=("skin type",))
    found = calibrate(results_of(*drawn(calibration.MIN_LABELS - 1, 3.0), masks_with(0.6, 5)), config)
    assert (found.temperature, found.mask_threshold, found.unnamed_groups) == (1.3, 0.4, ("skin type",))


def test_a_group_that_is_wrong_too_often_is_not_named() -> None:
    random = np.random.default_rng(0)
    hair = random.integers(5, 10, 100)
    guessed, sure = np.zeros((100, 10)), np.zeros((100, 10))
    guessed[np.arange(100), random.integers(0, SKIN, 100)] = 1.0
    sure[np.arange(100), hair] = 1.0
    probabilities = 0.8 * np.concatenate([guessed, sure]) + 0.02
    labels = np.concatenate([random.integers(0, SKIN, 100), hair])
    found = calibrate(results_of(probabilities, labels), CONFIG)
    assert found.unnamed_groups == ("skin type",)
    assert found.applied(CONFIG).unnamed_groups == ("skin type",)


def test_photos_of_no_class_take_no_part() -> None:
    results = results_of(*drawn(100, 2.0))
    targets = results.answers.targets.copy()
    targets[50:] = NO_CLASS
    answers = replace(results.answers, targets=targets)
    assert len(read_labels(answers, CONFIG).ids) == 50


@pytest.mark.parametrize("kind", ["pth", "folder"])
def test_it_is_kept_with_the_weights(kind: str, tmp_path: Path) -> None:
    config = ModelConfig(image_size=64)
    checkpoint = Checkpoint("model", random_network(config).state_dict(), config, {"seed": 3}, 4, {"val_loss": 1.0})
    path = tmp_path / "model.pth"
    if kind == "pth":
        write_pth(path, checkpoint)
    else:
        write_folder(tmp_path, checkpoint)
        path = tmp_path / "model.safetensors"
    wanted = config.replace(temperature=1.4, mask_threshold=0.45, unnamed_groups=("skin type",))
    rewrite_config(path, wanted)
    kept = read_checkpoint(path)
    assert kept.model_config == wanted
    rewrite_config(path, config)
    assert read_checkpoint(path).model_config == config
    rewrite_config(path, wanted)
    assert (kept.revision, kept.training, kept.epoch, kept.metrics) == (
        checkpoint.revision,
        checkpoint.training,
        checkpoint.epoch,
        checkpoint.metrics,
    )


@pytest.mark.parametrize("wanted", [True, False])
def test_training_calibrates_at_its_end(
    wanted: bool, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MIN_LABELS", 2)
    run = train(tiny_config(tiny_data, output_dir=str(tmp_path), epochs=1, calibrate=wanted))
    kept = read_checkpoint(run.best_file)
    assert (kept.model_config.temperature != 1) == wanted
    assert run.status().state == "finished"
    assert kept.epoch == 1
