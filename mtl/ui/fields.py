"""One component for each setting, made from its definition: label, default, bounds and help come from mtl.config."""

import math
import typing
from typing import Any

import gradio as gr
from pydantic.fields import FieldInfo

from mtl.config import TrainConfig, section_of, type_of

SettingField = gr.Checkbox | gr.Dropdown | gr.Number | gr.Textbox
# What the page sets by other means.
ELSEWHERE = {"data_dir", "output_dir", "cache_dir"}


def setting_names(section: str) -> list[str]:
    """The settings of a section, in the order of their definition."""
    return [
        name
        for name, field in TrainConfig.model_fields.items()
        if name not in ELSEWHERE and section_of(field) == section
    ]


def make_field(name: str, **overrides: Any) -> SettingField:
    """The component of a setting; `overrides` go to it as they are."""
    field = TrainConfig.model_fields[name]
    common = {
        "label": label_of(name),
        "info": f"{field.description}{_bounds(field)}",
        "value": field.default,
        "elem_id": f"setting-{name}",
    } | overrides
    kind = type_of(field)
    if kind is bool:
        return gr.Checkbox(**common)
    if typing.get_origin(kind) is typing.Literal:
        return gr.Dropdown(choices=list(typing.get_args(kind)), **common)
    if field.examples:
        return gr.Dropdown(choices=field.examples, allow_custom_value=True, **common)
    if kind in (int, float):
        # Neither rounded nor bounded here: the configuration says what is wrong with a value, and says it once.
        return gr.Number(step=_step(field, kind), **common)
    return gr.Textbox(max_lines=1, **{**common, "value": common["value"] or ""})


def to_settings(names: list[str], values: typing.Sequence[Any]) -> dict[str, Any]:
    """What the components hold, as keyword arguments of TrainConfig; an emptied one means its default."""
    given = dict(zip(names, values, strict=True))
    return {name: value for name, value in given.items() if value is not None and value != ""}


def to_values(names: list[str], config: TrainConfig) -> list[Any]:
    """What the components are to hold for these settings: the way back of `to_settings`."""
    return ["" if (value := getattr(config, name)) is None else value for name in names]


def with_chosen(choices: list[tuple[str, str]], chosen: str) -> list[tuple[str, str]]:
    """The choices of a Dropdown with what is chosen now among them, also where it is gone: gradio refuses others."""
    return choices if chosen in [value for _, value in choices] else [*choices, (f"{chosen} (gone)", chosen)]


def label_of(name: str) -> str:
    """A setting's label."""
    return TrainConfig.model_fields[name].title or name.replace("_", " ").capitalize()


def _step(field: FieldInfo, kind: type) -> float:
    """What one press of an arrow key changes: a tenth of the default's size."""
    if kind is int:
        return _bound(field, "multiple_of") or 1
    return 10 ** math.floor(math.log10(abs(field.default))) if field.default else 0.1


def _bounds(field: FieldInfo) -> str:
    """ "; 1 to 100,000", "; above 0, at most 10", or nothing."""
    low, above = _bound(field, "ge"), _bound(field, "gt")
    high, below = _bound(field, "le"), _bound(field, "lt")
    if low is not None and high is not None:
        return f"; {_plain(low)} to {_plain(high)}"
    words = {"at least": low, "above": above, "at most": high, "below": below}
    said = ", ".join(f"{word} {_plain(bound)}" for word, bound in words.items() if bound is not None)
    return f"; {said}" if said else ""


def _plain(number: float) -> str:
    return f"{number:,.10g}"


def _bound(field: FieldInfo, name: str) -> float | None:
    """A bound of the setting's definition: ge, gt, le, lt or multiple_of."""
    return next((getattr(bound, name) for bound in field.metadata if hasattr(bound, name)), None)
