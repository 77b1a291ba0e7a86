"""How a model on the Hub is named: `hf://owner/name@revision`."""

import os
import re
from dataclasses import dataclass
from urllib.parse import quote

from mtl.errors import HubError

SCHEME = "hf://"
DEFAULT_REVISION = "main"
# The Hub's own rules: letters, digits, "-", "_", "."; 96 characters a part.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REVISION = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,254}[A-Za-z0-9])?"
_REFERENCE = re.compile(rf"({_PART})/({_PART})(?:@({_REVISION}))?")
_HUBS = ("https://huggingface.co", "https://hf.co")
_PAGE = re.compile(r"/(?P<id>[^/]+/[^/]+)(?:/tree/(?P<revision>.+?))?/?")


@dataclass(frozen=True)
class HubReference:
    """A model repository at a revision: a branch, a tag or a commit."""

    owner: str
    name: str
    revision: str = DEFAULT_REVISION

    @property
    def repo_id(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def folder_name(self) -> str:
        """The folder that it is pulled to: no part of it leads out of the folder above."""
        return f"{self.owner}--{self.name}@{quote(self.revision, safe='')}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo_id}@{self.revision}"


def is_reference(source: object) -> bool:
    return isinstance(source, str) and source.startswith(SCHEME)


def parse_reference(text: str, revision: str | None = None) -> HubReference:
    """Read `hf://owner/name[@revision]`, the same without `hf://`, or the address of its page on the Hub.

    The Hub is huggingface.co, or $HF_ENDPOINT. revision: wins over the one in the text. Raises HubError where it is no
    name that a repository can have.
    """
    plain = text.strip().removeprefix(SCHEME)
    if page := _page(plain):
        plain = page["id"] + (f"@{page['revision']}" if page["revision"] else "")
    if revision is not None:
        plain = f"{plain.partition('@')[0]}@{revision}"
    found = _REFERENCE.fullmatch(plain)
    if found is None or ".." in plain or "--" in found[1] + found[2]:
        raise HubError(f"{text[:120]}: it names no model on the Hub; needed owner/name or hf://owner/name@revision")
    return HubReference(found[1], found[2], found[3] or DEFAULT_REVISION)


def _page(address: str) -> re.Match[str] | None:
    """Owner, name and revision in the address of a page on the Hub."""
    own = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    hubs = [hub for hub in (*_HUBS, own) if hub and address.startswith(f"{hub}/")]
    return _PAGE.fullmatch(address.removeprefix(hubs[0])) if hubs else None
