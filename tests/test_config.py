"""Settings: what is written comes back, what is wrong is named in one line, what is made stays as it is."""

import json
import types
import typing
from typing import Any

import annotated_types as bounds
import pytest
from builders import law
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mtl.config import Classes, ModelConfig, Settings, TrainConfig
from mtl.errors import ConfigError

# Texts whose spelling is checked by more than a bound.
SPELLED = {
    "device": st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:1"]),
    "name": st.from_regex(r"\A[\w.-]{0,60}\Z"),
}


def values_of(field: FieldInfo) -> st.SearchStrategy[Any]:
    """Everything that a setting may be, drawn from its own definition."""
    kinds = typing.get_args(field.annotation) if isinstance(field.annotation, types.UnionType) else (field.annotation,)
    return st.one_of([_values(kind, field.metadata) for kind in kinds])


def _values(kind: Any, limits: list[Any]) -> st.SearchStrategy[Any]:
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind is int:
        return _integers(limits)
    if kind is float:
        return _floats(limits)
    if kind is str:
        return st.text()
    return st.booleans() if kind is bool else st.none()


def _limit(limits: list[Any], kind: type, name: str) -> Any:
    return next((getattr(limit, name) for limit in limits if isinstance(limit, kind)), None)


def _integers(limits: list[Any]) -> st.SearchStrategy[int]:
    low, high, below = (_limit(limits, kind, kind.__name__.lower()) for kind in (bounds.Ge, bounds.Le, bounds.Lt))
    step = _limit(limits, bounds.MultipleOf, "multiple_of") or 1
    high = below - 1 if below is not None else high
    return st.integers(low // step, high and high // step).map(lambda number: step * number)


def _floats(limits: list[Any]) -> st.SearchStrategy[float]:
    at_least, above = _limit(limits, bounds.Ge, "ge"), _limit(limits, bounds.Gt, "gt")
    at_most, below = _limit(limits, bounds.Le, "le"), _limit(limits, bounds.Lt, "lt")
    return st.floats(
        min_value=at_least if above is None else above,
        max_value=at_most if below is None else below,
        exclude_min=above is not None,
        exclude_max=below is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def settings_of(kind: type[Settings], *left_out: str) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: values_of(field) for name, field in kind.model_fields.items() if name not in left_out}
    fields |= {name: values for name, values in SPELLED.items() if name in fields}
    return st.fixed_dictionaries({}, optional=fields)


def can_be_combined(values: dict[str, Any]) -> bool:
    """What the settings refuse together, as their help says it."""
    weights = [values.get("classification_weight", 1), values.get("segmentation_weight", 1)]
    frozen, balancing = values.get("freeze_backbone", False), values.get("balancing", "fixed")
    if not any(weights) or (values.get("unfreeze_after_epochs", 0) and not frozen):
        return False
    start, side = values.get("start_image_size", 0), values.get("image_size", 224)
    if start and not 64 <= start <= side:
        return False
    if balancing == "upgrad" and (frozen or values.get("accumulate", 1) > 1):
        return False
    return balancing == "fixed" or all(weights)


def class_groups() -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    letters = st.text("abcdefgh", min_size=1, max_size=3)
    names = st.lists(letters, min_size=2, max_size=8, unique=True)
    return names.flatmap(
        lambda drawn: st.integers(0, len(drawn) - 1).map(
            lambda cut: {"one": tuple(drawn[:cut]), "two": tuple(drawn[cut:])} if cut else {"one": tuple(drawn)}
        )
    )


def through_json(config: Settings) -> Settings:
    return type(config)(**json.loads(json.dumps(config.model_dump(mode="json"))))


@law
@given(settings_of(TrainConfig).filter(can_be_combined))
def test_train_config_survives_json(values: dict[str, Any]) -> None:
    config = TrainConfig(**values)
    assert through_json(config) == config
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@law
@given(settings_of(ModelConfig, "classes", "class_counts", "unnamed_groups"), class_groups(), st.data())
def test_model_config_survives_json(values: dict[str, Any], groups: dict[str, tuple[str, ...]], data: Any) -> None:
    classes = Classes(groups=groups)
    count = len(classes.names)
    counts = data.draw(st.none() | st.tuples(*[st.integers(0, 10**6)] * count))
    unnamed = data.draw(st.lists(st.sampled_from([*groups])))
    config = ModelConfig(classes=classes, class_counts=counts, unnamed_groups=unnamed, **values)
    assert through_json(config) == config
    assert config.num_classes_classification == len(config.trained) == count


@pytest.mark.parametrize("config", [TrainConfig(), ModelConfig(), Classes()])
def test_a_made_config_is_frozen(config: Settings) -> None:
    for name in type(config).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(config, name, getattr(config, name))


def test_replace_checks_and_leaves_the_first_alone() -> None:
    config = TrainConfig(epochs=3)
    assert config.replace(lr=0.1) == TrainConfig(epochs=3, lr=0.1)
    with pytest.raises(ConfigError, match="lr"):
        config.replace(lr=0)
    assert config == TrainConfig(epochs=3)


WRONG: list[tuple[type[Settings], dict[str, Any], str]] = [
    (TrainConfig, {"lr": -0.001}, "lr: got -0.001; input should be greater than 0"),
    (TrainConfig, {"lr": float("nan")}, "lr: got nan; input should be a finite number"),
    (TrainConfig, {"epochs": 0}, "epochs: got 0; input should be greater than or equal to 1"),
    (TrainConfig, {"epochs": "many"}, "epochs: got 'many'"),
    (TrainConfig, {"epochs": 2.5}, "epochs: got 2.5"),
    (TrainConfig, {"val_fraction": 1}, "val_fraction: got 1; input should be less than 1"),
    (TrainConfig, {"image_size": 100}, "image_size: got 100; input should be a multiple of 32"),
    (TrainConfig, {"flip": 1.5}, "flip: got 1.5"),
    (
        TrainConfig,
        {"unfreeze_after_epochs": 2},
        "unfreeze_after_epochs needs freeze_backbone; turn that on, or set it to 0",
    ),
    (TrainConfig, {"schedule": "linear"}, "schedule: got 'linear'; input should be 'plateau', 'cosine' or 'one-cycle'"),
    (TrainConfig, {"device": "tpu"}, "device: got 'tpu'"),
    (TrainConfig, {"name": "a/../b"}, "name: got 'a/../b'"),
    (TrainConfig, {"learning_rate": 0.1}, "learning_rate: there is no such setting"),
    (TrainConfig, {"two\nlines": 0.1}, "there is no such setting"),
    (TrainConfig, {"data_dir": "a\nb", "lr": "a\nb"}, "lr: got"),
    (TrainConfig, {"classification_weight": 0, "segmentation_weight": 0}, "at least one must be above 0"),
    (ModelConfig, {"class_counts": (1, 2, 3)}, "class_counts: 3 counts for 10 classes"),
    (ModelConfig, {"class_counts": (-1,) * 10}, "class_counts.0: got -1"),
    (ModelConfig, {"unnamed_groups": ("skin type", "mood")}, "unnamed_groups: got 'mood'; needed of skin type, hair"),
    (ModelConfig, {"num_classes_segmentation": 2}, "num_classes_segmentation: got 2; input should be 1"),
    (ModelConfig, {"temperature": float("inf")}, "temperature: got inf"),
    (ModelConfig, {"temperature": 1e-320}, "temperature: got 1e-320"),
    (ModelConfig, {"temperature": 101}, "temperature: got 101"),
    (ModelConfig, {"classes": {"groups": {"mood": ("calm",)}}}, "at least two classes are needed"),
    (Classes, {"groups": {"mood": ("calm",)}}, "groups: got {'mood': ('calm',)}; at least two classes are needed"),
    (Classes, {"groups": {}}, "at least two classes are needed"),
    (Classes, {"groups": {"mood": ("calm", "Calm")}}, "two classes have the same name"),
    (Classes, {"groups": {"mood": ("calm", "calm ")}}, "two classes have the same name"),
    (Classes, {"groups": {"mood": ("calm", "sad"), "size": ()}}, "a group has no class"),
    (Classes, {"groups": {"mood": ("calm", "None")}}, "'none' cannot be a class name"),
    (Classes, {"groups": {"mood": ("calm", 3)}}, "groups.mood.1: got 3"),
]


@pytest.mark.parametrize(("kind", "values", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_what_is_wrong_is_named_in_one_line(kind: type[Settings], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        kind(**values)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@law
@example("unfreeze_after_epochs", 1.0)
@given(st.sampled_from(sorted(TrainConfig.model_fields)), st.floats() | st.text() | st.none() | st.lists(st.integers()))
def test_any_value_is_taken_or_refused_by_name(name: str, value: Any) -> None:
    try:
        TrainConfig(**{name: value})
        return
    except ConfigError as error:
        message = str(error)
    # "name: got ...", or what it cannot be combined with.
    assert message.startswith(name)
    assert message.isprintable()


def test_every_setting_has_help_and_a_default_within_its_bounds() -> None:
    defaults = {name: field.default for name, field in TrainConfig.model_fields.items()}
    assert TrainConfig(**defaults) == TrainConfig()
    assert all(field.description for field in TrainConfig.model_fields.values())


@law
@given(class_groups())
def test_class_ids_count_through_the_groups(groups: dict[str, tuple[str, ...]]) -> None:
    classes = Classes(groups=groups)
    assert [class_id for ids in classes.group_ids.values() for class_id in ids] == list(range(len(classes.names)))
    for group, ids in classes.group_ids.items():
        assert tuple(classes.names[class_id] for class_id in ids) == groups[group]
    assert [classes.id_of(f" {name.upper()} ") for name in classes.names] == list(range(len(classes.names)))


def test_aliases_stand_for_their_class_unless_they_are_one() -> None:
    assert Classes().id_of("Kinky") == Classes().id_of("coily") == 8
    assert Classes().id_of("bald") is None
    assert Classes(groups={"hair": ("coily", "kinky")}).id_of("kinky") == 1
    assert Classes(groups={"hair": ("straight", "curly")}).id_of("kinky") is None
    assert Classes(groups={"hair": (" straight ", "curly")}).id_of("straight") == 0


def test_classes_without_photos_are_not_trained() -> None:
    assert ModelConfig(class_counts=(3, 0, *(1,) * 8)).trained == (True, False, *(True,) * 8)
    assert ModelConfig(class_counts=(0,) * 10).trained == (False,) * 10
    assert ModelConfig().trained == (True,) * 10
