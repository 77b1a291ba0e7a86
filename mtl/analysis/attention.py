"""Where in a photo the network looked for a class."""

import numpy as np
import torch

from mtl.analysis.engine import to_input
from mtl.model import MultiTaskNetwork


def grad_cam(network: MultiTaskNetwork, square: np.ndarray, class_id: int) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of one class over the encoder's last features.

    square: (S, S, 3) uint8. Returns (S/32, S/32) float32, the strongest place 1; all 0 where nothing speaks for the
    class. `mtl.frame.map_to_photo` lays it over the photo. The network must be in evaluation mode; nothing of it
    changes, so that other threads may use it meanwhile.
    """
    device = next(network.parameters()).device
    with torch.no_grad():
        features, _ = network.encoder(to_input(square[None], device))
    with torch.enable_grad():
        class_logits = network.classification_head(features.requires_grad_())
        # Of the features alone: `backward` would write into the weights' gradients, which all threads share.
        [gradient] = torch.autograd.grad(class_logits[0, class_id], features)
    channel_weights = gradient.mean((2, 3), keepdim=True)
    seen = (channel_weights * features.detach()).sum(1)[0].relu()
    strongest = float(seen.max())
    return np.asarray((seen / strongest if strongest > 0 else seen).float().cpu().numpy())
