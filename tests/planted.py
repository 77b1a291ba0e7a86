"""A Hub token planted in the environment of all tests: whatever writes it anywhere fails the test that was running."""

import mmap
import os
from pathlib import Path

# As the Hub's look; put together, so that the sources themselves can be searched for it.
PLANTED_TOKEN = "hf_" + "PlantedForTheTestsOnly".ljust(34, "x")


def files_with(secret: str, folder: Path) -> list[Path]:
    """The files under a folder, links not followed, that hold these characters."""
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    files = (path for path in paths if path.is_file() and not path.is_symlink() and path.stat().st_size)
    return [path for path in files if _holds(path, secret.encode())]


def _holds(path: Path, secret: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(secret) >= 0
