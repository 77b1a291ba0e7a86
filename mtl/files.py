"""Writing a file so that a reader sees the old one or the new one, never half of it."""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from mtl.errors import DiskFullError

REPLACE_SECONDS = 2.0
FULL_BYTES = 1_000_000  # a disk with less left is full


def is_full(folder: Path, error: Exception) -> bool:
    """Did writing into this folder fail for want of space? PyTorch's writer says only that it failed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, OSError | RuntimeError) and folder.is_dir() and shutil.disk_usage(folder).free < FULL_BYTES


def write_atomically(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let `write` fill a file beside `path`, which then takes its place; `durable`: it has reached the disk first."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(temporary)
        if durable:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o644)
        _replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # Before the temporary file goes, and makes room again.
        if is_full(path.parent, error):
            raise DiskFullError(f"{path.name}: no space left on the disk; free some, the old file is whole") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write UTF-8 text."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), durable=durable)


def keep_copy(path: Path, copy: Path) -> None:
    """The file as it is now, under another name; it takes no space until `path` is replaced by another."""
    write_atomically(copy, lambda temporary: _link_or_copy(path, temporary))


def _link_or_copy(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # a file system without links
        shutil.copyfile(path, copy)


def _replace(temporary: Path, path: Path) -> None:
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            # Windows refuses while somebody reads the old file, which the page does each second.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
