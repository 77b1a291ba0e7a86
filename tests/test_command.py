"""A run's settings as a command line and as a file: both give the same settings back."""

import json
import shlex
import typing
from pathlib import Path
from typing import Any

import pytest
from builders import law
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import ONE_THREAD, tiny_config

from mtl.cli import main, make_parser
from mtl.cli.options import settings_of
from mtl.command import command_line, read_settings, settings_text
from mtl.config import TrainConfig, type_of
from mtl.errors import ConfigError
from mtl.training.run import list_runs

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

TEXTS = {
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:1", "mps"]),
    "name": st.from_regex(r"[\w.-]{0,60}", fullmatch=True),
}
# argparse of Python 3.11 loses a value of exactly "--", and no program can be given a NUL.
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30).filter("--".__ne__)


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Values that a setting may have, and some that it may not."""
    field = TrainConfig.model_fields[name]
    kind = type_of(field)
    if kind is bool:
        return st.booleans()
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind is int:
        return st.integers(0, 100) | st.just(field.default)
    if kind is float:
        return st.floats(0, 1) | st.just(field.default)
    return TEXTS.get(name, ANY_TEXT)


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    """Configurations with up to six settings that differ from their defaults."""
    names = draw(st.lists(st.sampled_from(sorted(TrainConfig.model_fields)), max_size=6, unique=True))
    try:
        return TrainConfig(**{name: draw(values_of(name)) for name in names})
    except ConfigError:
        assume(False)
        raise


def parsed(line: str) -> TrainConfig:
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "mtl", "train"]
    return TrainConfig(**settings_of(make_parser().parse_args(words[3:])))


@law
@given(configs())
def test_the_printed_line_gives_the_same_settings(config: TrainConfig) -> None:
    assert parsed(command_line(config)) == config


@law
@given(configs())
def test_the_saved_file_gives_the_same_settings(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> None:
    file = tmp_path_factory.mktemp("saved") / "settings.json"
    file.write_text(settings_text(config, without=set()), encoding="utf-8")
    assert TrainConfig(**read_settings(file)) == config


def test_only_what_differs_stands_on_the_line() -> None:
    assert command_line(TrainConfig()) == "python -m mtl train"
    line = command_line(TrainConfig(data_dir="my photos", epochs=3, freeze_backbone=True, include="-x", lr=1e-5))
    assert line == ("python -m mtl train --data-dir 'my photos' --include=-x --epochs 3 --lr 1e-05 --freeze-backbone")


def test_what_the_page_sets_by_other_means_is_left_out() -> None:
    saved = json.loads(settings_text(TrainConfig(), without={"data_dir", "output_dir"}))
    assert set(saved) == set(TrainConfig.model_fields) - {"data_dir", "output_dir"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1, 2]", "needed a JSON object"),
        (b'{"train": 3}', "needed a JSON object"),
        (b'{"epochs": 0}', "epochs: got 0"),
        (b'{"epoch": 5}', "epoch: there is no such setting"),
        (b'{"lr": NaN}', "lr: got nan"),
        (b" " * 1_000_001, "larger than any settings file"),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "my settings.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^my settings\.json: .*{told}") as error:
        read_settings(file)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.json: it cannot be read"):
        read_settings(tmp_path / "gone.json")


def test_the_line_and_the_file_train_the_same_run(tiny_data: Path, tmp_path: Path) -> None:
    """What the printed line runs, and what `--config` with the run's own config.json runs, is that run again."""
    config = tiny_config(tiny_data, epochs=1, name="again", output_dir=str(tmp_path / "runs"), rotation_degrees=0.0)
    assert main([*shlex.split(command_line(config))[3:], "--json"]) == 0
    (first,) = list_runs(tmp_path / "runs")
    assert first.settings["train"] == config.model_dump()
    assert main(["train", "--config", str(first.config_file), "--output-dir", str(tmp_path / "more"), "--json"]) == 0
    (second,) = list_runs(tmp_path / "more")
    assert second.config == config.replace(output_dir=str(tmp_path / "more"))
    losses = [[event["val_loss"] for event in run.events() if event["event"] == "epoch"] for run in (first, second)]
    assert losses[0] == losses[1]
