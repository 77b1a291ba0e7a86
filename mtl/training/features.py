"""What is kept of the photos that a run learned from: where they lie in feature space."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from mtl.analysis.engine import EagerEngine
from mtl.analysis.unlike import MIN_PHOTOS, fit_familiarity
from mtl.checkpoint import Checkpoint
from mtl.data.cache import PhotoCache
from mtl.data.dataset import PhotoDataset, make_loader
from mtl.data.folder import DataFolder, Sample

TRAIN_PHOTOS, VAL_PHOTOS = 2000, 600  # at most; more would tell little
BATCH_SIZE = 25
Progress = Callable[[int, int], None]  # (the photo that is next, of how many)


def learn_features(
    checkpoint: Checkpoint,
    folder: DataFolder,
    device: torch.device,
    progress: Progress,
    cache: PhotoCache | None = None,
) -> dict[str, np.ndarray] | None:
    """A checkpoint's `training_features`, from the photos that it was trained and validated on; None for too few."""
    if min(len(folder.train), len(folder.val)) < MIN_PHOTOS:
        return None
    train, val = _some(folder.train, TRAIN_PHOTOS), _some(folder.val, VAL_PHOTOS)
    engine, total = EagerEngine(checkpoint.network(), device), len(train) + len(val)

    def features(samples: Sequence[Sample], done: int) -> np.ndarray:
        loader = make_loader(PhotoDataset(samples, checkpoint.model_config, cache=cache), BATCH_SIZE, seed=None)
        parts = []
        for number, batch in enumerate(loader):
            progress(done + number * BATCH_SIZE + 1, total)
            parts.append(engine(batch.photos.permute(0, 2, 3, 1).numpy()).features)
        return np.concatenate(parts)

    familiarity = fit_familiarity(features(train, 0), features(val, len(train)))
    return None if familiarity is None else familiarity.to_arrays()


def _some(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` of the photos, the same each time."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:count])
    return [samples[index] for index in chosen]
