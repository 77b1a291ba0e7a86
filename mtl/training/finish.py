"""After the last epoch: what the best weights are told with. Nothing that goes wrong here ends the run."""

import logging
import random
from collections.abc import Callable

import torch

from mtl.analysis.engine import EagerEngine
from mtl.checkpoint import read_checkpoint, rewrite_config, write_training_features
from mtl.config import TrainConfig
from mtl.data.folder import DataFolder
from mtl.evaluation.calibration import calibrate
from mtl.evaluation.measure import measure
from mtl.training.callbacks import StopRequested
from mtl.training.features import learn_features
from mtl.training.run import Run

log = logging.getLogger(__name__)
CALIBRATION_PHOTOS = 5000  # at most; more would tell little
Shows = Callable[[str], Callable[[int, int], None]]  # (what is done) -> what takes (done, of how many)


def calibrate_best(run: Run, config: TrainConfig, folder: DataFolder, device: torch.device, show: Shows) -> None:
    """How the best weights' answers are to be read, by the validation photos."""
    if not config.calibrate:
        return
    try:
        best = read_checkpoint(run.best_file)
        engine = EagerEngine(best.network(), device)
        photos = random.Random(0).sample(folder.val, min(len(folder.val), CALIBRATION_PHOTOS))
        results = measure(photos, engine, best.model_config, show("calibrating on the validation photos"))
        calibrated = calibrate(results, best.model_config).applied(best.model_config)
        if calibrated != best.model_config:
            rewrite_config(run.best_file, calibrated)
    except StopRequested:
        log.info("stopped on request: the model's probabilities are not calibrated")
    except Exception:
        log.warning("the model's probabilities are not calibrated", exc_info=True)


def keep_training_features(run: Run, folder: DataFolder, device: torch.device, show: Shows) -> None:
    """Beside the best weights: by them the model tells photos unlike its training photos."""
    try:
        best = read_checkpoint(run.best_file)
        features = learn_features(best, folder, device, show("learning what the training photos are like"))
        if features is not None:
            write_training_features(run.path, features, best.state_dict)
    except StopRequested:
        log.info("stopped on request: the model will not tell photos unlike the training photos")
    except Exception:
        log.warning("the model will not tell photos unlike the training photos", exc_info=True)
