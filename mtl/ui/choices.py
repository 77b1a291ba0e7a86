"""What a visitor may choose on the Train tab, and what stands behind a choice. No gradio here.

Nothing that is typed there leads out of the chosen data folder: error messages quote what they read.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtl.config import TrainConfig
from mtl.data.demo import write_demo_data
from mtl.data.folder import read_folder
from mtl.errors import CheckpointError, ConfigError, DataError, MtlError
from mtl.ui import views
from mtl.ui.models import ModelShelf

MADE_FOLDER, MADE_NUMBER = "made-photos", 240
STARTS = ("auto", "imagenet", "lite0", "none")

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
    path = data_path(data_root, name)
    if name != MADE_FOLDER or _is_drawn(path):
        return
    yield f"Drawing {MADE_NUMBER} made photos, about 10 seconds"
    with _drawing:
        if not _is_drawn(path):  # else another visitor's press has drawn them meanwhile
            write_demo_data(path, MADE_NUMBER)


def _is_drawn(path: Path) -> bool:
    return (path / "labels.json").is_file()


def describe_data(data_root: Path, name: str) -> str:
    """Counts of the chosen folder, or what is wrong with it; nothing is decoded here."""
    try:
        path = data_path(data_root, name)
        if name == MADE_FOLDER and not _is_drawn(path):
            return views.quiet(f"{MADE_NUMBER} photos with labels and masks, drawn when you press Start")
        return views.data_card(read_folder(TrainConfig(data_dir=str(path))))
    except MtlError as error:
        return views.message("error", "This folder cannot be used", str(error))


# ---- settings that name files


def settle(settings: dict[str, Any], folder: Path, shelf: ModelShelf) -> dict[str, Any]:
    """The settings with a model's name as its path; ConfigError where one names a file that is not offered."""
    settled = dict(settings)
    if labels := settings.get("labels"):
        _require_inside(folder, "labels", labels)
    # With a comma they are the names themselves.
    if (classes := settings.get("classes")) and "," not in classes:
        _require_inside(folder, "classes", classes)
    if (start := settings.get("init", STARTS[0])) not in STARTS:
        settled["init"] = str(_model_path(shelf, start))
    return settled


def _require_inside(folder: Path, setting: str, name: str) -> None:
    found = {path.name: path for path in folder.iterdir() if path.is_file()}
    # A link may lead out of the folder.
    if name not in found or not found[name].resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{setting}: there is no file {name} in {folder.name}; needed the name of a file in it")


def _model_path(shelf: ModelShelf, name: str) -> Path:
    try:
        return shelf.path(name)
    except CheckpointError:
        raise ConfigError(f"init: got {name}; needed {', '.join(STARTS)} or the name of a model") from None
