"""What is learned in a step and what is measured in an epoch, as Lightning calls it; no files here."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from mtl.config import IMAGENET_MEAN, IMAGENET_STD, TrainConfig
from mtl.data.augment import augment
from mtl.data.dataset import Batch
from mtl.errors import CheckpointError
from mtl.losses import LossSums, multitask_sums
from mtl.metrics import accuracy, balanced_accuracy, confusion_matrix, dice_jaccard, overlap_counts, predicted_ids
from mtl.model import MultiTaskNetwork

HIGHER_IS_BETTER = {"val_jaccard", "val_dice", "val_accuracy", "val_balanced_accuracy"}


class EpochLoss:
    """The two losses over an epoch's samples so far, in double precision."""

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)

    def add(self, sums: LossSums) -> None:
        parts = torch.stack([sums.classification, sums.classified, sums.segmentation, sums.segmented])
        # On the CPU: Apple's GPUs have no double precision.
        self.sums += parts.detach().cpu().double()

    def means(self) -> tuple[float, float]:
        """(classification, segmentation); 0 where no sample had the target."""
        classification, classified, segmentation, segmented = self.sums.tolist()
        return classification / max(classified, 1), segmentation / max(segmented, 1)


class MultiTask(pl.LightningModule):
    """The joint training of both heads.

    Everything random in a step follows from (seed, epoch, step), so a resumed run repeats it without saved states.
    """

    def __init__(self, network: MultiTaskNetwork, config: TrainConfig, optimizer_state: dict[str, Any] | None = None):
        """optimizer_state: of an earlier training of the same weights, to go on with."""
        super().__init__()
        self.network = network
        self.config = config
        self._optimizer_state = optimizer_state
        classes = network.config.classes
        self.group_ids = list(classes.group_ids.values())
        self.trained: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("trained", torch.tensor(network.config.trained), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        if config.freeze_backbone:
            network.encoder.requires_grad_(False)
        self.train_loss, self.val_loss = EpochLoss(), EpochLoss()
        self.epoch_metrics: dict[str, float] = {}
        self._plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None

    def train(self, mode: bool = True) -> "MultiTask":
        """A frozen encoder also keeps its BatchNorm statistics (pytorch/pytorch#86590)."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.network.encoder.eval()
        return self

    # ---- the step

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Photos (N, 3, S, S) float in 0..1."""
        normalised = (photos - self.mean) / self.std
        return self.network(normalised.contiguous(memory_format=torch.channels_last))

    def losses(self, class_logits: Tensor, seg_logits: Tensor, batch: Batch, masks: Tensor) -> LossSums:
        """Masks (N, 1, S, S) are averaged down to the logits' size: a pixel half covered has the target 0.5."""
        targets = F.adaptive_avg_pool2d(masks, (seg_logits.shape[-2], seg_logits.shape[-1]))
        return multitask_sums(
            class_logits, seg_logits, batch.targets, targets, batch.has_mask, self.group_ids, self.trained
        )

    def weighted(self, classification: Any, segmentation: Any) -> Any:
        """The training loss of the two means."""
        return self.config.classification_weight * classification + self.config.segmentation_weight * segmentation

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        # The dropout of a step: the same after a resume as without one.
        step_seed = np.random.SeedSequence((self.config.seed, self.current_epoch, batch_idx)).generate_state(1)[0]
        torch.manual_seed(int(step_seed))
        photos, masks = augment(
            batch.photos / 255, batch.masks / 255, batch.photo_index, epoch=self.current_epoch, config=self.config
        )
        class_logits, seg_logits, _ = self(photos)
        sums = self.losses(class_logits, seg_logits, batch, masks)
        self.train_loss.add(sums)
        classification, segmentation = sums.means()
        outputs = {"loss": self.weighted(classification, segmentation)}
        # A batch without a label or a mask has no such loss; 0 would pull the curves down.
        if sums.classified:
            outputs["classification_loss"] = classification.detach()
        if sums.segmented:
            outputs["segmentation_loss"] = segmentation.detach()
        return outputs

    # ---- the learning rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay)
        if self._optimizer_state:
            _restore(optimizer, self._optimizer_state)
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr
        if self.config.schedule == "plateau":
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=self.config.plateau_factor, patience=self.config.plateau_patience
            )
            if self._plateau_state:
                self._plateau.load_state_dict(self._plateau_state)
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step, config = self.trainer.global_step, self.config
        # At most one epoch: a small data folder must not spend its whole run warming up.
        # An optimizer that goes on is warm already.
        warmup_steps = 0 if self._optimizer_state else min(config.warmup_steps, int(self.trainer.num_training_batches))
        warmup = min(1.0, (step + 1) / max(warmup_steps, 1))
        if config.schedule == "cosine":
            batches = self.trainer.num_training_batches
            progress = min(1.0, (self.current_epoch * batches + batch_idx) / (config.epochs * batches))
            self._set_lr(config.lr * warmup * 0.5 * (1 + math.cos(math.pi * progress)))
        elif step < warmup_steps:
            self._set_lr(config.lr * warmup)

    def _set_lr(self, lr: float) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr

    @property
    def lr(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    # ---- the epoch

    def on_train_start(self) -> None:
        # Lightning keeps the modes that it finds, and would leave a frozen encoder in training mode.
        self.train()

    def on_train_epoch_start(self) -> None:
        # Not called where a resumed run begins within an epoch: the restored sums go on.
        self.train_loss = EpochLoss()

    def on_validation_epoch_start(self) -> None:
        self.val_loss = EpochLoss()
        self._class_logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._overlaps: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        masks = batch.masks / 255
        class_logits, seg_logits, _ = self(batch.photos / 255)
        self.val_loss.add(self.losses(class_logits, seg_logits, batch, masks))
        self._class_logits.append(class_logits.float().cpu())
        self._targets.append(batch.targets.cpu())
        predicted = F.interpolate(seg_logits.float(), masks.shape[-2:], mode="bilinear") >= 0
        counts = overlap_counts(predicted[batch.has_mask], masks[batch.has_mask] > 0.5).cpu()
        # Dice and Jaccard say nothing about a photo without a lesion.
        self._overlaps.append(counts[counts[:, 2] > 0])

    def on_validation_epoch_end(self) -> None:
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

    def _validation_scores(self) -> dict[str, float | None]:
        confusion, within = self._confusion(within_groups=False), self._confusion(within_groups=True)
        scores = {"val_accuracy": accuracy(confusion), "val_balanced_accuracy": balanced_accuracy(confusion)}
        for group, ids in self.network.config.classes.group_ids.items():
            part = within[ids.start : ids.stop, ids.start : ids.stop]
            scores[f"val_balanced_accuracy_{group.replace(' ', '_')}"] = balanced_accuracy(part)
        overlaps = torch.cat(self._overlaps)
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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.train_loss.sums = checkpoint["train_loss_sums"]
        # Lightning restores this before it asks for the optimizer.
        self._plateau_state = checkpoint["plateau"]


def _restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the checkpoint's optimizer does not fit what is trained here (another freeze_backbone?); "
            "take --init instead of --resume, which begins from its weights alone"
        ) from error
