"""A training run from its settings to its end: one readable page. Logging, saving and stopping listen to it."""

import logging
import math
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping

from mtl.checkpoint import read_pth
from mtl.config import ModelConfig, TrainConfig
from mtl.data.check import check_folder
from mtl.data.dataset import PhotoDataset, make_loader
from mtl.data.folder import DataFolder, read_folder
from mtl.device import choose_device, choose_precision
from mtl.errors import ConfigError, DataError, MtlError, RunError
from mtl.model import MultiTaskNetwork
from mtl.training.callbacks import AtomicCheckpointIO, KeepBestAndLast, RunRecorder, StopOnRequest, StopRequested
from mtl.training.run import Run
from mtl.training.start import choose_start, is_frozen_lite0, load_start
from mtl.training.task import HIGHER_IS_BETTER, MultiTask

log = logging.getLogger(__name__)
CheckProgress = Callable[[int, int], None]


def train(
    config: TrainConfig,
    *,
    resume: str | Path | None = None,
    run: Run | None = None,
    show_progress: bool = False,
    check_progress: CheckProgress | None = None,
) -> Run:
    """Train, and return the run's folder. Raises MtlError where the data or a setting is wrong.

    resume: a run's folder goes on exactly where `last.ckpt` stands (`config` then says only how many epochs);
    run: a folder made before with `Run.create`; show_progress: bars in the terminal.
    """
    if resume is not None:
        run = Run(resume)
        config = _resumed_config(run, config)
    folder = read_folder(config)
    _require_trainable(folder, config)
    device = choose_device(config.device)
    run = run or Run.create(config)
    run.claim()
    with _logged_to(run):
        try:
            _check_data(folder, run, check_progress)
            task = _prepare(config, folder, run, from_start=resume is None)
            _fit(task, folder, run, device, show_progress, resumed=resume is not None)
            run.update(state="finished", message="", seconds_left=0, epoch=_epochs_done(run))
        except StopRequested:
            run.update(state="stopped", message="stopped on request; it can be resumed", seconds_left=None)
        except MtlError as error:
            run.update(state="failed", message=str(error))
            raise
        # The edge of a job: whatever happened is noted in the run's folder before it goes on.
        except BaseException as error:
            log.exception("the run failed")
            run.update(state="failed", message=f"{type(error).__name__}: {error}")
            raise
        finally:
            run.stop_file.unlink(missing_ok=True)
    return run


def _resumed_config(run: Run, config: TrainConfig) -> TrainConfig:
    if run.status().live:
        raise RunError(f"{run.name}: it is being trained right now; stop it first")
    if not run.last_file.is_file():
        raise RunError(f"{run.name}: it has no last.ckpt, so no epoch was finished; start it anew")
    return run.config.replace(epochs=max(config.epochs, run.config.epochs)) if config.epochs else run.config


def _require_trainable(folder: DataFolder, config: TrainConfig) -> None:
    """Refuse what cannot be learned from, before anything is read or written."""
    if config.batch_size > len(folder.train):
        raise ConfigError(
            f"batch_size: got {config.batch_size}, but there are only {len(folder.train)} training photos; "
            f"take {len(folder.train)} or less"
        )
    shown = [name for name, count in zip(folder.classes.names, folder.class_counts(), strict=True) if count]
    if len(shown) == 1 and config.classification_weight > 0:
        raise DataError(
            f"{folder.path.name}: all labelled training photos show {shown[0]}, and telling classes apart needs two; "
            "add photos of another class, or set classification_weight to 0"
        )
    learnable = (any(s.target[0] != -1 or any(t >= 0 for t in s.target) for s in folder.train) and config.classification_weight) or (
        any(s.mask for s in folder.train) and config.segmentation_weight
    )
    if not learnable:
        raise DataError(f"{folder.path.name}: no training photo has a label or a mask with a weight above 0; add labels.json or masks/")


def _check_data(folder: DataFolder, run: Run, progress: CheckProgress | None) -> None:
    run.update(message="reading every photo once")

    def step(done: int, total: int) -> None:
        if run.stop_file.exists():
            raise StopRequested
        if done % 50 == 0:
            run.update(message=f"reading every photo once: {done} of {total}")
        if progress:
            progress(done, total)

    report = check_folder(folder, step)
    report.require_readable()
    for warning in report.warnings:
        log.warning("%s", warning)


def _prepare(config: TrainConfig, folder: DataFolder, run: Run, *, from_start: bool) -> MultiTask:
    run.update(message="making the network")
    start = choose_start(config.init)
    model_config = ModelConfig(
        classes=folder.classes,
        class_counts=folder.class_counts(),
        image_size=config.image_size,
        center_crop=config.center_crop,
        dropout=config.dropout,
        activation="relu6" if is_frozen_lite0(start, config.freeze_backbone) else "silu",
    )
    torch.manual_seed(config.seed)
    network = MultiTaskNetwork(model_config).to(memory_format=torch.channels_last)
    if from_start:
        load_start(network, start)
        run.write_config(
            {
                "train": config.model_dump(mode="json"),
                "model": model_config.model_dump(mode="json"),
                "start": start,
                "photos": {"train": len(folder.train), "val": len(folder.val)},
                "versions": {"python": platform.python_version(), "torch": torch.__version__},
            }
        )
        log.info("starting weights: %s; %d training and %d validation photos", start, len(folder.train), len(folder.val))
    return MultiTask(network, config)


def _fit(task: MultiTask, folder: DataFolder, run: Run, device: torch.device, show_progress: bool, resumed: bool) -> None:
    config, model_config = task.config, task.network.config
    if config.threads:
        torch.set_num_threads(config.threads)
    train_loader = make_loader(PhotoDataset(folder.train, model_config), config.batch_size, seed=config.seed)
    val_loader = make_loader(PhotoDataset(folder.val, model_config), config.batch_size, seed=None)
    if resumed:
        run.cut_back(read_pth(run.last_file)["global_step"])
    run.update(message="", state="training")
    trainer = pl.Trainer(
        max_epochs=config.epochs,
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=choose_precision(config.precision, device),
        gradient_clip_val=config.gradient_clip or None,
        callbacks=_callbacks(run, config, show_progress),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=show_progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        # Photos are decoded by threads of the dataset, which is what these ask worker processes for.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*fit loop.*log.*interval.*")
        trainer.fit(task, train_loader, val_loader, ckpt_path=run.last_file if resumed else None)


def _callbacks(run: Run, config: TrainConfig, show_progress: bool) -> list[Callback]:
    callbacks: list[Callback] = [StopOnRequest(run), RunRecorder(run)]
    if config.early_stopping_patience:
        mode = "max" if config.best_metric in HIGHER_IS_BETTER else "min"
        callbacks.append(EarlyStopping(config.best_metric, mode=mode, patience=config.early_stopping_patience))
    # Last, so that last.ckpt holds the others' states after this epoch.
    return [*callbacks, KeepBestAndLast(run, config.best_metric)]


def _epochs_done(run: Run) -> int:
    return max((event["epoch"] for event in run.events() if event["event"] == "epoch"), default=0)


@contextmanager
def _logged_to(run: Run) -> Iterator[None]:
    handler = logging.FileHandler(run.log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger("mtl"), logging.getLogger("pytorch_lightning")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
