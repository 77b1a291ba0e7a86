"""After the last epoch: the best weights are calibrated, and what their training photos are like is kept.

The weights are as good without, so nothing that goes wrong here ends the run.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from mtl.analysis.engine import EagerEngine
from mtl.checkpoint import read_checkpoint, rewrite_config, write_training_features
from mtl.config import TrainConfig
from mtl.data.cache import PhotoCache
from mtl.data.folder import DataFolder
from mtl.evaluation.calibration import calibrated
from mtl.training.callbacks import StopRequested
from mtl.training.features import learn_features
from mtl.training.run import Run

log = logging.getLogger(__name__)
CALIBRATION_PHOTOS = 5000  # at most; more would tell little
Shows = Callable[[str], Callable[[int, int], None]]  # (what is done) -> what takes (done, of how many)


def calibrate_best(run: Run, config: TrainConfig, folder: DataFolder, device: torch.device, show: Shows) -> None:
    """Fit how the best weights' answers are to be read, on validation photos, and store it with them."""
    if not config.calibrate:
        return
    with _spared("the model's probabilities are not calibrated"):
        best = read_checkpoint(run.best_file)
        engine = EagerEngine(best.network(), device)
        photos = random.Random(0).sample(folder.val, min(len(folder.val), CALIBRATION_PHOTOS))
        fitted = calibrated(photos, engine, best.model_config, show("calibrating on the validation photos"))
        if fitted != best.model_config:
            rewrite_config(run.best_file, fitted)


def keep_training_features(
    run: Run, folder: DataFolder, device: torch.device, show: Shows, cache: PhotoCache | None
) -> None:
    """Write beside the best weights what tells photos unlike the training photos."""
    with _spared("the model will not tell photos unlike the training photos"):
        best = read_checkpoint(run.best_file)
        features = learn_features(best, folder, device, show("learning what the training photos are like"), cache)
        if features is not None:
            write_training_features(run.path, features, best.state_dict)


@contextmanager
def _spared(lost: str) -> Iterator[None]:
    """What goes wrong costs what is named, and is in the run's log."""
    try:
        yield
    except StopRequested:
        log.info("stopped on request: %s", lost)
    except Exception:
        log.warning("%s", lost, exc_info=True)
