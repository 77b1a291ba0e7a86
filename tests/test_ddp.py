"""Several processes that train one run: the curve of one process, and one end for all, however it comes."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from builders import law, write_folder
from hypothesis import given
from hypothesis import strategies as st
from processes import in_processes
from pytorch_lightning.callbacks import Callback
from test_training import epochs_of
from tiny import ONE_THREAD, tiny_config
from torchvision.ops import StochasticDepth

from mtl.config import TrainConfig
from mtl.data.dataset import SeededBatches
from mtl.training import ranks
from mtl.training.fit import open_job, run_job, train
from mtl.training.run import Run

pytestmark = pytest.mark.usefixtures(ONE_THREAD)


class PhotoByPhoto(Callback):
    """No answer hangs on another photo: BatchNorm keeps its running statistics, and no block is left out at random."""

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        for module in task.modules():
            if isinstance(module, torch.nn.BatchNorm2d | StochasticDepth):
                module.eval()


class Weights(Callback):
    """What this process has learned, as one number a tensor."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        held = {name: tensor for name, tensor in task.state_dict().items() if tensor.is_floating_point()}
        self.sums = {name: tensor.double().sum().item() for name, tensor in held.items()}


def train_frozen(config: TrainConfig | None, resume: Path | None = None) -> tuple[Path, dict[str, float]]:
    """Train without statistics of batches; the run's folder and its weights."""
    with ranks.joined():
        weights = Weights()
        job = replace(open_job(config, resume), listeners=(PhotoByPhoto(), weights))
        run_job(job)
        return job.run.path, weights.sums


@pytest.fixture(scope="module")
def uneven_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 + 7 photos, so that the last batch of four has one photo; some without a label, some without a mask."""
    data = write_folder(tmp_path_factory.mktemp("uneven") / "skin", train=13, val=7)
    labels = json.loads((data / "labels.json").read_text())
    for number in (0, 4, 8):
        del labels[f"train_{number:03}.jpg"]
    (data / "labels.json").write_text(json.dumps(labels))
    for number in (1, 5, 6, 7):
        (data / "masks" / "train" / f"train_{number:03}.png").unlink()
    return data


def even_config(data: Path, **settings: Any) -> TrainConfig:
    """Settings under which processes and one alone compute the same, up to rounding."""
    return tiny_config(data, **{"epochs": 5, "dropout": 0.0, "init": "lite0", "lr": 3e-5, **settings})


def require_same_curve(ours: Run, theirs: Run) -> None:
    norms = [{k: v for k, v in next(run.events()).items() if k.startswith("gradient_norm")} for run in (ours, theirs)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    for kind in ("step", "epoch"):
        pairs = [[event for event in run.events() if event["event"] == kind] for run in (ours, theirs)]
        assert len(pairs[0]) == len(pairs[1]) > 0
        for our, their in zip(*pairs, strict=True):
            losses = [name for name in their if name.endswith("loss")]
            assert {name: our[name] for name in losses} == pytest.approx({n: their[n] for n in losses}, abs=1e-3)
            assert our.get("photos") == their.get("photos")
            assert our["lr"] == their["lr"]


# ---- the same curve


OPTIONS = [
    {},
    {"epochs": 2, "balancing": "uncertainty", "accumulate": 2, "batch_size": 2, "ema_decay": 0.5},
    {"epochs": 1, "balancing": "upgrad"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "uncertainty", "upgrad"])
def test_two_processes_give_the_curve_of_one(options: dict[str, Any], uneven_data: Path) -> None:
    config = even_config(uneven_data, **options)
    path, _ = train_frozen(config)
    (ours, first), (theirs, second) = in_processes(2, train_frozen, config)
    assert ours == theirs
    assert first == second
    require_same_curve(Run(ours), Run(path))
    assert len(epochs_of(Run(ours))) == config.epochs
    assert Run(ours).status().state == "finished"


# ---- one end for all


def stop_after(config: TrainConfig, step: int) -> Path:
    """Ask for a stop once the curves have this step."""
    with ranks.joined():
        job = replace(open_job(config), listeners=(PhotoByPhoto(), Stopping(step)))
        run_job(job)
        return job.run.path


class Stopping(Callback):
    """Comes behind what looks for a stop, so that the next step is the last."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and ranks.is_first():
            Run(str(trainer.default_root_dir)).request_stop()


def test_a_stop_ends_both_after_one_step_and_one_process_goes_on(uneven_data: Path) -> None:
    config = even_config(uneven_data, epochs=2)
    whole, _ = train_frozen(config)
    paths = in_processes(2, stop_after, config, 2)
    assert paths[0] == paths[1]
    run = Run(paths[0])
    assert run.status().state == "stopped"
    assert [event["step"] for event in run.events()] == [1, 2, 3]
    resumed, _ = train_frozen(None, run.path)
    require_same_curve(Run(resumed), Run(whole))
    # And two go on with what one has begun.
    one = stop_after(config, 5)
    in_processes(2, train_frozen, None, one)
    require_same_curve(Run(one), Run(whole))


class Failing(Callback):
    """Goes wrong in the second process."""

    def __init__(self, how: str):
        self.how = how

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2 and not ranks.is_first():
            if self.how == "error":
                raise ZeroDivisionError("in the middle")
            os.kill(os.getpid(), signal.Signals[self.how])


def train_failing(config: TrainConfig, how: str) -> None:
    with ranks.joined():
        run_job(replace(open_job(config), listeners=(Failing(how),)))


@pytest.mark.parametrize(
    ("how", "first", "second", "state"),
    [
        ("error", "RunError: process 1: ZeroDivisionError: in the middle", "exit 1", "failed"),
        ("SIGKILL", "RunError: one of the processes was ended from outside", "SIGKILL", "failed"),
        ("SIGTERM", "interrupted", "exit 130", "stopped"),
    ],
)
def test_however_one_ends_all_end_and_the_first_tells_why(
    how: str, first: str, second: str, state: str, uneven_data: Path
) -> None:
    told = in_processes(2, train_failing, even_config(uneven_data, name=how), how)
    assert told[0].startswith(first)
    assert told[1] == second
    run = Run(max((uneven_data.parent / "runs").glob(f"*-{how}")))
    assert run.status().state == state
    assert run.status().message.startswith(first.partition(": ")[2])
    if how == "error":
        assert "ZeroDivisionError" in run.log_file.read_text()


def train_alone(config: TrainConfig) -> Path:
    return train(config).path


def test_what_is_refused_is_told_once(uneven_data: Path) -> None:
    told = in_processes(2, train_alone, even_config(uneven_data, batch_size=1))
    assert told[0].startswith("ConfigError: batch_size: got 1 for 2 processes, which share each batch")
    assert told[1] == "exit 1"


def open_unjoined(config: TrainConfig) -> None:
    open_job(config)


def test_processes_that_have_not_met_are_refused(uneven_data: Path) -> None:
    told = in_processes(2, open_unjoined, even_config(uneven_data))
    assert all(line.startswith("ConfigError: WORLD_SIZE: got 2;") for line in told)


# ---- what is shared


@law
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_shares_of_a_batch_are_all_of_it(length: int, batch_size: int, processes: int, epoch: int) -> None:
    def batches(rank: int, of: int) -> list[list[int]]:
        sampler = SeededBatches(length, batch_size, seed=1)
        sampler.keep_share(rank, of)
        sampler.set_epoch(epoch)
        return list(sampler)

    shares = [batches(rank, processes) for rank in range(processes)]
    for whole, *parts in zip(batches(0, 1), *shares, strict=True):
        assert [index for part in parts for index in part] == whole
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
