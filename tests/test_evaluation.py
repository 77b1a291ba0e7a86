"""The figures of an evaluation, over engines whose answers are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import draw_photo, save

from mtl.analysis.engine import FEATURE_COUNT, Outputs
from mtl.config import NO_CLASS, UNKNOWN, Classes, ModelConfig
from mtl.data.folder import Sample
from mtl.errors import DataError
from mtl.evaluation.attributes import breakdown, find_attributes
from mtl.evaluation.evaluate import evaluate, require_same_classes
from mtl.evaluation.intervals import intervals
from mtl.evaluation.measure import measure

CONFIG = ModelConfig(image_size=64)
SIDE = 32  # of photos, masks and the network's mask logits: so a map fits its mask without resizing
FAR = 20.0


def no_features(squares: np.ndarray) -> np.ndarray:
    return np.zeros((len(squares), FEATURE_COUNT), np.float32)


class KnownEngine:
    """Answers the photos in their order with what is given."""

    def __init__(self, class_ids: list[int], masks: list[np.ndarray]):
        self.class_logits = FAR * np.eye(10)[class_ids]
        self.mask_logits = np.where(np.array(masks) > 0, FAR, -FAR).astype(np.float32)
        self.done = 0

    def __call__(self, squares: np.ndarray) -> Outputs:
        part = slice(self.done, self.done + len(squares))
        self.done = part.stop
        return Outputs(self.class_logits[part], self.mask_logits[part], no_features(squares))


def disc(number: int, *, lesion: bool = True) -> np.ndarray:
    return draw_photo(number % 10, SIDE, np.random.default_rng(number), lesion=lesion)[1]


def write_sample(folder: Path, number: int, mask: np.ndarray | None, target: tuple[int, ...]) -> Sample:
    photo = save(
        draw_photo(number % 10, SIDE, np.random.default_rng(number))[0], folder / "photos" / f"{number:02}.png"
    )
    path = None if mask is None else save(mask * np.uint8(255), folder / "masks" / photo.name)
    return Sample(photo, path, target, photo.name)


def target(class_id: int) -> tuple[int, int]:
    return (class_id, UNKNOWN) if class_id < 5 else (UNKNOWN, class_id)


def some(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Those figures that are looked at."""
    return {key: found[key] for key in wanted}


def test_an_engine_that_knows_the_truth_is_perfect(tmp_path: Path) -> None:
    masks = [disc(number) for number in range(20)]
    samples = [write_sample(tmp_path, n, mask, target(n % 10)) for n, mask in enumerate(masks)]
    calls: list[tuple[int, int]] = []
    report = evaluate(
        samples, KnownEngine([n % 10 for n in range(20)], masks), CONFIG, lambda *done: calls.append(done)
    )
    assert report["photos"] == 20
    perfect = {
        "images": 20, "dice": 1, "jaccard": 1, "threshold_jaccard": 1, "hd95": 0, "area_error": 0, "area_bias": 0,
        "lesions_found": 1, "regions_right": 1,
    }  # fmt: skip
    assert report["segmentation"] == perfect
    classes = report["classification"]
    assert (classes["images"], classes["accuracy"], classes["balanced_accuracy"], classes["macro_auroc"]) == (
        20,
        1,
        1,
        1,
    )
    assert classes["ece"] == pytest.approx(0, abs=1e-6)
    assert classes["groups"]["hair type"]["images"] == 10
    assert classes["groups"]["skin type"]["accuracy"] == 1
    assert classes["per_class"]["dry"] == {"images": 2, "trained": True, "recall": 1, "precision": 1, "auroc": 1}
    assert report["lesion_free"] == {"images": 0, "false_positive_area": None, "over_1_percent": None}
    assert calls[:2] == [(16, 20), (20, 20)]
    assert set(calls[2:]) == {(20, 20)}


def test_a_photo_without_mask_or_label_counts_nowhere(tmp_path: Path) -> None:
    known = [write_sample(tmp_path, n, disc(n), target(n)) for n in range(3)]
    unknown = [write_sample(tmp_path, n, None, (UNKNOWN, UNKNOWN)) for n in range(3, 6)]
    of_no_class = write_sample(tmp_path, 6, None, (NO_CLASS, NO_CLASS))
    masks = [disc(n) for n in range(7)]
    alone = evaluate(known, KnownEngine([0, 1, 9], masks[:3]), CONFIG)
    together = evaluate([*known, *unknown, of_no_class], KnownEngine([0, 1, 9, 4, 4, 4, 4], masks), CONFIG)
    assert (alone.pop("photos"), together.pop("photos")) == (3, 7)
    for figure in ("segmentation", "lesion_free", "worst", "reliability"):
        assert together[figure] == alone[figure]
    shows_none = together["classification"].pop("none")
    assert (shows_none["images"], alone["classification"].pop("none")["images"]) == (1, 0)
    assert together["classification"] == alone["classification"]
    assert together["classification"]["images"] == together["segmentation"]["images"] == 3
    assert together["classification"]["accuracy"] == pytest.approx(2 / 3)


def test_lesion_free_photos_count_by_their_false_area_only(tmp_path: Path) -> None:
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    quarter = nothing.copy()
    quarter[:16, :16] = 1
    samples = [write_sample(tmp_path, n, nothing, (UNKNOWN, UNKNOWN)) for n in range(2)]
    report = evaluate(samples, KnownEngine([0, 0], [quarter, nothing]), CONFIG)
    assert report["lesion_free"] == {"images": 2, "false_positive_area": 0.125, "over_1_percent": 0.5}
    assert set(report["segmentation"].values()) == {0, None}
    assert [each["name"] for each in report["worst"]["lesion_free"]] == ["00.png"]


def test_figures_without_photos_are_none(tmp_path: Path) -> None:
    report = evaluate([write_sample(tmp_path, 0, None, (UNKNOWN, UNKNOWN))], KnownEngine([0], [disc(0)]), CONFIG)
    classes = report["classification"]
    none = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_auroc", "ece", "ece_debiased", "brier", "nll"))
    assert some(classes, none) == none
    assert some(classes["groups"]["skin type"], none) == none
    assert classes["per_class"]["oily"]["recall"] is None


@pytest.mark.parametrize(("columns", "jaccard", "threshold_jaccard"), [(20, 20 / 32, 0.0), (24, 0.75, 0.75)])
def test_a_jaccard_below_0_65_counts_as_none(
    columns: int, jaccard: float, threshold_jaccard: float, tmp_path: Path
) -> None:
    whole = np.ones((SIDE, SIDE), np.uint8)
    part = whole.copy()
    part[:, columns:] = 0
    report = evaluate([write_sample(tmp_path, 0, whole, target(0))], KnownEngine([0], [part]), CONFIG)
    dice = 2 * jaccard / (1 + jaccard)
    wanted = {"images": 1, "dice": dice, "jaccard": jaccard, "threshold_jaccard": threshold_jaccard}
    assert some(report["segmentation"], wanted) == pytest.approx(wanted)


def test_labels_in_both_groups_are_read_within_their_groups(tmp_path: Path) -> None:
    class Both:
        """Dry skin and, less surely, curly hair; nothing of a lesion."""

        def __call__(self, squares: np.ndarray) -> Outputs:
            logits = np.zeros((len(squares), 10))
            logits[:, 1], logits[:, 7] = 9, 6
            return Outputs(logits, np.full((len(squares), SIDE, SIDE), -FAR, np.float32), no_features(squares))

    both = evaluate([write_sample(tmp_path, 0, None, (1, 7))], Both(), CONFIG)["classification"]
    assert (both["images"], both["accuracy"]) == (1, 1)
    assert both["groups"]["hair type"]["accuracy"] == both["groups"]["skin type"]["accuracy"] == 1
    # With its hair's label alone, it competes with the skin's classes too, but not within its group.
    one = evaluate([write_sample(tmp_path, 1, None, (UNKNOWN, 7))], Both(), CONFIG)["classification"]
    assert one["accuracy"] == 0
    assert one["groups"]["hair type"]["accuracy"] == 1


def test_what_is_not_trained_is_not_measured(tmp_path: Path) -> None:
    config = CONFIG.replace(class_counts=(0,) * 10, mask_count=0)
    samples = [write_sample(tmp_path, 0, disc(0), target(0)), write_sample(tmp_path, 1, disc(1) * 0, (1, 7))]
    report = evaluate(samples, KnownEngine([0, 1], [disc(0), disc(1)]), config)
    assert set(report["segmentation"].values()) == {0, None}
    assert report["lesion_free"] == {"images": 0, "false_positive_area": None, "over_1_percent": None}
    assert report["classification"]["images"] == 0
    assert report["classification"]["accuracy"] is None


def test_masks_of_another_size_than_the_photo_are_measured_at_their_own(tmp_path: Path) -> None:
    mask = np.zeros((300, 200), np.uint8)
    mask[:, 100:] = 1
    half = np.zeros((SIDE, SIDE), np.uint8)
    half[:, 16:] = 1
    report: dict[str, Any] = evaluate([write_sample(tmp_path, 0, mask, target(0))], KnownEngine([0], [half]), CONFIG)
    assert report["segmentation"]["jaccard"] == 1


def test_other_classes_are_refused() -> None:
    require_same_classes(CONFIG, Classes().names)
    with pytest.raises(DataError, match="the data has the classes a, b; the checkpoint knows normal, dry"):
        require_same_classes(CONFIG, ("a", "b"))


def some_results(tmp_path: Path, photos: int = 12) -> tuple[Any, list[Sample]]:
    """Half the masks are shifted, a third of the classes wrong; the names tell two sources apart."""
    masks = [disc(number) for number in range(photos)]
    samples = [write_sample(tmp_path, n, mask, target(n % 10)) for n, mask in enumerate(masks)]
    marked = [np.roll(mask, 4 * (n % 2), axis=1) for n, mask in enumerate(masks)]
    engine = KnownEngine([(n + (n % 3 == 0)) % 10 for n in range(photos)], marked)
    return measure(samples, engine, CONFIG), samples


def test_intervals_hold_the_figure_and_repeat(tmp_path: Path) -> None:
    results, _ = some_results(tmp_path)
    found = intervals(results, CONFIG, 200)
    assert found == intervals(results, CONFIG, 200)
    report = evaluate([], KnownEngine([], []), CONFIG)
    assert report["intervals"]["segmentation"]["jaccard"] is None
    jaccard = found["segmentation"]["jaccard"]
    value = float(
        np.mean(results.masks.overlap / (results.masks.truth + results.masks.predicted - results.masks.overlap))
    )
    assert jaccard["low"] < value < jaccard["high"]
    assert found["lesion_free"]["false_positive_area"] is None
    assert "images" not in found["segmentation"]
    assert 0 <= found["classification"]["groups"]["hair type"]["accuracy"]["low"] <= 1


def test_what_follows_the_photos_can_be_broken_off(tmp_path: Path) -> None:
    results, _ = some_results(tmp_path, 3)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        intervals(results, CONFIG, 1, pulse=stop)


def test_a_part_of_the_results_is_that_of_its_photos(tmp_path: Path) -> None:
    results, _ = some_results(tmp_path)
    part = results.part(np.array([3, 3, 8]))
    assert part.names == ("03.png", "03.png", "08.png")
    assert part.masks.truth.tolist() == [results.masks.truth[3]] * 2 + [results.masks.truth[8]]
    assert part.answers.targets.tolist() == results.answers.targets[[3, 3, 8]].tolist()


def test_masks_are_counted_at_every_threshold(tmp_path: Path) -> None:
    results, _ = some_results(tmp_path, 3)
    # The engine is all but sure, so every threshold cuts the same.
    for marked, lesion in results.masks.at_thresholds.transpose(1, 2, 0):
        assert marked.tolist() == results.masks.predicted.tolist()
        assert lesion.tolist() == results.masks.overlap.tolist()


def test_figures_are_told_apart_by_what_a_file_says(tmp_path: Path) -> None:
    results, samples = some_results(tmp_path)
    rows = [f"{sample.name},{'left' if n < 6 else 'right'},same" for n, sample in enumerate(samples)]
    (tmp_path / "diagnoses.csv").write_text("\n".join(["image,label,even", *rows]))
    attributes = find_attributes(samples, results, tmp_path)
    assert attributes["diagnoses"] == ["left"] * 6 + ["right"] * 6
    assert "even" not in attributes  # one value tells nothing apart
    assert "source" not in attributes
    found = breakdown(results, CONFIG, attributes)["diagnoses"]
    assert [found[side]["photos"] for side in ("left", "right")] == [6, 6]
    left = found["left"]["jaccard"]
    whole = results.masks.overlap / (results.masks.truth + results.masks.predicted - results.masks.overlap)
    assert isinstance(left, dict)
    assert left["value"] == pytest.approx(whole[:6].mean())
    assert left["low"] <= left["value"] <= left["high"]


def test_a_file_of_attributes_that_is_none_is_told(tmp_path: Path) -> None:
    results, samples = some_results(tmp_path, 2)
    for content, told in (
        (b"\xff\xfe\x00", "cannot be read as CSV"),
        (b"", "got 0 columns"),
        (b"name\n1", "got 1 columns"),
    ):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(DataError, match=told):
            find_attributes(samples, results, tmp_path, [tmp_path / "bad.csv"])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        find_attributes(samples, results, tmp_path, [tmp_path / "missing.csv"])


def test_the_worst_are_named_worst_first(tmp_path: Path) -> None:
    masks = [disc(number) for number in range(4)]
    samples = [write_sample(tmp_path, n, mask, target(n)) for n, mask in enumerate(masks)]
    marked = [masks[0], np.roll(masks[1], 9, axis=1), np.roll(masks[2], 3, axis=1), masks[3]]
    worst = evaluate(samples, KnownEngine([0, 1, 2, 9], marked), CONFIG)["worst"]
    assert [each["name"] for each in worst["segmentation"][:2]] == ["01.png", "02.png"]
    assert [each["name"] for each in worst["classification"]] == ["03.png"]
    assert worst["classification"][0]["label"] == "combination"
