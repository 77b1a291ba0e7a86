"""What makes the generated masks of a run: Otsu's threshold, or a trained model."""

from threading import Lock

import numpy as np

from mtl.analysis.engine import EagerEngine
from mtl.analysis.predict import analyse
from mtl.checkpoint import Checkpoint, read_checkpoint
from mtl.config import TrainConfig
from mtl.data.generate import MaskMaker, otsu_mask
from mtl.device import choose_device
from mtl.errors import CheckpointError


def mask_maker(config: TrainConfig) -> MaskMaker | None:
    """What `config.generated_masks` names, None for off. Raises CheckpointError or DeviceError for a model."""
    if config.generated_masks == "off":
        return None
    if config.generated_masks == "otsu":
        return otsu_mask
    try:
        return _by_model(read_checkpoint(config.generated_masks), config.device)
    except CheckpointError as error:
        raise CheckpointError(f"generated_masks: {error}; or take otsu or off") from None


def _by_model(checkpoint: Checkpoint, device: str) -> MaskMaker:
    """The checkpoint's own mask at its own threshold."""
    if not checkpoint.model_config.mask_trained:
        raise CheckpointError(f"{checkpoint.name} was trained without masks; needed a model that finds lesions")
    engine = EagerEngine(checkpoint.network(), choose_device(device))
    one_at_a_time = Lock()  # the callers' threads are for decoding; the network has its own

    def make(photo: np.ndarray) -> np.ndarray | None:
        with one_at_a_time:
            [analysis] = analyse([photo], engine, checkpoint.model_config)
        lesion = analysis.mask.astype(bool)
        return lesion if lesion.any() else None

    return make
