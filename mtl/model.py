"""The network: one EfficientNet-B0 encoder, a classification head and a UNet decoder for the lesion mask.

Sizes in the comments are those of a 224 x 224 input. No files, no training here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import efficientnet_b0

from mtl.config import ModelConfig

FEATURE_CHANNELS = 1280
# The stages of torchvision's `efficientnet_b0().features` whose outputs are the last of their resolution,
# deepest first, and their channels: 14, 28, 56 and 112 pixels.
SKIP_STAGES = (5, 3, 2, 1)
SKIP_CHANNELS = (112, 40, 24, 16)
DECODER_CHANNELS = (512, 256, 128, 64)


class Encoder(nn.Module):
    """EfficientNet-B0 without its classifier (Tan & Le 2019, arXiv:1905.11946), as torchvision builds it."""

    def __init__(self, activation: str):
        super().__init__()
        self.features = efficientnet_b0(weights=None).features
        if activation == "relu6":
            _replace_silu(self.features)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, 224, 224) -> features (N, 1280, 7, 7) and the four skip tensors, deepest first."""
        at_stage = {}
        for stage, layer in enumerate(self.features):
            x = layer(x)
            if stage in SKIP_STAGES:
                at_stage[stage] = x
        return x, [at_stage[stage] for stage in SKIP_STAGES]


def _replace_silu(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.SiLU):
            setattr(module, name, nn.ReLU6(inplace=True))
        else:
            _replace_silu(child)


class ClassificationHead(nn.Sequential):
    """(N, 1280, 7, 7) -> class logits (N, num_classes)."""

    def __init__(self, num_classes: int, dropout: float):
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(FEATURE_CHANNELS, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(512, 256),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(256, num_classes),
        )


class DecoderBlock(nn.Module):
    """Twice the resolution, joined by the encoder's features of it, then a depthwise-separable 3 x 3 convolution.

    Dense convolutions at these widths would cost 10 M parameters (Chollet 2017, arXiv:1610.02357, for the separation).
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        joined = in_channels + skip_channels
        self.depthwise = nn.Conv2d(joined, joined, 3, padding=1, groups=joined, bias=False)
        self.pointwise = nn.Conv2d(joined, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, in, h, w) and (N, skip, 2h, 2w) -> (N, out, 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = torch.cat([x, skip], dim=1)
        return F.relu(self.norm(self.pointwise(self.depthwise(x))), inplace=True)


class UNetDecoder(nn.Module):
    """Features and skips -> mask logits (N, 1, 112, 112) (Ronneberger et al. 2015, arXiv:1505.04597)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (FEATURE_CHANNELS, *DECODER_CHANNELS)
        self.blocks = nn.ModuleList(
            DecoderBlock(widths[level], SKIP_CHANNELS[level], widths[level + 1]) for level in range(len(SKIP_CHANNELS))
        )
        self.to_logits = nn.Conv2d(DECODER_CHANNELS[-1], 1, 1)

    def forward(self, features: Tensor, skips: list[Tensor]) -> Tensor:
        x = features
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
        return self.to_logits(x)


class MultiTaskNetwork(nn.Module):
    """One photo, two answers: class logits and lesion mask logits."""

    def __init__(self, config: ModelConfig | None = None):
        super().__init__()
        self.config = config or ModelConfig()
        self.encoder = Encoder(self.config.activation)
        self.classification_head = ClassificationHead(self.config.num_classes_classification, self.config.dropout)
        self.segmentation_head = UNetDecoder()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ImageNet-normalised RGB (N, 3, S, S) -> (class_logits, seg_logits, features).

        Shapes (N, num_classes), (N, 1, S/2, S/2), (N, 1280, S/32, S/32); S is a multiple of 32, 224 by default.
        """
        features, skips = self.encoder(x)
        return self.classification_head(features), self.segmentation_head(features, skips), features
