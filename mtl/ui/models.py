"""The models that the page and the REST routes offer: the given one, the best of each run, and what was pulled."""

import os
import shutil
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mtl.errors import CheckpointError
from mtl.hub.pull import Pulled, list_pulled
from mtl.model_files import CONFIG_FILE, DEFAULT_CHECKPOINT, WEIGHTS_FILE
from mtl.training.run import Run, list_runs

# Loaded with the first model: it takes seconds, and the page is shown before.
if TYPE_CHECKING:
    from mtl.api import MultiTaskModel

Origin = Literal["shipped", "own", "run", "hub"]  # own: named when the application was started


@dataclass(frozen=True)
class ShelfModel:
    """A model that can be chosen, and where it comes from."""

    name: str
    origin: Origin
    path: Path  # what it is loaded from: a folder or a file
    run: Run | None = None
    pulled: Pulled | None = None

    @property
    def folder(self) -> Path:
        """Where its evaluation and what is known of its pushes lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.path / WEIGHTS_FILE if self.path.is_dir() else self.path

    @property
    def stamp(self) -> tuple[str, int, int]:
        """Another one whenever its weights are replaced, or how their answers are read."""
        config = self.weights.with_name(CONFIG_FILE)
        try:
            stat = self.weights.stat()
            changed = max(stat.st_mtime_ns, config.stat().st_mtime_ns if config.is_file() else 0)
        except OSError:
            return str(self.weights), 0, 0
        return str(self.weights), changed, stat.st_size


class ModelShelf:
    """Loads models when first asked for and keeps the last few; safe to call from any thread."""

    KEPT = 3

    def __init__(self, checkpoint: Path, runs_dir: Path, checkpoints_dir: Path | None = None, device: str = "auto"):
        """checkpoints_dir: where pulled models lie; None: nowhere."""
        self._checkpoint, self._runs_dir, self._device = checkpoint, runs_dir, device
        self._checkpoints_dir = checkpoints_dir
        self._loaded: OrderedDict[tuple[str, int, int], MultiTaskModel] = OrderedDict()
        self._lock = threading.Lock()

    def models(self) -> list[ShelfModel]:
        """The shipped (or given) model first, then what was pulled, then runs, newest first; no name comes twice."""
        is_shipped = self._checkpoint.resolve() == DEFAULT_CHECKPOINT.resolve()
        given = ShelfModel(self.first, "shipped" if is_shipped else "own", self._checkpoint)
        runs = (
            ShelfModel(run.name, "run", run.best_file, run=run)
            for run in list_runs(self._runs_dir)
            if run.best_file.is_file()
        )
        by_name: dict[str, ShelfModel] = {}
        for model in (given, *self._pulled(), *runs):
            by_name.setdefault(model.name, model)
        return list(by_name.values())

    def _pulled(self) -> list[ShelfModel]:
        """Without the one that was started with, which comes first and under its folder's name."""
        pulled = list_pulled(self._checkpoints_dir) if self._checkpoints_dir else []
        models = [ShelfModel(pulled_name(each), "hub", each.path, pulled=each) for each in pulled]
        return [model for model in models if model.path.resolve() != self._checkpoint.resolve()]

    def names(self) -> list[str]:
        """In the order of `models`."""
        return [model.name for model in self.models()]

    @property
    def first(self) -> str:
        """The shipped or given model: its folder's or file's name."""
        return self._checkpoint.resolve().name

    def find(self, name: str) -> ShelfModel:
        """The model of this name. Raises CheckpointError where there is none."""
        found = next((model for model in self.models() if model.name == name), None)
        if found is None:
            raise CheckpointError(f"{name}: there is no such model any more; choose another")
        return found

    def get(self, name: str) -> "MultiTaskModel":
        """The model of this name, loaded. Raises CheckpointError where there is none or it cannot be read."""
        from mtl.api import MultiTaskModel

        model = self.find(name)
        # A run that is still being trained may write a better one at any time.
        key = model.stamp
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = MultiTaskModel.load(model.path, self._device)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self.KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def path(self, name: str) -> Path:
        """The file or folder of this name. Raises CheckpointError where there is none."""
        return self.find(name).path

    def size_bytes(self, name: str) -> int:
        """What goes with `delete`; what links point to is not of it."""
        model = self.find(name)
        if model.run:
            return model.run.size_bytes
        files = (Path(folder) / file for folder, _, names in os.walk(model.folder) for file in names)
        return sum(file.lstat().st_size for file in files)

    def delete(self, name: str) -> None:
        """Remove a run, or what was pulled, but nothing that a link in it points to. Raises MtlError where it stays."""
        model = self.find(name)
        if model.run:
            model.run.delete()
        elif model.pulled:
            _remove(model.folder)
        else:
            raise CheckpointError(f"{name}: this page was started with it, so it stays; choose another")


def pulled_name(pulled: Pulled) -> str:
    """ "owner/name@revision"."""
    return f"{pulled.reference.repo_id}@{pulled.reference.revision}"


def _remove(folder: Path) -> None:
    """Under a hidden name first, so that half of it is no model."""
    if folder.is_symlink():
        folder.unlink()
        return
    hidden = folder.with_name(f".deleted-{uuid.uuid4().hex}")
    try:
        folder.rename(hidden)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CheckpointError(f"{folder.name}: it cannot be deleted ({reason}); check its folder's rights") from None
    shutil.rmtree(hidden, ignore_errors=True)
