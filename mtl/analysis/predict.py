"""From a photo to its answer: probabilities by class and group, and the lesion's at the photo's own size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mtl.config import ModelConfig
from mtl.data.parallel import in_threads
from mtl.errors import ConfigError
from mtl.frame import map_to_photo, read_photo_and_square, read_square
from mtl.photo import PhotoSource

if TYPE_CHECKING:
    from mtl.analysis.engine import Engine

# A class is named at or above this probability within its group, where the caller does not set another.
NAME_CONFIDENCE = 0.5
LESION_THRESHOLD = 0.01  # a photo has lesions above this covered share of it, where the caller does not set another
# A group applies where it has at least this share of the joint probability ...
MIN_GROUP_SHARE = 0.25
# ... and the joint distribution is not all but even: photos of none of the classes are trained towards the even one.
# Of the entropy of the even distribution. A photo of one group is far from even over several groups, while being
# undecided within the only one is no sign that the photo shows nothing of it.
MAX_RELATIVE_ENTROPY = 0.85
MAX_RELATIVE_ENTROPY_OF_ONE_GROUP = 0.98


@dataclass(frozen=True)
class GroupAnswer:
    """One group's softmax, and whether the photo shows anything of it."""

    group: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]  # within the group; 0 for an untrained class
    trained: tuple[bool, ...]
    share: float  # the group's part of the joint probability over all classes
    applies: bool
    named: bool = True  # else none of its classes is ever the answer: see ModelConfig.unnamed_groups

    @property
    def confidence(self) -> float:
        return max(self.probabilities)

    @property
    def predicted_class(self) -> str:
        return self.names[self.probabilities.index(self.confidence)]

    @property
    def answer(self) -> str:
        return self.answer_at(NAME_CONFIDENCE)

    def answer_at(self, name_confidence: float) -> str:
        """The class's name, "uncertain" where none is to be named, or "not seen"."""
        if not self.applies:
            return "not seen"
        return self.predicted_class if self.is_named_at(name_confidence) else "uncertain"

    def is_named_at(self, name_confidence: float) -> bool:
        """Whether the likeliest class may be told as the answer, where the group applies."""
        return self.named and self.confidence >= name_confidence


@dataclass(frozen=True)
class Analysis:
    """What the network says of one photo."""

    height: int
    width: int
    probabilities: np.ndarray  # (C,) float64, softmax over the trained classes, 0 for the others: all 0 where none is
    groups: tuple[GroupAnswer, ...]
    mask_logits: np.ndarray  # (h, w) float32 over the network's square: enlarged only when asked for
    center_crop: bool
    threshold: float
    mask_trained: bool = True  # else no pixel is lesion: what the network says of the mask means nothing
    features: np.ndarray | None = None  # (F,) float32, what kind of picture it is; see mtl.analysis.engine

    @property
    def predicted_class_id(self) -> int:
        """Id of the likeliest class; where no class is trained it means nothing, and the confidence is 0."""
        return int(self.probabilities.argmax())

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())

    def confidence_at(self, height: int, width: int) -> np.ndarray:
        """(height, width) float32: the probability that a pixel is lesion, at any size; 0 where it is not trained."""
        if not self.mask_trained:
            return np.zeros((height, width), np.float32)
        import torch  # it takes seconds, and the page shows answers of which it needs the types alone

        logits = torch.from_numpy(map_to_photo(self.mask_logits, height, width, self.center_crop, outside=-30.0))
        return logits.sigmoid_().numpy()

    @cached_property
    def confidence_map(self) -> np.ndarray:
        """(H, W) float32: the probability that a pixel of the photo is lesion."""
        return self.confidence_at(self.height, self.width)

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) uint8, 1 = lesion."""
        return (self.confidence_map >= self.threshold).view(np.uint8)

    @property
    def lesion_area_ratio(self) -> float:
        """Share of the photo that is lesion, 0..1."""
        return float(self.mask.mean())


class Square(NamedTuple):
    """A photo as the network takes it."""

    pixels: np.ndarray  # (S, S, 3) uint8
    height: int  # of the photo, upright
    width: int


def to_square(photo: PhotoSource, config: ModelConfig) -> Square:
    """Decode a photo as far as the network needs it. Raises PhotoError."""
    pixels, (height, width) = read_square(photo, config.image_size, config.center_crop)
    return Square(pixels, height, width)


def photo_and_square(photo: PhotoSource, config: ModelConfig) -> tuple[np.ndarray, Square]:
    """Decode the whole photo (H, W, 3) uint8, to measure and show it, and what the network takes of it.

    Raises PhotoError.
    """
    whole, pixels = read_photo_and_square(photo, config.image_size, config.center_crop)
    return whole, Square(pixels, whole.shape[0], whole.shape[1])


def analyse(
    photos: Sequence[PhotoSource], engine: "Engine", config: ModelConfig, *, threshold: float | None = None
) -> list[Analysis]:
    """Analyse photos in one batch; `threshold` overrides the checkpoint's for the mask. Raises PhotoError."""
    squares = in_threads(lambda photo: to_square(photo, config), photos)
    return analyse_squares(list(squares), engine, config, threshold=threshold)


def analyse_squares(
    squares: Sequence[Square], engine: "Engine", config: ModelConfig, *, threshold: float | None = None
) -> list[Analysis]:
    """Analyse photos that have been decoded, in one batch; see `analyse`."""
    threshold = config.mask_threshold if threshold is None else threshold
    if not 0 < threshold < 1:
        raise ConfigError(f"conf_thresh: got {threshold}; needed a probability between 0 and 1")
    class_logits, mask_logits, features = engine(np.stack([square.pixels for square in squares]))
    return [
        Analysis(
            square.height,
            square.width,
            joint,
            group_answers(joint, config),
            mask,
            config.center_crop,
            threshold,
            config.mask_trained,
            kind,
        )
        for square, joint, mask, kind in zip(
            squares, joint_probabilities(class_logits, config), mask_logits, features, strict=True
        )
    ]


def joint_probabilities(class_logits: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(N, C) logits -> (N, C) float64: softmax at the stored temperature over the trained classes; 0 without any."""
    if not any(config.trained):
        return np.zeros(class_logits.shape)
    logits = np.where(config.trained, class_logits.astype(np.float64) / config.temperature, -np.inf)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def group_answers(joint: np.ndarray, config: ModelConfig) -> tuple[GroupAnswer, ...]:
    """Read the joint probabilities (C,) by group; a softmax over a group's logits is the joint one, renormalised."""
    shows_something = _shows_something(joint, config)
    answers = []
    for group, ids in config.classes.group_ids.items():
        part = joint[ids.start : ids.stop]
        share = float(part.sum())
        within = part / share if share > 0 else part
        answers.append(
            GroupAnswer(
                group,
                config.classes.groups[group],
                tuple(within.tolist()),
                config.trained[ids.start : ids.stop],
                share,
                applies=shows_something and share >= MIN_GROUP_SHARE,
                named=group not in config.unnamed_groups,
            )
        )
    return tuple(answers)


def _shows_something(joint: np.ndarray, config: ModelConfig) -> bool:
    """Whether the photo shows any of the classes, by how far from even the joint probabilities (C,) are."""
    groups = sum(any(config.trained[ids.start : ids.stop]) for ids in config.classes.group_ids.values())
    highest = MAX_RELATIVE_ENTROPY if groups > 1 else MAX_RELATIVE_ENTROPY_OF_ONE_GROUP
    return _relative_entropy(joint, sum(config.trained)) < highest


def _relative_entropy(probabilities: np.ndarray, classes: int) -> float:
    """Entropy as a share of the even distribution's: 1 where nothing is preferred, 0 where all is on one class."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum()) / math.log(max(classes, 2))


def to_dict(analysis: Analysis, config: ModelConfig, *, name_confidence: float = NAME_CONFIDENCE) -> dict[str, Any]:
    """The fixed answer of `MultiTaskModel.predict`; where no class is trained the confidence is 0.

    name_confidence: the probability within its group from which a class is named. Raises ConfigError outside 0..1.
    """
    require_name_confidence(name_confidence)
    return {
        "classification": {
            "predicted_class_id": analysis.predicted_class_id,
            "predicted_class": config.classes.names[analysis.predicted_class_id],
            "confidence": analysis.confidence,
            "probabilities": analysis.probabilities.tolist(),
            "groups": {
                answer.group: {
                    "answer": answer.answer_at(name_confidence),
                    "predicted_class": answer.predicted_class,
                    "confidence": answer.confidence,
                    "probabilities": dict(zip(answer.names, answer.probabilities, strict=True)),
                    "share": answer.share,
                    "applies": answer.applies,
                    "named": answer.named,
                }
                for answer in analysis.groups
            },
        },
        "segmentation": {
            "mask": analysis.mask,
            "confidence_map": analysis.confidence_map,
            "lesion_area_ratio": analysis.lesion_area_ratio,
        },
    }


def require_name_confidence(name_confidence: float) -> None:
    """Raise ConfigError where it is no probability."""
    if not 0 <= name_confidence <= 1:
        raise ConfigError(f"name_confidence: got {name_confidence}; needed a probability from 0 to 1")
