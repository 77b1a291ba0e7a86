"""What listens to the training loop: the run's folder, checkpoints and Stop."""

import logging
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.plugins.io import CheckpointIO
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mtl.analysis.overlay import draw_overlay
from mtl.checkpoint import Checkpoint, read_pth, write_pth, write_state
from mtl.data.folder import Sample
from mtl.errors import DivergedError, RunError
from mtl.files import keep_copy, write_atomically
from mtl.training import ranks
from mtl.training.notices import Event, notices
from mtl.training.readings import Readings
from mtl.training.run import Run
from mtl.training.task import HIGHER_IS_BETTER, MultiTask

log = logging.getLogger(__name__)


class StopRequested(Exception):  # noqa: N818 - no error: somebody's wish
    """Raised inside the loop when a stop was asked for; `fit` ends the run in order."""


class RunCallback(Callback):
    def __init__(self, run: Run):
        self.run = run


class StopOnRequest(RunCallback):
    """Looks for the run's stop file at every batch; a stop between training steps loses none of them.

    Of several processes the first looks, and all stop after the same step; so they do at a signal to any of them.
    """

    def on_train_start(self, *_: Any) -> None:
        if ranks.size() > 1:
            ranks.keep_signals()
        self._raise_if_asked()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._asked():
            if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
                trainer.save_checkpoint(self.run.last_file)
            raise StopRequested

    def on_validation_batch_start(self, *_: Any) -> None:
        self._raise_if_asked()

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not trainer.should_stop:  # it ends here anyway, and would go on for one epoch more where it is resumed
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self._asked():
            raise StopRequested

    def _asked(self) -> bool:
        here = ranks.is_first() and self.run.stop_file.exists()
        asked = ranks.largest(2 if ranks.asked_to_end() else int(here))
        if asked == 2:
            raise KeyboardInterrupt
        return asked == 1


class AveragedWeights(WeightAveraging):
    """Lightning's moving average of the weights: validation measures it, and the best checkpoint keeps it.

    Not its EMAWeightAveraging, whose rounding changes what is constant, as the photos' mean, by a little each step.
    """

    def __init__(self, decay: float):
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def averaged(self) -> MultiTask:
        assert self._average_model is not None
        task = self._average_model.module
        assert isinstance(task, MultiTask)
        return task


def measured(trainer: pl.Trainer, task: pl.LightningModule) -> MultiTask:
    """The task with the weights that validation measures: the averaged ones where there are such."""
    assert isinstance(task, MultiTask)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averages = [callback for callback in callbacks if isinstance(callback, AveragedWeights)]
    return averages[0].averaged if averages else task


class RunRecorder(RunCallback):
    """Writes the curves, the history and the progress into the run's folder."""

    STATUS_SECONDS = 0.5  # how often run.json is written

    def __init__(self, run: Run, first_epoch: int = 0):
        """first_epoch: epochs that the starting weights have behind them."""
        super().__init__(run)
        self._first_epoch = first_epoch
        self._last_status = 0.0
        self._photos, self._since = 0, time.monotonic()
        self._rate = 0.0
        self._seconds_before, self._start = 0.0, time.monotonic()
        self._epochs: list[Event] = []  # their events, and those of the steps of the epoch under way
        self._steps: list[Event] = []
        self._readings: Readings[Event] = Readings()  # of steps whose figures the device still computes

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self._seconds_before, self._start = self.run.status().train_seconds, time.monotonic()
        self._since = time.monotonic()
        for event in self.run.events():
            self._remember(event)

    def _record(self, event: Event) -> None:
        self.run.append_event(event)
        self._remember(event)

    def _remember(self, event: Event) -> None:
        """For history and notices: to read 50,000 steps again after each epoch takes half a second."""
        if event["event"] == "epoch":
            self._epochs.append(event)
            return
        if self._steps and self._steps[-1]["epoch"] != event["epoch"]:
            self._steps.clear()
        self._steps.append(event)

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(task, MultiTask)
        if not outputs:  # every photo of the batch has vanished
            return
        self._photos += task.counts.photos
        event = {
            "event": "step",
            "step": trainer.global_step,
            "epoch": trainer.current_epoch + 1,
            "epochs_done": round(trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches, 5),
            "photos": task.counts.photos,
            "lr": task.lr,
        }
        self._readings.put(event, outputs)
        self._record_steps()
        self._progress(trainer, "training")

    def _record_steps(self, *, wait: bool = False) -> None:
        """Write the steps whose figures are there; with `wait` all. DivergedError at the first that is not finite."""
        for event, figures in self._readings.arrived(wait=wait):
            _require_finite(figures, event["step"])
            lr = event.pop("lr")
            self._record({**event, **{name: round(value, 6) for name, value in figures.items()}, "lr": lr})

    def on_save_checkpoint(self, *_: Any) -> None:
        # No diverged step goes into a checkpoint, and none is missing from the curves before it.
        self._record_steps(wait=True)

    def on_exception(self, trainer: pl.Trainer, task: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, StopRequested | KeyboardInterrupt):
            self._record_steps(wait=True)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._progress(trainer, "validating")

    def _progress(self, trainer: pl.Trainer, state: str) -> None:
        now = time.monotonic()
        if now - self._last_status < self.STATUS_SECONDS:
            return
        if state == "training":
            latest = self._photos / max(now - self._since, 1e-9)
            self._rate = latest if not self._rate else 0.7 * self._rate + 0.3 * latest
        self._photos, self._since = 0, now
        self._last_status = now
        steps = int(trainer.num_training_batches) * (int(trainer.max_epochs or 0) - self._first_epoch)
        seconds = self._seconds_before + now - self._start
        step = trainer.global_step
        self.run.update(
            state=state,
            step=step,
            steps=steps,
            images_per_second=round(self._rate, 2),
            train_seconds=round(seconds, 1),
            seconds_left=round(seconds / step * (steps - step), 1) if step else None,
            memory_bytes=_memory_bytes(trainer.strategy.root_device),
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, MultiTask)
        self._record_steps(wait=True)
        epoch = trainer.current_epoch + 1
        if not math.isfinite(task.epoch_metrics["val_loss"]):
            raise DivergedError(f"the validation loss is {task.epoch_metrics['val_loss']} after epoch {epoch}")
        self._record({"event": "epoch", "step": trainer.global_step, "epoch": epoch, **task.epoch_metrics})
        self.run.write_history(self._epochs)
        self._log_epoch(epoch, task.epoch_metrics)
        self.run.update(state="saving", epoch=epoch, step=trainer.global_step, notices=self._notices(trainer, task))

    def _log_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    def _notices(self, trainer: pl.Trainer, task: MultiTask) -> list[str]:
        """All that is to be noticed now; what is new of it also goes to the log."""
        noticed = [*self._troubles(trainer, task), *notices([*self._steps, *self._epochs])]
        known = {_without_figures(line) for line in self.run.status().notices}
        for line in noticed:
            if _without_figures(line) not in known:
                log.warning("%s", line)
        return noticed

    @staticmethod
    def _troubles(trainer: pl.Trainer, task: MultiTask) -> Iterator[str]:
        if task.memory_notice:
            yield task.memory_notice
        loaders: Any = (trainer.train_dataloader, trainer.val_dataloaders)
        missing = [name for loader in loaders for name in loader.dataset.missing]
        if missing:
            names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            yield f"left out, since they cannot be read any more: {names}; put them back before the next run"


def _require_finite(figures: dict[str, float], step: int) -> None:
    """DivergedError where a loss or a gradient of the step is not finite."""
    for name, value in figures.items():
        if not math.isfinite(value):
            loss = name.endswith("loss")
            what = f"the {name.replace('_', ' ')} is {value}" if loss else "the gradient is not finite"
            raise DivergedError(f"{what} at step {step}")


def _without_figures(line: str) -> str:
    return re.sub(r"\d", "", line)


def _memory_bytes(device: torch.device) -> int:
    """What this training holds: on a GPU of its memory, else of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return int(psutil.Process().memory_info().rss)


class SamplePredictions(RunCallback):
    """After each epoch `samples/epoch_0001.png`: the same validation photos with the true and the predicted lesion."""

    PHOTOS = 4

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if self.run.stop_file.exists():  # whoever asked for it is waiting
            return
        dataset: Any = trainer.val_dataloaders.dataset  # type: ignore[union-attr]
        batch = dataset[self._choose(dataset.samples)]
        if not len(batch):
            return
        with trainer.precision_plugin.val_step_context():
            _, seg_logits, _ = measured(trainer, task).eval()(batch.photos.to(task.device) / 255)
        task.train()
        size = batch.photos.shape[-2:]
        predicted = F.interpolate(seg_logits.float().cpu(), size, mode="bilinear")[:, 0] >= 0
        photos = batch.photos.permute(0, 2, 3, 1).numpy()
        columns = zip(photos, batch.masks[:, 0].numpy() > 127, predicted.numpy(), strict=True)
        rows = [
            np.hstack([photo, draw_overlay(photo, truth), draw_overlay(photo, guess)])
            for photo, truth, guess in columns
        ]
        picture = Image.fromarray(np.vstack(rows))
        path = self.run.path / "samples" / f"epoch_{trainer.current_epoch + 1:04d}.png"
        write_atomically(path, lambda temporary: picture.save(temporary, "PNG"), durable=False)

    def _choose(self, samples: Sequence[Sample]) -> list[int]:
        """Photos with a mask before others, spread over the split."""
        masked = [index for index, sample in enumerate(samples) if sample.mask] or list(range(len(samples)))
        return masked[:: max(1, len(masked) // self.PHOTOS)][: self.PHOTOS]


class KeepBestAndLast(RunCallback):
    """`last.ckpt` to resume from, and after an epoch `multitask_best.pth` where the chosen metric improved."""

    SAVE_SECONDS = 300  # how much work a killed process may lose

    def __init__(self, run: Run, metric: str):
        super().__init__(run)
        self.metric = metric
        self.best: float | None = None
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning resumes behind the validation where an epoch's last batch was saved: so save before that one,
        # and a run stopped during validation repeats a single step.
        before_last = batch_idx + 2 == trainer.num_training_batches
        due = time.monotonic() - self._saved > self.SAVE_SECONDS and batch_idx + 1 < trainer.num_training_batches
        # By the clock of the first process, as all must save together.
        if before_last or ranks.largest(due and ranks.is_first()):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, MultiTask)
        value = task.epoch_metrics.get(self.metric)
        if value is None:
            raise RunError(f"{self.metric}: no validation photo has what it needs; take another best_metric")
        if self._improved(value):
            self.best = value
            if ranks.is_first():
                epoch = trainer.current_epoch + 1
                self._write_best(trainer, task, epoch)
                self.run.update(best_epoch=epoch, best=task.epoch_metrics)
        self._save_last(trainer)
        if ranks.is_first():
            keep_copy(self.run.last_file, self.run.last_epoch_file)

    def _save_last(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.run.last_file)
        self._saved = time.monotonic()

    def _improved(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self.metric in HIGHER_IS_BETTER else value < self.best

    def _write_best(self, trainer: pl.Trainer, task: MultiTask, epoch: int) -> None:
        write_pth(
            self.run.best_file,
            Checkpoint(
                self.run.name,
                {key: value.cpu() for key, value in measured(trainer, task).network.state_dict().items()},
                task.network.config,
                task.config.model_dump(mode="json"),
                epoch,
                task.epoch_metrics,
                trainer.optimizers[0].state_dict(),
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's own writer does not reach the disk before it renames, and its reader would unpickle anything."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_state(path, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_pth(path)

    def remove_checkpoint(self, path: Any) -> None:
        path.unlink(missing_ok=True)
