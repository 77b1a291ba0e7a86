"""How the class loss and the mask loss become one step: fixed weights, learned ones, or no step against either."""

import torch
from torch import Tensor, nn
from torchjd.aggregation import UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from mtl.config import TrainConfig


class LossBalance(nn.Module):
    """The weights of (classification, segmentation) while training. What is reported is always weighted as configured.

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

    def penalty(self, present: Tensor) -> Tensor:
        """What learned weights cost, for the losses that are there, (2,) bool; 0 where the weights are fixed."""
        if self.log_variances is None:
            return self.configured.new_zeros(())
        return 0.5 * self.log_variances[present].sum()


def upgrad_backward(losses: list[Tensor], features: list[Tensor], shared: list[nn.Parameter]) -> None:
    """Fill the gradients so that the shared parameters' step is against no loss (Quinton & Rey 2024, arXiv:2406.16232).

    features: what the heads get of the encoder, whose trainable parameters are `shared`. Each head has its own loss's
    gradient. Where the losses do not conflict, the shared gradient is that of their sum.
    """
    if len(losses) == 1:
        losses[0].backward()
        return
    # One after the other: vmap would need rules that not every layer has.
    mtl_backward(losses, features=features, shared_params=shared, parallel_chunk_size=1)
    jac_to_grad(shared, UPGrad(pref_vector=losses[0].new_ones(len(losses))))
