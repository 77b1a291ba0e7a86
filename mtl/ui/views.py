"""Banners and empty places that all tabs share: words in, HTML out. Everything a person typed is escaped."""

from html import escape


def message(kind: str, headline: str, text: str = "") -> str:
    """A banner; kind is error, good or quiet."""
    return f'<div class="mtl-message {kind}" role="status"><b>{escape(headline)}</b>{escape(text)}</div>'


def empty(headline: str, text: str) -> str:
    return f'<div class="mtl-empty"><b>{escape(headline)}</b>{escape(text)}</div>'


def quiet(text: str) -> str:
    return f'<div class="mtl-card"><p class="mtl-quiet">{escape(text)}</p></div>'
