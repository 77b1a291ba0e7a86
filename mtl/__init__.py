"""Skin and hair type, and lesion mask, from one photo: one network, trained jointly.

Layers, imports go down only: errors, config, files, command, model_files, place < dicom, photo, frame, device, model,
losses, metrics < data, checkpoint < training, analysis, evaluation, export, hub < api < bench, serve, cli, ui < app.py
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.api import MultiTaskModel, SkinAnalyzer
    from mtl.config import ModelConfig, TrainConfig
    from mtl.errors import MtlError
    from mtl.training.fit import train

__all__ = ["ModelConfig", "MtlError", "MultiTaskModel", "SkinAnalyzer", "TrainConfig", "train"]
__version__ = "0.1.0"

_HOME = {
    "ModelConfig": "mtl.config",
    "MtlError": "mtl.errors",
    "MultiTaskModel": "mtl.api",
    "SkinAnalyzer": "mtl.api",
    "TrainConfig": "mtl.config",
    "train": "mtl.training.fit",
}


def __getattr__(name: str) -> Any:
    """Loaded when first used: `import mtl` alone loads neither torch nor gradio."""
    if name not in _HOME:
        raise AttributeError(f"module 'mtl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
