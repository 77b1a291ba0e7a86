"""What other programs import: `MultiTaskModel` and `SkinAnalyzer`."""

import os
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mtl.analysis.attention import grad_cam
from mtl.analysis.fast_engine import make_engine
from mtl.analysis.judge import judge
from mtl.analysis.predict import (
    LESION_THRESHOLD,
    NAME_CONFIDENCE,
    Analysis,
    GroupAnswer,
    analyse,
    analyse_squares,
    photo_and_square,
    require_name_confidence,
    to_dict,
    to_square,
)
from mtl.analysis.record import ModelIdentity, Record, Scale
from mtl.analysis.turned import Tta, with_views
from mtl.analysis.unlike import Familiarity, FamiliarityModel
from mtl.checkpoint import Checkpoint, read_checkpoint, weights_revision, write_folder
from mtl.device import choose_device
from mtl.errors import CheckpointError, ConfigError
from mtl.hub.package import BEST_FILE
from mtl.hub.pull import holds_pulled, pull, require_whole, resolve
from mtl.hub.push import push
from mtl.hub.reference import is_reference, parse_reference
from mtl.model_files import DEFAULT_CHECKPOINT
from mtl.photo import PhotoSource, read_spacing


@dataclass(frozen=True)
class Examination:
    """One photo with all that is known of it."""

    analysis: Analysis
    image: np.ndarray  # (H, W, 3) uint8, upright sRGB
    record: Record


class MultiTaskModel:
    """A trained network with its classes: photos in, answers out.

    model = MultiTaskModel.load()                    # the shipped model
    result = model.predict("photo.jpg")
    result["classification"]["predicted_class"], result["segmentation"]["mask"]
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", *, source: Path | None = None):
        """source: the file or folder that the checkpoint was read from, so that it can be pushed with all beside it."""
        self.checkpoint = checkpoint
        self.source = source
        self.config = checkpoint.model_config
        self.network = checkpoint.network()
        self._pushed: dict[str, str] = {}  # repository -> the commit that this object has put there
        self._to(device)

    @classmethod
    def load(cls, source: str | Path | None = None, device: str = "auto") -> "MultiTaskModel":
        """Load a `.pth` file, a folder (a run's, or one with model.safetensors) or `hf://owner/name[@revision]`.

        Nothing: the shipped model. From the Hub it comes into the checkpoints folder ($MTL_CHECKPOINTS_DIR, else the
        shipped model's neighbours); where the Hub cannot be reached, what was pulled before is taken. Raises
        CheckpointError where it cannot be read or does not fit, HubError where it cannot be had, DeviceError where the
        device is not there.
        """
        if source == "":  # an unset variable of a script: neither the shipped model nor the current folder is meant
            raise CheckpointError("checkpoint: got an empty path; name a .pth file or a folder, or leave it out")
        if is_reference(source):
            return cls.from_pretrained(str(source), device=device)
        path = DEFAULT_CHECKPOINT if source is None else Path(source)
        return cls(read_checkpoint(path), device, source=path)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str = "auto",
    ) -> "MultiTaskModel":
        """Load `owner/name` from the Hub at a branch, tag or commit, or a folder; the weights must fit exactly.

        token: False sends none. cache_dir: where it is kept; unset: as `load` does. local_files_only: what was pulled
        before, without a request. force_download: bring it again, whatever is there.
        """
        if not is_reference(name_or_path) and Path(name_or_path).exists():
            return cls.load(name_or_path, device)
        reference = parse_reference(str(name_or_path), revision)
        folder = Path(cache_dir or os.environ.get("MTL_CHECKPOINTS_DIR") or DEFAULT_CHECKPOINT.parent)
        if local_files_only:
            pulled = require_whole(reference, folder)
        elif force_download:
            pulled = pull(reference, folder, token=token, force=True)
        else:
            pulled = resolve(reference, folder, token=token)
        return cls(read_checkpoint(pulled.path), device, source=pulled.path)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write model.safetensors and config.json, as the network is now; `from_pretrained` reads the folder.

        Raises CheckpointError for the folder of a run or of a pulled model, which stay what they are.
        """
        folder = Path(folder)
        if holds_pulled(folder) or any((folder / name).exists() for name in ("run.json", BEST_FILE)):
            raise CheckpointError(f"{folder}: it holds a run or a model from the Hub, which stays; name another folder")
        now = replace(self.checkpoint, state_dict=self._weights())
        if now.revision != self.checkpoint.revision:
            # Figures, and where the training photos lie in feature space, are known for what was loaded only.
            now = replace(now, epoch=0, metrics={}, training_features=None)
        write_folder(folder, now)
        return folder

    def _weights(self) -> dict[str, Tensor]:
        """As they are now, on the CPU."""
        return {key: value.detach().cpu() for key, value in self.network.state_dict().items()}

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = True,
        token: str | bool | None = None,
        tag: str | None = None,
        license: str | None = None,
        overwrite: bool = False,
    ) -> str:
        """Push it with its card to `owner/name`, made where missing, and return its address on the Hub.

        What was loaded from a file goes with the history and evaluation beside it; a network that was changed since
        goes alone. Only private=False shows it to everybody. overwrite: also onto a head that somebody else has put
        there. Raises HubError, and CheckpointError where the file holds other weights by now.
        """
        revision = weights_revision(self._weights())
        with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
            as_loaded = self.source if revision == self.checkpoint.revision else None
            pushed = push(
                as_loaded or self.save_pretrained(folder),
                repo_id,
                message=commit_message,
                tag=tag,
                private=private,
                license=license,
                overwrite=overwrite,
                token=token,
                revision=revision,
                known_from=self.source,
                known_head=self._pushed.get(repo_id),
            )
        self._pushed[repo_id] = pushed.commit
        return pushed.url

    def _to(self, device: str) -> None:
        self.device = choose_device(device)
        self.engine = make_engine(self.network, self.device)

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ImageNet-normalised RGB (N, 3, S, S) -> (class_logits, seg_logits, features), as the network's forward."""
        return self.network(batch.to(self.device))

    def analyze(self, photo: PhotoSource, conf_thresh: float | None = None, *, tta: Tta = "off") -> Analysis:
        """Analyse one photo (a path, bytes, PIL image or array); raises PhotoError where it cannot be read.

        tta: "flips" or "turns" gives the mean over 4 or 8 views, mirrored and turned, and takes as many times as long;
        ConfigError for another.
        """
        return self.analyze_batch([photo], conf_thresh, tta=tta)[0]

    def analyze_batch(
        self, photos: list[PhotoSource], conf_thresh: float | None = None, *, tta: Tta = "off"
    ) -> list[Analysis]:
        """Analyse photos in one pass of the network, or one for each view; the order changes no answer."""
        return analyse(photos, with_views(self.engine, tta), self.config, threshold=conf_thresh)

    def predict(
        self,
        image_path: PhotoSource,
        device: str | None = None,
        conf_thresh: float | None = None,
        *,
        name_confidence: float = NAME_CONFIDENCE,
        tta: Tta = "off",
    ) -> dict[str, Any]:
        """Analyse one photo.

        image_path: a path, encoded bytes, PIL image, or (H, W, 3) uint8 array; device: move there first;
        conf_thresh: the mask's probability threshold, unset: the one stored with the weights;
        name_confidence: the probability within its group below which no class is named; tta: as in `analyze`.
        Returns `classification` (predicted_class_id, predicted_class, confidence, probabilities, groups) and
        `segmentation` (mask (H, W) uint8 0/1, confidence_map (H, W) float32, lesion_area_ratio), at the photo's size.
        """
        if device is not None and choose_device(device) != self.device:
            self._to(device)
        analysis = self.analyze(image_path, conf_thresh, tta=tta)
        return to_dict(analysis, self.config, name_confidence=name_confidence)

    def examine(
        self,
        photo: PhotoSource,
        *,
        name: str,
        model_name: str,
        conf_thresh: float | None = None,
        name_confidence: float = NAME_CONFIDENCE,
        tta: Tta = "off",
    ) -> Examination:
        """Analyse one photo and measure all that is said of it: the page, REST and gradio's clients answer with this.

        name: the photo's, as it came; model_name: what people call this model; the others are those of `predict`.
        Raises PhotoError where the photo cannot be read, ConfigError for what is outside its bounds.
        """
        require_name_confidence(name_confidence)
        engine = with_views(self.engine, tta)
        start = time.perf_counter()
        (image, square), spacing = photo_and_square(photo, self.config), read_spacing(photo)
        [analysis] = analyse_squares([square], engine, self.config, threshold=conf_thresh)
        judged = judge(analysis, image, analysis.mask, analysis.confidence_map, analysis.threshold)
        record = Record(
            name=name,
            height=analysis.height,
            width=analysis.width,
            groups=analysis.groups,
            mask_trained=analysis.mask_trained,
            measures=judged.measures,
            threshold=analysis.threshold,
            corrected=False,
            quality=judged.quality,
            skin_tone=judged.skin_tone,
            familiarity=self.familiarity(analysis),
            model=self.identity(model_name),
            name_confidence=name_confidence,
            seconds=time.perf_counter() - start,
            at=datetime.now().astimezone(),
            scale=Scale(spacing, "DICOM") if spacing else None,
            tta=tta,
        )
        return Examination(analysis, image, record)

    def grad_cam(self, photo: PhotoSource, class_id: int | None = None) -> np.ndarray:
        """Where the network looked for a class, the likeliest where none is given: (S/32, S/32) float32, 0..1.

        `mtl.frame.map_to_photo(seen, height, width, model.config.center_crop, outside=0)` lays it over the photo.
        Raises ConfigError for a class that is not there or not trained.
        """
        if class_id is None:
            class_id = self.analyze(photo).predicted_class_id
        self._require_trained(class_id)
        return grad_cam(self.network, to_square(photo, self.config).pixels, class_id)

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
        lesion_threshold: float = LESION_THRESHOLD,
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
        result = {**summarize(analysis, lesion_threshold=self.lesion_threshold), "lesion_mask": analysis.mask}
        if self.detector is not None:
            result["detected_conditions"] = self.detector.detect(photo)["summary"]
        return result


def summarize(
    analysis: Analysis, *, lesion_threshold: float = LESION_THRESHOLD, name_confidence: float = NAME_CONFIDENCE
) -> dict[str, Any]:
    """The answer in few words: what `SkinAnalyzer.analyze` returns, but for the mask."""
    answers = {answer.group: answer for answer in analysis.groups}
    coverage = analysis.lesion_area_ratio
    return {
        **_named("skin", answers.get("skin type"), name_confidence),
        **_named("hair", answers.get("hair type"), name_confidence),
        "has_lesions": analysis.mask_trained and coverage > lesion_threshold,
        "lesion_coverage": coverage,
    }


def _named(kind: str, answer: GroupAnswer | None, name_confidence: float) -> dict[str, Any]:
    if answer is None:
        return {f"{kind}_type": None, f"{kind}_confidence": 0.0}
    return {f"{kind}_type": answer.answer_at(name_confidence), f"{kind}_confidence": answer.confidence}
