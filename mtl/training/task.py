"""What is learned in a step and what is measured in an epoch, as Lightning calls it; no files here."""

import logging
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.memory import garbage_collection_cuda, is_oom_error
from torch import Tensor

from mtl.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig, TrainConfig
from mtl.data.augment import augment
from mtl.data.dataset import Batch
from mtl.errors import MemoryLimitError
from mtl.losses import TASKS, LossSums, balancing_weights, multitask_sums, target_counts
from mtl.metrics import accuracy, balanced_accuracy, confusion_matrix, dice_jaccard, overlap_counts, predicted_ids
from mtl.model import MultiTaskNetwork
from mtl.training import ranks
from mtl.training.balance import LossBalance, upgrad_backward
from mtl.training.optimizer import lr_factor, make_optimizer, restore_optimizer

log = logging.getLogger(__name__)

PROBE_STEPS = 50  # how often the pull of each task is measured
MAX_HALVINGS = 3
HIGHER_IS_BETTER = {"val_jaccard", "val_dice", "val_accuracy", "val_balanced_accuracy"}


class EpochLoss:
    """The two losses over an epoch's samples so far, in double precision."""

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)

    def add(self, sums: LossSums) -> None:
        parts = torch.stack([sums.classification, sums.classified, sums.segmentation, sums.segmented]).detach()
        # Where they are, so that nobody waits for them; but Apple's GPUs have no double precision.
        device = torch.device("cpu") if parts.device.type == "mps" else parts.device
        self.sums = self.sums.to(device) + parts.to(device).double()

    def add_up(self) -> None:
        """Over all processes, each of which has added its own photos."""
        self.sums = ranks.add_up(self.sums.cpu())

    def means(self) -> tuple[float, float]:
        """(classification, segmentation); 0 where no sample had the target."""
        classification, classified, segmentation, segmented = self.sums.tolist()
        return classification / max(classified, 1), segmentation / max(segmented, 1)


class Counts(NamedTuple):
    """Of the photos of one step, over all parts and processes."""

    photos: int
    classified: int  # those with a target of the class loss
    segmented: int

    def having(self, task: str) -> int:
        """The photos that have a target of this one of TASKS."""
        return self[1 + TASKS.index(task)]


class MultiTask(pl.LightningModule):
    """The joint training of both heads.

    Everything random in a step follows from (seed, epoch, step), so a resumed run repeats it without saved states.
    The step is optimised by hand: a batch is cut into parts whose gradients are added up, all divided by the numbers
    of targets in the whole batch, so that its loss is the same in however many parts it fits into the memory. (While
    training, BatchNorm normalises each part by its own statistics.)
    Several processes share each batch, whose loss and gradient are the same as in one. BatchNorm's running statistics
    are averaged over them in every step, each process counting by its photos: so all have the same weights and
    statistics after it, and whichever is saved or validated is that of all.
    """

    def __init__(self, network: MultiTaskNetwork, config: TrainConfig, optimizer_state: dict[str, Any] | None = None):
        """optimizer_state: of an earlier training of the same weights, to go on with."""
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.config = config
        self.balance = LossBalance(config)
        self.halvings = 0  # of the parts, where the memory was too small
        self._optimizer_state = optimizer_state
        classes = network.config.classes
        self.group_ids = list(classes.group_ids.values())
        self.trained: Tensor
        self.class_weights: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("trained", torch.tensor(network.config.trained), persistent=False)
        self.register_buffer("class_weights", _class_weights(network.config, config), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.train_loss, self.val_loss = EpochLoss(), EpochLoss()
        self.epoch_metrics: dict[str, float] = {}
        self._plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None
        self._statistics: list[list[Tensor]] = []  # of BatchNorm, before the step
        self.counts = Counts(0, 0, 0)  # of the step

    # ---- what is frozen

    @property
    def encoder_is_frozen(self) -> bool:
        unfreeze = self.config.unfreeze_after_epochs
        return self.config.freeze_backbone and not (unfreeze and self.current_epoch >= unfreeze)

    def train(self, mode: bool = True) -> "MultiTask":
        """A frozen encoder also keeps its BatchNorm statistics (pytorch/pytorch#86590)."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.network.encoder.eval()
        return self

    def _freeze(self) -> None:
        self.network.encoder.requires_grad_(not self.encoder_is_frozen)
        # Lightning keeps the modes that it finds, and would leave a frozen encoder in training mode.
        self.train()

    # ---- the step

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Photos (N, 3, S, S) float in 0..1."""
        # Written as the network reads it: to reorder it afterwards would be one pass more.
        normalised = torch.empty_like(photos, memory_format=torch.channels_last)
        torch.sub(photos, self.mean, out=normalised)
        return self.network(normalised.div_(self.std))

    def losses(self, class_logits: Tensor, seg_logits: Tensor, batch: Batch, masks: Tensor) -> LossSums:
        """Masks (N, 1, S, S) are averaged down to the logits' size: a pixel half covered has the target 0.5."""
        targets = F.adaptive_avg_pool2d(masks, (seg_logits.shape[-2], seg_logits.shape[-1]))
        return multitask_sums(
            class_logits,
            seg_logits,
            batch.targets,
            targets,
            batch.has_mask,
            self.group_ids,
            self.trained,
            mask_weight=batch.mask_weight,
            class_weights=self.class_weights,
            segmentation=self.config.segmentation_loss,
            label_smoothing=self.config.label_smoothing if self.training else 0.0,
        )

    def weighted(self, classification: Any, segmentation: Any) -> Any:
        """The loss that is reported, of the two means: weighted as configured, however it is balanced."""
        return self.config.classification_weight * classification + self.config.segmentation_weight * segmentation

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.trainer.training:
            # While it is on the host: what a GPU counts would have to be waited for.
            self.counts = self.count(batch)
        return batch

    def count(self, batch: Batch) -> Counts:
        """What this process's part of a batch and those of the others have in all."""
        here = [0, 0, 0]
        if len(batch):
            trained = torch.tensor(self.network.config.trained)
            here = [len(batch), *map(int, target_counts(batch.targets, batch.has_mask, trained))]
        return Counts(*ranks.add_up(torch.tensor(here)).tolist())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        if not self.counts.photos:  # every photo of it has vanished
            return None
        optimizer: Any = self.optimizers()
        self._keep_statistics()
        while True:
            try:
                # The dropout of a step: the same after a resume as without one.
                torch.manual_seed(self._step_seed(batch_idx))
                sums, pulls = self._backward(batch, self.counts, probe=batch_idx % PROBE_STEPS == 0)
                break
            # torch raises several kinds where the memory is too small; is_oom_error knows them.
            except RuntimeError as error:
                self._halve(error, len(batch))
                # BatchNorm has counted the parts before the one that failed.
                self._restore_statistics()
        sums = self._added_up(sums, len(batch))
        norms = self._clip_gradients()
        optimizer.step()
        self.train_loss.add(sums)
        return self._outputs(sums) | pulls | norms

    def _buffers_by_kind(self) -> list[list[Tensor]]:
        buffers = list(self.network.buffers())
        return [[b for b in buffers if b.is_floating_point()], [b for b in buffers if not b.is_floating_point()]]

    def _keep_statistics(self) -> None:
        if not self._statistics:
            self._statistics = [[buffer.clone() for buffer in kind] for kind in self._buffers_by_kind()]
            return
        for kept, buffers in zip(self._statistics, self._buffers_by_kind(), strict=True):
            torch._foreach_copy_(kept, buffers)

    def _restore_statistics(self) -> None:
        for kept, buffers in zip(self._statistics, self._buffers_by_kind(), strict=True):
            torch._foreach_copy_(buffers, kept)

    def _step_seed(self, batch_idx: int) -> int:
        """Not the same for two processes, whose photos differ; the first one's is that of a process alone."""
        entropy = (self.config.seed, self.current_epoch, batch_idx, ranks.rank())
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _backward(self, batch: Batch, counts: Counts, *, probe: bool) -> tuple[LossSums, dict[str, Tensor]]:
        """Add the gradients of the batch, part by part; its sums, and how hard each task pulls where `probe`.

        counts: of the whole step, of which this process may have a part of the photos only, or none.
        """
        tasks, total = self._tasks(counts), self._no_sums()
        pulls: dict[str, Tensor] = {}
        if not len(batch):
            self.zero_grad()
            self._backward_part({task: torch.zeros((), device=self.device) for task in tasks}, 0.0)
            return total, pulls
        for number, part in enumerate(batch.parts(self.config.accumulate * 2**self.halvings)):
            sums, features = self._forward_part(part)
            if number == 0:
                # Not before: the heap would shrink and grow again, a fifth of a step's time on the CPU.
                self.zero_grad()
            total = sums.detached() if number == 0 else total + sums.detached()
            losses = self._weighted_losses(sums, counts, tasks)
            if probe and number == 0 and not self.encoder_is_frozen:
                # A part without a target of a task says nothing about its pull.
                pulls = self._pulls({task: losses[task] for task in losses if sums.counts()[task]}, features)
            self._backward_part(losses, len(part) / counts.photos)
        return total, pulls

    def _tasks(self, counts: Counts) -> list[str]:
        """Those that are to be learned and that a photo of the step has a target of."""
        weights = dict(zip(TASKS, (self.config.classification_weight, self.config.segmentation_weight), strict=True))
        return [task for task in TASKS if weights[task] and counts.having(task)]

    def _no_sums(self) -> LossSums:
        zero = torch.zeros((), device=self.device)
        return LossSums(zero, zero, zero, zero)

    def _forward_part(self, part: Batch) -> tuple[LossSums, Tensor]:
        photos, masks = augment(
            part.photos / 255, part.masks / 255, part.photo_index, epoch=self.current_epoch, config=self.config
        )
        class_logits, seg_logits, features = self(photos)
        return self.losses(class_logits, seg_logits, part, masks), features

    def _weighted_losses(self, sums: LossSums, counts: Counts, tasks: list[str]) -> dict[str, Tensor]:
        """Task -> a part's share of the step's loss, weighted as it is balanced now."""
        weights, by_task = self.balance.weights(), sums.by_task()
        return {task: weights[TASKS.index(task)] * by_task[task] / counts.having(task) for task in tasks}

    def _backward_part(self, losses: dict[str, Tensor], share: float) -> None:
        network = self.network
        if self.config.balancing == "upgrad":
            heads = [*network.classification_head.parameters(), *network.segmentation_head.parameters()]
            upgrad_backward(list(losses.values()), list(network.encoder.parameters()), heads)
        elif share and losses:
            self.manual_backward(torch.stack(list(losses.values())).sum() + share * self.balance.penalty(losses))

    @staticmethod
    def _pulls(losses: dict[str, Tensor], features: Tensor) -> dict[str, Tensor]:
        """The norm of each weighted loss's gradient on the features that both heads share."""
        gradients = {task: torch.autograd.grad(loss, features, retain_graph=True)[0] for task, loss in losses.items()}
        return {f"{task}_pull": torch.linalg.vector_norm(gradient.float()) for task, gradient in gradients.items()}

    def _halve(self, error: RuntimeError, photos: int) -> None:
        """From now on in parts half as large; raises where that is no answer."""
        if not (isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)):
            raise error
        fewest = self.config.accumulate * 2**self.halvings >= photos
        if self.halvings == MAX_HALVINGS or fewest or self.config.balancing == "upgrad":
            raise MemoryLimitError(
                f"out of memory with parts of {-(-photos // (self.config.accumulate * 2**self.halvings))} photos; "
                "take a smaller image_size or batch_size"
            ) from error
        self.halvings += 1
        # The failed part's tensors hang on the traceback.
        error.__traceback__ = None
        garbage_collection_cuda()
        log.warning("%s", self.memory_notice)

    @property
    def memory_notice(self) -> str | None:
        """What was done about too little memory."""
        if not self.halvings:
            return None
        return (
            f"out of memory: each batch is now computed in {self.config.accumulate * 2**self.halvings} parts, with the "
            "same loss; a smaller batch_size or image_size is quicker"
        )

    def _added_up(self, sums: LossSums, photos: int) -> LossSums:
        """Gradients and sums of a step over all processes, of which this one has `photos`; BatchNorm's mean of them.

        A part of the network that learns has a gradient in all of them then, if only 0, so that none is left behind.
        """
        if ranks.size() == 1:
            return sums
        gradients, statistics = self._gradients(), self._moving_statistics()
        losses = torch.stack([sums.classification, sums.segmentation])
        averaged = [photos / self.counts.photos * held for held in statistics]
        held = torch.cat([tensor.flatten() for tensor in (*gradients, *averaged, losses)])
        targets = [*gradients, *statistics, losses]
        pieces = ranks.add_up(held).split([target.numel() for target in targets])
        torch._foreach_copy_(targets, [piece.view(t.shape) for piece, t in zip(pieces, targets, strict=True)])
        classified, segmented = (losses.new_full((), n) for n in (self.counts.classified, self.counts.segmented))
        return LossSums(losses[0], classified, losses[1], segmented)

    def _gradients(self) -> list[Tensor]:
        """Those of all parameters that learn in this step and are not yet added up."""
        network, tasks = self.network, self._tasks(self.counts)
        heads = dict(zip(TASKS, (network.classification_head, network.segmentation_head), strict=True))
        modules: list[torch.nn.Module] = [heads[task] for task in tasks]
        # UPGrad's shared gradient is that of all processes already.
        if tasks and not self.encoder_is_frozen and self.config.balancing != "upgrad":
            modules.append(network.encoder)
        if tasks:
            modules.append(self.balance)
        parameters = [parameter for module in modules for parameter in module.parameters()]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def _moving_statistics(self) -> list[Tensor]:
        """The running means and variances that this step has moved."""
        norms = [module for module in self.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        moved = [held for norm in norms if norm.training for held in (norm.running_mean, norm.running_var)]
        return [held for held in moved if held is not None]

    def _clip_gradients(self) -> dict[str, Tensor]:
        """The gradient norm of each part of the network before it is clipped."""
        gradients = {
            name: [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
            for name, module in self.network.named_children()
        }
        norms = {name: torch.nn.utils.get_total_norm(held) for name, held in gradients.items() if held}
        if not norms:  # no photo of the batch has a target
            return {}
        if self.config.gradient_clip:
            total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), self.config.gradient_clip, total)
        return {f"gradient_norm_{name}": norm for name, norm in norms.items()}

    def _outputs(self, sums: LossSums) -> dict[str, Tensor]:
        classification, segmentation = sums.means()
        outputs = {"loss": self.weighted(classification, segmentation)}
        # A batch without a label or a mask has no such loss; 0 would pull the curves down.
        if self.counts.classified:
            outputs["classification_loss"] = classification
        if self.counts.segmented:
            outputs["segmentation_loss"] = segmentation
        if self.config.balancing == "uncertainty":
            learned = self.balance.weights().detach()
            outputs |= {"classification_weight": learned[0], "segmentation_weight": learned[1]}
        return outputs

    # ---- the learning rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        network = self.network
        heads = [network.classification_head, network.segmentation_head]
        optimizer = make_optimizer(network.encoder, heads, self.balance, self.config)
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        if self._optimizer_state:
            restore_optimizer(optimizer, self._optimizer_state)
        if self.config.schedule == "plateau":
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=self.config.plateau_factor, patience=self.config.plateau_patience
            )
            if self._plateau_state:
                self._plateau.load_state_dict(self._plateau_state)
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        batches = int(self.trainer.num_training_batches)
        # At most one epoch: a small data folder must not spend its whole run warming up.
        # An optimizer that goes on is warm already.
        warmup_steps = 0 if self._optimizer_state else min(self.config.warmup_steps, batches)
        step = self.current_epoch * batches + batch_idx
        factor = lr_factor(self.config, step, self.config.epochs * batches, warmup_steps)
        if factor is not None:
            for group, lr in zip(self.trainer.optimizers[0].param_groups, self._base_lrs, strict=True):
                group["lr"] = lr * factor

    @property
    def lr(self) -> float:
        """Of the heads; the encoder's is this times backbone_lr_factor."""
        return float(self.trainer.optimizers[0].param_groups[1]["lr"])

    # ---- the epoch

    def on_train_start(self) -> None:
        self._freeze()

    def on_train_epoch_start(self) -> None:
        # Not called where a resumed run begins within an epoch: the restored sums go on.
        self.train_loss = EpochLoss()
        self._freeze()

    def on_validation_epoch_start(self) -> None:
        self.val_loss = EpochLoss()
        self._class_logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._overlaps: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if not len(batch):  # every photo of it has vanished
            return
        for part in batch.parts(2**self.halvings):
            self._validate(part)

    def _validate(self, batch: Batch) -> None:
        masks = batch.masks / 255
        class_logits, seg_logits, _ = self(batch.photos / 255)
        self.val_loss.add(self.losses(class_logits, seg_logits, batch, masks))
        self._class_logits.append(class_logits.float())
        self._targets.append(batch.targets)
        predicted = F.interpolate(seg_logits.float(), masks.shape[-2:], mode="bilinear") >= 0
        self._overlaps.append(overlap_counts(predicted, masks > 0.5))

    def on_validation_epoch_end(self) -> None:
        self._gather_validation()
        train_parts, val_parts = self.train_loss.means(), self.val_loss.means()
        metrics: dict[str, float | None] = {"lr": self.lr}
        for side, parts in (("train", train_parts), ("val", val_parts)):
            metrics[f"{side}_loss"] = self.weighted(*parts)
            metrics[f"{side}_classification_loss"], metrics[f"{side}_segmentation_loss"] = parts
        metrics |= self._validation_scores()
        self.epoch_metrics = {key: value for key, value in metrics.items() if value is not None}
        self.log_dict({k: v for k, v in self.epoch_metrics.items() if k.startswith("val_")}, batch_size=1)
        if self._plateau is not None:
            self._plateau.step(self.epoch_metrics["val_loss"])

    def _gather_validation(self) -> None:
        """What all processes have seen, each in its part of the photos: so all of them have the same figures."""
        held = (self._class_logits, self._targets, self._overlaps)
        here = [[part.cpu() for part in parts] for parts in held]
        of_all = zip(*ranks.gathered(here), strict=True)
        self._class_logits, self._targets, self._overlaps = (list(chain(*parts)) for parts in of_all)
        self.val_loss.add_up()

    def _validation_scores(self) -> dict[str, float | None]:
        confusion, within = self._confusion(within_groups=False), self._confusion(within_groups=True)
        scores = {"val_accuracy": accuracy(confusion), "val_balanced_accuracy": balanced_accuracy(confusion)}
        for group, ids in self.network.config.classes.group_ids.items():
            part = within[ids.start : ids.stop, ids.start : ids.stop]
            scores[f"val_balanced_accuracy_{group.replace(' ', '_')}"] = balanced_accuracy(part)
        overlaps = torch.cat(self._overlaps)
        # Dice and Jaccard say nothing about a photo without a lesion.
        overlaps = overlaps[overlaps[:, 2] > 0]
        if len(overlaps):
            dice, jaccard = dice_jaccard(overlaps)
            scores |= {"val_dice": dice.mean().item(), "val_jaccard": jaccard.mean().item()}
        return scores

    def _confusion(self, *, within_groups: bool) -> np.ndarray:
        """(truth, predicted) counts over the validation photos, as `evaluate` reads them."""
        config = self.network.config
        logits, targets = torch.cat(self._class_logits).numpy(), torch.cat(self._targets).numpy()
        labels, predicted = predicted_ids(logits, targets, self.group_ids, config.trained, within_groups=within_groups)
        return confusion_matrix(labels, predicted, config.num_classes_classification)

    # ---- what a checkpoint holds besides weights and optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        steps = progress.processed
        checkpoint["steps_into_epoch"] = steps % self.trainer.num_training_batches
        checkpoint["plateau"] = self._plateau.state_dict() if self._plateau else None
        checkpoint["train_loss_sums"] = self.train_loss.sums.cpu()
        checkpoint["halvings"] = self.halvings
        checkpoint["lr"] = self.config.lr

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.train_loss.sums = checkpoint["train_loss_sums"]
        self.halvings = checkpoint["halvings"]
        # A run may be resumed with another learning rate, e.g. after it diverged.
        for group in checkpoint["optimizer_states"][0]["param_groups"]:
            group["lr"] *= self.config.lr / checkpoint["lr"]
        # Lightning restores this before it asks for the optimizer.
        self._plateau_state = checkpoint["plateau"]


def _class_weights(model: ModelConfig, config: TrainConfig) -> Tensor:
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[config.class_weighting]
    counts = model.class_counts or (1,) * model.num_classes_classification
    return torch.tensor(balancing_weights(counts, power))
