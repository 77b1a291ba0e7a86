"""TensorBoard shows what metrics.jsonl says, also of a resumed run; without it, training goes on."""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import write_folder
from tiny import ONE_THREAD, tiny_config

from mtl.training.fit import open_job, run_job, train
from mtl.training.run import Run
from mtl.training.tensorboard import AXES, figures

pytestmark = pytest.mark.usefixtures(ONE_THREAD)
Curves = dict[str, list[tuple[int, float]]]  # tag -> (step, value)


def shown(run: Run) -> Curves:
    """The curves as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(run: Run) -> Curves:
    """The same from metrics.jsonl; TensorBoard keeps 32 bits."""
    curves = defaultdict(list)
    for event in run.events():
        for name, value in figures(event):
            curves[f"{event['event']}/{name}"].append((event["step"], pytest.approx(value, rel=1e-6)))
    return dict(curves)


class StoppingRun(Run):
    """Asks itself to stop after a step."""

    def __init__(self, path: Path, stop_step: int):
        super().__init__(path)
        self.stop_step = stop_step

    def append_event(self, event: dict[str, Any]) -> None:
        super().append_event(event)
        if event["event"] == "step" and event["step"] == self.stop_step:
            self.request_stop()


def test_a_whole_run(finished_run: Run) -> None:
    curves = shown(finished_run)
    assert curves == logged(finished_run)
    assert [step for step, _ in curves["step/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in curves["epoch/val_loss"]] == [3, 6]
    assert {"step/lr", "step/classification_loss", "epoch/val_jaccard"} <= set(curves)


# After step 3 its epoch's validation is missing, so that step is repeated.
@pytest.mark.parametrize("stop_step", [3, 4])
def test_a_resumed_run_shows_one_line(stop_step: int, tiny_data: Path, finished_run: Run) -> None:
    job = open_job(tiny_config(tiny_data))
    run = job.run
    run_job(replace(job, run=StoppingRun(run.path, stop_step)))
    assert run.status().state == "stopped"
    assert [step for step, _ in shown(run)["step/loss"]][-1] == stop_step
    train(resume=run.path)
    assert len(list((run.path / "tensorboard").iterdir())) == 2
    assert shown(run) == logged(run) == logged(finished_run)


def test_a_run_that_had_no_curves_gets_them_all_when_it_goes_on(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_config(tiny_data, epochs=1))
    for file in (run.path / "tensorboard").iterdir():
        file.unlink()
    train(resume=run.path, overrides={"epochs": 2})
    assert [step for step, _ in shown(run)["step/loss"]] == [1, 2, 3, 4, 5, 6]


def test_without_the_package_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = train(tiny_config(write_folder(tmp_path / "skin", train=4, val=2), epochs=1))
    assert run.status().state == "finished"
    assert run.log_file.read_text().count("no curves for TensorBoard") == 1
    assert not (run.path / "tensorboard").exists()


def test_where_nothing_can_be_written_training_goes_on(tmp_path: Path) -> None:
    job = open_job(tiny_config(write_folder(tmp_path / "skin", train=4, val=2), epochs=1))
    (job.run.path / "tensorboard").write_text("in the way")
    run_job(job)
    assert job.run.status().state == "finished"
    assert job.run.log_file.read_text().count("no curves for TensorBoard") == 1


def test_every_number_of_an_event_has_a_name() -> None:
    event = {"event": "step", "step": 7, "epoch": 1, "epochs_done": 0.5, "loss": 2.0, "norm": {"encoder": 3, "head": 4}}
    assert dict(figures(event)) == {"loss": 2.0, "norm/encoder": 3, "norm/head": 4}
    assert not AXES & set(dict(figures(event)))
