"""A page with the program's doors, really launched: REST and the endpoint for gradio's client."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gradio as gr
import uvicorn
from starlette.applications import Starlette

from mtl.api import MultiTaskModel
from mtl.errors import CheckpointError
from mtl.serve.answer import Models
from mtl.serve.rest import ANALYZE, RestLimits, rest_routes
from mtl.ui.endpoint import add_endpoint
from mtl.ui.launch import launch


class Shelf:
    """Models by name; one that is None cannot be loaded."""

    def __init__(self, models: Mapping[str, MultiTaskModel | None]):
        self._models = dict(models)

    @property
    def first(self) -> str:
        return next(iter(self._models))

    def names(self) -> list[str]:
        return list(self._models)

    def get(self, name: str) -> MultiTaskModel:
        model = self._models.get(name)
        if model is None:
            raise CheckpointError(f"/secret/{name}: there is no such checkpoint")
        return model


def bare_page(models: Models) -> gr.Blocks:
    """A page with nothing but the endpoint."""
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.HTML("page")
        add_endpoint(models)
    return demo


@contextmanager
def serving(models: Models, page: Callable[[], gr.Blocks] | None = None, **options: Any) -> Iterator[str]:
    """Its address, without a slash at the end. page: builds it, unset: a bare one; `options` as for `launch`."""

    # Where no event loop runs, gradio makes some for its locks and leaves them unclosed.
    async def start() -> tuple[gr.Blocks, str]:
        demo = page() if page else bare_page(models)
        return demo, launch(demo, "127.0.0.1", 0, models=models, block=False, **options)

    demo, url = asyncio.run(start())
    try:
        yield url.rstrip("/")
    finally:
        demo.close()


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


def ask(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = "") -> Answer:
    """One request; a refusal is an answer too."""
    request = urllib.request.Request(url, body, dict(headers or {}), method=method or None)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def form(files: Sequence[tuple[str, bytes]], field: str = "file") -> tuple[bytes, dict[str, str]]:
    """A multipart body of files (name, content), and its headers."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def send(url: str, *files: tuple[str, bytes], query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """Send photos as a program does."""
    body, own_headers = form(files)
    return ask(f"{url}{ANALYZE}{query}", body, {**own_headers, **(headers or {})})


@contextmanager
def rest_alone(models: Shelf, auth: tuple[str, str] | None = None, limits: RestLimits | None = None) -> Iterator[str]:
    """The REST routes without page and guards; its address."""
    app = Starlette(routes=rest_routes(models, auth=auth, limits=limits))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
