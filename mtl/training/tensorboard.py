"""A run's curves for TensorBoard: `tensorboard --logdir runs`."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from mtl.training.run import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

FLUSH_SECONDS = 10
AXES = {"event", "step", "epoch", "epochs_done"}  # where a figure stands, no figure of its own


class TensorBoardCurves(Callback):
    """Copies the figures of `metrics.jsonl` into `tensorboard/` of the run's folder, under their names there.

    It follows the file, so it comes after whatever appends to it. Where it cannot write, it logs that and gives up.
    """

    def __init__(self, run: Run):
        self._run = run
        self._copied = 0  # bytes of metrics.jsonl
        self._writer: SummaryWriter | None = None

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        try:
            self._open(trainer.global_step)
        except (ImportError, OSError) as error:
            log.warning("no curves for TensorBoard: %s", error)

    def _open(self, step: int) -> None:
        # It takes a second to import, and may not be installed.
        from torch.utils.tensorboard import SummaryWriter

        folder = self._run.path / "tensorboard"
        resumed = any(folder.glob("events.*"))
        self._copied = self._run.metrics_file.stat().st_size if resumed else 0
        # A resumed run repeats the steps after its checkpoint, which would be drawn twice.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if resumed else None, flush_secs=FLUSH_SECONDS)

    def on_train_batch_end(self, *_: Any) -> None:
        self._copy()

    def on_train_epoch_end(self, *_: Any) -> None:
        self._copy()

    def on_save_checkpoint(self, *_: Any) -> None:
        # A resumed run begins behind what is saved here: all up to now must be on disk first.
        self._copy(flush=True)

    def on_exception(self, *_: Any) -> None:
        self._copy(close=True)

    def teardown(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        self._copy(close=True)

    def _copy(self, *, flush: bool = False, close: bool = False) -> None:
        """Write what was added to metrics.jsonl."""
        writer = self._writer
        if writer is None:
            return
        try:
            for event, end in self._run.events_from(self._copied):
                self._copied = end
                for name, value in figures(event):
                    writer.add_scalar(f"{event['event']}/{name}", value, event["step"])
            if flush:
                writer.flush()
            if close:
                writer.close()
                self._writer = None
        except OSError as error:
            log.warning("no more curves for TensorBoard: %s", error)
            self._writer = None


def figures(event: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of an event with their names; those within a part as part/name."""
    for name, value in event.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{part}", figure) for part, figure in figures(value))
        elif isinstance(value, int | float) and name not in AXES:
            yield name, value
