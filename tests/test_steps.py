"""A training step and its options: parts of a batch, balancing, too little memory, divergence, vanished photos."""

import errno
import gc
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from builders import law, write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_training import epochs_of, require_same, train_until, weights_of
from tiny import ONE_THREAD, random_network, tiny_config
from torch import Tensor

from mtl.checkpoint import read_pth
from mtl.config import ModelConfig, TrainConfig
from mtl.data.dataset import Batch, PhotoDataset
from mtl.data.folder import read_folder
from mtl.errors import ConfigError, DataError, DiskFullError, DivergedError, MemoryLimitError
from mtl.files import write_text
from mtl.losses import balancing_weights, segmentation_losses
from mtl.model import MultiTaskNetwork
from mtl.training.balance import upgrad_backward
from mtl.training.fit import open_job, run_job, train
from mtl.training.optimizer import lr_factor
from mtl.training.run import Run
from mtl.training.task import MultiTask

pytestmark = pytest.mark.usefixtures(ONE_THREAD)


@pytest.fixture(scope="module")
def batch(tiny_data: Path) -> Batch:
    """Eight photos, two of them without a label and three without a mask."""
    folder = read_folder(TrainConfig(data_dir=str(tiny_data)))
    batch = PhotoDataset(folder.train, ModelConfig(image_size=64))[list(range(8))]
    batch.targets[1] = batch.targets[6] = -1
    batch.has_mask[[0, 1, 5]] = False
    return batch


def make_task(config: TrainConfig) -> MultiTask:
    """A task that can make steps without a loop around it, in evaluation mode: no dropout, no batch statistics."""
    task = MultiTask(random_network(), config)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(task)
    task.trainer = trainer
    return task.eval()


def gradients(task: MultiTask, batch: Batch) -> dict[str, Tensor]:
    task.zero_grad()
    task._backward(batch, task.count(batch), probe=True)
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Up to the rounding of float32, which this deep random network makes large."""
    return ours.keys() == theirs.keys() and all(
        torch.dist(ours[name], theirs[name]) <= 0.01 * theirs[name].norm() + 1e-6 for name in ours
    )


# ---- parts of a batch


@pytest.mark.parametrize("balancing", ["fixed", "uncertainty"])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_the_gradient_is_the_same_in_any_number_of_parts(
    balancing: str, parts: int, batch: Batch, tiny_data: Path
) -> None:
    whole = gradients(make_task(tiny_config(tiny_data, balancing=balancing)), batch)
    cut = gradients(make_task(tiny_config(tiny_data, balancing=balancing, accumulate=parts)), batch)
    assert same(cut, whole)


def test_parts_hold_every_photo_once(batch: Batch) -> None:
    for number in (1, 3, 8, 20):
        parts = batch.parts(number)
        assert len(parts) == min(number, 8)
        assert torch.equal(torch.cat([part.photo_index for part in parts]), batch.photo_index)


def test_accumulated_batches_are_one_step(tiny_data: Path) -> None:
    run = train(tiny_config(tiny_data, batch_size=2, accumulate=3, epochs=1))
    steps = [event for event in run.events() if event["event"] == "step"]
    assert [(step["step"], step["photos"]) for step in steps] == [(1, 6), (2, 6)]


def test_more_accumulated_than_there_is_is_refused(tiny_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"accumulate: got 4 batches of 4, but there are only 12 training photos"):
        train(tiny_config(tiny_data, accumulate=4))


# ---- balancing


def test_learned_weights_start_as_configured_and_move(batch: Batch, tiny_data: Path) -> None:
    fixed = gradients(make_task(tiny_config(tiny_data)), batch)
    learned = gradients(make_task(tiny_config(tiny_data, balancing="uncertainty")), batch)
    assert learned.pop("balance.log_variances").abs().min() > 0
    assert same(learned, fixed)
    run = train(tiny_config(tiny_data, balancing="uncertainty", warmup_steps=0))
    weights = [(e["classification_weight"], e["segmentation_weight"]) for e in run.events() if e["event"] == "step"]
    assert len(set(weights)) == len(weights)
    assert weights[0] == pytest.approx((1.0, 0.5), rel=0.01)


def test_without_a_conflict_upgrad_is_the_sum(batch: Batch, tiny_data: Path) -> None:
    shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    heads = [torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(1.0))]
    upgrad_backward([heads[0] * shared[0], heads[1] * shared.sum()], [shared], heads)
    assert shared.grad is not None
    assert shared.grad.tolist() == pytest.approx([2, 1], rel=1e-3)
    assert [head.grad.item() for head in heads if head.grad is not None] == [1, 3]


@law
@given(st.lists(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4), min_size=2, max_size=2))
def test_upgrad_steps_against_no_loss(rows: list[list[float]]) -> None:
    shared = torch.nn.Parameter(torch.zeros(4))
    directions = torch.tensor(rows)
    upgrad_backward([direction @ shared for direction in directions], [shared], [])
    assert shared.grad is not None
    # TorchJD's solver regularises a little.
    assert (directions @ shared.grad).min() >= -0.01 * (1 + directions.square().sum())


def test_upgrad_refuses_by_name_what_it_cannot_be_combined_with(tiny_data: Path) -> None:
    for settings, named in (
        ({"accumulate": 2}, "accumulate"),
        ({"freeze_backbone": True}, "freeze_backbone"),
        ({"segmentation_weight": 0.0}, "segmentation_weight"),
    ):
        with pytest.raises(ConfigError, match=f"balancing upgrad cannot be combined with .*{named}"):
            tiny_config(tiny_data, balancing="upgrad", **settings)


def test_upgrad_computes_in_bfloat16(tiny_data: Path) -> None:
    run = train(tiny_config(tiny_data, balancing="upgrad", precision="bfloat16", epochs=1))
    assert run.status().state == "finished"


@pytest.mark.parametrize("balancing", ["fixed", "uncertainty", "upgrad"])
def test_a_batch_without_any_target_changes_nothing(balancing: str, batch: Batch, tiny_data: Path) -> None:
    none = Batch(*(tensor.clone() for tensor in batch))
    none.targets[:], none.has_mask[:] = -1, False
    task = make_task(tiny_config(tiny_data, balancing=balancing))
    assert gradients(task, none) == {}
    assert task._clip_gradients() == {}


def test_a_task_of_weight_0_is_no_trouble(tiny_data: Path) -> None:
    run = train(tiny_config(tiny_data, segmentation_weight=0, epochs=1))
    assert run.status().notices == []
    [first, *_] = run.events()
    assert "gradient_norm_segmentation_head" not in first
    assert first["loss"] == first["classification_loss"]


def test_a_part_without_a_mask_says_nothing_of_its_pull(batch: Batch, tiny_data: Path) -> None:
    task = make_task(tiny_config(tiny_data, accumulate=8))  # its first photo has a label and no mask
    assert set(task._backward(batch, task.count(batch), probe=True)[1]) == {"classification_pull"}


# ---- losses and rates


def test_dice_loss_of_known_masks() -> None:
    target = torch.zeros(3, 1, 4, 4)
    target[0, :, :2], target[1, :, :2] = 1, 1
    sure = 40 * (target - 0.5)
    sure[1] = -sure[1]  # all wrong
    dice = segmentation_losses(sure, target, "dice")
    assert dice.tolist() == pytest.approx([0, 1 - 1 / 17, 0], abs=1e-4)
    both = segmentation_losses(sure, target, "bce+dice")
    assert torch.allclose(both, dice + segmentation_losses(sure, target, "bce"))


@law
@given(st.lists(st.integers(0, 500), min_size=2, max_size=10).filter(any), st.sampled_from([0.0, 0.5, 1.0]))
def test_class_weights_have_the_mean_one(counts: list[int], power: float) -> None:
    weights = balancing_weights(counts, power)
    assert sum(n * w for n, w in zip(counts, weights, strict=True)) == pytest.approx(sum(counts))
    present = [n * w for n, w in zip(counts, weights, strict=True) if n]
    if power == 1:
        assert present == pytest.approx([present[0]] * len(present))
    if power == 0:
        assert weights == [1.0] * len(counts)


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_rates_rise_and_fall_to_nothing(schedule: str) -> None:
    config = TrainConfig(schedule=schedule)
    factors = [lr_factor(config, step, 1000, 50) for step in range(1000)]
    assert all(factor is not None and 0 <= factor <= 1 for factor in factors)
    peak = factors.index(max(f for f in factors if f is not None))
    assert peak == {"cosine": 49, "one-cycle": 300}[schedule]
    assert factors[0] < 0.1
    assert factors[-1] < 0.001


def test_the_encoder_has_its_own_rate(tiny_data: Path) -> None:
    task = make_task(tiny_config(tiny_data, backbone_lr_factor=0.1, lr=0.01))
    assert [group["lr"] for group in task.configure_optimizers().param_groups] == pytest.approx([0.001, 0.01])


def test_an_encoder_is_frozen_until_its_epoch(tiny_data: Path) -> None:
    run = train(tiny_config(tiny_data, freeze_backbone=True, unfreeze_after_epochs=1, epochs=2))
    steps = [event for event in run.events() if event["event"] == "step"]
    assert ["gradient_norm_encoder" in event for event in steps] == 3 * [False] + 3 * [True]


OPTIONS = [
    {"balancing": "uncertainty"},
    {"balancing": "upgrad"},
    {"ema_decay": 0.9},
    {"batch_size": 2, "accumulate": 2, "class_weighting": "balanced", "segmentation_loss": "bce+dice"},
    {"schedule": "one-cycle", "optimizer": "adamw", "weight_decay": 0.01, "backbone_lr_factor": 0.1},
    {"freeze_backbone": True, "unfreeze_after_epochs": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_a_stopped_run_goes_on_exactly_with_every_option(options: dict[str, Any], tiny_data: Path) -> None:
    whole = train(tiny_config(tiny_data, **options))
    stopped = train_until(
        tiny_config(tiny_data, **options), lambda event: event.get("event") == "step" and event["step"] == 4
    )
    assert stopped.status().state == "stopped"
    require_same(train(resume=stopped.path), whole)


def test_averaged_weights_are_validated_the_same_after_a_resume(tiny_data: Path) -> None:
    whole = train(tiny_config(tiny_data, ema_decay=0.9))
    stopped = train_until(
        tiny_config(tiny_data, ema_decay=0.9), lambda event: event.get("event") == "step" and event["step"] == 3
    )
    require_same(train(resume=stopped.path), whole)


def test_a_stop_at_the_end_of_an_early_stopped_run_leaves_nothing_to_resume(tiny_data: Path) -> None:
    still = {"lr": 1e-9, "best_metric": "val_jaccard", "early_stopping_patience": 1, "segmentation_weight": 1e-9}
    config = tiny_config(tiny_data, epochs=9, batch_size=12, **still)
    run = train_until(config, lambda changes: changes.get("state") == "saving" and changes["epoch"] == 2)
    assert run.status().state == "finished"
    assert len(epochs_of(run)) == 2


def test_the_best_checkpoint_keeps_the_averaged_weights(tiny_data: Path) -> None:
    still = {"ema_decay": 0.999999, "epochs": 1, "lr": 0.01, "warmup_steps": 0}
    averaged, plain = (train(tiny_config(tiny_data, **{**still, "ema_decay": d})) for d in (0.999999, 0.0))
    torch.manual_seed(0)
    first = MultiTaskNetwork(ModelConfig(image_size=64)).state_dict()
    key = "classification_head.2.weight"
    # Lightning's average begins with the weights after the first step.
    assert (weights_of(averaged)[key] - first[key]).abs().max() < 0.011
    assert (weights_of(plain)[key] - first[key]).abs().max() > 0.011


# ---- generated masks


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_generated_masks_are_learned_from_and_a_resume_takes_the_same(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=12, val=6, size=96)
    for number in (0, 1, 2):
        (data / "masks" / "train" / f"train_{number:03}.png").unlink()
    before = listing(data)
    asked = {"generated_masks": "otsu", "lesion_photos": "train_*", "generated_mask_weight": 0.25}
    whole = train(tiny_config(data, **asked))
    made = sorted(path.name for path in (whole.path / "generated_masks").glob("*.png"))
    assert made == ["train_000.png", "train_001.png", "train_002.png"]
    assert whole.settings["generated_masks"] == 3
    assert whole.settings["model"]["mask_count"] == 12
    assert listing(data) == before
    stopped = train_until(tiny_config(data, **asked), lambda event: event.get("event") == "step" and event["step"] == 4)
    require_same(train(resume=stopped.path), whole)
    less = train(tiny_config(data, generated_masks="off"))
    assert [e["segmentation_loss"] for e in less.events() if e["event"] == "step"] != [
        e["segmentation_loss"] for e in whole.events() if e["event"] == "step"
    ]


def test_a_generated_mask_counts_by_its_weight(tiny_data: Path) -> None:
    [sample] = read_folder(TrainConfig(data_dir=str(tiny_data))).train[:1]
    samples = [sample, replace(sample, mask_is_generated=True)]
    batch = PhotoDataset(samples, ModelConfig(image_size=64), generated_mask_weight=0.25)[[0, 1]]
    assert batch.mask_weight.tolist() == [1.0, 0.25]
    task = make_task(tiny_config(tiny_data))
    sums = [task._forward_part(part)[0].segmentation.item() for part in (batch.parts(2)[0], batch)]
    assert sums[1] == pytest.approx(1.25 * sums[0], rel=0.2)  # the two are augmented apart


# ---- too little memory


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A network that is out of memory with more photos at a time, in training, than `limit["photos"]`."""
    limit = {"photos": 2}
    forward = MultiTaskNetwork.forward

    def limited(self: MultiTaskNetwork, x: Tensor) -> Any:
        if self.training and len(x) > limit["photos"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(MultiTaskNetwork, "forward", limited)
    return limit


def test_too_little_memory_halves_the_parts(small_memory: dict[str, int], tiny_data: Path) -> None:
    run = train(tiny_config(tiny_data, batch_size=12))
    assert run.status().state == "finished"
    steps = [event for event in run.events() if event["event"] == "step"]
    assert [(step["step"], step["photos"]) for step in steps] == [(1, 12), (2, 12)]
    assert run.status().notices[0].startswith("out of memory: each batch is now computed in 8 parts, with the same")
    assert "in 8 parts" in run.log_file.read_text()


def test_a_failed_attempt_is_not_counted_by_batch_normalisation(
    monkeypatch: pytest.MonkeyPatch, batch: Batch, tiny_data: Path
) -> None:
    forward, calls = MultiTaskNetwork.forward, []

    def limited(self: MultiTaskNetwork, x: Tensor) -> Any:
        calls.append(len(x))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    config = tiny_config(tiny_data, batch_size=6, accumulate=2, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(MultiTaskNetwork, "forward", limited)
        run = train(config)
    assert calls[:6] == [6, 6, 3, 3, 3, 3]
    counted = read_pth(run.last_file)["state_dict"]["network.encoder.features.0.1.num_batches_tracked"]
    assert counted == 4


def test_too_little_memory_for_validation_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tiny_data: Path) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(MultiTask, "_validate", full)
    with pytest.raises(MemoryLimitError, match=r"^out of memory; take a smaller batch_size or image_size"):
        train(tiny_config(tiny_data, name="small"))
    run = Run(max((tiny_data.parent / "runs").glob("*-small")))
    assert run.status().state == "failed"
    assert run.status().message.startswith("out of memory; take")


def test_parts_stay_halved_after_a_resume(small_memory: dict[str, int], tiny_data: Path) -> None:
    whole = train(tiny_config(tiny_data, batch_size=4))
    stopped = train_until(
        tiny_config(tiny_data, batch_size=4), lambda event: event.get("event") == "step" and event["step"] == 1
    )
    require_same(train(resume=stopped.path), whole)


def test_three_halvings_are_the_most(small_memory: dict[str, int], tiny_data: Path) -> None:
    small_memory["photos"] = 0
    with pytest.raises(MemoryLimitError, match=r"out of memory with parts of 2 photos; take a smaller image_size"):
        train(tiny_config(tiny_data, batch_size=12))


# ---- divergence, vanished photos, a full disk


def test_a_run_that_diverges_keeps_its_last_good_state_and_goes_on_with_a_lower_rate(tiny_data: Path) -> None:
    config = tiny_config(tiny_data, epochs=3)
    run = train_until(config, lambda event: event.get("event") == "step" and event["step"] == 4)
    with pytest.raises(DivergedError, match=r"not finite|loss is (nan|inf)") as told:
        train(resume=run.path, overrides={"lr": 10.0, "gradient_clip": 1e30, "epochs": 60})
    status = run.status()
    assert status.state == "failed"
    assert "resume with a lower lr" in str(told.value) == status.message
    assert status.resume_with == {"lr": 1.0}
    last = torch.load(run.last_file, weights_only=True)
    assert last["global_step"] == 3
    assert all(value.isfinite().all() for value in last["state_dict"].values())
    assert max(event["step"] for event in run.events()) == last["global_step"]
    # The state is still there where the next attempt diverges, too.
    with pytest.raises(DivergedError, match="the state after step 3 is kept"):
        train(resume=run.path, overrides={"lr": 10.0, "gradient_clip": 1e30, "epochs": 60})
    lower = {"lr": 1e-6, "gradient_clip": 1.0, "epochs": 4}
    assert train(resume=run.path, overrides=lower).status().state == "finished"
    assert run.config.lr == 1e-6
    assert run.status().resume_with == {}


def test_a_run_that_diverges_in_its_first_epoch_has_nothing_to_resume(tiny_data: Path) -> None:
    with pytest.raises(DivergedError, match="start anew with a lower lr"):
        train(tiny_config(tiny_data, batch_size=1, lr=10, warmup_steps=0, gradient_clip=0, name="early"))
    run = Run(max((tiny_data.parent / "runs").glob("*-early")))
    assert run.status().state == "failed"
    assert not run.last_file.exists()


def test_a_resumed_rate_is_the_new_one(finished_run: Run, tiny_data: Path) -> None:
    run = train_until(
        tiny_config(tiny_data, epochs=3), lambda event: event.get("event") == "step" and event["step"] == 5
    )
    train(resume=run.path, overrides={"lr": 0.0001})
    steps = [event for event in run.events() if event["event"] == "step"]
    assert [step["lr"] for step in steps][4:] == pytest.approx([0.001, *4 * [0.0001]])


class LosingRun(Run):
    """A run whose photos vanish after its first step."""

    photos: tuple[Path, ...] = ()

    def append_event(self, event: dict[str, Any]) -> None:
        super().append_event(event)
        for photo in self.photos:
            photo.unlink(missing_ok=True)


def train_losing(data: Path, *names: str, **settings: Any) -> Run:
    job = open_job(tiny_config(data, **{"batch_size": 8, "cache_dir": "off", **settings}))
    run = LosingRun(job.run.path)
    run.photos = tuple(data / "images" / name for name in names)
    run_job(replace(job, run=run))
    return run


def test_a_photo_that_vanishes_is_left_out_and_named(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=24, val=6)
    run = train_losing(data, "train/train_003.jpg")
    assert run.status().state == "finished"
    [notice] = [notice for notice in run.status().notices if "left out" in notice]
    assert "train_003.jpg" in notice
    second_epoch = [e["photos"] for e in run.events() if e["event"] == "step" and e["epoch"] == 2]
    assert sum(second_epoch) == 23


def test_a_whole_batch_that_vanishes_from_validation_is_left_out(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=8, val=21)
    run = train_losing(data, "val/val_020.jpg", batch_size=4, epochs=1)
    assert run.status().state == "finished"
    assert any("val_020.jpg" in notice for notice in run.status().notices)


def test_more_than_a_twentieth_vanished_stops_the_run(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=24, val=6)
    with pytest.raises(DataError, match=r"2 of 24 photos cannot be read any more, the last: .*put them back"):
        train_losing(data, "train/train_003.jpg", "train/train_004.jpg")
    [path] = (tmp_path / "runs").iterdir()
    assert Run(path).status().state == "failed"


def test_a_full_disk_stops_the_run_with_the_old_checkpoint_whole(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, finished_run: Run
) -> None:
    run = train_until(tiny_config(tiny_data), lambda event: event.get("event") == "step" and event["step"] == 4)
    before = run.last_file.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        # What torch says of a disk that is full, as its own writer has no number for it.
        raise RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        patch.setattr("mtl.files.shutil.disk_usage", lambda folder: os.statvfs_result and _usage(free=10))
        with pytest.raises(Exception, match="no space left on the disk"):
            train(resume=run.path)
    assert run.status().state == "failed"
    assert "no space left" in run.status().message
    assert run.last_file.read_bytes() == before
    require_same(train(resume=run.path), finished_run)


def _usage(free: int) -> Any:
    import shutil

    return shutil._ntuple_diskusage(10**9, 10**9 - free, free)  # type: ignore[attr-defined]


@pytest.mark.parametrize("write", ["Run.append_event", "logging.FileHandler._open", "Image.Image.save", "Run.cut_back"])
def test_a_disk_that_fills_anywhere_is_told_in_one_line_and_gives_the_device_back(
    write: str, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = train_until(tiny_config(tiny_data), lambda event: event.get("event") == "step" and event["step"] == 2)
    owner: Any = {"Run": Run, "logging": logging, "Image": Image}[write.split(".")[0]]
    *path, name = write.split(".")[1:]
    for part in path:
        owner = getattr(owner, part)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        if write.startswith("logging"):  # its lines are lost, and nothing else
            train(resume=run.path)
            return
        with pytest.raises(DiskFullError, match="no space left on the disk"):
            train(resume=run.path)
    assert run.status().state == "failed"
    assert train(resume=run.path).status().state == "finished"


def test_a_job_that_is_never_run_keeps_nobody_out(tiny_data: Path) -> None:
    job = open_job(tiny_config(tiny_data))
    run = job.run
    del job
    gc.collect()
    assert run.status().state == "interrupted"
    open_job(tiny_config(tiny_data)).lock.release()


def test_what_the_system_says_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "kept.txt").write_text("old")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Exception, match=r"kept\.txt: no space left on the disk; free some, the old file is whole"):
        write_text(tmp_path / "kept.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "old"


def test_epochs_are_logged(finished_run: Run) -> None:
    log = finished_run.log_file.read_text()
    assert all(f"epoch {event['epoch']}: " in log for event in epochs_of(finished_run))
