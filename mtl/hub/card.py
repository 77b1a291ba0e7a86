"""The model card, README.md: its front matter, which the Hub reads, and its body, which people read."""

import hashlib
import logging
import re
from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData, RepoCard

from mtl.errors import ConfigError, HubError
from mtl.hub.card_body import (
    CLASS_FIGURES,
    MASK_FIGURES,
    NOT_KNOWN,
    UNNAMED_DATA,
    CardFacts,
    figure_at,
    group_names,
    one_line,
    write_body,
)

LIBRARY = "mtl"
TAGS = [
    "image-classification",
    "image-segmentation",
    "dermatology",
    "multi-task",
    "efficientnet",
    "unet",
    "safetensors",
]
RESEARCH_ONLY = {"license": "other", "license_name": "research-only"}
LICENCE_ENTRIES = ("license", "license_name", "license_link")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")  # the form of the Hub's identifiers
MAX_TAGS, MAX_TAG = 30, 60  # of an own card; characters
REVISION = re.compile(r"revision `([0-9a-f]{12})`")
# Ends a body that this program wrote; what a person changed in it has another digest.
WRITTEN = "<!-- written by mtl, {digest}: change a word, and the text stays with these weights as you wrote it -->\n"

log = logging.getLogger(__name__)


def write_card(facts: CardFacts, license: str | None = None, own: str | None = None) -> str:
    """README.md: front matter and body. own: the card that stands beside the weights.

    What a person wrote there on these weights is kept, but for figures in its front matter; of a card that this program
    wrote, or that names other weights, only licence and tags. Raises ConfigError for a licence that the Hub cannot
    know, or other than that of a person's card; HubError where the own card's front matter is damaged.
    """
    if license is not None and not LICENSE.fullmatch(license):
        raise ConfigError(f"license: got {license[:80]!r}; needed one that the Hub lists, such as apache-2.0 or other")
    kept, body = _read_own(own) if own is not None else ({}, None)
    if body is not None and not _is_a_persons(body, facts.checkpoint.revision):
        kept, body = {key: kept[key] for key in (*LICENCE_ENTRIES, "tags") if key in kept}, None
    if body is not None and license not in (None, kept.get("license", license)):
        raise ConfigError(
            f"license: got {license}; the model's own README.md says {one_line(kept['license'])}: change it there, or "
            "leave license out"
        )
    metadata = _merged(_metadata(facts).to_dict(), kept, license)
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10_000)
    if body is None:
        body = _signed(write_body(facts, str(metadata.get("license_name") or metadata["license"])))
    return f"---\n{front}---\n{body}"


def _signed(body: str) -> str:
    return f"{body}\n{WRITTEN.format(digest=hashlib.sha256(body.encode()).hexdigest()[:12])}"


def _is_a_persons(body: str, revision: str) -> bool:
    """Did a person write or change it, and does it name no weights but these?"""
    if body == _signed(body.rpartition("\n<!-- ")[0]):
        return False
    others = set(REVISION.findall(body)) - {revision}
    if others:
        log.warning("README.md is written anew: it is about the weights %s, these are %s", min(others), revision)
    return not others


# ---- the front matter


def _read_own(card: str) -> tuple[dict[str, Any], str]:
    if not card.startswith("---"):
        return {}, f"\n{card}"
    try:
        read = RepoCard(card, ignore_metadata_errors=True)
        return _entries(read.data.to_dict()), read.text
    except (ValueError, TypeError, yaml.YAMLError):
        raise HubError(
            "README.md: the front matter of the model's own card cannot be read; repair or remove it"
        ) from None


def _entries(own: dict[str, Any]) -> dict[str, Any]:
    """Of an own card: no figures, and plain texts. In YAML, a few lines can stand for gigabytes of lists in lists."""
    own.pop("model-index", None)
    for key in LICENCE_ENTRIES:
        if not isinstance(own.get(key), str):
            own.pop(key, None)
    tags = own.get("tags")
    given = tags if isinstance(tags, list) else [tags]
    own["tags"] = [tag for tag in given[:MAX_TAGS] if isinstance(tag, str) and len(tag) <= MAX_TAG]
    return own


def _merged(ours: dict[str, Any], kept: dict[str, Any], license: str | None) -> dict[str, Any]:
    """What the own card says wins, except for a licence given now."""
    merged = {**_licence(kept, license), **ours}
    merged |= {key: value for key, value in kept.items() if key not in LICENCE_ENTRIES}
    merged["tags"] = list(dict.fromkeys([*kept.get("tags", []), *TAGS]))
    return merged


def _licence(kept: dict[str, Any], license: str | None) -> dict[str, Any]:
    if license not in (None, kept.get("license")):
        return {"license": license}
    return {key: kept[key] for key in LICENCE_ENTRIES if key in kept} if "license" in kept else RESEARCH_ONLY


def _metadata(facts: CardFacts) -> ModelCardData:
    results = list(_results(facts.evaluation)) if facts.evaluation else []
    name = facts.repo_id.partition("/")[2] if facts.repo_id else LIBRARY
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag="image-segmentation",
        tags=TAGS,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _results(evaluation: dict[str, Any]) -> Iterator[EvalResult]:
    """model-index: one entry a figure that was measured."""
    split = one_line(evaluation.get("split") or NOT_KNOWN)

    def result(task: str, figure: str, name: str, value: float) -> EvalResult:
        return EvalResult(
            task, "image-folder", UNNAMED_DATA, figure, round(value, 4), metric_name=name, dataset_split=split
        )

    for figure, name in MASK_FIGURES.items():
        if (value := figure_at(evaluation, "segmentation", figure)) is not None:
            yield result("image-segmentation", figure, name, value)
    for group in group_names(evaluation):
        for figure, name in CLASS_FIGURES.items():
            if (value := figure_at(evaluation, "classification", "groups", group, figure)) is not None:
                yield result("image-classification", figure, f"{name}, {one_line(group)}", value)
