"""Which parameters learn, with which optimiser, and how fast at each step."""

import math
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from mtl.config import TrainConfig
from mtl.errors import CheckpointError

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
    # Fused: one pass over all parameters; on two CPU cores 8 ms a step against 25, and one kernel on a GPU.
    return kind(
        [group for group in groups if group["params"]], lr=config.lr, weight_decay=config.weight_decay, fused=True
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on with the moments of a saved state; rates, decay and the kind stay the optimizer's own.

    Raises CheckpointError where it is of other parameters.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    try:
        state = _regrouped(state, [len(group["params"]) for group in optimizer.param_groups])
        # It says on which device the steps are counted; earlier versions had another.
        groups = [{**group, "fused": own["fused"]} for group, own in zip(state["param_groups"], settings, strict=True)]
        optimizer.load_state_dict({**state, "param_groups": groups})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the checkpoint's optimizer does not fit what is trained here (another balancing?); "
            "take --init instead of --resume, which begins from its weights alone"
        ) from error
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _regrouped(state: dict[str, Any], sizes: list[int]) -> dict[str, Any]:
    """A state in groups of these sizes: earlier versions had one group, without the encoder where that was frozen."""
    [first, *others] = state["param_groups"]
    left_out = sum(sizes) - len(first["params"])
    if others or left_out not in (0, sizes[0]):
        return state
    ends = list(accumulate(sizes))
    groups = [{**first, "params": list(range(end - size, end))} for end, size in zip(ends, sizes, strict=True)]
    return {"state": {number + left_out: held for number, held in state["state"].items()}, "param_groups": groups}


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
