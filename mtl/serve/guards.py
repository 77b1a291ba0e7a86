"""The guards: every request passes them before gradio or a REST route sees it.

In their order: the headers of every answer; faults; whether it was this server that was asked for; what may be asked
for at all; whether a page of somebody else asks; how often; how much; for what.
Pure ASGI: answers are streamed as they come.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs

from gradio.route_utils import CustomCORSMiddleware
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import BaseRoute, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from mtl.serve.address import host_of
from mtl.serve.answers import refusal
from mtl.serve.faults import Errands, Faults, Nothing
from mtl.serve.headers import SecurityHeaders
from mtl.serve.limits import WRITES, Buckets, LoginLimit, RateLimit, SizeLimit

API = "/gradio_api"
# The file system would fall over them: control characters, and names longer than any.
NO_PATH = re.compile(rb"[\x00-\x1f\x7f]|[^/]{256}|^.{2048}")
# What the page, gradio_client and the Hub's sign-in ask for. All else that gradio registers is not there: monitoring,
# run history, reloading, vibe editing, deep links, proxies, recordings, streams, custom components.
PAGE_PATHS = (
    "/", "/config", "/config/", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json",
    "/assets/{path:path}", "/static/{path:path}",
    "/login", "/login/", "/login/huggingface", "/login/callback", "/logout",
    *(f"{API}{path}" for path in (
        "/startup-events", "/app_id", "/info", "/theme.css", "/heartbeat/{session}",
        "/upload", "/upload_progress", "/file={path:path}",
        "/queue/join", "/queue/data", "/cancel", "/reset", "/component_server", "/component_server/",
        "/call/{name}", "/call/{name}/{event}",
    )),
)  # fmt: skip
FILE_PREFIX = f"{API}/file="
UPLOAD_PATHS = (f"{API}/upload",)
EVENT_PATHS = (f"{API}/queue/join", f"{API}/call/")
# Drawn masks travel in events, as base64: 2 to 3 MB where somebody draws noise on the largest canvas.
MAX_EVENT_BYTES = 8_000_000
UPLOADS_AT_ONCE = 8
LEFT_OUT: tuple[object, ...] = (CustomCORSMiddleware,)
WRITES_AT_ONCE, WRITES_PER_S = 240, 4.0  # an open page asks about once a second for what a run does
WRONG_LOGINS_AT_ONCE, WRONG_LOGINS_PER_S = 5, 0.1


@dataclass(frozen=True)
class GuardSettings:
    """What the guards let through.

    hosts: names of this server, lower case, without port. trusted_hosts: those of them that were given on purpose, so
    that a page there may write whatever the port. rest: paths of REST routes (starlette's templates) with their largest
    request in bytes. files: the folder that downloads come from.
    """

    hosts: frozenset[str]
    trusted_hosts: frozenset[str] = frozenset()
    on_space: bool = False
    max_upload_bytes: int = 2 * 1024**3
    rest: tuple[tuple[str, int], ...] = ()
    files: Path | None = None
    pages: tuple[str, ...] = PAGE_PATHS

    def limit_of(self, path: str) -> int:
        """Bytes that one request to this path may have."""
        if path in UPLOAD_PATHS:
            return self.max_upload_bytes
        return next((limit for template, limit in self.rest if matches(template, path)), MAX_EVENT_BYTES)


def guard_middleware(settings: GuardSettings) -> list[Middleware]:
    """The guards from the outermost to the innermost."""
    checks = (HostCheck(settings), PathCheck(settings), OriginCheck(settings))
    logins = Buckets(WRONG_LOGINS_AT_ONCE, WRONG_LOGINS_PER_S)
    guards = [
        Middleware(SecurityHeaders, settings.on_space),
        Middleware(Faults),
        Middleware(Checks, checks),
        Middleware(LoginLimit, logins, settings.on_space),
        Middleware(SizeLimit, settings.limit_of, MAX_EVENT_BYTES, UPLOADS_AT_ONCE),
        Middleware(Errands, EVENT_PATHS),
        Middleware(Nothing, UPLOAD_PATHS[0], EVENT_PATHS[1]),
    ]
    if settings.on_space:
        guards.insert(3, Middleware(RateLimit, Buckets(WRITES_AT_ONCE, WRITES_PER_S), behind_proxy=True))
    return guards


def guarded(
    settings: GuardSettings, routes: Sequence[BaseRoute] = ()
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """A lifespan for gradio's `app_kwargs`: puts guards around, and `routes` before, all that gradio has registered.

    Before the first request is taken. As `app_kwargs["middleware"]` they would stand within gradio's own, whose CORS
    answers to any host, lets pages of any origin read along, and falls over a request without a Host.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        kept = [middleware for middleware in app.user_middleware if middleware.cls not in LEFT_OUT]
        app.user_middleware = [*guard_middleware(settings), *kept]
        app.router.routes[:0] = routes
        app.middleware_stack = app.build_middleware_stack()
        yield

    return lifespan


def matches(template: str, path: str) -> bool:
    return _pattern(template).match(path) is not None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return compile_path(template)[0]


Check = Callable[[Scope], Response | None]


class Checks:
    """Refuses what one of the checks refuses, before anything of the body is read."""

    def __init__(self, app: ASGIApp, checks: Sequence[Check]):
        self._app, self._checks = app, checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            for check in self._checks:
                if answer := check(scope):
                    return await answer(scope, receive, send)
        return await self._app(scope, receive, send)


class HostCheck:
    """The Host header names this server. Headers by which gradio would believe in another name are taken away."""

    BELIEVED = (b"x-forwarded-host", b"x-gradio-server")

    def __init__(self, settings: GuardSettings):
        self._hosts = settings.hosts

    def __call__(self, scope: Scope) -> Response | None:
        given = Headers(scope=scope).getlist("host")
        if len(given) != 1 or host_of(given[0]) not in self._hosts:
            return refusal(400, "wrong_host", "this server is not known by that name; its owner can --allowed-host it")
        scope["headers"] = [(name, value) for name, value in scope["headers"] if self._is_kept(name, value)]
        return None

    def _is_kept(self, name: bytes, value: bytes) -> bool:
        return name not in self.BELIEVED or (
            name == b"x-forwarded-host" and host_of(value.decode("latin-1")) in self._hosts
        )


class PathCheck:
    """Only what is on the list can be asked for, and of files only those that were made to be downloaded."""

    def __init__(self, settings: GuardSettings):
        self._templates = (*settings.pages, *(template for template, _ in settings.rest))
        self._files = settings.files.resolve() if settings.files else None

    def __call__(self, scope: Scope) -> Response | None:
        path: str = scope["path"]
        if NO_PATH.search(path.encode()) or not any(matches(template, path) for template in self._templates):
            return refusal(404, "not_found", "there is nothing here")
        if path.startswith(FILE_PREFIX) and not self._is_download(path.removeprefix(FILE_PREFIX)):
            return refusal(404, "not_found", "there is no such file")
        if path == f"{API}/info" and "all_endpoints" in parse_qs(scope.get("query_string", b"").decode("latin-1")):
            return refusal(404, "not_found", "only public endpoints are described")
        return None

    def _is_download(self, name: str) -> bool:
        """Of what gradio would serve, a web address among it: it would fetch that for anybody who asks."""
        if self._files is None:
            return "://" not in name
        try:
            return Path(name).resolve().is_relative_to(self._files)
        except (OSError, ValueError):
            return False


class OriginCheck:
    """A page of somebody else can neither write nor set anything off; programs say nothing of an origin, and pass.

    [https://developer.mozilla.org/docs/Web/HTTP/Headers/Sec-Fetch-Site]
    """

    def __init__(self, settings: GuardSettings):
        self._trusted = settings.trusted_hosts

    def __call__(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if origin := headers.get("origin"):
            allowed = self._is_own(origin, headers.get("host", ""))
        else:
            foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
            allowed = not foreign or self._only_opens(scope, headers)
        return None if allowed else refusal(403, "cross_site", "a page of another site asked; open this one's own page")

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, _, address = origin.lower().partition("://")
        if scheme not in ("http", "https"):
            return False
        return address == host.lower() or host_of(address) in self._trusted

    def _only_opens(self, scope: Scope, headers: Headers) -> bool:
        """Following a link to the page, or showing it in a frame."""
        reads = scope["type"] == "http" and scope["method"] not in WRITES
        acts = scope["path"].startswith(f"{API}/") or scope["path"].startswith("/logout")
        return reads and headers.get("sec-fetch-mode") == "navigate" and not acts
