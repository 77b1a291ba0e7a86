"""A model as files: where the shipped one lies, and what the folder of any is made of. No weights are read here."""

from pathlib import Path

DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "default"

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
FEATURES_FILE = "training_features.safetensors"
MAX_BYTES = 2_000_000_000  # a checkpoint of this network with Adam's state takes 70 MB
MAX_FEATURES_BYTES = 1_000_000
