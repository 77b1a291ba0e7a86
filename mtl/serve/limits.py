"""How much one client may send: bytes a request, requests a minute, uploads at once, wrong passwords."""

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtl.serve.answers import refusal, try_later

STALL_S = 60.0  # how long a client may send nothing in the middle of a request
SLOWEST_BYTES_PER_S = 10_000  # over a whole request: slow ones would keep others from uploading
MAX_CLIENTS = 10_000
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Buckets:
    """Token buckets, one a client, in memory: `size` at once, then `per_second`; the clients seen last are kept."""

    def __init__(self, size: float, per_second: float, clock: Callable[[], float] = time.monotonic):
        self._size, self._per_second, self._clock = size, per_second, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, and when

    def wait(self, client: str) -> float:
        """Seconds until a token is there; 0 where one is."""
        return max(0.0, (1.0 - self._level(client)) / self._per_second)

    def take(self, client: str) -> None:
        self._levels[client] = (max(0.0, self._level(client) - 1.0), self._clock())
        self._levels.move_to_end(client)
        while len(self._levels) > MAX_CLIENTS:
            self._levels.popitem(last=False)

    def give_back(self, client: str) -> None:
        self._levels[client] = (min(self._size, self._level(client) + 1.0), self._clock())

    def _level(self, client: str) -> float:
        tokens, since = self._levels.get(client, (self._size, self._clock()))
        return min(self._size, tokens + (self._clock() - since) * self._per_second)


def client_of(scope: Scope, behind_proxy: bool) -> str:
    """Who asks: the peer's address, or behind a proxy the last public one that a proxy has added.

    What stands further left was sent by the client, and may be made up. An IPv6 client has a whole /64 of addresses.
    """
    peer = (scope.get("client") or ("", 0))[0]
    if not behind_proxy:
        return _network(peer)
    forwarded = [entry.strip() for entry in ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")]
    return next(
        (_network(entry) for entry in reversed(forwarded) if _is_public(entry)), _network(forwarded[-1] or peer)
    )


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


class RateLimit:
    """Counts what changes something; reading is free."""

    def __init__(self, app: ASGIApp, buckets: Buckets, behind_proxy: bool):
        self._app, self._buckets, self._behind_proxy = app, buckets, behind_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in WRITES:
            client = client_of(scope, self._behind_proxy)
            if wait := self._buckets.wait(client):
                answer = try_later(429, "too_many_requests", "too many requests from you; wait, then go on", wait)
                return await answer(scope, receive, send)
            self._buckets.take(client)
        return await self._app(scope, receive, send)


class LoginLimit:
    """Slows the guessing of passwords: a few wrong ones, then one every `1 / per_second` seconds."""

    LOGIN = "/login"

    def __init__(self, app: ASGIApp, buckets: Buckets, behind_proxy: bool):
        self._app, self._buckets, self._behind_proxy = app, buckets, behind_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._shows_password(scope):
            return await self._app(scope, receive, send)
        client = client_of(scope, self._behind_proxy)
        wrong = (400, 401) if self._is_form(scope) else (401,)  # gradio's form answers 400
        if wait := self._buckets.wait(client):
            answer = try_later(429, "too_many_logins", "too many wrong passwords; wait, then try again", wait)
            return await answer(scope, receive, send)

        # Before the answer is known: else many guesses at once would all get through.
        self._buckets.take(client)

        async def judge(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] not in wrong:
                self._buckets.give_back(client)
            await send(message)

        return await self._app(scope, receive, judge)

    def _is_form(self, scope: Scope) -> bool:
        return scope["method"] == "POST" and scope["path"].rstrip("/") == self.LOGIN

    def _shows_password(self, scope: Scope) -> bool:
        return self._is_form(scope) or "authorization" in Headers(scope=scope)


class SizeLimit:
    """Counts the bytes of the whole request as they come, and lets only some large ones in at once.

    limit_of: bytes that a path may be sent. large: above this limit a path counts as one for uploads, of which
    `at_once` may run. A request that stalls or drips is refused too.
    """

    def __init__(
        self, app: ASGIApp, limit_of: Callable[[str], int], large: int, at_once: int, stall_s: float = STALL_S
    ):
        self._app, self._limit_of, self._large, self._at_once, self._stall_s = app, limit_of, large, at_once, stall_s
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._limit_of(scope["path"])
        if self._announced(scope) > limit:
            return await _too_large(limit)(scope, receive, send)
        if scope["method"] not in WRITES or limit <= self._large:
            return await _Counted(self._app, limit, self._stall_s, lambda: None).run(scope, receive, send)
        if self._running >= self._at_once:
            answer = try_later(503, "busy", f"{self._at_once} uploads are running already; try again in a moment")
            return await answer(scope, receive, send)
        self._running += 1
        # Until it is here: what is then made of it has limits of its own.
        with ExitStack() as place:
            place.callback(self._leave)
            return await _Counted(self._app, limit, self._stall_s, place.close).run(scope, receive, send)

    def _leave(self) -> None:
        self._running -= 1

    def _announced(self, scope: Scope) -> float:
        length = Headers(scope=scope).get("content-length", "0")
        return int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else math.inf


class _Counted:
    """One request. What the application makes of a body that was cut off is replaced by the reason."""

    def __init__(self, app: ASGIApp, limit: int, stall_s: float, when_whole: Callable[[], None]):
        self._app, self._limit, self._stall_s, self._when_whole = app, limit, stall_s, when_whole
        self._came, self._whole, self._started = 0, False, False
        self._since = time.monotonic()
        self._refused: ASGIApp | None = None

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted() -> Message:
            if self._refused:
                return {"type": "http.disconnect"}
            message = await self._receive(receive)
            self._count(message)
            return {"type": "http.disconnect"} if self._refused else message

        async def watched(message: Message) -> None:
            if self._refused and not self._started:
                return
            self._started = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except Exception:
            if not self._refused:
                raise
        if self._refused and not self._started:
            await self._refused(scope, receive, send)

    async def _receive(self, receive: Receive) -> Message:
        if self._whole:  # the next message comes when the client leaves
            return await receive()
        late = self._since + self._stall_s + self._came / SLOWEST_BYTES_PER_S - time.monotonic()
        try:
            async with asyncio.timeout(min(self._stall_s, late)):
                return await receive()
        except TimeoutError:
            self._refused = refusal(408, "too_slow", "the request came too slowly; send it again", CLOSE)
            return {"type": "http.disconnect"}

    def _count(self, message: Message) -> None:
        self._came += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._whole:
            self._when_whole()
        if self._came > self._limit:
            self._refused = _too_large(self._limit)


# What is still to come of a refused request is not waited for.
CLOSE = {"Connection": "close"}


def _too_large(limit: int) -> ASGIApp:
    return refusal(413, "too_large", f"the request is too large; needed: at most {_size(limit)}", CLOSE)


def _size(limit: int) -> str:
    return f"{limit / 1e9:.0f} GB" if limit >= 1e9 else f"{limit / 1e6:.0f} MB"
