"""What other programs import: loading from everywhere, one answer for every form of a photo, nothing loaded early."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ONE_THREAD, random_network

import mtl
from mtl.api import DEFAULT_CHECKPOINT, MultiTaskModel, SkinAnalyzer
from mtl.checkpoint import Checkpoint, read_checkpoint, write_folder, write_pth
from mtl.config import Classes, ModelConfig
from mtl.errors import CheckpointError, ConfigError, DeviceError, MtlError, PhotoError
from mtl.training.run import Run

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(finished_run: Run) -> MultiTaskModel:
    return MultiTaskModel.load(finished_run.best_file, device="cpu")


@pytest.fixture(scope="module")
def photo(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 48 x 64 as PNG, so that its pixels are the same however it is given."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    with Image.open(tiny_data / "images/val/val_000.jpg") as image:
        image.crop((0, 0, 64, 48)).save(path)
    return path


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    masks = all(np.array_equal(ours["segmentation"][k], theirs["segmentation"][k]) for k in ours["segmentation"])
    return masks and ours["classification"] == theirs["classification"]


def test_it_loads_from_a_file_a_run_and_a_shipped_folder(
    model: MultiTaskModel, finished_run: Run, photo: Path, tmp_path: Path
) -> None:
    write_folder(tmp_path / "shipped", read_checkpoint(finished_run.best_file))
    wanted = model.predict(photo)
    for source in (str(finished_run.best_file), finished_run.path, tmp_path / "shipped"):
        assert same(MultiTaskModel.load(source, device="cpu").predict(photo), wanted)


def test_without_a_source_it_is_the_shipped_model(photo: Path) -> None:
    if not DEFAULT_CHECKPOINT.is_dir():
        pytest.skip("no model is shipped with this checkout")
    model = MultiTaskModel.load(device="cpu")
    assert model.config.classes == Classes()
    assert model.predict(photo)["segmentation"]["mask"].shape == (48, 64)


def test_loading_what_is_not_there(tmp_path: Path, finished_run: Run) -> None:
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        MultiTaskModel.load(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match="got an empty path"):
        MultiTaskModel.load("")
    with pytest.raises(DeviceError, match="cuda:99"):
        MultiTaskModel.load(finished_run.path, device="cuda:99")


def test_every_form_of_a_photo_gives_the_same_answer(model: MultiTaskModel, photo: Path) -> None:
    with Image.open(photo) as image:
        image.load()
    forms = [photo, str(photo), photo.read_bytes(), image, np.asarray(image)]
    answers = [model.predict(form) for form in forms]
    assert all(same(answer, answers[0]) for answer in answers)
    assert same(model.predict(image_path=str(photo), device="cpu"), answers[0])


def test_the_answers_layout(model: MultiTaskModel, photo: Path) -> None:
    result = model.predict(photo)
    assert set(result) == {"classification", "segmentation"}
    classification, segmentation = result["classification"], result["segmentation"]
    assert {"predicted_class_id", "predicted_class", "confidence", "probabilities", "groups"} == set(classification)
    assert isinstance(classification["probabilities"], list)
    assert len(classification["probabilities"]) == 10
    assert type(classification["predicted_class_id"]) is int
    assert type(classification["confidence"]) is float
    assert classification["confidence"] == max(classification["probabilities"])
    assert set(segmentation) == {"mask", "confidence_map", "lesion_area_ratio"}
    mask, confidence_map = segmentation["mask"], segmentation["confidence_map"]
    assert (mask.shape, mask.dtype) == ((48, 64), np.uint8)
    assert (confidence_map.shape, confidence_map.dtype) == ((48, 64), np.float32)
    assert segmentation["lesion_area_ratio"] == mask.mean()
    assert np.array_equal(mask, confidence_map >= 0.5)


def test_the_threshold_is_the_stored_one_or_the_given_one(model: MultiTaskModel, photo: Path) -> None:
    confidence_map = model.predict(photo)["segmentation"]["confidence_map"]
    middle = float(np.median(confidence_map))
    mask = model.predict(photo, conf_thresh=middle)["segmentation"]["mask"]
    assert 0 < mask.mean() < 1
    assert np.array_equal(mask, confidence_map >= middle)
    with pytest.raises(ConfigError, match="conf_thresh"):
        model.predict(photo, conf_thresh=1)


def test_a_batch_of_tensors_gives_three_tensors(model: MultiTaskModel) -> None:
    with torch.no_grad():
        class_logits, seg_logits, features = model(torch.zeros(2, 3, 64, 64))
    assert (class_logits.shape, seg_logits.shape, features.shape) == ((2, 10), (2, 1, 32, 32), (2, 1280, 2, 2))


def test_a_file_that_is_no_photo(model: MultiTaskModel, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear all")
    with pytest.raises(PhotoError, match=r"letter\.jpg"):
        model.predict(tmp_path / "letter.jpg")
    with pytest.raises(DeviceError):
        model.predict(tmp_path / "letter.jpg", device="quantum")


def test_a_class_is_named_from_the_confidence_that_is_asked_for(photo: Path) -> None:
    config = ModelConfig(image_size=64, temperature=0.2)
    model = MultiTaskModel(Checkpoint("decided", random_network(config).state_dict(), config), "cpu")

    def answers(name_confidence: float) -> list[tuple[str, str]]:
        groups = model.predict(photo, name_confidence=name_confidence)["classification"]["groups"].values()
        return [(group["answer"], group["predicted_class"]) for group in groups if group["applies"]]

    assert answers(0.0)
    assert all(answer == predicted for answer, predicted in answers(0.0))
    assert all(answer == "uncertain" for answer, _ in answers(1.0))


def test_who_answered(model: MultiTaskModel, finished_run: Run, tmp_path: Path) -> None:
    identity = model.identity("mine")
    assert (identity.name, identity.calibrated, identity.untrained) == ("mine", False, ())
    assert re.fullmatch("[0-9a-f]{12}", identity.revision)
    best = read_checkpoint(finished_run.best_file)
    fitted = best.model_config.replace(class_counts=(0, *(3,) * 9), temperature=1.3)
    write_folder(tmp_path / "shipped", replace(best, model_config=fitted))
    shipped = MultiTaskModel.load(tmp_path / "shipped", device="cpu").identity("shipped")
    assert (shipped.calibrated, shipped.untrained) == (True, ("normal",))
    assert shipped.revision == identity.revision


def test_a_photo_examined_has_the_answer_of_predict_and_all_that_is_measured(
    model: MultiTaskModel, photo: Path
) -> None:
    wanted = model.predict(photo, conf_thresh=0.4)
    examined = model.examine(photo, name="left arm.png", model_name="mine", conf_thresh=0.4, name_confidence=0.9)
    record = examined.record
    assert np.array_equal(examined.analysis.mask, wanted["segmentation"]["mask"])
    assert record.measures.area_px == wanted["segmentation"]["mask"].sum()
    assert [group.probabilities for group in record.groups] == [
        tuple(group["probabilities"].values()) for group in wanted["classification"]["groups"].values()
    ]
    assert examined.image.shape == (48, 64, 3)
    assert (record.name, record.height, record.width) == ("left arm.png", 48, 64)
    assert (record.model.name, record.threshold, record.name_confidence) == ("mine", 0.4, 0.9)
    assert not record.corrected


@pytest.mark.parametrize("wrong", [{"name_confidence": 1.1}, {"conf_thresh": 0.0}])
def test_a_photo_is_not_examined_by_thresholds_that_are_none(
    wrong: dict[str, Any], model: MultiTaskModel, photo: Path
) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        model.examine(photo, name="x", model_name="x", **wrong)


# ---- the analyzer


class Detector:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def detect(self, path: Any) -> dict[str, Any]:
        self.seen.append(path)
        return {"summary": ["acne"], "boxes": []}


ANALYZER_KEYS = {
    "skin_type", "skin_confidence", "hair_type", "hair_confidence", "has_lesions", "lesion_coverage", "lesion_mask",
}  # fmt: skip


def test_the_analyzer(finished_run: Run, model: MultiTaskModel, photo: Path) -> None:
    result = SkinAnalyzer(finished_run.best_file, device="cpu").analyze(photo)
    assert set(result) == ANALYZER_KEYS
    whole = model.predict(photo)
    groups = whole["classification"]["groups"]
    assert (result["skin_type"], result["hair_type"]) == (groups["skin type"]["answer"], groups["hair type"]["answer"])
    # Another engine may have taken over meanwhile, whose sums are rounded otherwise.
    assert result["skin_confidence"] == pytest.approx(groups["skin type"]["confidence"], abs=1e-5)
    assert np.array_equal(result["lesion_mask"], whole["segmentation"]["mask"])
    assert result["lesion_coverage"] == whole["segmentation"]["lesion_area_ratio"]


@pytest.mark.parametrize(("threshold", "has_lesions"), [(-1.0, True), (1.0, False)])
def test_lesions_are_what_covers_more_than_the_threshold(
    threshold: float, has_lesions: bool, finished_run: Run, photo: Path
) -> None:
    analyzer = SkinAnalyzer(finished_run.best_file, device="cpu", lesion_threshold=threshold)
    assert analyzer.analyze(photo)["has_lesions"] is has_lesions


def test_an_untrained_mask_has_no_lesions(photo: Path, tmp_path: Path) -> None:
    config = ModelConfig(image_size=64, mask_count=0)
    write_pth(tmp_path / "a.pth", Checkpoint("a", random_network(config).state_dict(), config))
    result = SkinAnalyzer(tmp_path / "a.pth", device="cpu", lesion_threshold=-1.0).analyze(photo)
    assert (result["has_lesions"], result["lesion_coverage"], result["lesion_mask"].any()) == (False, 0, False)


def test_a_detectors_summary_comes_along(finished_run: Run, photo: Path) -> None:
    detector = Detector()
    result = SkinAnalyzer(finished_run.best_file, device="cpu", detector=detector).analyze(str(photo))
    assert set(result) == ANALYZER_KEYS | {"detected_conditions"}
    assert result["detected_conditions"] == ["acne"]
    assert detector.seen == [str(photo)]


def test_the_analyzer_names_no_class_of_an_unnamed_group(photo: Path, tmp_path: Path) -> None:
    config = ModelConfig(image_size=64, temperature=0.2, unnamed_groups=("skin type", "hair type"))
    write_pth(tmp_path / "a.pth", Checkpoint("a", random_network(config).state_dict(), config))
    result = SkinAnalyzer(tmp_path / "a.pth", device="cpu").analyze(photo)
    assert {result["skin_type"], result["hair_type"]} <= {"uncertain", "not seen"}
    assert "uncertain" in {result["skin_type"], result["hair_type"]}


def test_an_analyzer_without_these_groups(finished_run: Run, photo: Path, tmp_path: Path) -> None:
    payload = torch.load(finished_run.best_file, weights_only=True)
    renamed = ModelConfig(image_size=64, classes=Classes(groups={"letter": tuple("abcdefghij")}))
    torch.save(payload | {"config": renamed.model_dump(mode="json")}, tmp_path / "letters.pth")
    result = SkinAnalyzer(tmp_path / "letters.pth", device="cpu").analyze(photo)
    assert (result["skin_type"], result["skin_confidence"], result["hair_type"]) == (None, 0.0, None)


# ---- the package


def test_the_public_names() -> None:
    from mtl import ModelConfig, MtlError, MultiTaskModel, SkinAnalyzer, TrainConfig, train

    public = {"ModelConfig", "MtlError", "MultiTaskModel", "SkinAnalyzer", "TrainConfig", "train"}
    assert set(mtl.__all__) == public
    assert {o.__name__ for o in (ModelConfig, MtlError, MultiTaskModel, SkinAnalyzer, TrainConfig, train)} == public
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = mtl.Nothing


def test_every_error_for_people_has_one_root() -> None:
    assert all(issubclass(kind, MtlError) for kind in (CheckpointError, ConfigError, DeviceError, PhotoError))
    assert str(MtlError("a\x1b[31m name\nof two lines")) == "a [31m name of two lines"


@pytest.mark.parametrize("code", ["import mtl", "import mtl.cli", "import mtl; mtl.TrainConfig()"])
def test_what_needs_neither_torch_nor_gradio_loads_neither(code: str) -> None:
    show = f"{code}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "gradio", "pytorch_lightning", "numpy"}.isdisjoint(run.stdout.split())
