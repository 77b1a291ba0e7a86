"""What the curves of a run say is going wrong: each trouble is noticed, and a healthy run is left in peace."""

from collections.abc import Iterator
from typing import Any

from mtl.training.notices import notices
from mtl.training.run import Run


def made_run(train: list[float], val: list[float], **step: float) -> Iterator[dict[str, Any]]:
    """One step an epoch with these figures, and the epoch's two losses."""
    for epoch, (train_loss, val_loss) in enumerate(zip(train, val, strict=True), start=1):
        yield {"event": "step", "step": epoch, "epoch": epoch, "loss": train_loss, **step}
        yield {"event": "epoch", "step": epoch, "epoch": epoch, "train_loss": train_loss, "val_loss": val_loss}


FALLING = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8]


def test_a_healthy_run_is_left_in_peace(finished_run: Run) -> None:
    pulls = {"classification_pull": 0.6, "segmentation_pull": 0.4, "gradient_norm_encoder": 3.0}
    assert notices(made_run(FALLING, FALLING, **pulls)) == []
    assert notices([]) == []
    assert notices(finished_run.events()) == []


def test_a_loss_that_does_not_move() -> None:
    assert notices(made_run([2.0, 1.999, 1.998], [2.0] * 3)) == []  # three epochs are too early to say
    [line] = notices(made_run([2.0, 1.999, 2.001, 1.998], [2.0] * 4))
    assert line.startswith("the training loss does not move (2.000, after 4 epochs 1.998): try a higher lr")


def test_overfitting() -> None:
    rising = [2.0, 1.5, 1.4, 1.5, 1.6, 1.7]
    [line] = notices(made_run(FALLING, rising))
    assert line.startswith("overfitting since epoch 3: the training loss falls, the validation loss rose from 1.400 to")
    # Both losses rising is another trouble, and a short rise is none.
    assert notices(made_run(FALLING[:5], rising[:5])) == []


def test_gradients_that_vanish_or_explode() -> None:
    [vanish] = notices(made_run(FALLING, FALLING, gradient_norm_encoder=1e-9))
    assert vanish.startswith("the gradients of the encoder vanish (norm 1e-09): try")
    [explode] = notices(made_run(FALLING, FALLING, gradient_norm_segmentation_head=5e4))
    assert explode.startswith("the gradients of the segmentation head explode (norm 50000): try a lower lr")


def test_a_task_that_the_other_drowns() -> None:
    [mask] = notices(made_run(FALLING, FALLING, classification_pull=99.5, segmentation_pull=0.5))
    assert mask.startswith("the mask loss is drowned by the other (0.5% of the pull on the encoder)")
    assert "a higher segmentation_weight" in mask
    [label] = notices(made_run(FALLING, FALLING, classification_pull=0.0, segmentation_pull=0.5))
    assert "a higher classification_weight" in label
    # A step with one target only says nothing.
    assert notices(made_run(FALLING, FALLING, segmentation_pull=0.5)) == []
