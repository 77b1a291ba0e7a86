"""What other programs import: `MultiTaskModel` and `SkinAnalyzer`."""

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mtl.analysis.attention import grad_cam
from mtl.analysis.engine import EagerEngine
from mtl.analysis.predict import NAME_CONFIDENCE, Analysis, GroupAnswer, analyse, to_dict
from mtl.analysis.record import ModelIdentity
from mtl.analysis.unlike import Familiarity, FamiliarityModel
from mtl.checkpoint import Checkpoint, read_checkpoint
from mtl.device import choose_device
from mtl.errors import CheckpointError, ConfigError
from mtl.frame import photo_to_square
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
        self,
        image_path: PhotoSource,
        device: str | None = None,
        conf_thresh: float | None = None,
        *,
        name_confidence: float = NAME_CONFIDENCE,
    ) -> dict[str, Any]:
        """Analyse one photo.

        image_path: a path, encoded bytes, PIL image, or (H, W, 3) uint8 array; device: move there first;
        conf_thresh: the mask's probability threshold, unset: the one stored with the weights;
        name_confidence: the probability within its group below which no class is named.
        Returns `classification` (predicted_class_id, predicted_class, confidence, probabilities, groups) and
        `segmentation` (mask (H, W) uint8 0/1, confidence_map (H, W) float32, lesion_area_ratio), at the photo's size.
        """
        if device is not None and choose_device(device) != self.device:
            self._to(device)
        return to_dict(self.analyze(image_path, conf_thresh), self.config, name_confidence=name_confidence)

    def grad_cam(self, photo: PhotoSource, class_id: int | None = None) -> np.ndarray:
        """Where the network looked for a class, the likeliest where none is given: (S/32, S/32) float32, 0..1.

        `mtl.frame.map_to_photo(seen, height, width, model.config.center_crop, outside=0)` lays it over the photo.
        Raises ConfigError for a class that is not there or not trained.
        """
        pixels = read_photo(photo)
        if class_id is None:
            class_id = self.analyze(pixels).predicted_class_id
        self._require_trained(class_id)
        square = photo_to_square(pixels, self.config.image_size, self.config.center_crop)
        return grad_cam(self.network, square, class_id)

    def _require_trained(self, class_id: int) -> None:
        names, trained = self.config.classes.names, self.config.trained
        if not 0 <= class_id < len(names):
            raise ConfigError(f"class_id: got {class_id}; needed one from 0 to {len(names) - 1}")
        if not trained[class_id]:
            raise ConfigError(f"class_id: {names[class_id]} has no training photos; take a class that is trained")

    def familiarity(self, analysis: Analysis) -> Familiarity | None:
        """How far an analysed photo is from the training photos; None where nothing of these is kept."""
        if self._familiarity_model is None or analysis.features is None:
            return None
        return self._familiarity_model.familiarity(analysis.features)

    @cached_property
    def _familiarity_model(self) -> FamiliarityModel | None:
        kept = self.checkpoint.training_features
        return None if kept is None else FamiliarityModel.from_arrays(kept)

    def identity(self, name: str) -> ModelIdentity:
        """Which model this is, for a record; `name` is what people call it."""
        names = zip(self.config.classes.names, self.config.trained, strict=True)
        return ModelIdentity(
            name,
            self.checkpoint.revision,
            # A fitted temperature is never exactly the one that training leaves behind.
            calibrated=self.config.temperature != 1.0,
            untrained=tuple(class_name for class_name, trained in names if not trained),
        )


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
