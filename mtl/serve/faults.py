"""Mends gradio's answers to requests that it stumbles over, and what an answer becomes where nobody foresaw a fault."""

import json
import logging
from types import TracebackType
from typing import Any

from gradio.route_utils import FnIndexInferError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtl.serve.answers import refusal

log = logging.getLogger(__name__)

# What is raised where a request has not the fields, names or types that are read out of it.
MALFORMED = (LookupError, ValueError, TypeError, AttributeError)


class Faults:
    """An exception's traceback goes to the log of the server, and nothing of it to the client.

    gradio reads some requests without a look at their form: where it stumbles before any function of ours is reached,
    the request is at fault.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = whole = False

        async def watched(message: Message) -> None:
            nonlocal started, whole
            started, whole = True, message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or (started and not isinstance(error.__cause__, HTTPException)):
                raise  # the server cuts the connection, and writes it down
            if not started:
                await _refusal(error)(scope, receive, send)
            elif not whole:  # a stream of events that has told of its error
                await send({"type": "http.response.body", "body": b""})


def _refusal(error: Exception) -> ASGIApp:
    if isinstance(error, FnIndexInferError):
        return refusal(404, "not_found", "there is no endpoint of that name")
    if isinstance(error, MALFORMED) and not _is_ours(error.__traceback__):
        return refusal(400, "malformed", "the request has not the form that is read here")
    log.error("a request could not be answered", exc_info=error)
    return refusal(500, "fault", "a fault of this program; the log of the server has it")


def _is_ours(trace: TracebackType | None) -> bool:
    """Whether a function of this package, beside the guards, was at work."""
    while trace:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.startswith("mtl.") and not name.startswith("mtl.serve."):
            return True
        trace = trace.tb_next
    return False


class Nothing:
    """gradio answers 200 to an upload without a file, and to a question for an event that there is not."""

    def __init__(self, app: ASGIApp, upload: str, event: str):
        self._app, self._upload, self._event = app, upload, event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith((self._upload, self._event)):
            return await self._app(scope, receive, send)
        held: Message | None = None
        refused = False

        async def second_thoughts(message: Message) -> None:
            nonlocal held, refused
            if message["type"] == "http.response.start" and message["status"] == 200:
                held = message
            elif held and (answer := self._refusal(scope["path"], message.get("body", b""))):
                held, refused = None, True
                await answer(scope, receive, send)
            elif not refused:
                if held:
                    await send(held)
                    held = None
                await send(message)

        return await self._app(scope, receive, second_thoughts)

    def _refusal(self, path: str, begin: bytes) -> ASGIApp | None:
        if path == self._upload and begin == b"[]":
            return refusal(400, "no_file", "no file came; send at least one as files")
        if path.startswith(self._event) and begin.startswith(b"event: error") and b"404" in begin[:40]:
            return refusal(404, "not_found", "there is no such event")
        return None


class Errands:
    """Refuses events that name a web address as a file: gradio would fetch it, for anybody, from here."""

    def __init__(self, app: ASGIApp, paths: tuple[str, ...]):
        self._app, self._paths = app, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(self._paths):
            return await self._app(scope, receive, send)
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect":
                return None
            if not message.get("more_body", False):
                break
        if _sends_out(body):
            answer = refusal(400, "web_address", "a file is named by a web address; upload the file itself")
            return await answer(scope, receive, send)

        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        return await self._app(scope, again, send)


def _sends_out(body: bytearray) -> bool:
    """Whether anything in this JSON has a web address as its `path`. Read as gradio will read it."""
    try:
        waiting: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if str(value.get("path", "")).startswith(("http://", "https://")):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False
