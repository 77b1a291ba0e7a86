"""The page's words in the visitor's language. The English text is the key; `texts/de.json` holds the German ones."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mtl.analysis import words
from mtl.errors import MtlError
from mtl.photo import OF_FILE

FOLDER = Path(__file__).with_name("texts")
LANGUAGES = ("en", "de")
WANTED = re.compile(r"([a-z]{1,8})(?:-[a-z0-9]{1,8})*(?:\s*;\s*q=([01](?:\.\d{0,3})?))?")  # RFC 9110, 12.5.4


@cache
def translations(language: str) -> Mapping[str, str]:
    """English text -> text of that language; empty for English."""
    path = FOLDER / f"{language}.json"
    return json.loads(path.read_text(encoding="utf-8")) if language != "en" else {}


@dataclass(frozen=True)
class Words:
    """Looks texts up, and writes numbers as that language does."""

    language: str = "en"

    def __call__(self, text: str, **values: object) -> str:
        """`text` in this language, its {placeholders} filled; what has no translation stays English."""
        translated = translations(self.language).get(text, text)
        return translated.format(**values) if values else translated

    def told(self, error: MtlError) -> str:
        """An error's line, each of its parts translated; without the file's name, which the page shows beside it."""
        line = "; ".join(self(part) for part in error.text.removeprefix(OF_FILE).split("; "))
        return line.format(**error.values) if error.values else line

    def number(self, value: float, digits: int = 0) -> str:
        """1234.5 -> "1,234.5", in German "1.234,5"."""
        return words.number(value, digits, self)

    def percent(self, share: float, digits: int = 0) -> str:
        """0.042 -> "4.2 %"."""
        return words.percent(share, digits, self)


def words_for(accept_language: str | None) -> Words:
    """The language that the browser's list wants most, of two that it wants as much the first; else English."""
    best, most = "en", 0.0
    for part in (accept_language or "").lower().split(","):
        wanted = WANTED.fullmatch(part.strip())
        if wanted and wanted[1] in LANGUAGES and (weight := float(wanted[2] or 1)) > most:
            best, most = wanted[1], weight
    return Words(best)
