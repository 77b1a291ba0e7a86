"""What is said of a model on its card: read from its weights and its evaluation. No gradio here."""

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mtl.checkpoint import read_checkpoint
from mtl.config import ModelConfig
from mtl.errors import MtlError
from mtl.hub.package import EVALUATION_FILE
from mtl.ui.models import ShelfModel

_Key = tuple[tuple[str, int, int], int]


@dataclass(frozen=True)
class ModelFacts:
    """What the files of a model say of it."""

    revision: str = ""  # of the weights, 12 hexadecimal digits
    config: ModelConfig | None = None
    size: int = 0  # of the weights' file, bytes
    date: str = ""  # ISO: when it was pulled, else when its weights were written
    epoch: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of the validation after that epoch
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # of these weights; empty: none
    problem: MtlError | None = None  # why it cannot be used


class FactReader:
    """Reads each state of a model's files once, one after the other; safe to call from any thread."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "model facts")
        self._futures: dict[str, tuple[_Key, Future[ModelFacts]]] = {}
        self._known: dict[str, ModelFacts] = {}

    def get(self, model: ShelfModel) -> ModelFacts | None:
        """What is known now; None while it is read for the first time."""
        future = self._future(model)
        if future.done():
            self._known[model.name] = future.result()
        return self._known.get(model.name)

    def read(self, model: ShelfModel) -> ModelFacts:
        """Waits for it, half a second where nobody asked before."""
        return self._future(model).result()

    def _future(self, model: ShelfModel) -> Future[ModelFacts]:
        key = model.stamp, _modified(model)
        known = self._futures.get(model.name)
        # A run that is trained replaces its weights with every better epoch; its card can wait for the end.
        if known and (known[0] == key or (model.run and known[1].done() and model.run.status().live)):
            return known[1]
        future = self._worker.submit(read_facts, model)
        self._futures[model.name] = key, future
        return future


def read_facts(model: ShelfModel) -> ModelFacts:
    """Read the files of a model now."""
    size, date = model.stamp[2], _date(model)
    try:
        checkpoint = read_checkpoint(model.path)
    except MtlError as error:
        return ModelFacts(size=size, date=date, problem=error)
    # Weights that are no plain tensors have no revision; loading them tells why.
    except (TypeError, ValueError, RuntimeError):
        return ModelFacts(size=size, date=date, problem=MtlError(f"{model.name}: it holds no plain weights"))
    return ModelFacts(
        checkpoint.revision,
        checkpoint.model_config,
        size,
        date,
        checkpoint.epoch,
        checkpoint.metrics,
        _read_evaluation(model, checkpoint.revision),
    )


def _date(model: ShelfModel) -> str:
    if model.pulled:
        return model.pulled.pulled_at
    return datetime.fromtimestamp(model.stamp[1] / 1e9, UTC).isoformat(timespec="seconds") if model.stamp[1] else ""


def _modified(model: ShelfModel) -> int:
    try:
        return (model.folder / EVALUATION_FILE).stat().st_mtime_ns
    except OSError:
        return 0


def _read_evaluation(model: ShelfModel, revision: str) -> Mapping[str, Any]:
    """Empty where there is none, or one of other weights."""
    try:
        report = json.loads((model.folder / EVALUATION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) and report.get("weights") == revision else {}
