"""Names of photos as they came, which may hold anything, made fit to be shown and to name files."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import count

# With "_overlay.jpg" and a number behind it at most 255 bytes of UTF-8, the longest name that most disks take.
MAX_STEM_CHARACTERS = 56
KEPT_START = 34  # of a longer one; the rest is kept of its end, where the names of a series differ
SUFFIX = re.compile(r"\.\w{1,5}$")
# Devices on Windows, whatever stands behind a dot; the raised digits count as digits there.
RESERVED = re.compile(r"(con|prn|aux|nul|conin|conout|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)


def printable(text: str) -> str:
    """`text` on one line, without what hides or turns its characters, as bidirectional overrides do."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def safe_names(names: Sequence[str]) -> list[str]:
    """For each file name a stem that a person recognises and any computer accepts as a file's name.

    Letters, marks and digits of any script, spaces, hyphens, underscores, dots and round brackets stay; all else
    becomes a hyphen. No two stems are equal, also where capitals do not count: later ones get "-2" and so on.
    """
    taken: set[str] = set()
    return [_free(_safe_stem(name), taken) for name in names]


def _safe_stem(name: str) -> str:
    file_name = re.split(r"[/\\]", name)[-1]
    visible = "".join(c for c in SUFFIX.sub("", file_name) if unicodedata.category(c) != "Cf")
    composed = unicodedata.normalize("NFC", visible)
    plain = "".join(c if _is_harmless(c) else "-" for c in composed)
    stem = re.sub(r"-{2,}", "-", re.sub(r" {2,}", " ", plain)).strip(" .-")
    return _shortened(f"photo-{stem}" if not stem or RESERVED.fullmatch(stem) else stem).strip(" .-")


def _is_harmless(character: str) -> bool:
    return character in " -_.()" or unicodedata.category(character)[0] in "LMN"


def _shortened(stem: str) -> str:
    if len(stem) <= MAX_STEM_CHARACTERS:
        return stem
    return f"{stem[:KEPT_START]}-{stem[KEPT_START + 1 - MAX_STEM_CHARACTERS :]}"


def _free(stem: str, taken: set[str]) -> str:
    """`stem`, numbered where it is taken; noted as taken."""
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    free = next(candidate for candidate in numbered if _folded(candidate) not in taken)
    taken.add(_folded(free))
    return free


def _folded(stem: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", stem).casefold())
