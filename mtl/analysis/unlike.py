"""How unlike a photo is to those that the model was trained on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mtl.analysis.engine import FEATURE_COUNT

log = logging.getLogger(__name__)

LIMIT_PERCENTILE = 99  # of the validation photos: one photo in a hundred of the training's kind is taken for unlike
MIN_PHOTOS = 20  # of training and of validation: from fewer no limit can be told
MIN_SCALE = 1e-3  # of a feature that is the same in all training photos


@dataclass(frozen=True)
class Familiarity:
    """A photo's distance from the training photos."""

    distance: float
    limit: float  # that of the validation photos' 99th percentile

    @property
    def unlike(self) -> bool:
        return self.distance > self.limit


@dataclass(frozen=True)
class FamiliarityModel:
    """Where the training photos lie in feature space, and how far from there a photo may be.

    Mahalanobis distance (Lee et al. 2018, arXiv:1807.03888) with the covariance shrunk as by Ledoit & Wolf (2004),
    over the square root of the number of features: about 1 for a photo like those of the training.
    """

    mean: np.ndarray  # (F,) float32
    scale: np.ndarray  # (F,) float32, standard deviations
    whitening: np.ndarray  # (F, F) float16, of the standardised features: its square is their inverse covariance
    limit: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> (N,) float64."""
        standardised = (features - self.mean) / self.scale
        return np.sqrt(np.square(standardised @ self.whitening.astype(np.float64)).mean(axis=1))

    def familiarity(self, features: np.ndarray) -> Familiarity:
        """Of one photo's features (F,)."""
        return Familiarity(float(self.distances(features[None])[0]), self.limit)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is kept beside the weights."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "whitening": self.whitening,
            "limit": np.array([self.limit], np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "FamiliarityModel | None":
        """The inverse; None, with a line in the log, for arrays that are not what `to_arrays` gives."""
        count = FEATURE_COUNT
        shapes = {"mean": (count,), "scale": (count,), "whitening": (count, count), "limit": (1,)}
        finite = all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays.values())
        if not finite or {key: array.shape for key, array in arrays.items()} != shapes or arrays["scale"].min() <= 0:
            log.warning("what is kept of the training photos does not fit this version: no photo is called unlike them")
            return None
        return cls(arrays["mean"], arrays["scale"], arrays["whitening"], float(arrays["limit"][0]))


def fit_familiarity(train_features: np.ndarray, val_features: np.ndarray) -> FamiliarityModel | None:
    """Learn from features (N, F) of training and of validation photos; None where either are too few."""
    if min(len(train_features), len(val_features)) < MIN_PHOTOS:
        return None
    mean, scale = train_features.mean(axis=0), train_features.std(axis=0).clip(min=MIN_SCALE)
    from sklearn.covariance import LedoitWolf  # for trainings alone, and half a second

    covariance = LedoitWolf(assume_centered=True).fit((train_features - mean) / scale)
    whitening = np.linalg.cholesky(covariance.get_precision()).astype(np.float16)
    fitted = FamiliarityModel(mean.astype(np.float32), scale.astype(np.float32), whitening, limit=np.inf)
    limit = float(np.percentile(fitted.distances(val_features), LIMIT_PERCENTILE))
    return replace(fitted, limit=limit)
