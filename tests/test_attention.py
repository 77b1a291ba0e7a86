"""Grad-CAM: the map's peak lies where the class was seen, and asking for it changes nothing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny import ONE_THREAD, random_network

from mtl.analysis.attention import grad_cam
from mtl.analysis.engine import EagerEngine, to_input
from mtl.api import MultiTaskModel
from mtl.checkpoint import Checkpoint
from mtl.config import ModelConfig
from mtl.errors import ConfigError
from mtl.frame import map_to_photo
from mtl.model import MultiTaskNetwork

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

CPU = torch.device("cpu")
CLASS = 3
SIZE = 128  # features of 4 x 4
CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def bright_corner(row: int, column: int) -> np.ndarray:
    """(SIZE, SIZE, 3): bright in one quarter, dark elsewhere."""
    square, half = np.full((SIZE, SIZE, 3), 20, np.uint8), SIZE // 2
    square[row * half : (row + 1) * half, column * half : (column + 1) * half] = 220
    return square


def brightness_network(sign: int = 1) -> MultiTaskNetwork:
    """Its only feature is the brightness of each 32 px cell, and CLASS's logit is `sign` times its mean."""
    network = random_network(ModelConfig(image_size=SIZE))
    features = network.encoder.features
    for stage in range(len(features)):
        features[stage] = torch.nn.Identity()
    features[-1] = Brightness()
    first, middle, last = (layer for layer in network.classification_head if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        for layer in (first, middle, last):
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[0, 0] = middle.weight[0, 0] = 1
        last.weight[CLASS, 0] = sign
    return network


class Brightness(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 32).relu()
        return torch.nn.functional.pad(cells, (0, 0, 0, 0, 0, 1279))


@pytest.mark.parametrize(("row", "column"), CORNERS)
def test_the_peak_lies_where_the_class_was_seen(row: int, column: int) -> None:
    seen = grad_cam(brightness_network(), bright_corner(row, column), CLASS)
    assert (seen.shape, seen.dtype) == ((4, 4), np.float32)
    wanted = np.zeros((4, 4))
    wanted[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    assert np.array_equal(seen > 0.5, wanted > 0)
    assert seen[wanted == 1] == pytest.approx(1)
    on_photo = map_to_photo(seen, 90, 160, False, outside=0)
    peak = np.unravel_index(on_photo.argmax(), on_photo.shape)
    assert (peak[0] >= 45, peak[1] >= 80) == (row == 1, column == 1)


def test_what_speaks_against_a_class_is_not_shown() -> None:
    square = bright_corner(0, 0)
    assert not grad_cam(brightness_network(sign=-1), square, CLASS).any()
    assert not grad_cam(brightness_network(), square, CLASS + 1).any()


def test_it_is_the_gradient_of_the_whole_networks_logit() -> None:
    network = random_network(ModelConfig(image_size=SIZE))
    square = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    class_logits, _, features = network(to_input(square[None], CPU))
    [gradient] = torch.autograd.grad(class_logits[0, CLASS], features)
    wanted = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu()[0].detach().numpy()
    assert wanted.max() > 0
    assert grad_cam(network, square, CLASS) == pytest.approx(wanted / wanted.max(), abs=1e-5)
    assert all(weight.grad is None for weight in network.parameters())


def test_it_runs_beside_the_engine() -> None:
    network = random_network(ModelConfig(image_size=SIZE))
    engine = EagerEngine(network, CPU)
    square = bright_corner(0, 1)
    logits, seen = engine(square[None]).class_logits, grad_cam(network, square, CLASS)
    with ThreadPoolExecutor(4) as threads:
        maps = [threads.submit(grad_cam, network, square, CLASS) for _ in range(6)]
        answers = [threads.submit(engine, square[None]) for _ in range(6)]
        assert all(np.array_equal(future.result(), seen) for future in maps)
        assert all(np.array_equal(future.result().class_logits, logits) for future in answers)


def test_the_model_answers_for_the_likeliest_class_or_the_named_one() -> None:
    config = ModelConfig(image_size=64, class_counts=(9,) * 4 + (0,) + (9,) * 5)
    model = MultiTaskModel(Checkpoint("made", random_network(config).state_dict(), config), "cpu")
    photo = np.random.default_rng(1).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    likeliest = model.analyze(photo).predicted_class_id
    assert np.array_equal(model.grad_cam(photo), model.grad_cam(photo, likeliest))
    assert model.grad_cam(photo, 0).shape == (2, 2)
    with pytest.raises(ConfigError, match="sensitive has no training photos"):
        model.grad_cam(photo, 4)
    for class_id in (-1, 10):
        with pytest.raises(ConfigError, match=f"class_id: got {class_id}; needed one from 0 to 9"):
            model.grad_cam(photo, class_id)
