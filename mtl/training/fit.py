"""A training run from its settings to its end: one readable page. Logging, saving and stopping listen to it."""

import logging
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.utilities.memory import is_oom_error
from torch.utils._triton import has_triton

from mtl.checkpoint import Checkpoint, read_checkpoint, read_pth
from mtl.config import ModelConfig, TrainConfig
from mtl.data.cache import PhotoCache, open_cache
from mtl.data.check import check_folder, read_once
from mtl.data.dataset import PhotoDataset, SeededBatches, hold_where_they_fit, make_loader
from mtl.data.folder import DataFolder, read_folder, require_trainable
from mtl.data.generate import MaskMaker, generate_masks, require_lesion_photos
from mtl.device import choose_device, choose_precision, heap_kept
from mtl.errors import (
    CheckpointError,
    ConfigError,
    DiskFullError,
    DivergedError,
    MemoryLimitError,
    MtlError,
    RunError,
)
from mtl.files import is_full, keep_copy
from mtl.model import MultiTaskNetwork
from mtl.training import finish, ranks
from mtl.training.callbacks import (
    AtomicCheckpointIO,
    AveragedWeights,
    KeepBestAndLast,
    RunRecorder,
    SamplePredictions,
    StopOnRequest,
    StopRequested,
)
from mtl.training.locks import DeviceLock, lock_device
from mtl.training.masks import mask_maker
from mtl.training.run import Run
from mtl.training.start import BUILT_IN_STARTS, choose_start, is_frozen_lite0, load_checkpoint, load_start
from mtl.training.task import HIGHER_IS_BETTER, MultiTask
from mtl.training.tensorboard import TensorBoardCurves

log = logging.getLogger(__name__)
# Lightning tells of each saving and advertises a service.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
CheckProgress = Callable[[int, int], None]  # (photos read, of how many)

# What may differ from the run's own settings when it is resumed; anything else would be another run.
# The learning rate and the clipping: for a run that diverged.
CHANGEABLE_ON_RESUME = {
    "data_dir", "epochs", "device", "threads", "output_dir", "lr", "gradient_clip", "cache_dir", "cache_gb",
    "compile", "calibrate",
}  # fmt: skip

COMPILED_STEPS = 10_000  # so many make up for the minutes that compiling takes


@dataclass(frozen=True)
class Job:
    """A run that has passed every check that needs no decoding, ready to be trained."""

    run: Run
    config: TrainConfig
    folder: DataFolder
    device: torch.device
    start: str  # imagenet, lite0, none, or the name of a checkpoint
    activation: str
    lock: DeviceLock
    make_mask: MaskMaker | None = None  # where masks are to be generated
    resumed: bool = False
    weights: Checkpoint | None = None  # to begin from
    goes_on: bool = False  # from the weights' optimizer and epoch, too
    cache: PhotoCache | None = None
    listeners: tuple[Callback, ...] = ()  # to the training loop, besides those that keep the run's folder

    def __getstate__(self) -> dict[str, Any]:
        """As another process has it, which makes no masks, and a lock of its own."""
        return {**self.__dict__, "make_mask": None, "lock": None}


def train(
    config: TrainConfig | None = None,
    *,
    resume: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    show_progress: bool = False,
    check_progress: CheckProgress | None = None,
) -> Run:
    """Train, and return the run's folder. Raises MtlError where the data or a setting is wrong.

    resume: a run's folder goes on exactly where its last.ckpt stands, with its own settings where `config` is None;
    a .pth starts a new run from its weights, optimizer and epoch. overrides: settings to change in either case.
    show_progress: bars in the terminal. Under torchrun each process calls this, and all of them train the one run.
    """
    with ranks.joined():
        job = open_job(config, resume, overrides)
        run_job(job, show_progress=show_progress, check_progress=check_progress)
        return job.run


def open_job(
    config: TrainConfig | None = None, resume: str | Path | None = None, overrides: dict[str, Any] | None = None
) -> Job:
    """Check what can be checked without decoding a photo, then make or open the run's folder."""
    ranks.require_joined()
    with ranks.explained():
        job = ranks.on_first(lambda: _open_job(config, resume, overrides))
    if ranks.is_first():
        return job
    device = ranks.own_device(torch.device(job.device.type))
    return replace(job, device=device, lock=DeviceLock(str(device)))


def _open_job(config: TrainConfig | None, resume: str | Path | None, overrides: dict[str, Any] | None) -> Job:
    if resume is not None and not str(resume).endswith(".pth"):
        return _reopen_job(Run(resume), config, overrides or {})
    config = (config or TrainConfig()).replace(**(overrides or {}))
    weights = read_checkpoint(resume) if resume is not None else None
    start = weights.name if weights else choose_start(config.init)
    if weights is None and start not in BUILT_IN_STARTS:
        weights = read_checkpoint(start)
    folder, device = _trainable_folder(config), ranks.own_device(choose_device(config.device))
    if weights:
        _require_fit(weights, folder, config, goes_on=resume is not None)
    frozen_lite0 = is_frozen_lite0(start, config.freeze_backbone)
    activation = weights.model_config.activation if weights else "relu6" if frozen_lite0 else "silu"
    make_mask = mask_maker(config)
    with lock_device(str(device)) as lock:
        run = Run.create(config)
        goes_on = resume is not None
        job = Job(run, config, folder, device, start, activation, lock, make_mask, weights=weights, goes_on=goes_on)
        return _claimed(job)


def _claimed(job: Job) -> Job:
    """Note this process as the one that trains the run."""
    job.lock.hold(job.run.path)
    job.run.write_config(_settings(job))
    # At once, so that whoever asks next finds the run live, and a stop that is asked for from now on counts.
    job.run.claim(job.config.epochs)
    job.run.update(device=str(job.device), resume_with={}, notices=[])
    return job


def _reopen_job(run: Run, config: TrainConfig | None, overrides: dict[str, Any]) -> Job:
    status = run.status()
    if status.live:
        raise RunError(f"{run.name}: it is being trained right now; stop it first")
    if not run.last_file.is_file():
        raise RunError(f"{run.name}: it ended before its first checkpoint; start it anew")
    config = (config or run.config).replace(**overrides)
    for name in sorted(set(TrainConfig.model_fields) - CHANGEABLE_ON_RESUME):
        ours, theirs = getattr(config, name), getattr(run.config, name)
        if ours != theirs:
            raise ConfigError(f"{name}: got {ours!r}, but the run has {theirs!r}; leave it, or start a new run")
    if config.epochs < status.epoch or (config.epochs == status.epoch and status.state == "finished"):
        raise ConfigError(f"epochs: got {config.epochs}, but {run.name} has {status.epoch} already; take more")
    folder, device, saved = _trainable_folder(config), ranks.own_device(choose_device(config.device)), run.settings
    if folder.digest() != saved["data_digest"]:
        raise RunError(f"{run.name}: its photos, labels or split have changed; put them back, or start a new run")
    start, activation, make_mask = saved["start"], saved["model"]["activation"], mask_maker(config)
    with lock_device(str(device)) as lock:
        return _claimed(Job(run, config, folder, device, start, activation, lock, make_mask, resumed=True))


def _trainable_folder(config: TrainConfig) -> DataFolder:
    if config.batch_size < ranks.size():
        raise ConfigError(
            f"batch_size: got {config.batch_size} for {ranks.size()} processes, which share each batch; take a larger "
            "one, or fewer processes"
        )
    folder = read_folder(config)
    require_trainable(folder, config)
    require_lesion_photos(folder, config)
    return folder


def _require_fit(weights: Checkpoint, folder: DataFolder, config: TrainConfig, *, goes_on: bool) -> None:
    """Refuse starting weights that cannot be loaded, and an optimizer or epoch that cannot be gone on from."""
    weights.network()
    if not goes_on:
        return
    if weights.model_config.classes != folder.classes:
        raise ConfigError(
            f"{weights.name} knows the classes {', '.join(weights.model_config.classes.names)}, the data "
            f"{', '.join(folder.classes.names)}; take --init instead of --resume, which makes a new class head"
        )
    if weights.epoch >= config.epochs:
        raise ConfigError(f"epochs: got {config.epochs}, but {weights.name} has {weights.epoch} already; take more")


def _model_config(job: Job) -> ModelConfig:
    return ModelConfig(
        classes=job.folder.classes,
        class_counts=job.folder.class_counts(),
        mask_count=sum(sample.mask is not None for sample in job.folder.train),
        image_size=job.config.image_size,
        center_crop=job.config.center_crop,
        dropout=job.config.dropout,
        activation=job.activation,
    )


def _settings(job: Job) -> dict[str, Any]:
    """The run's config.json."""
    return {
        "train": job.config.model_dump(mode="json"),
        "model": _model_config(job).model_dump(mode="json"),
        "start": job.start,
        "photos": {"train": len(job.folder.train), "val": len(job.folder.val)},
        "generated_masks": sum(sample.mask_is_generated for sample in job.folder.train),
        "data_digest": job.folder.digest(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def run_job(job: Job, *, show_progress: bool = False, check_progress: CheckProgress | None = None) -> None:
    """Train to the end, or to a stop; the run's folder says how it went, also where this raises."""
    threads = torch.get_num_threads()
    try:
        with _told(job.run):
            try:
                with ranks.explained():
                    _take_device(job)
                    job = replace(job, cache=open_cache(job.config, job.folder.path))
                    job = replace(job, folder=ranks.on_first(partial(_ready_folder, job, check_progress)))
                    with heap_kept():
                        _fit(job, _prepare(job), show_progress)
            except DivergedError as error:
                raise _taken_back(job, error) if ranks.is_first() else error from error
            if ranks.is_first():
                show = partial(_progress, job.run)
                finish.calibrate_best(job.run, job.config, job.folder, job.device, show)
                finish.keep_training_features(job.run, job.folder, job.device, show, job.cache)
    finally:
        torch.set_num_threads(threads)
        job.lock.release()


@contextmanager
def _told(run: Run) -> Iterator[None]:
    """The first process writes into the run's folder what happens, and how it ends."""
    if ranks.is_first():
        with _logged_to(run), _end_noted(run):
            yield
    else:
        with suppress(StopRequested):
            yield


def _take_device(job: Job) -> None:
    """Lock what the first process has not locked: each GPU, and the CPUs of other machines."""
    if not ranks.is_first() and (job.device.type == "cuda" or ranks.local_rank() == 0):
        job.lock.acquire()
        job.lock.note(job.run.path)
    ranks.largest(0)  # a refusal is told to all before the data are read


def _ready_folder(job: Job, check_progress: CheckProgress | None) -> DataFolder:
    """The photos that are trained with, every one of them read once."""
    _check_data(job, check_progress)
    return _with_generated_masks(job).folder


@contextmanager
def _end_noted(run: Run) -> Iterator[None]:
    """Notes in the run's folder how it ended; what a person can mend is raised as an MtlError."""
    try:
        yield
        run.update(state="finished", message="", seconds_left=0)
    except StopRequested:
        run.update(state="stopped", message=f"stopped on request; {run.what_now}", seconds_left=None)
    except (KeyboardInterrupt, SystemExit):
        # Lightning makes an exit of the interrupt.
        run.update(state="stopped", message=f"interrupted; {run.what_now}", seconds_left=None)
        raise KeyboardInterrupt from None
    # The edge of a job: whatever happened is noted in the run's folder before it goes on.
    except Exception as error:
        told = error if isinstance(error, MtlError) else _mendable(run, error)
        if told is not error:
            log.info("the run failed", exc_info=True)
        message = str(told) if told else f"{type(error).__name__}: {error}"
        log.error("failed: %s", message)
        run.update(state="failed", message=message, seconds_left=None)
        if told is None or told is error:
            raise
        raise told from error
    finally:
        with suppress(OSError):  # a disk that cannot be written
            run.stop_file.unlink(missing_ok=True)


def _mendable(run: Run, error: Exception) -> MtlError | None:
    """A full disk or memory in one line; None for any other error."""
    if is_full(run.path, error):
        return DiskFullError(f"no space left on the disk of {run.path.parent}; free some, then: {run.what_now}")
    if is_oom_error(error) or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return MemoryLimitError(f"out of memory; take a smaller batch_size or image_size ({type(error).__name__})")
    return None


def _taken_back(job: Job, error: DivergedError) -> DivergedError:
    """Take the run back to its last validated epoch; the error with what to try.

    Not to last.ckpt: weights are ruined some steps before their loss stops being a number.
    """
    run, lower = job.run, float(f"{job.config.lr / 10:.2g}")
    if not run.last_epoch_file.is_file():
        run.last_file.unlink(missing_ok=True)
        advice = f"start anew with a lower lr, e.g. {lower:g}"
    else:
        # A copy: the next attempt may diverge, too.
        keep_copy(run.last_epoch_file, run.last_file)
        step = read_pth(run.last_file)["global_step"]
        run.update(resume_with={"lr": lower})
        run.cut_back(step)
        advice = f"the state after step {step} is kept: resume with a lower lr (--resume {run.path} --lr {lower:g})"
    clip = f"{job.config.gradient_clip / 5:g}" if job.config.gradient_clip else "5"
    return DivergedError(f"{error}; {advice}, or with gradient_clip {clip}")


def _check_data(job: Job, progress: CheckProgress | None) -> None:
    """Read every photo once: a file that cannot be read must not end the run hours later."""
    shown = _progress(job.run, "reading every photo once")

    def step(done: int, total: int) -> None:
        shown(done, total)
        if progress:
            progress(done, total)

    report = check_folder(job.folder, step, job.cache)
    report.require_readable()
    job.run.update(warnings=report.warnings)
    for warning in report.warnings:
        log.warning("%s", warning)


def _progress(run: Run, what: str) -> CheckProgress:
    """Shows how far the preparation is, and breaks it off where a stop was asked for."""

    told = -1

    def step(done: int, total: int) -> None:
        nonlocal told
        if run.stop_file.exists():
            raise StopRequested
        if ranks.asked_to_end():
            raise KeyboardInterrupt
        if done // 50 != told:
            told = done // 50
            run.update(message=f"{what}: {done} of {total}")

    return step


def _with_generated_masks(job: Job) -> Job:
    """The job with a generated mask in the run's folder for each lesion photo without one, if asked for."""
    if job.make_mask is None:
        return job
    into, show = job.run.path / "generated_masks", _progress(job.run, "making masks")
    folder = generate_masks(job.folder, job.config, into, job.make_mask, show)
    generated = [sample for sample in folder.train if sample.mask_is_generated]
    log.info("%d masks generated", len(generated))
    if job.cache:
        read_once(generated, _progress(job.run, "reading the generated masks"), job.cache)
    job = replace(job, folder=folder)
    job.run.write_config(_settings(job))
    return job


def _prepare(job: Job) -> MultiTask:
    """The network with its starting weights."""
    if job.config.threads:
        torch.set_num_threads(job.config.threads)
    torch.manual_seed(job.config.seed)
    network = MultiTaskNetwork(_model_config(job)).to(memory_format=torch.channels_last)
    if job.weights:
        load_checkpoint(network, job.weights)
    elif not job.resumed and ranks.is_first():
        load_start(network, job.start)
    ranks.copy_from_first([network])
    if _is_compiled(job):
        # In place, so that the names of the weights stay and copies are not compiled; part by part, so that what the
        # encoder gives stays what both losses' gradients are measured on.
        for part in network.children():
            part.compile()
    log.info("starting weights: %s; %d + %d photos", job.start, len(job.folder.train), len(job.folder.val))
    return MultiTask(network, job.config, job.weights.optimizer if job.weights and job.goes_on else None)


def _is_compiled(job: Job) -> bool:
    if job.config.compile != "auto":
        return job.config.compile == "on"
    steps = job.config.epochs * len(job.folder.train) // (job.config.batch_size * job.config.accumulate)
    # Triton writes the kernels; without it there are none for a GPU.
    return job.device.type == "cuda" and has_triton() and steps >= COMPILED_STEPS


@contextmanager
def _compiling(job: Job) -> Iterator[None]:
    """What cannot be compiled is computed without, unless compiling was asked for: then it is a ConfigError."""
    if not _is_compiled(job):
        yield
        return
    from torch._dynamo import config  # seconds to import
    from torch._dynamo.exc import TorchDynamoException

    try:
        with config.patch(suppress_errors=job.config.compile == "auto"):
            yield
    except TorchDynamoException as error:
        log.info("the network cannot be compiled", exc_info=True)
        raise ConfigError(
            f"compile: got on, but this machine cannot compile the network ({type(error).__name__}); take off"
        ) from error


def _fit(job: Job, task: MultiTask, show_progress: bool) -> None:
    run, config, model_config = job.run, job.config, task.network.config
    train_photos = PhotoDataset(job.folder.train, model_config, config.generated_mask_weight, job.cache)
    val_photos = PhotoDataset(job.folder.val, model_config, cache=job.cache)
    if job.device.type == "cuda":
        hold_where_they_fit([train_photos, val_photos], job.device, torch.cuda.mem_get_info(job.device)[0])
    # A step takes all that is accumulated; the task cuts it into parts.
    train_loader = make_loader(train_photos, config.batch_size * config.accumulate, seed=config.seed, device=job.device)
    val_loader = make_loader(val_photos, config.batch_size, seed=None, device=job.device)
    for loader in (train_loader, val_loader):
        cast(SeededBatches, loader.sampler).keep_share(ranks.rank(), ranks.size())
    if job.resumed:
        state = read_pth(run.last_file)
        if "halvings" not in state:
            raise CheckpointError(
                f"{run.name}: an earlier version wrote its last.ckpt; start a new run from its weights "
                f"(--resume {run.best_file})"
            )
        if ranks.is_first():
            run.cut_back(state["global_step"])
        sampler: Any = train_loader.sampler
        sampler.first_step = state["steps_into_epoch"]
    trainer = pl.Trainer(
        max_epochs=config.epochs,
        **_devices(job.device),
        precision=choose_precision(config.precision, job.device),
        callbacks=_callbacks(job),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=show_progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    if ranks.size() > 1:
        # It would wait for the GPU at every step to tell a signal, and not mind that a process is gone.
        loop: Any = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None
    if job.weights and job.goes_on:
        _count_epochs_from(trainer, job.weights.epoch)
    if ranks.is_first():
        run.update(message="", state="training")
    with warnings.catch_warnings(), _compiling(job):
        # The dataset decodes in threads, which is what this asks worker processes for.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=DeprecationWarning)
        # The sampler begins at the right step, which Lightning cannot know.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        # The task has the figures of all processes already.
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
        trainer.fit(task, train_loader, val_loader, ckpt_path=run.last_file if job.resumed else None)


def _devices(device: torch.device) -> dict[str, Any]:
    """Lightning's Trainer on this device, or on those of all processes."""
    accelerator = "gpu" if device.type == "cuda" else device.type
    if ranks.size() == 1:
        return {"accelerator": accelerator, "devices": [device.index or 0] if device.type == "cuda" else 1}
    here = ranks.local_size()
    return {
        "accelerator": accelerator,
        "devices": here,
        "num_nodes": ranks.size() // here,
        "strategy": ranks.SummedByHand(),
    }


def _count_epochs_from(trainer: pl.Trainer, epoch: int) -> None:
    progress: Any = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch


def _callbacks(job: Job) -> list[Callback]:
    """In the order in which they listen. What shows the run to people is the first process's alone."""
    run, config, first = job.run, job.config, ranks.is_first()
    first_epoch = job.weights.epoch if job.weights and job.goes_on else 0
    callbacks: list[Callback] = [AveragedWeights(decay=config.ema_decay)] if config.ema_decay else []
    if first:
        callbacks += [RunRecorder(run, first_epoch), SamplePredictions(run)]
    if config.early_stopping_patience:
        mode = "max" if config.best_metric in HIGHER_IS_BETTER else "min"
        patience = config.early_stopping_patience
        # After the validation: Lightning would else call it last, and last.ckpt would miss its count of this epoch.
        callbacks.append(
            EarlyStopping(config.best_metric, mode=mode, patience=patience, check_on_train_epoch_end=False)
        )
    callbacks.append(KeepBestAndLast(run, config.best_metric))
    if first:
        callbacks.append(TensorBoardCurves(run))
    return [*callbacks, StopOnRequest(run), *job.listeners]


@contextmanager
def _logged_to(run: Run) -> Iterator[None]:
    """What the package logs during the run also goes to its log.txt."""
    handler = _RunLog(run.log_file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("mtl")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _RunLog(logging.FileHandler):
    """On a full disk lines are lost: it is told where the curves or the weights cannot be written."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # of opening it
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass
