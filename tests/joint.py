"""`python -m tests.joint --data-dir D`: does training both tasks together pay, and do photos with one target only?

On lesion photos with a diagnosis as label, so that each has both targets: joint training against each task alone. On
the whole folder: all photos against those alone that have a label and a mask. The same epochs and seeds for each;
figures of the last epoch on the validation photos that it has.
"""

import argparse
import logging
import tempfile
from typing import Any

import numpy as np

from mtl.config import TrainConfig
from mtl.training.fit import train

LESIONS = {"include": "isic18_*", "labels": "diagnoses.csv", "classes": "nevus,melanoma,benign_keratosis"}
TASKS: dict[str, dict[str, Any]] = {
    "joint": {},
    "joint, classes count less": {"classification_weight": 0.2},
    "classes alone": {"segmentation_weight": 0.0},
    "mask alone": {"classification_weight": 0.0},
}
# Skin photos have no mask; hair and lesion photos have both targets.
PHOTOS: dict[str, dict[str, Any]] = {"all photos": {}, "complete photos alone": {"include": "[hi]*"}}
# The weight of a task -> how the names of its figures begin.
FIGURES = {"classification_weight": ["val_balanced"], "segmentation_weight": ["val_jaccard", "val_dice"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--compare", choices=["tasks", "photos", "both"], default="both")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as runs:
        common = {
            "data_dir": args.data_dir, "output_dir": runs, "epochs": args.epochs, "image_size": args.image_size,
            "init": "lite0", "schedule": "one-cycle", "segmentation_loss": "bce+dice", "calibrate": False,
            "early_stopping_patience": 0,
        }  # fmt: skip
        trainings = {
            **({name: LESIONS | settings for name, settings in TASKS.items()} if args.compare != "photos" else {}),
            **(PHOTOS if args.compare != "tasks" else {}),
        }
        for name, settings in trainings.items():
            tell(name, settings, [last_epoch(**common, **settings, seed=seed) for seed in range(args.seeds)])


def last_epoch(**settings: Any) -> dict[str, Any]:
    run = train(TrainConfig(**settings))
    return [event for event in run.events() if event["event"] == "epoch"][-1]


def tell(name: str, settings: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
    shown = tuple(start for weight, starts in FIGURES.items() if settings.get(weight) != 0 for start in starts)
    figures = [key for key in epochs[0] if key.startswith(shown)]
    print(f"{name:24} {'; '.join(spread(key, [epoch[key] for epoch in epochs]) for key in figures)}", flush=True)


def spread(figure: str, values: list[float]) -> str:
    return f"{figure.removeprefix('val_')} {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
