"""How the class loss and the mask loss become one step: fixed weights, learned ones, or no step against either."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torchjd.aggregation import UPGrad

from mtl.config import TrainConfig
from mtl.losses import TASKS
from mtl.training import ranks


class LossBalance(nn.Module):
    """The weights of the losses while training, in the order of TASKS. What is reported is weighted as configured.

    uncertainty: weight exp(-s) with a learned s = log variance for each loss, and s / 2 added, which keeps the
    weights from falling to 0 (Kendall et al. 2018, arXiv:1705.07115); s starts where the weight is the configured one.
    """

    def __init__(self, config: TrainConfig):
        super().__init__()
        self.configured: Tensor
        weights = torch.tensor([config.classification_weight, config.segmentation_weight])
        self.register_buffer("configured", weights, persistent=False)
        self.log_variances = nn.Parameter(-weights.log()) if config.balancing == "uncertainty" else None

    def weights(self) -> Tensor:
        """(2,) What the losses are multiplied with now."""
        return self.configured if self.log_variances is None else torch.exp(-self.log_variances)

    def penalty(self, tasks: Collection[str]) -> Tensor | float:
        """What learned weights cost, for these tasks; 0 where the weights are fixed."""
        if self.log_variances is None:
            return 0.0
        return 0.5 * self.log_variances[[TASKS.index(task) for task in tasks]].sum()


def upgrad_backward(losses: list[Tensor], shared: list[nn.Parameter], heads: list[nn.Parameter]) -> None:
    """Fill the gradients so that the shared parameters' step is against no loss (Quinton & Rey 2024, arXiv:2406.16232).

    Each head has its own loss's gradient. Where the losses do not conflict, the shared gradient is that of their sum.
    Of several processes each has its photos' part of every loss, a loss without any graph where it has no photo; the
    shared gradient is that of all, the heads' are still to be added up.
    """
    rows = []
    for number, loss in enumerate(losses, start=1):
        gradients = _gradients(loss, shared + heads, retain_graph=number < len(losses))
        rows.append(torch.cat([_or_zeros(g, p).flatten() for g, p in zip(gradients, shared, strict=False)]))
        for parameter, gradient in zip(heads, gradients[len(shared) :], strict=True):
            if gradient is not None:
                parameter.grad = gradient
    if not rows:
        return
    aggregate = UPGrad(pref_vector=rows[0].new_ones(len(rows)))
    # In full precision: what follows from the rows' products is solved for by numpy, which knows no bfloat16.
    with torch.autocast(rows[0].device.type, enabled=False):
        _vector_to_gradients(aggregate(ranks.add_up(torch.stack(rows))), shared)


def _gradients(loss: Tensor, parameters: list[nn.Parameter], *, retain_graph: bool) -> Sequence[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(loss, parameters, retain_graph=retain_graph, allow_unused=True)


def _or_zeros(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


def _vector_to_gradients(vector: Tensor, parameters: list[nn.Parameter]) -> None:
    pieces = vector.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
