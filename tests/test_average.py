"""The mean of checkpoints: of each number; calibrated and complete; what does not belong together is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ONE_THREAD, random_network

from mtl.checkpoint import Checkpoint, read_checkpoint, write_folder
from mtl.cli import main
from mtl.config import Classes, ModelConfig
from mtl.data.demo import write_demo_data
from mtl.errors import CheckpointError
from mtl.training.average import mean_of

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

CONFIG = ModelConfig(image_size=64, class_counts=(5,) * 10, mask_count=9)
TWO = [Checkpoint(f"seed {s}", random_network(CONFIG, seed=s).state_dict(), CONFIG, epoch=s + 1) for s in (0, 1)]


def test_the_mean_is_that_of_each_number() -> None:
    mean = mean_of([TWO[0], TWO[1], TWO[1]])
    for key, value in mean.state_dict.items():
        first, second = (one.state_dict[key] for one in TWO)
        expected = (first + 2 * second) / 3 if value.is_floating_point() else first
        torch.testing.assert_close(value, expected, msg=key)
    assert mean.revision not in {one.revision for one in TWO}
    assert (mean.model_config, mean.metrics, mean.training_features) == (CONFIG, {}, None)


def test_the_mean_of_equal_weights_is_the_same() -> None:
    assert mean_of([TWO[0], TWO[0]]).revision == TWO[0].revision


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "got 1 checkpoint; needed two or more"),
        ([replace(TWO[1], model_config=CONFIG.replace(image_size=96))], "seed 1: got image size 96; needed 64"),
        (
            [
                replace(
                    TWO[1],
                    model_config=CONFIG.replace(classes=Classes(groups={"skin": ("a", "b")}), class_counts=(1, 1)),
                )
            ],
            "seed 1: its classes are not those of seed 0",
        ),
        ([replace(TWO[1], state_dict={})], "seed 1: .* is missing"),
    ],
)
def test_what_does_not_belong_together_is_refused(others: list[Checkpoint], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        mean_of([TWO[0], *others])


def test_the_command_writes_a_calibrated_checkpoint_that_can_be_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "made"
    write_demo_data(data, photos=300, size=64)  # enough to choose a mask threshold, and to tell unlike photos
    sources = [tmp_path / "a", tmp_path / "b"]
    for source, checkpoint in zip(sources, TWO, strict=True):
        write_folder(source, checkpoint)
    line = ["average", *map(str, sources), "--output", str(tmp_path / "mean"), "--data-dir", str(data)]
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    mean = read_checkpoint(tmp_path / "mean")
    assert told["weights"] == mean.revision == mean_of(TWO).revision
    assert told["mask_threshold"] == mean.model_config.mask_threshold != CONFIG.mask_threshold
    assert mean.training_features is not None
    assert all(np.isfinite(values).all() for values in mean.training_features.values())

    assert main(line) == 1
    assert "mean is there already; needed a new folder" in capsys.readouterr().err
    assert main(["evaluate", "--json", "--checkpoint", str(tmp_path / "mean"), "--data-dir", str(data)]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == mean.revision
