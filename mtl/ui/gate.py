"""Events that only some visitors may have: what the page hides from the others must not answer them either."""

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

WhyNot = Callable[[str | None], str]  # the visitor's name on the Hub -> why they may not; empty where they may
PROFILE = "visitor_profile"


def gate(demo: gr.Blocks, since: int, why_not: WhyNot) -> None:
    """The events registered from number `since` on change and tell nothing where there is a reason why not."""
    for number, event in demo.fns.items():
        if number >= since and event.fn is not None:
            event.fn = _gated(event.fn, len(event.outputs), why_not)


def user_of(profile: gr.OAuthProfile | None) -> str | None:
    return profile.username if profile else None


def _gated(function: Callable[..., Any], outputs: int, why_not: WhyNot) -> Callable[..., Any]:
    nothing: Any = [gr.skip()] * outputs if outputs > 1 else gr.skip() if outputs else None

    def call(profile: gr.OAuthProfile | None, *inputs: Any) -> Any:
        return nothing if why_not(user_of(profile)) else function(*inputs)

    def generate(profile: gr.OAuthProfile | None, *inputs: Any) -> Iterator[Any]:
        if why_not(user_of(profile)):
            yield nothing
        else:
            yield from function(*inputs)

    gated: Any = generate if inspect.isgeneratorfunction(function) else call
    # What gradio reads to know which arguments to give besides the inputs.
    own = inspect.Parameter(PROFILE, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    gated.__signature__ = inspect.Signature([own, *inspect.signature(function).parameters.values()])
    hints = typing.get_type_hints(function) if inspect.isroutine(function) else {}
    gated.__annotations__ = {**hints, PROFILE: gr.OAuthProfile | None}
    return gated
