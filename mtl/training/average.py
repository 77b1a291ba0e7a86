"""One checkpoint from several: the mean of their weights, often better than each and no slower.

For checkpoints that were trained on from the same weights (model soups: Wortsman et al. 2022, arXiv:2203.05482); the
mean of others answers nonsense, which its evaluation shows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtl.analysis.engine import EagerEngine
from mtl.checkpoint import Checkpoint
from mtl.data.folder import DataFolder
from mtl.errors import CheckpointError
from mtl.evaluation.calibration import calibrated
from mtl.evaluation.evaluate import require_same_classes
from mtl.training.features import learn_features

Progress = Callable[[int, int], None]  # (done, of how many)


def average(
    checkpoints: Sequence[Checkpoint], folder: DataFolder, device: torch.device, progress: Progress
) -> Checkpoint:
    """Their mean, calibrated on the folder's validation photos, and with what its training photos are like.

    All but the weights, as the number of training photos, is the first one's. Raises CheckpointError for less than two
    checkpoints or for another network's, DataError for photos of other classes.
    """
    mean = mean_of(checkpoints)
    require_same_classes(mean.model_config, folder.classes.names)
    config = calibrated(folder.val, EagerEngine(mean.network(), device), mean.model_config, progress)
    return replace(mean, model_config=config, training_features=learn_features(mean, folder, device, progress))


def mean_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The mean of the weights alone; raises CheckpointError for less than two or for those of another network."""
    if len(checkpoints) < 2:
        raise CheckpointError(f"average: got {len(checkpoints)} checkpoint; needed two or more")
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if other.model_config.classes != first.model_config.classes:
            raise CheckpointError(f"{other.name}: its classes are not those of {first.name}; needed the same")
        size, wanted = other.model_config.image_size, first.model_config.image_size
        if size != wanted:
            raise CheckpointError(f"{other.name}: got image size {size}; needed {wanted}, as {first.name} has")
        replace(other, model_config=first.model_config).network()  # says which weight does not fit
    weights = {key: _mean([one.state_dict[key] for one in checkpoints]) for key in first.state_dict}
    return replace(first, name="mean", state_dict=weights, metrics={}, optimizer=None, training_features=None)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    # BatchNorm's counts of batches are no weights: nothing reads them.
    return torch.stack(list(tensors)).mean(dim=0) if tensors[0].is_floating_point() else tensors[0]
