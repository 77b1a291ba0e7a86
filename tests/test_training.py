"""Training: what a run leaves behind, that it learns, and that a stopped or killed one goes on exactly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import write_folder
from tiny import ONE_THREAD, tiny_config, write_two_classes

from mtl.api import MultiTaskModel
from mtl.checkpoint import read_checkpoint, read_pth
from mtl.cli import main
from mtl.config import TrainConfig
from mtl.data.folder import DataFolder, read_folder
from mtl.errors import CheckpointError, ConfigError, DataError, RunError
from mtl.training.callbacks import RunRecorder
from mtl.training.fit import open_job, run_job, train
from mtl.training.run import HISTORY_LISTS, Run

pytestmark = pytest.mark.usefixtures(ONE_THREAD)


def epochs_of(run: Run) -> list[dict[str, Any]]:
    return [event for event in run.events() if event["event"] == "epoch"]


def history_of(run: Run) -> dict[str, Any]:
    history: dict[str, Any] = json.loads((run.path / "multitask_history.json").read_text())
    return history


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return read_checkpoint(run.best_file).state_dict


def same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


# ---- what a run leaves behind


def test_a_run_writes_its_folder(finished_run: Run) -> None:
    files = {path.name for path in finished_run.path.iterdir()}
    assert files == {
        "config.json", "metrics.jsonl", "multitask_history.json", "multitask_best.pth",
        "last.ckpt", "last_epoch.ckpt", "run.json", "log.txt", "samples",
        "tensorboard", "lock",
    }  # fmt: skip
    assert finished_run.path.name.endswith("-whole")
    status = finished_run.status()
    assert (status.state, status.epoch, status.epochs, status.step, status.steps) == ("finished", 2, 2, 6, 6)
    assert status.pid == os.getpid()
    assert finished_run.settings["start"] == "none"
    assert finished_run.settings["photos"] == {"train": 12, "val": 6}
    assert "starting weights: none" in finished_run.log_file.read_text()


def test_a_run_keeps_its_settings(finished_run: Run, tiny_data: Path) -> None:
    assert finished_run.config == tiny_config(tiny_data, name="whole")


def test_the_history_has_the_six_lists_and_the_epochs(finished_run: Run) -> None:
    history = history_of(finished_run)
    assert set(HISTORY_LISTS) | {"epochs", "val_jaccard", "val_dice", "val_accuracy", "lr"} <= set(history)
    assert history["epochs"] == 2
    assert all(len(history[name]) == 2 for name in HISTORY_LISTS)
    assert history["train_loss"] == [epoch["train_loss"] for epoch in epochs_of(finished_run)]


def test_the_loss_is_the_weighted_sum_of_its_parts(finished_run: Run) -> None:
    for epoch in epochs_of(finished_run):
        for side in ("train", "val"):
            parts = epoch[f"{side}_classification_loss"] + 0.5 * epoch[f"{side}_segmentation_loss"]
            assert epoch[f"{side}_loss"] == pytest.approx(parts, rel=1e-12)


def test_every_step_is_an_event(finished_run: Run) -> None:
    steps = [event for event in finished_run.events() if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4, 5, 6]
    assert [event["epoch"] for event in steps] == [1, 1, 1, 2, 2, 2]
    # The warm-up is cut to one epoch.
    assert [event["lr"] for event in steps] == pytest.approx([0.001 / 3, 0.002 / 3, 0.001, 0.001, 0.001, 0.001])


def test_the_best_epoch_has_the_lowest_validation_loss(finished_run: Run) -> None:
    losses = [epoch["val_loss"] for epoch in epochs_of(finished_run)]
    best = read_checkpoint(finished_run.best_file)
    assert best.epoch == finished_run.status().best_epoch == losses.index(min(losses)) + 1
    assert best.metrics["val_loss"] == min(losses)


# ---- stopped, killed, resumed


class StoppingRun(Run):
    """A run that asks itself to stop once `when` says so of an event, or of a change of its status."""

    def __init__(self, path: Path, when: Callable[[dict[str, Any]], bool]):
        super().__init__(path)
        self.when = when

    def append_event(self, event: dict[str, Any]) -> None:
        super().append_event(event)
        if self.when(event):
            self.request_stop()

    def update(self, **changes: Any) -> None:
        super().update(**changes)
        if self.when(changes):
            self.request_stop()


def train_until(config: TrainConfig, when: Callable[[dict[str, Any]], bool]) -> Run:
    job = open_job(config)
    run_job(replace(job, run=StoppingRun(job.run.path, when)))
    return Run(job.run.path)


def require_same(resumed: Run, whole: Run) -> None:
    assert resumed.status().state == "finished"
    assert list(resumed.events()) == list(whole.events())
    assert history_of(resumed) == history_of(whole)
    assert resumed.status().best_epoch == whole.status().best_epoch
    assert same_weights(weights_of(resumed), weights_of(whole))


@pytest.mark.parametrize(
    ("step", "resumed_step"),
    [
        pytest.param(1, 1, id="after the first step"),
        pytest.param(3, 2, id="between an epoch's last step and its validation"),
        pytest.param(4, 4, id="within the second epoch"),
    ],
)
def test_a_run_stopped_at_a_step_goes_on_exactly(
    step: int, resumed_step: int, tiny_data: Path, finished_run: Run
) -> None:
    run = train_until(tiny_config(tiny_data), lambda event: event.get("event") == "step" and event["step"] == step)
    assert run.status().state == "stopped"
    assert [event["step"] for event in run.events()][-1] == step
    assert not run.stop_file.exists()
    state = torch.load(run.last_file, weights_only=True)
    assert state["global_step"] == resumed_step
    require_same(train(resume=run.path), finished_run)


def test_a_run_stopped_during_validation_goes_on_exactly(
    tiny_data: Path, finished_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunRecorder, "STATUS_SECONDS", 0.0)
    run = train_until(
        tiny_config(tiny_data), lambda changes: changes.get("state") == "validating" and changes["step"] == 6
    )
    assert run.status().state == "stopped"
    assert len(epochs_of(run)) == 1
    require_same(train(resume=run.path), finished_run)


def test_a_killed_run_goes_on_exactly(tiny_data: Path, finished_run: Run, tmp_path: Path) -> None:
    options = "--epochs 2 --batch-size 4 --image-size 64 --init none --threads 1 --device cpu --precision float32"
    places = ["--data-dir", str(tiny_data), "--output-dir", str(tmp_path)]
    command = [sys.executable, "-m", "mtl", "train", "--json", *options.split(), *places]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE) as process:
        wait_for(lambda: any('"step": 4' in file.read_text() for file in tmp_path.glob("*/metrics.jsonl")))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        [path] = tmp_path.iterdir()
        assert Run(path).status().state == "interrupted"
    # What the process had not yet written out whole.
    with (path / "metrics.jsonl").open("a") as lines:
        lines.write('{"event": "st')
    assert main(["train", "--json", "--resume", str(path)]) == 0
    require_same(Run(path), finished_run)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def copy_of(run: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(run.path, tmp_path / run.name))


def test_a_finished_run_goes_on_for_more_epochs(finished_run: Run, tmp_path: Path) -> None:
    run = copy_of(finished_run, tmp_path)
    train(run.config.replace(epochs=3), resume=run.path)
    assert [epoch["epoch"] for epoch in epochs_of(run)] == [1, 2, 3]
    assert epochs_of(run)[:2] == epochs_of(finished_run)
    assert run.status().state == "finished"


def test_resuming_with_another_setting_is_refused(finished_run: Run) -> None:
    with pytest.raises(ConfigError, match=r"batch_size: got 2, but the run has 4"):
        train(finished_run.config.replace(batch_size=2), resume=finished_run.path)


def test_a_run_without_a_checkpoint_cannot_be_resumed(tiny_data: Path) -> None:
    run = Run.create(tiny_config(tiny_data))
    with pytest.raises(RunError, match="before its first checkpoint"):
        train(resume=run.path)


def test_a_damaged_last_checkpoint_is_refused_and_the_run_says_so(finished_run: Run, tmp_path: Path) -> None:
    run = copy_of(finished_run, tmp_path)
    run.last_file.write_bytes(run.last_file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        train(resume=run.path, overrides={"epochs": 3})
    assert run.status().state == "failed"
    assert "last.ckpt" in run.status().message
    assert len(epochs_of(run)) == 2


def test_a_pth_starts_a_new_run_from_its_epoch(finished_run: Run, tiny_data: Path) -> None:
    best = read_checkpoint(finished_run.best_file)
    run = train(tiny_config(tiny_data, epochs=best.epoch + 1), resume=finished_run.best_file)
    assert run.path != finished_run.path
    assert [epoch["epoch"] for epoch in epochs_of(run)] == [best.epoch + 1]
    assert run.settings["start"] == best.name
    first_moments = read_checkpoint(run.best_file).optimizer
    assert first_moments is not None
    # Adam has counted on from where the file's optimizer stood.
    assert {int(state["step"]) for state in first_moments["state"].values()} == {3 * (best.epoch + 1)}


def test_a_pth_whose_optimizer_does_not_fit_is_refused(finished_run: Run, tiny_data: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another balancing\?.*take --init"):
        train(tiny_config(tiny_data, epochs=9, balancing="uncertainty"), resume=finished_run.best_file)


def test_a_pth_without_epochs_left_is_refused(finished_run: Run, tiny_data: Path) -> None:
    with pytest.raises(ConfigError, match="epochs: got 1"):
        train(tiny_config(tiny_data, epochs=1), resume=set_epoch(finished_run, 1, tiny_data.parent / "one.pth"))


def test_a_pth_of_an_earlier_version_with_one_group_of_parameters_goes_on(finished_run: Run, tiny_data: Path) -> None:
    payload = torch.load(finished_run.best_file, weights_only=True)
    encoder, heads = payload["optimizer"]["param_groups"]
    state, first = payload["optimizer"]["state"], heads["params"][0]
    # A frozen encoder stood in no group, so the heads' numbers began at 0.
    of_heads = {number - first: held for number, held in state.items() if number >= first}
    for name, params, held in (
        ("whole", [*encoder["params"], *heads["params"]], state),
        ("heads", list(range(len(heads["params"]))), of_heads),
    ):
        old = {"state": held, "param_groups": [{**encoder, "params": params}]}
        path = tiny_data.parent / f"{name}.pth"
        torch.save(payload | {"optimizer": old, "epoch": 1}, path)
        run = train(tiny_config(tiny_data, freeze_backbone=name == "heads"), resume=path)
        went_on = torch.load(run.best_file, weights_only=True)["optimizer"]["state"]
        assert {int(moments["step"]) for moments in went_on.values()} == {int(state[first]["step"]) + 3}
        assert len(went_on) == len(held)


def test_a_pth_takes_the_decay_that_is_asked_for(finished_run: Run, tiny_data: Path) -> None:
    config = tiny_config(tiny_data, epochs=3, optimizer="adamw", weight_decay=0.5)
    groups = read_pth(train(config, resume=finished_run.best_file).last_file)["optimizer_states"][0]["param_groups"]
    assert [(group["weight_decay"], group["decoupled_weight_decay"]) for group in groups] == 2 * [(0.5, True)]


def test_a_run_of_an_earlier_version_is_refused_in_one_line(finished_run: Run, tmp_path: Path) -> None:
    run = copy_of(finished_run, tmp_path)
    state = read_pth(run.last_file)
    del state["halvings"]
    torch.save(state, run.last_file)
    with pytest.raises(CheckpointError, match=r"an earlier version wrote its last\.ckpt; start a new run from its"):
        train(resume=run.path, overrides={"epochs": 3})
    assert len(epochs_of(run)) == 2


def set_epoch(run: Run, epoch: int, path: Path) -> Path:
    payload = torch.load(run.best_file, weights_only=True)
    torch.save(payload | {"epoch": epoch}, path)
    return path


# ---- how it trains


def test_a_frozen_encoder_keeps_every_bit(finished_run: Run, tiny_data: Path) -> None:
    run = train(tiny_config(tiny_data, epochs=1, init=str(finished_run.best_file), freeze_backbone=True))
    before, after = weights_of(finished_run), weights_of(run)
    encoder = [key for key in before if key.startswith("encoder.")]
    assert any("running_mean" in key for key in encoder)
    assert all(torch.equal(before[key], after[key]) for key in encoder)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {"classification_head.2.weight", "segmentation_head.to_logits.weight"} <= changed
    assert not list(run.path.glob("**/*.tmp"))


def test_a_free_encoder_changes(finished_run: Run) -> None:
    from mtl.model import MultiTaskNetwork

    torch.manual_seed(finished_run.config.seed)
    before = MultiTaskNetwork(read_checkpoint(finished_run.best_file).model_config).state_dict()
    after = weights_of(finished_run)
    assert not any(torch.equal(before[key], after[key]) for key in before if key.endswith("running_mean"))


def test_it_learns_and_an_untrained_class_is_never_predicted(tmp_path: Path) -> None:
    data = write_two_classes(tmp_path / "two")
    run = train(tiny_config(data, epochs=5, lr=0.003, warmup_steps=0, init="lite0", freeze_backbone=True))
    history = history_of(run)
    assert history["train_loss"][-1] < 0.5 * history["train_loss"][0]
    assert history["val_loss"][-1] < 0.5 * history["val_loss"][0]
    assert history["val_accuracy"][-1] == 1
    assert read_checkpoint(run.best_file).model_config.activation == "relu6"
    answer = MultiTaskModel.load(run.path, device="cpu").predict(data / "images/val/val_0.png")["classification"]
    assert [p > 0 for p in answer["probabilities"]] == [False, True, False, False, False, True] + 4 * [False]
    assert sum(answer["probabilities"]) == pytest.approx(1)
    assert read_checkpoint(run.best_file).model_config.class_counts == (0, 4, 0, 0, 0, 4, 0, 0, 0, 0)


def test_early_stopping_stops(tiny_data: Path) -> None:
    # At this rate nothing is segmented: the Jaccard stays what it was after the first epoch.
    still = {"lr": 1e-9, "best_metric": "val_jaccard", "early_stopping_patience": 1, "segmentation_weight": 1e-9}
    run = train(tiny_config(tiny_data, epochs=9, batch_size=12, **still))
    assert len(epochs_of(run)) == 2
    assert run.status().state == "finished"
    assert run.status().best_epoch == 1


@pytest.mark.parametrize(("labels", "masks"), [(True, False), (False, True)], ids=["labels only", "masks only"])
def test_one_kind_of_target_is_enough(labels: bool, masks: bool, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=4, val=2, labels=labels, masks=masks)
    run = train(tiny_config(data, epochs=1))
    [epoch] = epochs_of(run)
    assert (epoch["train_classification_loss"] > 0, epoch["train_segmentation_loss"] > 0) == (labels, masks)
    assert ("val_accuracy" in epoch, "val_jaccard" in epoch) == (labels, masks)
    assert set(HISTORY_LISTS) <= set(epoch)


def test_an_unreadable_photo_is_named_before_training(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=8, val=4)
    (data / "images/train/train_003.jpg").write_text("no photo")
    with pytest.raises(DataError, match=r"train_003\.jpg"):
        train(tiny_config(data))
    [path] = (tmp_path / "runs").iterdir()
    assert Run(path).status().state == "failed"
    assert "train_003.jpg" in Run(path).status().message
    assert not Run(path).metrics_file.exists()


def test_a_stop_while_photos_are_checked(tiny_data: Path) -> None:
    job = open_job(tiny_config(tiny_data))
    run_job(job, check_progress=lambda done, total: job.run.request_stop())
    assert job.run.status().state == "stopped"
    assert not job.run.metrics_file.exists()


def test_what_is_not_trainable_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=4, val=2)
    with pytest.raises(ConfigError, match="batch_size: got 5, but there are only 4 training photos"):
        train(tiny_config(data, batch_size=5))
    assert not (tmp_path / "runs").exists()


def test_what_ends_a_run_stands_in_its_folder(tiny_data: Path) -> None:
    def explode(done: int, total: int) -> None:
        raise ZeroDivisionError("in the middle")

    job = open_job(tiny_config(tiny_data))
    with pytest.raises(ZeroDivisionError):
        run_job(job, check_progress=explode)
    assert (job.run.status().state, job.run.status().message) == ("failed", "ZeroDivisionError: in the middle")
    assert "Traceback" in job.run.log_file.read_text()


def test_a_folder_reads_the_same_for_training_and_evaluation(tiny_data: Path) -> None:
    folder: DataFolder = read_folder(tiny_config(tiny_data))
    assert (len(folder.train), len(folder.val)) == (12, 6)


# ---- what once went wrong


def test_early_stopping_counts_the_same_after_a_resume(tiny_data: Path) -> None:
    whole = train(tiny_config(tiny_data, epochs=3))
    parts = train(tiny_config(tiny_data, epochs=2))
    train(resume=parts.path, overrides={"epochs": 3})
    states = [read_pth(run.last_file)["callbacks"] for run in (whole, parts)]
    ours, theirs = ({k: v for k, v in state.items() if "EarlyStopping" in k} for state in states)
    assert str(ours) == str(theirs)
    assert "inf" not in str(ours)


def test_the_activation_of_the_starting_weights_is_kept(tiny_data: Path) -> None:
    frozen = train(tiny_config(tiny_data, epochs=1, init="lite0", freeze_backbone=True))
    assert frozen.settings["model"]["activation"] == "relu6"
    assert open_job(tiny_config(tiny_data, init=str(frozen.best_file))).activation == "relu6"
    train(resume=frozen.path, overrides={"epochs": 2})
    assert read_checkpoint(frozen.best_file).model_config.activation == "relu6"


def test_weights_of_other_classes_start_all_but_the_class_head(finished_run: Run, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "other")
    (data / "classes.json").write_text(json.dumps([f"c{number}" for number in range(10)]))
    run = train(tiny_config(data, epochs=1, lr=1e-9, warmup_steps=0, init=str(finished_run.best_file)))
    ours, theirs = weights_of(run), weights_of(finished_run)
    head = "classification_head.2.weight"
    assert not torch.allclose(ours[head], theirs[head], atol=1e-4)
    assert torch.allclose(ours["segmentation_head.to_logits.weight"], theirs["segmentation_head.to_logits.weight"])
    with pytest.raises(ConfigError, match="knows the classes"):
        train(tiny_config(data, epochs=9), resume=finished_run.best_file)


def test_a_wrong_start_is_refused_before_there_is_a_run(tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_data, init=str(tmp_path / "gone.pth"), output_dir=str(tmp_path / "runs"))
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        train(config)
    assert not (tmp_path / "runs").exists()


def test_changed_data_is_not_resumed(tiny_data: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    run = train(tiny_config(data, epochs=1))
    next((data / "masks" / "train").iterdir()).unlink()
    with pytest.raises(RunError, match="have changed"):
        train(resume=run.path, overrides={"epochs": 2})


def test_a_run_that_diverges_fails_and_says_so(tiny_data: Path) -> None:
    with pytest.raises(RunError, match="lower lr"):
        train(tiny_config(tiny_data, epochs=4, lr=10, warmup_steps=0, gradient_clip=0, name="wild"))
    run = max((tiny_data.parent / "runs").glob("*-wild"))
    assert Run(run).status().state == "failed"
    assert "NaN" not in (run / "metrics.jsonl").read_text()


def test_the_cosine_of_a_pth_ends_at_its_last_epoch(finished_run: Run, tiny_data: Path) -> None:
    run = train(tiny_config(tiny_data, epochs=4, schedule="cosine"), resume=finished_run.best_file)
    rates = [event["lr"] for event in run.events() if event["event"] == "step"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * run.config.lr
    assert run.status().step == run.status().steps


def test_a_batch_without_a_label_logs_no_class_loss(tmp_path: Path) -> None:
    run = train(tiny_config(write_folder(tmp_path / "data", labels=False), epochs=1))
    steps = [event for event in run.events() if event["event"] == "step"]
    assert steps
    assert all("segmentation_loss" in step and "classification_loss" not in step for step in steps)
    assert not any(read_checkpoint(run.best_file).model_config.trained)


def test_threads_are_given_back(finished_run: Run, tmp_path: Path) -> None:
    assert finished_run.config.threads == 1
    torch.set_num_threads(2)
    try:
        train(resume=copy_of(finished_run, tmp_path).path, overrides={"epochs": 3})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
