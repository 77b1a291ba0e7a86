"""Figures of merit against scikit-learn and torchmetrics where they have them, and their edges."""

import numpy as np
import pytest
import torch
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    jaccard_score,
    log_loss,
    roc_auc_score,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from mtl.metrics import (
    accuracy,
    aurocs,
    balanced_accuracy,
    brier_score,
    debiased_calibration_error,
    dice_jaccard,
    expected_calibration_error,
    found_regions,
    hausdorff_95,
    label_candidates,
    negative_log_likelihood,
    overlap_counts,
    predicted_ids,
    threshold_jaccard,
)

MASKS = arrays.arrays(bool, (3, 6, 5))
PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@law
@given(MASKS, MASKS)
def test_overlaps_are_counted_photo_by_photo(predicted: np.ndarray, truth: np.ndarray) -> None:
    counts = overlap_counts(torch.from_numpy(predicted), torch.from_numpy(truth))
    expected = [[(p & t).sum(), p.sum(), t.sum()] for p, t in zip(predicted, truth, strict=True)]
    assert counts.tolist() == expected


@law
@given(MASKS, MASKS)
def test_dice_and_jaccard(predicted: np.ndarray, truth: np.ndarray) -> None:
    truth[:, 0, 0] = True  # who calls leaves lesion-free photos out
    dice, jaccard = dice_jaccard(overlap_counts(torch.from_numpy(predicted), torch.from_numpy(truth)))
    for number in range(len(truth)):
        of_photo = truth[number].ravel(), predicted[number].ravel()
        assert dice[number].item() == pytest.approx(f1_score(*of_photo))
        assert jaccard[number].item() == pytest.approx(jaccard_score(*of_photo))


def test_dice_and_jaccard_count_pixels_exactly() -> None:
    dice, jaccard = dice_jaccard(torch.tensor([[2**25 + 1, 2**25 + 1, 2**25 + 1], [0, 5, 7], [3, 6, 3]]))
    assert dice.tolist() == [1, 0, 6 / 9]
    assert jaccard.tolist() == [1, 0, 0.5]


def test_threshold_jaccard_is_zero_below_065() -> None:
    assert threshold_jaccard(np.array([0.0, 0.6499, 0.65, 0.9, 1.0])).tolist() == [0, 0, 0.65, 0.9, 1]
    assert threshold_jaccard(np.array([])).tolist() == []


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # scikit-learn leaves them out, as we do
@pytest.mark.filterwarnings("ignore:A single label was found")  # which is no news to a test that draws them
@law
@given(PAIRS)
def test_accuracies(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = zip(*pairs, strict=True)
    confusion = confusion_matrix(truth, predicted, labels=range(5))
    assert accuracy(confusion) == pytest.approx(accuracy_score(truth, predicted))
    assert balanced_accuracy(confusion) == pytest.approx(balanced_accuracy_score(truth, predicted))


def test_accuracies_without_photos_are_none() -> None:
    empty = np.zeros((5, 5), int)
    assert accuracy(empty) is None
    assert balanced_accuracy(empty) is None


def test_classes_without_photos_are_left_out() -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 0]])
    assert balanced_accuracy(confusion) == 0.375
    assert accuracy(confusion) == 0.5


GROUPS = [range(0, 2), range(2, 5)]
ALL = [True] * 5


def test_what_a_label_competes_with() -> None:
    scores = np.array([[1, 2, 9, 0, 0], [1, 2, 9, 0, 0], [1, 2, 9, 0, 0], [1, 2, 9, 0, 0]], float)
    targets = np.array([[0, -1], [0, 3], [-1, -1], [-2, -2]])
    labels, predicted = predicted_ids(scores, targets, GROUPS, ALL)
    assert (labels.tolist(), predicted.tolist()) == ([0, 0, 3], [2, 1, 2])
    labels, predicted = predicted_ids(scores, targets, GROUPS, ALL, within_groups=True)
    assert (labels.tolist(), predicted.tolist()) == ([0, 0, 3], [1, 1, 2])


def test_what_is_not_trained_is_not_predicted() -> None:
    scores, targets = np.array([[9.0, 0, 0, 1, 2]] * 2), np.array([[0, 3], [0, -1]])
    trained = [False, False, True, True, False]
    photos, labels, candidates = label_candidates(targets, GROUPS, trained)
    # The first photo's label of a group without any trained class has nothing to be compared with.
    assert (photos.tolist(), labels.tolist()) == ([0, 1], [3, 0])
    assert candidates.tolist() == [trained, trained]
    assert predicted_ids(scores, targets, GROUPS, trained)[1].tolist() == [3, 3]
    assert len(predicted_ids(scores, targets, GROUPS, [False] * 5)[0]) == 0


@law
@given(st.integers(0, 2**31 - 1), st.integers(1, 300), st.floats(0.1, 8))
def test_calibration_error(seed: int, photos: int, sharpness: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    probabilities = torch.softmax(sharpness * torch.randn(photos, 10, generator=draw, dtype=torch.float64), dim=1)
    truth = torch.randint(10, (photos,), generator=draw)
    confidence, predicted = probabilities.max(dim=1)
    expected = multiclass_calibration_error(probabilities, truth, num_classes=10, n_bins=15, norm="l1")
    error = expected_calibration_error(confidence.numpy(), (predicted == truth).numpy())
    assert error == pytest.approx(expected.item(), abs=1e-6)


def test_calibration_error_at_the_edges() -> None:
    ones, yes = np.ones(4), np.array([True] * 4)
    assert expected_calibration_error(ones, yes) == 0
    assert expected_calibration_error(ones, ~yes) == 1
    assert expected_calibration_error(ones / 2, np.array([True, False] * 2)) == 0
    assert expected_calibration_error(np.zeros(4), ~yes) == 0
    # Two bins, each off in another direction: the errors do not cancel out.
    assert expected_calibration_error(np.array([0.2, 0.8]), np.array([True, False])) == pytest.approx(0.8)


def test_the_debiased_error_takes_off_what_chance_makes() -> None:
    plain, debiased = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        confidence = random.uniform(0.3, 1, 284)
        correct = random.uniform(size=284) < confidence  # as calibrated as can be
        plain.append(expected_calibration_error(confidence, correct))
        debiased.append(debiased_calibration_error(confidence, correct))
    assert np.mean(plain) > 0.06
    assert np.mean(debiased) < min(0.05, 0.75 * np.mean(plain))
    # And it leaves what is really there: all confidences are 0.2 too high.
    confidence = np.random.default_rng(0).uniform(0.4, 1, 20_000)
    correct = np.random.default_rng(1).uniform(size=20_000) < confidence - 0.2
    assert debiased_calibration_error(confidence, correct) == pytest.approx(0.2, abs=0.01)


@law
@given(st.integers(0, 2**31 - 1), st.integers(1, 60))
def test_probabilities_are_scored_as_by_scikit_learn(seed: int, photos: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(4), photos).round(2) + 0.01  # with ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = random.integers(0, 4, photos)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(
        log_loss(labels, probabilities, labels=range(4))
    )
    brier = brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(brier)
    for class_id, area in enumerate(aurocs(probabilities, labels)):
        positive = labels == class_id
        if positive.all() or not positive.any():
            assert area is None
        else:
            assert area == pytest.approx(roc_auc_score(positive, probabilities[:, class_id]))


SHAPES = arrays.arrays(bool, (12, 9))


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@law
@given(SHAPES, SHAPES)
def test_the_boundaries_distance_is_monais(predicted: np.ndarray, truth: np.ndarray) -> None:
    predicted[3, 4] = truth[7, 2] = True
    pair = (torch.from_numpy(mask[None, None]).float() for mask in (predicted, truth))
    expected = compute_hausdorff_distance(*pair, include_background=True, percentile=95).item()
    assert hausdorff_95(predicted, truth) == pytest.approx(expected, abs=1e-4)


def test_regions_are_found_by_their_half() -> None:
    truth, marked = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    truth[10:20, 10:20] = truth[50:60, 50:60] = truth[80:90, 80:90] = True
    marked[10:20, 10:15] = True  # a half of the first
    marked[50:60, 50:54] = True  # less of the second
    marked[0, 0:3] = True  # a speck
    assert found_regions(truth, marked) == (1, 3)
    assert found_regions(marked, truth) == (2, 2)
    assert found_regions(truth & False, marked) == (0, 0)
