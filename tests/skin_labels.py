"""`python -m tests.skin_labels --data-dir D`: how far the labels of a group carry, apart from what was trained on them.

A logistic regression on features of an encoder that saw ImageNet alone (EfficientNet-Lite0's weights), cross-validated
with photos of one original on one side (provenance.csv, if D has it): balanced accuracy, the learning curve, and what
becomes of it when labels that the others contradict are left out of the training (Northcutt et al. 2021,
arXiv:1911.00068), measured on all labels and on those that are left. Several seeds of the folds each.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtl.analysis.engine import to_input
from mtl.analysis.predict import to_square
from mtl.config import ModelConfig, TrainConfig
from mtl.data.folder import read_folder
from mtl.model import MultiTaskNetwork
from mtl.training.start import load_start

FOLDS, SEEDS = 5, 5
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the training photos, for the learning curve
STRENGTH = 0.001  # of the features, against the penalty
CONTRADICTED = 0.1  # a label that the others give less than this is left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--group", default="skin type")
    args = parser.parse_args()
    folder = read_folder(TrainConfig(data_dir=args.data_dir))
    number = list(folder.classes.groups).index(args.group)
    samples = [sample for sample in (*folder.train, *folder.val) if sample.target[number] >= 0]
    labels = np.array([sample.target[number] for sample in samples])
    originals = originals_of(Path(args.data_dir), [sample.name for sample in samples])
    features = features_of([sample.photo for sample in samples])
    chance = 1 / len(np.unique(labels))
    print(f"{args.group}: {len(labels)} photos of {len(set(originals))} originals, chance {chance:.2f}")
    for share in SHARES:
        tell(
            f"{share:.0%} of the training photos",
            [fold_scores(features, labels, originals, s, share) for s in range(SEEDS)],
        )
    for name, on_kept in (("cleaned training, all labels", False), ("cleaned training, labels that are left", True)):
        tell(name, [cleaned_scores(features, labels, originals, seed, on_kept=on_kept) for seed in range(SEEDS)])


def features_of(photos: list[Path]) -> np.ndarray:
    """(N, 1280): the pooled features of the frozen encoder, photo by photo."""
    config = ModelConfig(activation="relu6")
    network = MultiTaskNetwork(config)
    load_start(network, "lite0")
    encoder = network.encoder.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(photos), 16):
            squares = np.stack([to_square(photo, config).pixels for photo in photos[start : start + 16]])
            deepest, _ = encoder(to_input(squares, torch.device("cpu")))
            parts.append(deepest.mean((2, 3)).numpy())
    return np.concatenate(parts)


def originals_of(folder: Path, names: list[str]) -> list[str]:
    """Which photos stem from one original; each its own where nobody says so."""
    file = folder / "provenance.csv"
    known: dict[str, str] = {}
    if file.is_file():
        with file.open(encoding="utf-8") as lines:
            known = {row["file"]: row["group"] for row in csv.DictReader(lines)}
    return [known.get(name, name) for name in names]


def folds(
    features: np.ndarray, labels: np.ndarray, originals: list[str], seed: int
) -> Iterator[tuple[np.ndarray, ...]]:
    yield from StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels, originals)


def fit(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500, class_weight="balanced"))
    return model.fit(features, labels)


def fold_scores(features: np.ndarray, labels: np.ndarray, originals: list[str], seed: int, share: float) -> float:
    random, predicted = np.random.default_rng(seed), np.empty_like(labels)
    for train, test in folds(features, labels, originals, seed):
        some = random.choice(train, round(share * len(train)), replace=False)
        predicted[test] = fit(features[some], labels[some]).predict(features[test])
    return float(balanced_accuracy_score(labels, predicted))


def cleaned_scores(
    features: np.ndarray, labels: np.ndarray, originals: list[str], seed: int, *, on_kept: bool
) -> float:
    """on_kept: measured on the labels that nobody contradicts, which flatters: they are those that can be told."""
    predicted = np.empty_like(labels)
    for train, test in folds(features, labels, originals, seed):
        kept = train[is_kept(features[train], labels[train], [originals[i] for i in train], seed)]
        predicted[test] = fit(features[kept], labels[kept]).predict(features[test])
    chosen = is_kept(features, labels, originals, seed) if on_kept else np.ones(len(labels), bool)
    return float(balanced_accuracy_score(labels[chosen], predicted[chosen]))


def is_kept(features: np.ndarray, labels: np.ndarray, originals: list[str], seed: int) -> np.ndarray:
    """(N,) bool: labels that a fit to the other photos does not contradict."""
    given = np.empty(len(labels))
    for train, test in folds(features, labels, originals, seed):
        model = fit(features[train], labels[train])
        places = np.searchsorted(model.classes_, labels[test])
        given[test] = model.predict_proba(features[test])[np.arange(len(test)), places]
    return given >= CONTRADICTED


def tell(name: str, scores: list[float]) -> None:
    print(
        f"{name:42} balanced accuracy {np.mean(scores):.3f} (seeds {min(scores):.3f} to {max(scores):.3f})", flush=True
    )


if __name__ == "__main__":
    main()
