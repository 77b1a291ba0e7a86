"""How gradio is to run an event: what all tabs share."""

from typing import Any

# Nothing covers the page meanwhile, nothing waits for it, and the API does not list it.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}


def in_turn(part: str) -> dict[str, Any]:
    """For events that send a part of the page what has changed since `seen`: one after the other.

    Of two at once, one may be the last to tell the page and the other the last to set `seen`; then the page would keep
    what is out of date. What has changed is sent by two looks: on a slow machine gradio was seen to lose one part of
    an answer.
    """
    return QUIET | {"concurrency_id": part, "concurrency_limit": 1}
