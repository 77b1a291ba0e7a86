"""The model card, README.md: its front matter, which the Hub reads, and its body, which people read."""

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


def write_card(facts: CardFacts, license: str | None = None, own: str | None = None) -> str:
    """README.md: front matter and body. own: the card that stands beside the weights, whose body and entries are kept.

    Raises ConfigError for a licence that the Hub cannot know, HubError where the own card's front matter is damaged.
    """
    if license is not None and not LICENSE.fullmatch(license):
        raise ConfigError(f"license: got {license[:80]!r}; needed one that the Hub lists, such as apache-2.0 or other")
    kept, body = _read_own(own) if own is not None else ({}, None)
    metadata = _merged(_metadata(facts).to_dict(), kept, license)
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10_000)
    if body is None:
        body = write_body(facts, str(metadata.get("license_name") or metadata["license"]))
    return f"---\n{front}---\n{body}"


# ---- the front matter


def _read_own(card: str) -> tuple[dict[str, Any], str]:
    if not card.startswith("---"):
        return {}, f"\n{card}"
    try:
        read = RepoCard(card, ignore_metadata_errors=True)
        return read.data.to_dict(), read.text
    except (ValueError, TypeError, yaml.YAMLError):
        raise HubError(
            "README.md: the front matter of the model's own card cannot be read; repair or remove it"
        ) from None


def _merged(ours: dict[str, Any], kept: dict[str, Any], license: str | None) -> dict[str, Any]:
    """What the own card says wins, except for figures that were measured on these weights and a licence given now."""
    merged = {**_licence(kept, license), **ours}
    merged |= {key: value for key, value in kept.items() if key not in LICENCE_ENTRIES}
    merged["tags"] = list(dict.fromkeys([*_as_list(kept.get("tags")), *TAGS]))
    if "model-index" in ours:
        merged["model-index"] = ours["model-index"]
    return merged


def _licence(kept: dict[str, Any], license: str | None) -> dict[str, Any]:
    if license is not None:
        return {"license": license}
    return {key: kept[key] for key in LICENCE_ENTRIES if key in kept} if "license" in kept else RESEARCH_ONLY


def _as_list(tags: Any) -> list[str]:
    return [str(tag) for tag in tags] if isinstance(tags, list) else [] if tags is None else [str(tags)]


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
    data = one_line(evaluation.get("data") or UNNAMED_DATA)
    split = one_line(evaluation.get("split") or NOT_KNOWN)

    def result(task: str, figure: str, name: str, value: float) -> EvalResult:
        return EvalResult(task, "image-folder", data, figure, round(value, 4), metric_name=name, dataset_split=split)

    for figure, name in MASK_FIGURES.items():
        if (value := figure_at(evaluation, "segmentation", figure)) is not None:
            yield result("image-segmentation", figure, name, value)
    for group in group_names(evaluation):
        for figure, name in CLASS_FIGURES.items():
            if (value := figure_at(evaluation, "classification", "groups", group, figure)) is not None:
                yield result("image-classification", figure, f"{name}, {one_line(group)}", value)
