"""How a model on the Hub is named: `hf://owner/name@revision`."""

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
_ADDRESS = re.compile(r"https?://[^/]+/(?P<id>[^/]+/[^/]+)(?:/tree/(?P<revision>.+?))?/?")


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

    revision: wins over the one in the text. Raises HubError where it is no name that a repository can have.
    """
    plain = text.strip().removeprefix(SCHEME)
    if address := _ADDRESS.fullmatch(plain):
        plain = address["id"] + (f"@{address['revision']}" if address["revision"] else "")
    if revision is not None:
        plain = f"{plain.partition('@')[0]}@{revision}"
    found = _REFERENCE.fullmatch(plain)
    if found is None or ".." in plain or "--" in found[1] + found[2]:
        raise HubError(f"{text[:120]}: it names no model on the Hub; needed owner/name or hf://owner/name@revision")
    return HubReference(found[1], found[2], found[3] or DEFAULT_REVISION)
