"""The folders that a file of answers is about: their photos, one after the other, and where the pictures of each go."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mtl.analysis.files import RESULTS, walk_photos
from mtl.analysis.stream import PhotoFile
from mtl.errors import ConfigError, PhotoError


class PhotoFolders:
    """Folders of photos, none of which is met twice."""

    def __init__(self, names: Sequence[str], *, recursive: bool, output_dir: Path | None = None):
        """recursive: with all subfolders. output_dir: where masks and overlays go; None: nowhere.

        Raises PhotoError for what is no folder, ConfigError where a photo would be met twice, and where pictures would
        lie among the photos or two folders would share a place for them.
        """
        self.names = [Path(name).as_posix() for name in names]
        self._recursive, self._output_dir = recursive, output_dir
        for name in self.names:
            if not Path(name).is_dir():
                raise PhotoError(f"{name}: there is no such folder; --output-jsonl needs folders, so name the photo's")
        self._require_apart()
        if output_dir is not None:
            self._require_place(output_dir)

    def _require_apart(self) -> None:
        resolved = [Path(name).resolve() for name in self.names]
        for name, path in zip(self.names, resolved, strict=True):
            if resolved.count(path) > 1:
                raise ConfigError(f"{name}: this folder is named twice; once will do")
            if self._recursive and not set(path.parents).isdisjoint(resolved):
                raise ConfigError(f"{name}: it lies in another of the folders, which --recursive reads with all in it")

    def _require_place(self, output_dir: Path) -> None:
        place = output_dir.resolve()
        for name in self.names:
            folder = Path(name).resolve()
            if place == folder or (self._recursive and folder in place.parents):
                raise ConfigError(f"--output-dir {output_dir}: it lies among the photos of {name}; take another folder")
        own = [Path(name).resolve().name.lower() for name in self.names]
        if len(set(own)) < len(own):
            raise ConfigError(f"--output-dir {output_dir}: folders of one name would share it; analyse one at a time")

    def photos(self) -> Iterator[PhotoFile]:
        """Every photo, in the order of the disk."""
        for folder in self.names:
            for name in walk_photos(Path(folder), recursive=self._recursive):
                yield PhotoFile(folder, name, self._results(folder, name))

    def _results(self, folder: str, name: str) -> dict[str, Path] | None:
        """The photo's whole name stays, so that no two photos share a file: x.jpg_mask.png."""
        if self._output_dir is None:
            return None
        place = self._output_dir / Path(folder).resolve().name if len(self.names) > 1 else self._output_dir
        return {kind: place / f"{name}_{kind}.png" for kind in RESULTS}
