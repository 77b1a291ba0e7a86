"""What the README prints is true: its commands parse, its Python runs, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from mtl.cli import make_parser
from mtl.ui.choices import MADE_NUMBER

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for line in README.splitlines() if line.startswith("python -m mtl")]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command: str) -> None:
    make_parser().parse_args(shlex.split(command, comments=True)[3:])


def test_every_verb_is_shown() -> None:
    shown = {command.split()[3] for command in COMMANDS}
    assert shown == {
        "train",
        "predict",
        "evaluate",
        "check-data",
        "demo-data",
        "runs",
        "export",
        "average",
        "push",
        "pull",
    }


def test_two_setup_commands() -> None:
    setups = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert [setup.rpartition("bin/")[2] for setup in setups] == ["python app.py", "python -m tests"]


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_number_of_made_photos() -> None:
    assert f"{MADE_NUMBER} made photos" in README


def test_python_names_are_exported() -> None:
    import mtl

    for line in re.findall(r"^from mtl import (.+)$", README, re.MULTILINE):
        for name in line.split(", "):
            assert getattr(mtl, name)
