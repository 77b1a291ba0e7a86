"""All that is told of a checkpoint on a data folder, in one dictionary."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtl.analysis.engine import Engine
from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.errors import DataError
from mtl.evaluation.attributes import breakdown, find_attributes
from mtl.evaluation.calibration import calibration_figures
from mtl.evaluation.figures import confusion, figures, jaccards, read_labels, reliability
from mtl.evaluation.intervals import REPLICATES, Pulse, intervals
from mtl.evaluation.measure import Results, measure

WORST = 10
Progress = Callable[[int, int], None]  # (done, of how many)


def evaluate(
    samples: Sequence[Sample],
    engine: Engine,
    config: ModelConfig,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    attribute_files: Sequence[Path] = (),
    replicates: int = REPLICATES,
) -> dict[str, Any]:
    """Measure over photos; `segmentation`, `classification`, `lesion_free` are in a fixed layout.

    A figure without photos is None, and so is that of a task which the checkpoint was not trained in. Dice and Jaccard
    are means over photos with a lesion, at the mask's own size; a photo with labels in several groups counts once for
    each, read within the group. folder: the photos', which may tell their diagnoses; attribute_files: see
    `find_attributes`; replicates: of the bootstrap, 0 for no intervals.
    """
    results = measure(samples, engine, config, progress)
    # So that what follows can be broken off, too.
    pulse = partial(progress, len(samples), len(samples)) if progress else lambda: None
    attributes = find_attributes(samples, results, folder, attribute_files, pulse) if folder else {}
    return report(results, config, attributes, replicates, pulse)


def report(
    results: Results,
    config: ModelConfig,
    attributes: dict[str, list[str]],
    replicates: int = REPLICATES,
    pulse: Pulse = lambda: None,
) -> dict[str, Any]:
    """What `evaluate` returns, of photos that have been measured."""
    labels = read_labels(results.answers, config)
    within = read_labels(results.answers, config, within_groups=True)
    return {
        **figures(results, config),
        "mask_threshold": config.mask_threshold,
        "calibration": calibration_figures(results, config),
        "reliability": reliability(labels),
        "confusion": {
            group: confusion(within.of_group(ids), config) for group, ids in config.classes.group_ids.items()
        },
        "intervals": intervals(results, config, replicates, pulse=pulse) if replicates else {},
        "breakdown": breakdown(results, config, attributes),
        "worst": worst(results, config),
    }


def worst(results: Results, config: ModelConfig) -> dict[str, list[dict[str, Any]]]:
    """The photos that each task does worst on, the worst first."""
    names, masks = results.names, results.masks
    lesions, free = masks.take(masks.has_lesion), masks.take(~masks.has_lesion)
    jaccard, area = jaccards(lesions), free.predicted / free.pixels
    labels = read_labels(results.answers, config, within_groups=True)
    given = labels.probabilities[np.arange(len(labels.ids)), labels.ids]
    wrong = [row for row in np.argsort(given, kind="stable") if not labels.correct[row]][:WORST]
    return {
        "segmentation": [
            {"name": names[lesions.photos[row]], "jaccard": float(jaccard[row])}
            for row in np.argsort(jaccard, kind="stable")[:WORST]
        ],
        "lesion_free": [
            {"name": names[free.photos[row]], "false_positive_area": float(area[row])}
            for row in np.argsort(-area, kind="stable")[:WORST]
            if area[row]
        ],
        "classification": [
            {
                "name": names[labels.photos[row]],
                "label": config.classes.names[labels.ids[row]],
                "predicted": config.classes.names[labels.predicted[row]],
                "confidence": float(labels.sureness[row]),
            }
            for row in wrong
        ],
    }


def require_same_classes(config: ModelConfig, names: Sequence[str]) -> None:
    """Raise DataError where a data folder's classes are not the checkpoint's."""
    if tuple(names) != config.classes.names:
        raise DataError(
            f"the data has the classes {', '.join(names)}; the checkpoint knows {', '.join(config.classes.names)}; "
            "evaluate it on data of its own classes (--classes, --labels)"
        )
