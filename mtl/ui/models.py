"""The models that the page offers: the shipped one, and the best of each run."""

import threading
from collections import OrderedDict
from pathlib import Path

from mtl.api import MultiTaskModel
from mtl.errors import CheckpointError
from mtl.training.run import Run, list_runs


class ModelShelf:
    """Loads models when first asked for and keeps the last few; safe to call from any thread."""

    KEPT = 3

    def __init__(self, checkpoint: Path, runs_dir: Path, device: str = "auto"):
        self._checkpoint, self._runs_dir, self._device = checkpoint, runs_dir, device
        self._loaded: OrderedDict[tuple[str, float], MultiTaskModel] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The shipped (or given) model first, then runs, newest first."""
        runs = [run.name for run in list_runs(self._runs_dir) if run.best_file.is_file()]
        return [self.first, *(name for name in runs if name != self.first)]

    @property
    def first(self) -> str:
        """The shipped or given model: its folder's or file's name."""
        return self._checkpoint.resolve().name

    def get(self, name: str) -> MultiTaskModel:
        """The model of this name. Raises CheckpointError where there is none or it cannot be read."""
        path = self.path(name)
        # A run that is still being trained may write a better one at any time.
        key = (name, path.stat().st_mtime if path.exists() else 0.0)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = MultiTaskModel.load(path, self._device)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self.KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def path(self, name: str) -> Path:
        """The file or folder of this name. Raises CheckpointError where there is none."""
        if name not in self.names():
            raise CheckpointError(f"{name}: there is no such model any more; choose another")
        return self._checkpoint if name == self.first else Run(self._runs_dir / name).best_file
