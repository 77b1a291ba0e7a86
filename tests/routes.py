"""Every route that the launched page has registered, tried in every wrong way; `python -m tests.routes`: a table."""

import asyncio
import http.client
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gradio as gr
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

ROOT = Path(__file__).parent.parent
WRITES = ("POST", "PUT", "PATCH", "DELETE")
METHODS = ("GET", "HEAD", *WRITES, "OPTIONS")
HUGE = "1000000000000"
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
NO_FILE = b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nno file\r\n--x--\r\n'


@contextmanager
def launched(folder: Path, **options: Any) -> Iterator[gr.Blocks]:
    """The whole application on a free port, in this process; `options` as for `launch`."""
    from mtl.ui.app import AppSettings, build_app, make_shelf
    from mtl.ui.launch import launch

    for name in ("data", "temporary"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    # Where no event loop runs, gradio makes some for its locks and leaves them unclosed.
    async def start() -> gr.Blocks:
        settings = AppSettings(
            folder / "data",
            folder / "runs",
            ROOT / "checkpoints" / "default",
            ROOT / "assets" / "examples",
            folder / "temporary",
            checkpoints_dir=folder / "checkpoints",
        )
        shelf = make_shelf(settings)
        demo = build_app(settings, shelf)
        launch(demo, "127.0.0.1", 0, models=shelf, block=False, **options)
        return demo

    # In a thread of its own: a browser's loop may be running in this one.
    with ThreadPoolExecutor(1) as thread:
        demo = thread.submit(lambda: asyncio.run(start())).result()
    try:
        yield demo
    finally:
        demo.close(verbose=False)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes  # the first bytes of it: some answers never end


def ask(
    url: str, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | Iterable[bytes] = b""
) -> Answer:
    """One request with exactly these headers, beside Host and Content-Length where they are not among them."""
    connection = http.client.HTTPConnection(urlsplit(url).hostname or "", urlsplit(url).port, timeout=30)
    try:
        connection.request(method, path, body or None, dict(headers or {}))
        response = connection.getresponse()
        stream = (response.getheader("content-type") or "").startswith("text/event-stream")
        return Answer(response.status, dict(response.headers.items()), b"" if stream else response.read(100_000))
    finally:
        connection.close()


@dataclass(frozen=True)
class Route:
    methods: frozenset[str]
    template: str
    path: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", _filled(self.template))

    @property
    def has_parameters(self) -> bool:
        return "{" in self.template


def _filled(template: str) -> str:
    """A template with each parameter replaced by the name of something that is not there."""
    names = {"environment": "client", "component_id": "1", "size": "192", "ext": "ts"}
    parts = template.replace("}", "{").split("{")
    return "".join(names.get(part, "missing") if number % 2 else part for number, part in enumerate(parts))


def registered(demo: gr.Blocks) -> list[Route]:
    """As the running application lists them, with those of REST, which is an application of its own behind three."""
    behind = {route.app for route in demo.app.routes if isinstance(getattr(route, "app", None), FastAPI)}
    contexts = iter_route_contexts([*demo.app.routes, *(route for rest in behind for route in rest.routes)])
    # A route that an application stands behind takes all methods; what it makes of them, its own routes say.
    return [Route(frozenset(context.methods), str(context.path)) for context in contexts if context.methods]


class Trial(NamedTuple):
    route: Route
    method: str
    headers: dict[str, str]
    body: bytes
    refused: bool = True  # whether no answer of this one may be 2xx


def trials(routes: list[Route]) -> dict[str, list[Trial]]:
    """What is tried, by its name."""
    each = [(route, method) for route in routes for method in sorted(route.methods)]
    writes = [(route, method) for route, method in each if method in WRITES]
    return {
        "foreign Host": [Trial(route, method, {"Host": "evil.example"}, b"") for route, method in each],
        "foreign Origin": [Trial(route, method, {"Origin": "https://evil.example"}, b"{}") for route, method in each],
        "oversized body": [Trial(route, method, {"Content-Length": HUGE}, b"") for route, method in each],
        "no content type": [Trial(route, method, {}, b"{}") for route, method in writes],
        "missing file": [Trial(route, method, FORM, NO_FILE) for route, method in writes]
        + [
            Trial(route, method, {}, b"", refused="/heartbeat/" not in route.path)
            for route, method in each
            if method not in (*WRITES, "OPTIONS") and route.has_parameters
        ],
        "wrong method": [
            Trial(route, method, {}, b"{}")
            for route in routes
            for method in METHODS
            if not any(method in other.methods for other in routes if other.path == route.path)
        ],
    }


def outcomes(url: str, tried: list[Trial]) -> list[tuple[Trial, Answer]]:
    return [(trial, ask(url, trial.method, trial.route.path, trial.headers, trial.body)) for trial in tried]


def table(url: str, routes: list[Route]) -> Iterator[str]:
    """Markdown: one line a trial, with how often it was tried, and every status with its count."""
    yield f"{len(routes)} registered routes\n"
    yield "| trial | requests | statuses | 5xx | 2xx |\n| --- | ---: | --- | ---: | ---: |"
    for name, tried in trials(routes).items():
        done = outcomes(url, tried)
        counts = Counter(answer.status for _, answer in done)
        statuses = ", ".join(f"{status} × {count}" for status, count in sorted(counts.items()))
        faults = sum(count for status, count in counts.items() if status >= 500)
        answered = [trial for trial, answer in done if answer.status < 300]
        yield f"| {name} | {len(done)} | {statuses} | {faults} | {len(answered)} |"
        for trial in answered:
            print(f"answered: {name}: {trial.method} {trial.route.path}", file=sys.stderr)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, launched(Path(folder)) as demo:
        for line in table(demo.local_url, registered(demo)):
            print(line)
        reached = [route for route in registered(demo) if _is_there(demo.local_url, route)]
        print(f"\n{len(reached)} of them are there for a page or a program:")
        print(json.dumps(sorted({route.template for route in reached}), indent=1))


def _is_there(url: str, route: Route) -> bool:
    method = "GET" if {"GET", "HEAD"} & route.methods else "POST"
    answer = ask(url, method, route.path)
    return not (answer.status == 404 and b"there is nothing here" in answer.body)


if __name__ == "__main__":
    main()
