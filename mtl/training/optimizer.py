"""Which parameters learn, with which optimiser, and how fast at each step."""

import math

import torch
from torch import nn

from mtl.config import TrainConfig

ONE_CYCLE_RISE = 0.3  # share of all steps over which one-cycle rises
ONE_CYCLE_START = 0.04  # of lr


def make_optimizer(
    encoder: nn.Module, heads: list[nn.Module], balance: nn.Module, config: TrainConfig
) -> torch.optim.Optimizer:
    """Adam or AdamW over the encoder (at its own rate), the heads, and the losses' weights where these are learned.

    Frozen parameters stand in it too: they have no gradient, and are skipped until they are unfrozen.
    """
    groups = [
        {"params": list(encoder.parameters()), "lr": config.lr * config.backbone_lr_factor},
        {"params": [parameter for head in heads for parameter in head.parameters()], "lr": config.lr},
        {"params": list(balance.parameters()), "lr": config.lr, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=config.lr, weight_decay=config.weight_decay)


def lr_factor(config: TrainConfig, step: int, steps: int, warmup_steps: int) -> float | None:
    """What lr is multiplied with at a step (from 0) of `steps`; None where the schedule leaves it as it stands."""
    progress = min(1.0, step / steps)
    if config.schedule == "one-cycle":
        if progress < ONE_CYCLE_RISE:
            return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * _falling(1 - progress / ONE_CYCLE_RISE)
        return _falling((progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if config.schedule == "cosine":
        return warmup * _falling(progress)
    return warmup if step < warmup_steps else None


def _falling(progress: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * progress))
