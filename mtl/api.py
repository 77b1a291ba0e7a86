"""What other programs import: `MultiTaskModel` and `SkinAnalyzer`."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from mtl.analysis.engine import EagerEngine
from mtl.analysis.predict import Analysis, GroupAnswer, analyse, to_dict
from mtl.checkpoint import Checkpoint, read_checkpoint
from mtl.device import choose_device
from mtl.errors import CheckpointError
from mtl.photo import PhotoSource, read_photo

DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "default"


class MultiTaskModel:
    """A trained network with its classes: photos in, answers out.

    model = MultiTaskModel.load()                    # the shipped model
    result = model.predict("photo.jpg")
    result["classification"]["predicted_class"], result["segmentation"]["mask"]
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto"):
        self.checkpoint = checkpoint
        self.config = checkpoint.model_config
        self.network = checkpoint.network()
        self._to(device)

    @classmethod
    def load(cls, source: str | Path | None = None, device: str = "auto") -> "MultiTaskModel":
        """Load a `.pth` file or a folder (a run's, or one with model.safetensors); nothing: the shipped model.

        Raises CheckpointError where it cannot be read or does not fit, DeviceError where the device is not there.
        """
        if source == "":  # an unset variable of a script: neither the shipped model nor the current folder is meant
            raise CheckpointError("checkpoint: got an empty path; name a .pth file or a folder, or leave it out")
        return cls(read_checkpoint(DEFAULT_CHECKPOINT if source is None else source), device)

    def _to(self, device: str) -> None:
        self.device = choose_device(device)
        self.engine = EagerEngine(self.network, self.device)

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ImageNet-normalised RGB (N, 3, S, S) -> (class_logits, seg_logits, features), as the network's forward."""
        return self.network(batch.to(self.device))

    def analyze(self, photo: PhotoSource, conf_thresh: float | None = None) -> Analysis:
        """Analyse one photo (a path, bytes, PIL image or array); raises PhotoError where it cannot be read."""
        return self.analyze_batch([photo], conf_thresh)[0]

    def analyze_batch(self, photos: list[PhotoSource], conf_thresh: float | None = None) -> list[Analysis]:
        """Analyse photos in one pass of the network; the order changes no answer."""
        return analyse([read_photo(photo) for photo in photos], self.engine, self.config, threshold=conf_thresh)

    def predict(
        self, image_path: PhotoSource, device: str | None = None, conf_thresh: float | None = None
    ) -> dict[str, Any]:
        """Analyse one photo.

        image_path: a path, encoded bytes, PIL image, or (H, W, 3) uint8 array; device: move there first;
        conf_thresh: the mask's probability threshold, unset: the one stored with the weights.
        Returns `classification` (predicted_class_id, predicted_class, confidence, probabilities, groups) and
        `segmentation` (mask (H, W) uint8 0/1, confidence_map (H, W) float32, lesion_area_ratio), at the photo's size.
        """
        if device is not None and choose_device(device) != self.device:
            self._to(device)
        return to_dict(self.analyze(image_path, conf_thresh), self.config)


class Detector(Protocol):
    """Another program's detector of conditions."""

    def detect(self, path: Any) -> dict[str, Any]:
        """A dictionary with the key "summary"."""
        ...


class SkinAnalyzer:
    """The answer in the few words that a backend stores."""

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        device: str = "auto",
        detector: Detector | None = None,
        lesion_threshold: float = 0.01,
    ):
        """lesion_threshold: a photo has lesions above this covered share of it."""
        self.model = MultiTaskModel.load(checkpoint, device)
        self.detector = detector
        self.lesion_threshold = lesion_threshold

    def analyze(self, photo: PhotoSource) -> dict[str, Any]:
        """skin_type, skin_confidence, hair_type, hair_confidence, has_lesions, lesion_coverage, lesion_mask.

        A type is a class's name, "uncertain" or "not seen"; a model without that group answers None, and one whose
        mask is not trained sees no lesions.
        With a detector, its answer's summary comes back as `detected_conditions`.
        """
        analysis = self.model.analyze(photo)
        answers = {answer.group: answer for answer in analysis.groups}
        coverage = analysis.lesion_area_ratio
        result = {
            **_named("skin", answers.get("skin type")),
            **_named("hair", answers.get("hair type")),
            "has_lesions": analysis.mask_trained and coverage > self.lesion_threshold,
            "lesion_coverage": coverage,
            "lesion_mask": analysis.mask,
        }
        if self.detector is not None:
            result["detected_conditions"] = self.detector.detect(photo)["summary"]
        return result


def _named(kind: str, answer: GroupAnswer | None) -> dict[str, Any]:
    return {f"{kind}_type": answer and answer.answer, f"{kind}_confidence": answer.confidence if answer else 0.0}
