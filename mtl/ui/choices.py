"""What a visitor may choose on the Train tab, and what stands behind a choice. No gradio here.

Nothing that is typed there leads out of the chosen data folder: error messages quote what they read.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl.config import TrainConfig
from mtl.data.archive import unpack_photos
from mtl.data.demo import write_demo_data
from mtl.data.folder import DataFolder, read_folder, require_trainable
from mtl.device import choose_device
from mtl.errors import CheckpointError, ConfigError, DataError, MtlError
from mtl.ui.checks import DataChecks
from mtl.ui.models import ModelShelf

MADE_FOLDER, MADE_NUMBER = "made-photos", 240
STARTS = ("auto", "imagenet", "lite0", "none")
MASK_SOURCES = ("off", "otsu")
# What decides which photos a folder's samples are, and what is known of them.
READING = ("include", "labels", "classes", "val_fraction", "seed", "generated_masks", "lesion_photos")

_drawing = threading.Lock()  # two visitors may press Start at once


# ---- data


def data_choices(data_root: Path) -> list[tuple[str, str]]:
    """Label and path under the root: the made photos, the root where it holds photos, its folders that do."""
    folders = sorted(data_root.iterdir()) if data_root.is_dir() else []
    named = [(path.name, path.name) for path in folders if (path / "images").is_dir() and path.name != MADE_FOLDER]
    itself = [(f"{data_root.resolve().name} (the folder itself)", ".")] if (data_root / "images").is_dir() else []
    return [("Made photos", MADE_FOLDER), *itself, *named]


def data_path(data_root: Path, name: str) -> Path:
    """The folder of a choice; only a choice is a folder, so no name leads out of the root."""
    if name not in [path for _, path in data_choices(data_root)]:
        raise DataError(f"{name}: there is no such folder under {data_root.name}; choose another")
    return data_root / name


def prepare_data(data_root: Path, name: str) -> Iterator[str]:
    """Draw the made photos where they are chosen and not there yet; says how far it is."""
    if is_to_be_drawn(data_root, name):
        yield f"Drawing {MADE_NUMBER} made photos, about 10 seconds"
        draw_made_photos(data_root)


def is_to_be_drawn(data_root: Path, name: str) -> bool:
    """Are these the made photos, and not there yet? Raises DataError where `name` is no choice."""
    return not (data_path(data_root, name) / "labels.json").is_file() and name == MADE_FOLDER


def draw_made_photos(data_root: Path, progress: Callable[[int, int], None] | None = None) -> None:
    with _drawing:
        if is_to_be_drawn(data_root, MADE_FOLDER):  # else another visitor's press has drawn them meanwhile
            write_demo_data(data_root / MADE_FOLDER, MADE_NUMBER, progress=progress)


def read_choice(data_root: Path, name: str, reading: Mapping[str, Any] | None = None) -> DataFolder:
    """The folder of a choice, with the settings of READING that differ from their defaults. Raises MtlError."""
    path = data_path(data_root, name)
    _require_own_files(path, reading or {})
    return read_folder(TrainConfig(data_dir=str(path), **(reading or {})))


def unpack_upload(upload: Path, data_root: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Unpack an uploaded zip under the root and return the new choice; the upload goes, whatever comes of it."""
    try:
        return unpack_photos(upload, data_root, progress=progress).name
    finally:
        upload.unlink(missing_ok=True)


# ---- settings


def page_config(
    data_root: Path, name: str, runs_dir: Path, shelf: ModelShelf, settings: Mapping[str, Any]
) -> TrainConfig:
    """The run that Start would begin: a choice of photos with the page's settings. Raises MtlError."""
    folder = data_path(data_root, name)
    return TrainConfig(data_dir=str(folder), output_dir=str(runs_dir), **settle(dict(settings), folder, shelf))


def why_not(config: TrainConfig, checks: DataChecks) -> str | None:
    """Why these settings and photos cannot be trained with, as one line; None where nothing speaks against it.

    Nothing is decoded: unreadable files count where a check of the folder as it is now has found them.
    """
    from mtl.data.generate import require_lesion_photos  # with scipy and scikit-image, for which the page does not wait

    try:
        choose_device(config.device)
        folder = read_folder(config)
        require_trainable(folder, config)
        require_lesion_photos(folder, config)
        if report := checks.report(folder):
            report.require_readable()
    except MtlError as error:
        return str(error)
    return None


def settle(settings: dict[str, Any], folder: Path, shelf: ModelShelf) -> dict[str, Any]:
    """The settings with a model's name as its path; ConfigError where one names a file that is not offered."""
    _require_own_files(folder, settings)
    settled = dict(settings)
    for setting, words in (("init", STARTS), ("generated_masks", MASK_SOURCES)):
        if (name := settings.get(setting, words[0])) not in words:
            settled[setting] = str(_model_path(shelf, setting, name, words))
    return settled


def _require_own_files(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where a setting names a file that does not lie in the data folder."""
    if labels := settings.get("labels"):
        _require_inside(folder, "labels", labels)
    # With a comma they are the names themselves.
    if (classes := settings.get("classes")) and "," not in classes:
        _require_inside(folder, "classes", classes)


def _require_inside(folder: Path, setting: str, name: str) -> None:
    found = {path.name: path for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}
    # A link may lead out of the folder.
    if name not in found or not found[name].resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{setting}: there is no file {name} in {folder.name}; needed the name of a file in it")


def _model_path(shelf: ModelShelf, setting: str, name: str, words: tuple[str, ...]) -> Path:
    try:
        return shelf.path(name)
    except CheckpointError:
        raise ConfigError(f"{setting}: got {name}; needed {', '.join(words)} or the name of a model") from None
