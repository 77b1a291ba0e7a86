"""The two names that the Hub has for a file's content."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Of large files; empty where there is no such file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blob_id_of(path: Path) -> str:
    """Of all others, as Git names them [https://git-scm.com/book/en/v2/Git-Internals-Git-Objects]."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
