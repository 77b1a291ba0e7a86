"""The only code that reads or writes weights. Every file is treated as hostile: nothing in it is ever run.

A `.pth` is what training keeps (weights, config, epoch, metrics, optimizer); a folder with `model.safetensors` and
`config.json` is what ships. Both give the same network. Writing is atomic: a reader sees the old file or the new one.
Beside either, `training_features.safetensors` tells where the training photos lie in feature space.
"""

import hashlib
import json
import logging
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import safetensors.numpy

from mtl.config import Classes, ModelConfig, TrainConfig
from mtl.errors import CheckpointError, ConfigError
from mtl.files import write_atomically, write_text
from mtl.model_files import CONFIG_FILE, FEATURES_FILE, MAX_BYTES, MAX_FEATURES_BYTES, WEIGHTS_FILE

# Loaded where weights are read or written: it takes seconds, and much is asked of a model that is in its other files.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mtl.model import MultiTaskNetwork

log = logging.getLogger(__name__)

MAX_TENSORS = 10_000  # this network has 394; empty ones cost time without bytes
# Where the data and the runs lay, and what the photos and the run are called, is nobody's business.
PRIVATE_SETTINGS = {
    "data_dir", "output_dir", "labels", "classes", "init", "generated_masks", "include", "lesion_photos", "name",
    "cache_dir",
}  # fmt: skip
MAX_FIGURE = 1e12  # no figure of a training or an evaluation is larger
MAX_EPOCHS = 1_000_000_000
MAX_CLASSES = 10_000  # that are made up for a file which gives their number only


@dataclass(frozen=True)
class Checkpoint:
    """Weights on the CPU and what is known of them."""

    name: str
    state_dict: "dict[str, Tensor]"
    model_config: ModelConfig
    training: dict[str, Any] = field(default_factory=dict)  # the TrainConfig they were trained with, where known
    epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    training_features: dict[str, np.ndarray] | None = None  # as mtl.analysis.unlike makes them; None: not known

    @cached_property
    def revision(self) -> str:
        return weights_revision(self.state_dict)

    def network(self) -> "MultiTaskNetwork":
        """The network with these weights, in evaluation mode. Raises CheckpointError where they do not fit."""
        from mtl.model import MultiTaskNetwork

        network = MultiTaskNetwork(self.model_config)
        self.load_into(network)
        return network.eval()

    def load_into(self, network: "MultiTaskNetwork") -> None:
        load_weights(network, self.state_dict, self.name)


def weights_revision(state_dict: "Mapping[str, Tensor]") -> str:
    """The first 12 hexadecimal digits of the SHA-256 over the weights' names, shapes and bytes, in names' order."""
    digest = hashlib.sha256()
    for key, value in sorted(state_dict.items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def load_weights(network: "torch.nn.Module", state_dict: "Mapping[str, Tensor]", name: str) -> None:
    """Strictly load weights; the error names the first one that is missing, unknown, of another shape or not finite."""
    import torch

    wanted = network.state_dict()
    for key, tensor in wanted.items():
        if key not in state_dict:
            raise CheckpointError(f"{name}: {key} is missing; needed a checkpoint of this network")
        given = state_dict[key]
        if given.dtype != tensor.dtype or given.layout != torch.strided or given.is_meta:
            raise CheckpointError(f"{name}: {key} holds {given.dtype} {given.layout}; needed plain {tensor.dtype}")
        if given.shape != tensor.shape:
            raise CheckpointError(
                f"{name}: {key} has the shape {tuple(given.shape)}; needed {tuple(tensor.shape)}: another network's?"
            )
        if given.is_floating_point() and not torch.isfinite(given).all():
            raise CheckpointError(f"{name}: {key} holds values that are not finite; the file is damaged, take another")
    if unknown := [key for key in state_dict if key not in wanted]:
        raise CheckpointError(f"{name}: {unknown[0]} is no weight of this network; needed a checkpoint of this network")
    network.load_state_dict(state_dict)


def config_to_dict(config: ModelConfig, training: Mapping[str, Any]) -> dict[str, Any]:
    """What is saved beside weights; JSON-able."""
    # Where there are none, files stay what they were before there could be any, to the byte.
    none = set() if config.unnamed_groups else {"unnamed_groups"}
    return {
        "num_classes_classification": config.num_classes_classification,
        **config.model_dump(mode="json", exclude=none),
        "training": dict(training),
    }


def config_from_dict(saved: Mapping[str, Any], name: str) -> tuple[ModelConfig, dict[str, Any]]:
    """The inverse. Files of other programs may hold the two numbers of classes only."""
    values = dict(saved)
    training = values.pop("training", {})
    number = values.pop("num_classes_classification", None)
    try:
        if "classes" not in values and isinstance(number, int) and len(Classes().names) != number <= MAX_CLASSES:
            values["classes"] = {"groups": {"class": tuple(f"class {i}" for i in range(number))}}
        config = ModelConfig(**values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{name}: its config does not fit: {error}") from None
    if number not in (None, config.num_classes_classification):
        raise CheckpointError(f"{name}: its config names {config.num_classes_classification} classes but says {number}")
    return config, training if isinstance(training, dict) else {}


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read a `.pth` file, or a folder with `model.safetensors` and `config.json` (or that safetensors file)."""
    path = Path(source)
    if path.is_dir() and (path / "multitask_best.pth").is_file():
        path = path / "multitask_best.pth"
    if path.is_dir():
        path = path / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{source}: there is no such checkpoint; needed a .pth file or a folder with {WEIGHTS_FILE}"
        )
    checkpoint = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    return replace(checkpoint, training_features=_read_training_features(path.with_name(FEATURES_FILE), checkpoint))


def _read_training_features(path: Path, checkpoint: Checkpoint) -> dict[str, np.ndarray] | None:
    """None where the file is missing, damaged, or of other weights, which are as good without it."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_FEATURES_BYTES:
            raise ValueError(f"it takes more than {MAX_FEATURES_BYTES} bytes")
        with safetensors.safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("weights") != checkpoint.revision:
                raise ValueError("it belongs to other weights")
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dictionary
    # Weights that are no plain tensors, which are refused where they meet the network, have no revision.
    except (ValueError, TypeError, OSError, RuntimeError, safetensors.SafetensorError) as error:
        log.warning("%s/%s is left out: %s", path.parent.name, path.name, _first_line(error))
        return None


def _read_safetensors(path: Path) -> Checkpoint:
    import safetensors.torch

    name = path.parent.name
    try:
        saved = json.loads((path.parent / CONFIG_FILE).read_text(encoding="utf-8"))
        with safetensors.safe_open(path, framework="pt") as file:
            if (number := len(file.keys())) > MAX_TENSORS:
                raise CheckpointError(f"{name}: it holds {number} tensors; needed a checkpoint of this network")
        state_dict = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{name}: {CONFIG_FILE} is missing beside {path.name}") from None
    except (ValueError, OSError, RecursionError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{name}: cannot be read as safetensors with a config: {_first_line(error)}") from None
    if not isinstance(saved, dict):
        raise CheckpointError(f"{name}: {CONFIG_FILE} holds no JSON object")
    epoch, metrics = _epoch_and_metrics(saved.pop("checkpoint", {}), name)
    config, training = config_from_dict(saved, name)
    return Checkpoint(name, _as_float32(state_dict, name), config, training, epoch, metrics)


def _read_pth(path: Path) -> Checkpoint:
    from torch import Tensor

    payload = read_pth(path)
    if not isinstance(payload.get("state_dict"), dict) or not isinstance(payload.get("config"), dict):
        raise CheckpointError(
            f"{path.name}: it has no state_dict and config; needed a checkpoint that this project wrote"
        )
    if wrong := [key for key, value in payload["state_dict"].items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path.name}: {wrong[0]} in its state_dict is no tensor; take another file")
    epoch, metrics = _epoch_and_metrics(payload, path.name)
    config, training = config_from_dict(payload["config"], path.name)
    return Checkpoint(
        f"{path.parent.name}/{path.name}",
        _as_float32(payload["state_dict"], path.name),
        config,
        training,
        epoch,
        metrics,
        payload.get("optimizer"),
    )


def _epoch_and_metrics(saved: Any, name: str) -> tuple[int, dict[str, Any]]:
    if not isinstance(saved, dict):
        raise CheckpointError(f"{name}: epoch and metrics stand in a {type(saved).__name__}; needed a dictionary")
    epoch, metrics = saved.get("epoch", 0), saved.get("metrics", {})
    if not isinstance(epoch, int) or not 0 <= epoch <= MAX_EPOCHS or not isinstance(metrics, dict):
        raise CheckpointError(f"{name}: its epoch is no number of epochs, or its metrics are no dictionary")
    return epoch, metrics


def _as_float32(state_dict: "Mapping[str, Tensor]", name: str) -> "dict[str, Tensor]":
    # A view of one number can claim any shape, and takes its memory when it is converted.
    if 4 * sum(value.numel() for value in state_dict.values()) > MAX_BYTES:
        raise CheckpointError(f"{name}: its weights take more than {MAX_BYTES / 1e9:.0f} GB; take another file")
    return {key: value.float() if value.is_floating_point() else value for key, value in state_dict.items()}


def read_pth(path: Path) -> dict[str, Any]:
    """What a `.pth` or `.ckpt` holds: tensors and plain values only, every byte checked against its checksum."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _require_own_names(path.name, [entry.filename for entry in entries])
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise CheckpointError(
                    f"{path.name}: it is compressed, which PyTorch's files never are; take another file"
                )
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise CheckpointError(
                    f"{path.name}: it unpacks to more than {MAX_BYTES / 1e9:.0f} GB; take another file"
                )
            # torch.load checks no sums, and loads a third of all files with a flipped bit.
            if damaged := archive.testzip():
                raise CheckpointError(f"{path.name}: {damaged} in it is damaged; copy or download the file again")
        with warnings.catch_warnings():
            # Sparse tensors are refused later, by name.
            warnings.filterwarnings("ignore", message="Validating sparse tensor invariants")
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    # A hostile or damaged file makes torch's unpickler raise nearly anything.
    except Exception as error:
        raise CheckpointError(
            f"{path.name}: it is no checkpoint that can be read safely: {_reason(path, error)}"
        ) from error
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path.name}: it holds a {type(payload).__name__}; needed a checkpoint's dictionary")
    return payload


def _require_own_names(name: str, entries: list[str]) -> None:
    if leading_out := [entry for entry in entries if ".." in entry.split("/") or entry.startswith("/")]:
        raise CheckpointError(f"{name}: {leading_out[0]} in it leads out of it; take another file")
    if not any(entry.endswith("/data.pkl") for entry in entries):
        raise CheckpointError(f"{name}: it is a zip file, but none that PyTorch wrote; take another file")


def read_weights(path: Path) -> "dict[str, Tensor]":
    """A plain state dictionary, as torchvision and others publish them, in PyTorch's old format too."""
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises nearly anything
        raise CheckpointError(f"{path.name}: it cannot be read safely: {_reason(path, error)}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f"{path.name}: it holds no dictionary of weights; take another file")
    return weights


def _reason(path: Path, error: Exception) -> str:
    # What torch says of pickles advises to load them unsafely.
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds more than tensors and plain values, which is never loaded"
    with path.open("rb") as file:
        start = file.read(24)
    if start.startswith(b"version https://git-lfs"):
        return "it is a git-LFS pointer in the file's place; get the file with `git lfs pull`"
    return _unlike_a_zip(start) if isinstance(error, zipfile.BadZipFile) else _first_line(error)


def _unlike_a_zip(start: bytes) -> str:
    """What a file is instead, by its first bytes."""
    if not start:
        return "it is empty; copy or download it again"
    if start.startswith(b"PK"):
        return "it is cut off or damaged; copy or download it again"
    if start.startswith(b"\x80"):
        return "it is a bare pickle, or of PyTorch before 1.6: either can hold code and is never loaded"
    if start.lstrip().startswith(b"<"):
        return "it is a web page in the file's place; download the file itself"
    return "it is no zip file, which PyTorch's are; take another file"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def write_pth(path: Path, checkpoint: Checkpoint) -> None:
    """Write what training keeps, in the layout that other programs read."""
    payload = {
        "state_dict": checkpoint.state_dict,
        "config": config_to_dict(checkpoint.model_config, checkpoint.training),
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "optimizer": checkpoint.optimizer,
    }
    write_state(path, payload)


def write_state(path: Path, payload: Mapping[str, Any]) -> None:
    """Write tensors and plain values, as `read_pth` reads them."""
    import torch

    write_atomically(path, lambda temporary: torch.save(payload, temporary))


def write_folder(folder: Path, checkpoint: Checkpoint, dtype: "torch.dtype | None" = None) -> None:
    """Write what ships: `model.safetensors` (matrices as `dtype`, unset: float32), `config.json`, training features.

    Of the training only what tells nothing private: known settings, and figures.
    """
    import safetensors.torch
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    # Biases, scales and BatchNorm's statistics are a fiftieth of all numbers and half of what rounding does to a mask.
    tensors = {
        key: (value.to(dtype if dtype and value.ndim > 1 else torch.float32) if value.is_floating_point() else value)
        for key, value in checkpoint.state_dict.items()
    }
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    saved = config_to_dict(checkpoint.model_config, public_settings(checkpoint.training))
    metrics = {key: value for key, value in checkpoint.metrics.items() if is_figure(value)}
    saved["checkpoint"] = {"epoch": checkpoint.epoch, "metrics": metrics}
    write_atomically(folder / WEIGHTS_FILE, lambda temporary: safetensors.torch.save_file(tensors, temporary))
    write_text(folder / CONFIG_FILE, json.dumps(saved, indent=2) + "\n")
    if checkpoint.training_features is not None:
        write_training_features(folder, checkpoint.training_features, tensors)


def rewrite_config(path: Path, config: ModelConfig) -> None:
    """How the answers of kept weights are read from now on; path: a `.pth` or safetensors file. All else stays."""
    if path.suffix == ".safetensors":
        file = path.with_name(CONFIG_FILE)
        saved = json.loads(file.read_text(encoding="utf-8"))
        # A setting that is left out now, as groups that are named again, must not stay from before.
        others = {key: value for key, value in saved.items() if key not in ModelConfig.model_fields}
        rewritten = {**config_to_dict(config, saved.get("training", {})), **others}
        write_text(file, json.dumps(rewritten, indent=2) + "\n")
    else:
        payload = read_pth(path)
        write_state(path, {**payload, "config": config_to_dict(config, payload["config"].get("training", {}))})


def public_settings(training: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of a training that may be shown to everybody."""
    shown = TrainConfig.model_fields.keys() - PRIVATE_SETTINGS
    return {key: value for key, value in training.items() if key in shown and _is_plain(value)}


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | str) or is_figure(value)


def is_figure(value: object) -> TypeGuard[int | float]:
    """Is it a number that a training or an evaluation can give? A file may hold one of a thousand digits, or NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_FIGURE


def write_training_features(
    folder: Path, training_features: Mapping[str, np.ndarray], state_dict: "Mapping[str, Tensor]"
) -> None:
    """Write where the training photos lie beside the weights in `folder`; it counts for these weights only."""
    metadata = {"weights": weights_revision(_as_float32(state_dict, folder.name))}
    write_atomically(
        folder / FEATURES_FILE,
        lambda temporary: safetensors.numpy.save_file(dict(training_features), temporary, metadata),
    )
