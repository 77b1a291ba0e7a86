"""What the page hides from a visitor does not answer them either."""

import inspect
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
from gradio.helpers import special_args

from mtl.place import Place
from mtl.ui.gate import gate

OWNER, STRANGER = (
    gr.OAuthProfile({"name": name, "preferred_username": name, "profile": "", "picture": ""}) for name in ("Ada", "eve")
)


def one(name: str, request: gr.Request) -> str:
    return f"{name} {request is not None}"


def two(event: gr.EventData, name: str) -> tuple[str, str]:
    return name, name


def stream(*names: str) -> Iterator[str]:
    yield from names


def quiet(name: str) -> None:
    raise AssertionError


@pytest.fixture
def events() -> list[Any]:
    with gr.Blocks() as demo:
        box, other = gr.Textbox(), gr.Textbox()
        box.change(lambda name: name, box, box)  # before the gate: open to all
        first = len(demo.fns)
        box.change(one, box, box)
        box.change(two, box, [box, other])
        box.change(stream, [box, other], box)
        box.change(quiet, box, None)
        box.change(None, None, box, js="() => ''")
        gate(demo, first, Place(space_id="ada/skin").why_no_training)
    return list(demo.fns.values())


def call(event: Any, profile: gr.OAuthProfile | None, *inputs: str) -> Any:
    """As gradio does: with what the signature asks for beside the inputs."""
    given, _, place, _ = special_args(event.fn, list(inputs), request=None, event_data=gr.EventData(None, {}))
    assert given[0] is None  # the profile: nobody is signed in without a session
    given[0] = profile
    if place is not None:
        given[place] = gr.EventData(None, {})
    result = event.fn(*given)
    return list(result) if inspect.isgenerator(result) else result


@pytest.mark.parametrize("profile", [None, STRANGER])
def test_strangers_change_and_learn_nothing(events: list[Any], profile: gr.OAuthProfile | None) -> None:
    skip = gr.skip()
    assert call(events[1], profile, "a") == skip
    assert call(events[2], profile, "a") == [skip, skip]
    assert call(events[3], profile, "a", "b") == [skip]
    assert call(events[4], profile, "a") is None


def test_the_owner_is_answered(events: list[Any]) -> None:
    assert call(events[1], OWNER, "a") == "a False"
    assert call(events[2], OWNER, "a") == ("a", "a")
    assert call(events[3], OWNER, "a", "b") == ["a", "b"]


def test_what_came_before_is_open_and_what_runs_in_the_browser_stays(events: list[Any]) -> None:
    assert events[0].fn("a") == "a"
    assert events[5].fn is None
