"""The network: shapes, size, and EfficientNet-Lite0's weights as its start."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import ONE_THREAD
from torch import Tensor

from mtl.config import IMAGENET_MEAN, IMAGENET_STD, Classes, ModelConfig
from mtl.errors import ConfigError
from mtl.model import Encoder, MultiTaskNetwork
from mtl.training.start import _read_lite0, choose_start, load_lite0, load_start

pytestmark = pytest.mark.usefixtures(ONE_THREAD)


@pytest.fixture(scope="module")
def network() -> MultiTaskNetwork:
    torch.manual_seed(0)
    return MultiTaskNetwork().eval()


@torch.no_grad()
def test_the_three_outputs(network: MultiTaskNetwork) -> None:
    class_logits, seg_logits, features = network(torch.randn(2, 3, 224, 224))
    assert class_logits.shape == (2, 10)
    assert seg_logits.shape == (2, 1, 112, 112)
    assert features.shape == (2, 1280, 7, 7)


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 96, 160, 256, 320])
def test_other_image_sizes(network: MultiTaskNetwork, size: int) -> None:
    class_logits, seg_logits, features = network(torch.randn(1, 3, size, size))
    assert class_logits.shape == (1, 10)
    assert seg_logits.shape == (1, 1, size // 2, size // 2)
    assert features.shape == (1, 1280, size // 32, size // 32)


def test_it_has_at_most_5_8_million_parameters(network: MultiTaskNetwork) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) <= 5_800_000


def test_the_head_is_as_wide_as_the_classes_are_many() -> None:
    classes = Classes(groups={"a": ("x", "y"), "b": ("z",)})
    assert MultiTaskNetwork(ModelConfig(classes=classes)).classification_head[-1].out_features == 3


@pytest.mark.parametrize("channels", [0, 2, 10])
def test_one_mask_channel_only(channels: int) -> None:
    with pytest.raises(ConfigError, match=f"num_classes_segmentation: got {channels}"):
        ModelConfig(num_classes_segmentation=channels)


@pytest.mark.parametrize("size", [32, 100, 1056])
def test_image_sizes_that_the_network_cannot_halve_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"image_size: got {size}"):
        ModelConfig(image_size=size)


def test_the_activation_is_a_choice() -> None:
    kinds = {kind: {type(m).__name__ for m in Encoder(kind).modules()} for kind in ("silu", "relu6")}
    assert "SiLU" in kinds["silu"]
    assert "ReLU6" not in kinds["silu"]
    assert "ReLU6" in kinds["relu6"]
    assert "SiLU" not in kinds["relu6"]


# ---- the lite0 start


class Lite0:
    """EfficientNet-Lite0 written down from its paper's table, over the weights of the package, in evaluation mode.

    Two things are as in the network that it is compared with: photos are padded with ImageNet's mean colour, which is
    what zeros are after normalising, and each block's depthwise output is scaled by the open gate.
    """

    KERNELS = (3, 3, 5, 3, 5, 5, 3)
    STRIDES = (1, 2, 2, 2, 1, 2, 1)
    REPEATS = (1, 2, 2, 3, 3, 4, 1)

    def __init__(self, weights: dict[str, Tensor]):
        self.weights = weights
        self.gate = torch.sigmoid(torch.tensor(6.0))

    def __call__(self, photos: Tensor) -> Tensor:
        """(N, 3, S, S) in 0..1 -> (N, 1280, S/32, S/32)."""
        scaled = (255 * photos - 127) / 128
        colour = (255 * torch.tensor(IMAGENET_MEAN) - 127) / 128
        padded = F.pad(scaled - colour.view(3, 1, 1), (1, 1, 1, 1)) + colour.view(3, 1, 1)
        x = F.relu6(self.norm(F.conv2d(padded, self.weights["_conv_stem.weight"], stride=2), "_bn0"))
        block = 0
        for kernel, stride, repeats in zip(self.KERNELS, self.STRIDES, self.REPEATS, strict=True):
            for repeat in range(repeats):
                x = self.block(x, f"_blocks.{block}", kernel, stride if repeat == 0 else 1)
                block += 1
        return F.relu6(self.norm(F.conv2d(x, self.weights["_conv_head.weight"]), "_bn1"))

    def block(self, x: Tensor, name: str, kernel: int, stride: int) -> Tensor:
        y = x
        if f"{name}._expand_conv.weight" in self.weights:
            y = F.relu6(self.norm(F.conv2d(y, self.weights[f"{name}._expand_conv.weight"]), f"{name}._bn0"))
        depthwise = self.weights[f"{name}._depthwise_conv.weight"]
        y = F.conv2d(y, depthwise, stride=stride, padding=kernel // 2, groups=len(depthwise))
        y = self.gate * F.relu6(self.norm(y, f"{name}._bn1"))
        y = self.norm(F.conv2d(y, self.weights[f"{name}._project_conv.weight"]), f"{name}._bn2")
        return x + y if x.shape == y.shape else y

    def norm(self, x: Tensor, name: str) -> Tensor:
        w = self.weights
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-3)


@torch.no_grad()
def test_lite0_with_relu6_gives_lite0s_features() -> None:
    weights = _read_lite0()
    encoder = Encoder("relu6").eval()
    load_lite0(encoder.features, weights)
    photos = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    normalised = (photos - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    features, _ = encoder(normalised)
    wanted = Lite0(weights)(photos)
    assert wanted.std() > 0.1
    torch.testing.assert_close(features, wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_lite0_opens_every_gate() -> None:
    network = MultiTaskNetwork()
    load_start(network, "lite0")
    gates = [module for name, module in network.encoder.named_modules() if name.endswith(".fc2")]
    assert len(gates) == 16
    for gate in gates:
        assert not gate.weight.any()
        assert torch.sigmoid(gate.bias).allclose(torch.tensor(0.99753))


def test_auto_never_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert choose_start("auto") == "lite0"
    cached = tmp_path / "hub/checkpoints/efficientnet_b0_rwightman-7f5810bc.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert choose_start("auto") == "imagenet"
    assert choose_start("none") == "none"
