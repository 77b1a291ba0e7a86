"""A training run from its settings to its end: one readable page. Logging, saving and stopping listen to it."""

import logging
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping

from mtl.checkpoint import Checkpoint, read_checkpoint, read_pth
from mtl.config import ModelConfig, TrainConfig
from mtl.data.check import check_folder
from mtl.data.dataset import PhotoDataset, make_loader
from mtl.data.folder import DataFolder, read_folder, require_trainable
from mtl.device import choose_device, choose_precision
from mtl.errors import ConfigError, MtlError, RunError
from mtl.model import MultiTaskNetwork
from mtl.training.callbacks import (
    AtomicCheckpointIO,
    KeepBestAndLast,
    RunRecorder,
    SamplePredictions,
    StopOnRequest,
    StopRequested,
)
from mtl.training.run import Run
from mtl.training.start import choose_start, is_frozen_lite0, load_start
from mtl.training.task import HIGHER_IS_BETTER, MultiTask

log = logging.getLogger(__name__)
# Lightning tells of each saving and advertises a service.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
CheckProgress = Callable[[int, int], None]  # (photos read, of how many)

# What may differ from the run's own settings when it is resumed; anything else would be another run.
CHANGEABLE_ON_RESUME = {"data_dir", "epochs", "device", "threads", "output_dir", "early_stopping_patience"}


@dataclass(frozen=True)
class Job:
    """A run that has passed every check that needs no decoding, ready to be trained."""

    run: Run
    config: TrainConfig
    folder: DataFolder
    device: torch.device
    resumed: bool = False
    start: Checkpoint | None = None  # whose weights, optimizer and epoch to begin from


def train(
    config: TrainConfig | None = None,
    *,
    resume: str | Path | None = None,
    show_progress: bool = False,
    check_progress: CheckProgress | None = None,
) -> Run:
    """Train, and return the run's folder. Raises MtlError where the data or a setting is wrong.

    resume: a run's folder goes on exactly where its last.ckpt stands, with its own settings where `config` is None;
    a .pth starts a new run from its weights, optimizer and epoch. show_progress: bars in the terminal.
    """
    job = open_job(config, resume)
    run_job(job, show_progress=show_progress, check_progress=check_progress)
    return job.run


def open_job(config: TrainConfig | None = None, resume: str | Path | None = None) -> Job:
    """Check what can be checked at once, and make or open the run's folder."""
    run, start = None, None
    if resume is not None and str(resume).endswith(".pth"):
        start = read_checkpoint(resume)
    elif resume is not None:
        run = Run(resume)
        config = _resumed_config(run, config)
    config = config or TrainConfig()
    if start and start.epoch >= config.epochs:
        raise ConfigError(f"epochs: got {config.epochs}, but {start.name} has {start.epoch} already; take more")
    folder = read_folder(config)
    require_trainable(folder, config)
    device = choose_device(config.device)
    job = Job(run or Run.create(config), config, folder, device, resumed=run is not None, start=start)
    # At once, so that whoever asks next finds the run live, and a stop that is asked for from now on counts.
    job.run.claim()
    return job


def _resumed_config(run: Run, config: TrainConfig | None) -> TrainConfig:
    if run.status().live:
        raise RunError(f"{run.name}: it is being trained right now; stop it first")
    if not run.last_file.is_file():
        raise RunError(f"{run.name}: it was stopped before its first checkpoint; start it anew")
    if config is None:
        return run.config
    for name in set(TrainConfig.model_fields) - CHANGEABLE_ON_RESUME:
        ours, theirs = getattr(config, name), getattr(run.config, name)
        if ours != theirs:
            raise ConfigError(f"{name}: got {ours!r}, but the run has {theirs!r}; leave it, or start a new run")
    return config


def run_job(job: Job, *, show_progress: bool = False, check_progress: CheckProgress | None = None) -> None:
    """Train to the end, or to a stop; the run's folder says how it went, also where this raises."""
    run = job.run
    with _logged_to(run):
        try:
            _check_data(job, check_progress)
            _fit(job, _prepare(job), show_progress)
            run.update(state="finished", message="", seconds_left=0)
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


def _check_data(job: Job, progress: CheckProgress | None) -> None:
    """Read every photo once: a file that cannot be read must not end the run hours later."""

    def step(done: int, total: int) -> None:
        if job.run.stop_file.exists():
            raise StopRequested
        if done % 50 == 1:
            job.run.update(message=f"reading every photo once: {done} of {total}")
        if progress:
            progress(done, total)

    report = check_folder(job.folder, step)
    report.require_readable()
    for warning in report.warnings:
        log.warning("%s", warning)


def _prepare(job: Job) -> MultiTask:
    """The network with its starting weights, and the settings on disk."""
    config, folder = job.config, job.folder
    start = choose_start(config.init)
    model_config = ModelConfig(
        classes=folder.classes,
        class_counts=folder.class_counts(),
        image_size=config.image_size,
        center_crop=config.center_crop,
        dropout=config.dropout,
        activation=_activation(job, start),
    )
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    network = MultiTaskNetwork(model_config).to(memory_format=torch.channels_last)
    settings = {
        "train": config.model_dump(mode="json"),
        "model": model_config.model_dump(mode="json"),
        "start": job.start.name if job.start else start,
        "photos": {"train": len(folder.train), "val": len(folder.val)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    if job.resumed:
        settings["start"] = job.run.settings["start"]
    elif job.start:
        job.start.load_into(network)
    else:
        load_start(network, start)
    job.run.write_config(settings)
    log.info("starting weights: %s; %d + %d photos", settings["start"], len(folder.train), len(folder.val))
    return MultiTask(network, config, job.start.optimizer if job.start else None)


def _activation(job: Job, start: str) -> str:
    if job.start:
        return job.start.model_config.activation
    return "relu6" if is_frozen_lite0(start, job.config.freeze_backbone) else "silu"


def _fit(job: Job, task: MultiTask, show_progress: bool) -> None:
    run, config, model_config = job.run, job.config, task.network.config
    train_loader = make_loader(PhotoDataset(job.folder.train, model_config), config.batch_size, seed=config.seed)
    val_loader = make_loader(PhotoDataset(job.folder.val, model_config), config.batch_size, seed=None)
    if job.resumed:
        state = read_pth(run.last_file)
        run.cut_back(state["global_step"])
        sampler: Any = train_loader.sampler
        sampler.first_step = state["steps_into_epoch"]
    trainer = pl.Trainer(
        max_epochs=config.epochs,
        accelerator="gpu" if job.device.type == "cuda" else job.device.type,
        devices=[job.device.index or 0] if job.device.type == "cuda" else 1,
        precision=choose_precision(config.precision, job.device),
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
    if job.start:
        _count_epochs_from(trainer, job.start.epoch)
    run.update(message="", state="training")
    with warnings.catch_warnings():
        # The dataset decodes in threads, which is what this asks worker processes for.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=DeprecationWarning)
        # The sampler begins at the right step, which Lightning cannot know.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        trainer.fit(task, train_loader, val_loader, ckpt_path=run.last_file if job.resumed else None)


def _count_epochs_from(trainer: pl.Trainer, epoch: int) -> None:
    progress: Any = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch


def _callbacks(run: Run, config: TrainConfig, show_progress: bool) -> list[Callback]:
    callbacks: list[Callback] = [RunRecorder(run), SamplePredictions(run)]
    if config.early_stopping_patience:
        mode = "max" if config.best_metric in HIGHER_IS_BETTER else "min"
        callbacks.append(EarlyStopping(config.best_metric, mode=mode, patience=config.early_stopping_patience))
    # After the others, so that what is saved holds their states.
    return [*callbacks, KeepBestAndLast(run, config.best_metric), StopOnRequest(run)]


@contextmanager
def _logged_to(run: Run) -> Iterator[None]:
    """What the package logs during the run also goes to its log.txt."""
    handler = logging.FileHandler(run.log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("mtl")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
