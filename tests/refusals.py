"""`python tests/refusals.py PHOTO FILE...`: how each file is refused as a checkpoint; one JSON object a line.

In a process of its own: a file that crashed it or ran code would be seen from outside.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mtl.api import DEFAULT_CHECKPOINT, MultiTaskModel
from mtl.checkpoint import read_checkpoint
from mtl.cli import main
from mtl.errors import MtlError

# A file comes under its own name, or in the place of either file of weights in a folder.
GUISES = ("", "model.safetensors", "multitask_best.pth")


def disguise(file: Path, guise: str, folder: Path) -> Path:
    """What is given as the checkpoint; beside weights lies a config that is sound."""
    if not guise and file.suffix != ".safetensors":
        return file
    folder.mkdir()
    shutil.copy(DEFAULT_CHECKPOINT / "config.json", folder)
    (folder / (guise or "model.safetensors")).symlink_to(file)
    return folder


def by_reader(path: Path, photo: str) -> str:
    return refusal(lambda: read_checkpoint(path).network())


def by_model(path: Path, photo: str) -> str:
    return refusal(lambda: MultiTaskModel.load(path, "cpu"))


def refusal(load: Callable[[], object]) -> str:
    try:
        load()
    except MtlError as error:
        return str(error)
    return ""


def by_command_line(path: Path, photo: str) -> str:
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        status = main(["predict", photo, "--checkpoint", str(path), "--device", "cpu"])
    return told.getvalue().removesuffix("\n") if status == 1 else ""


def judge(photo: str, file: Path) -> None:
    for guise in GUISES:
        for way in (by_reader, by_model, by_command_line):
            with tempfile.TemporaryDirectory() as folder:
                path = disguise(file, guise, Path(folder) / "checkpoint")
                begin = time.perf_counter()
                message = way(path, photo)
                seconds = time.perf_counter() - begin
            kind = f"{way.__name__} {guise}".strip()
            print(json.dumps({"file": str(file), "way": kind, "message": message, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    # Not before: some libraries look for others with `ldconfig` when they are imported.
    os.environ["MTL_REFUSE"] = "programs"
    for name in sys.argv[2:]:
        judge(sys.argv[1], Path(name))
