"""The Hub's own client, `huggingface_hub`, over HTTP that is bounded, can be cancelled, and tells why it waits.

By itself it tries a Hub that refuses for 23 s and waits on a silent one for longer, without a word. Here every request
runs in a thread of its own, which is left at once where the transfer is cancelled or a limit is over.
"""

import logging
import os
import queue
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpx2 as httpx
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from mtl.errors import (
    HubAccessError,
    HubBusyError,
    HubConflictError,
    HubConnectionError,
    HubError,
    HubFileError,
    HubNotFoundError,
    MtlError,
)
from mtl.hub.tokens import find_token, without_secrets
from mtl.hub.transfer import Transfer, TransferFile

log = logging.getLogger(__name__)

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[\w./~-]*)?")
BUSY = {408, 429, 500, 502, 503, 504}
# Requests that change a repository: sent again, they could change it twice.
_CHANGING = re.compile(r"/api/(repos/|models/.+/(commit|tag|branch)/)")
_TELL_EVERY_S = 1.0
_PARTS = 64  # of an answer, each of some 64 kB, that wait in memory for whoever writes them

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """How long a Hub is waited for."""

    connect_s: float = 5.0
    told_s: float = 4.0  # of silence or slowness, until it is told
    silent_s: float = 30.0  # nothing sent or taken: the transfer fails
    slow_rate: float = 1000.0  # bytes a second; an answer that is slower over `silent_s` fails
    waits_s: tuple[float, ...] = (1.0, 2.0)  # before the second try, the third, ...
    longest_wait_s: float = 8.0  # that the Hub may ask for with Retry-After
    poll_s: float = 0.1  # how often a wait looks whether it was cancelled


@contextmanager
def hub_client(
    token: str | bool | None, endpoint: str | None, transfer: Transfer, limits: Limits | None = None
) -> Iterator[HfApi]:
    """The Hub's client for one transfer; one at a time in a process, and who comes second waits.

    token: as `find_token` takes it. endpoint: else $HF_ENDPOINT, else https://huggingface.co. Every failure inside
    comes out as a HubError in one plain line; an MtlError passes as it is, and so does an OSError of this machine.
    """
    limits = limits or Limits()
    address = hub_address(endpoint)
    with _turn(transfer, limits):
        wire = _Wire(address, transfer, limits)
        try:
            with _quiet(), _installed(wire):
                found = find_token(token)
                transfer.message = f"asking {wire.host}"
                yield HfApi(endpoint=address, token=found or False, library_name="multitask-skin")
        except Exception as error:
            if isinstance(error, MtlError) or _is_of_this_machine(error):
                raise
            raise _in_plain_words(error, transfer, wire.host) from None
        finally:
            wire.close()


def hub_address(endpoint: str | None = None) -> str:
    """Where the Hub is: the argument, $HF_ENDPOINT, or https://huggingface.co."""
    address = (endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").strip().rstrip("/")
    if not _ADDRESS.fullmatch(address):
        shown = without_secrets(address.rpartition("@")[2])[:120]  # before it, a password may stand
        raise HubError(f"{shown}: it is no address of a Hub; needed https://host without a name or password before it")
    return address


@contextmanager
def _turn(transfer: Transfer, limits: Limits) -> Iterator[None]:
    """The client's HTTP is one for the whole process, so transfers go one after another."""
    while not _one_at_a_time.acquire(timeout=limits.poll_s):
        transfer.message = "another push or pull is running; this one begins when that ends"
        transfer.check()
    try:
        transfer.check()
        yield
    finally:
        _one_at_a_time.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no warnings of the client in the terminal, no news of this machine to the Hub, and plain HTTP.

    Xet, its other way to move files, has an HTTP of its own that cannot be bounded.
    """
    if constants.is_offline_mode():
        raise HubConnectionError("$HF_HUB_OFFLINE is set, so the Hub is not asked; unset it to push and pull")
    library = logging.getLogger("huggingface_hub")
    before = library.level, constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY
    bars = not are_progress_bars_disabled()
    library.setLevel(logging.CRITICAL)
    constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_TELEMETRY = True
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        library.setLevel(before[0])
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY = before[1:]
        if bars:
            enable_progress_bars()


@contextmanager
def _installed(wire: "_Wire") -> Iterator[None]:
    before = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(lambda: httpx.Client(transport=wire, follow_redirects=True, timeout=None))
    try:
        yield
    finally:
        set_client_factory(before)


@dataclass(frozen=True)
class _Trouble:
    """Why a request has no answer to go on with."""

    failure: HubError
    lasting: bool = False  # trying again does not mend it
    untaken: bool = False  # the Hub has certainly not acted on the request
    asked_s: float = 0.0  # that the Hub asks to wait


class _Wire(httpx.BaseTransport):
    """All HTTP of one transfer: tries again where that is safe, and tells of it."""

    def __init__(self, address: str, transfer: Transfer, limits: Limits):
        url = httpx.URL(address)
        self.host, self._home = url.netloc.decode(), (url.scheme, url.host, url.port)
        self._transfer, self._limits = transfer, limits
        self._lines: dict[str | None, httpx.HTTPTransport] = {}  # by proxy
        self._tries: Counter[str] = Counter()  # that failed, by method and address
        self._exchanges: list[_Exchange] = []  # that may still run

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if (request.url.scheme, request.url.host, request.url.port) != self._home:
            request.headers.pop("authorization", None)  # the token is for the Hub itself
        message = self._transfer.message
        while True:
            answer = self._try(request)
            if isinstance(answer, httpx.Response) and answer.status_code not in BUSY:
                if self._tries[_key(request)]:
                    self._transfer.message = message
                return answer
            wait = self._wait_after(request, answer)
            if not isinstance(answer, httpx.ConnectError | httpx.ConnectTimeout) and not _repeatable(request):
                return _handed_back(answer)
            if isinstance(answer, httpx.Response):
                answer.close()
            self._transfer.wait(wait)

    def _try(self, request: httpx.Request) -> httpx.Response | httpx.TransportError:
        exchange = _Exchange(request, self._line(request.url), self._transfer, self._limits)
        self._exchanges = [*filter(_Exchange.runs, self._exchanges), exchange]
        try:
            answer = exchange.answer()
        except httpx.TransportError as error:
            return error
        except MtlError as error:  # cancelled, or silent for too long
            exchange.leave()
            raise _perhaps_done(error, request) from None
        except BaseException:
            exchange.leave()
            raise
        body = _Body(exchange, lambda error: self._broken_off(request, error))
        return httpx.Response(answer.status_code, headers=answer.headers, stream=body)

    def _wait_after(self, request: httpx.Request, answer: httpx.Response | httpx.TransportError) -> float:
        """Seconds until the next try, told in the transfer's message; raises where there is none."""
        if isinstance(answer, httpx.Response):
            trouble = _busy(answer, _host(request))
        else:
            trouble = _unreachable(answer, _host(request), self._limits)
        if trouble.lasting or (_changes(request) and not trouble.untaken):
            raise trouble.failure if trouble.untaken else _perhaps_done(trouble.failure, request)
        return self._next_wait(request, trouble)

    def _next_wait(self, request: httpx.Request, trouble: _Trouble) -> float:
        tried, waits = self._tries[_key(request)], self._limits.waits_s
        if tried >= len(waits) or trouble.asked_s > self._limits.longest_wait_s:
            raise trouble.failure
        self._tries[_key(request)] += 1
        wait = max(waits[tried], trouble.asked_s)
        reason = str(trouble.failure).partition(";")[0]
        self._transfer.message = f"{reason}; trying again in {wait:.3g} s ({tried + 1} of {len(waits)})"
        return wait

    def _broken_off(self, request: httpx.Request, error: httpx.TransportError) -> Exception:
        """What to raise for an answer that ended too early: huggingface_hub goes on from there after a second."""
        trouble = _unreachable(error, _host(request), self._limits)
        if trouble.lasting:
            return trouble.failure
        text = f"{_host(request)} broke off in the middle of a file; check the network, then try again"
        try:
            self._next_wait(request, _Trouble(HubFileError(text)))
        except HubError as failure:
            return failure
        return httpx.RemoteProtocolError(str(error))

    def _line(self, url: httpx.URL) -> httpx.HTTPTransport:
        # httpx reads the environment's proxies only where no transport is given.
        proxy = None if urllib.request.proxy_bypass(url.host) else urllib.request.getproxies().get(url.scheme)
        if proxy not in self._lines:
            self._lines[proxy] = httpx.HTTPTransport(proxy=proxy)
        return self._lines[proxy]

    def close(self) -> None:
        # A socket that is closed while a thread reads from it gives its number, and so that thread, to another one.
        if any(map(_Exchange.runs, self._exchanges)):
            threading.Thread(target=self._close_lines, name="hub-end", daemon=True).start()
        else:
            self._close_lines()

    def _close_lines(self) -> None:
        for exchange in self._exchanges:
            exchange.wait()
        for line in self._lines.values():
            line.close()


class _Exchange:
    """One request and its answer, in a thread that is left behind where nobody can wait longer."""

    def __init__(self, request: httpx.Request, line: httpx.HTTPTransport, transfer: Transfer, limits: Limits):
        self._request, self._line, self._transfer, self._limits = request, line, transfer, limits
        self._parts: queue.Queue[httpx.Response | bytes | Exception | None] = queue.Queue(_PARTS)
        self._left = threading.Event()
        self._pace = _Pace(_host(request), transfer, limits)
        self._file = _file_of(request, transfer)
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self._thread.start()

    def runs(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join()

    def answer(self) -> httpx.Response:
        """Status and headers, once they are there; the body comes by `body`."""
        answer = self._take()
        assert isinstance(answer, httpx.Response)
        return answer

    def body(self) -> Iterator[bytes]:
        while (part := self._take()) is not None:
            assert isinstance(part, bytes)
            yield part

    def leave(self) -> None:
        self._left.set()

    def _take(self) -> httpx.Response | bytes | None:
        while True:
            self._transfer.check()
            self._pace.judge()
            try:
                part = self._parts.get(timeout=self._limits.poll_s)
            except queue.Empty:
                continue
            if isinstance(part, Exception):
                raise part
            return part

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._send_and_receive()
        except _LeftError:
            pass
        except Exception as error:  # raised where the answer is waited for
            with suppress(_LeftError):
                self._put(error)

    def _send_and_receive(self) -> None:
        limits, request = self._limits, self._request
        times = {"connect": limits.connect_s, "pool": limits.connect_s}
        # `_Pace` ends the wait before; this ends the thread.
        times |= {"read": limits.silent_s + limits.told_s, "write": limits.silent_s + limits.told_s}
        sent = httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=_Sent(self._sending),
            extensions={"timeout": times},
        )
        answer = self._line.handle_request(sent)
        try:
            self._receive(answer)
        finally:
            answer.close()

    def _sending(self) -> Iterator[bytes]:
        assert isinstance(self._request.stream, httpx.SyncByteStream)
        counted = self._file if self._request.method == "PUT" else None
        _restart(counted, 0)
        for chunk in self._request.stream:
            if self._left.is_set():
                raise _LeftError
            yield chunk
            self._moved(counted, len(chunk))

    def _receive(self, answer: httpx.Response) -> None:
        counted = self._file if self._request.method == "GET" and answer.status_code in (200, 206) else None
        from_byte = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
        _restart(counted, int(from_byte[1]) if from_byte else 0)
        self._pace.answered()
        self._put(answer)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        for chunk in answer.stream:
            self._moved(counted, len(chunk))
            self._put(chunk)
        self._put(None)

    def _moved(self, counted: TransferFile | None, size: int) -> None:
        self._pace.moved(size)
        if counted is not None:
            counted.done += size

    def _put(self, part: httpx.Response | bytes | Exception | None) -> None:
        while not self._left.is_set():
            try:
                return self._parts.put(part, timeout=self._limits.poll_s)
            except queue.Full:
                continue
        raise _LeftError


class _LeftError(Exception):
    """Nobody waits for this request any more."""


@dataclass
class _Pace:
    """How fast an exchange moves; it tells the transfer where it does not."""

    host: str
    transfer: Transfer
    limits: Limits
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    receiving: bool = False
    _recent: deque[tuple[float, int]] = field(default_factory=deque)  # when, bytes
    _told: float = 0.0  # when the last time
    _message: str | None = None  # the transfer's own, while ours stands there

    def answered(self) -> None:
        self.receiving, self.began = True, time.monotonic()
        self.moved(0)

    def moved(self, size: int) -> None:
        self.last = time.monotonic()
        self._recent.append((self.last, size))
        self.transfer.moved()

    def judge(self) -> None:
        """Say that it waits, and raise HubConnectionError where it has waited long enough."""
        now, limits = time.monotonic(), self.limits
        silent = now - self.last
        if silent > limits.silent_s:
            raise HubConnectionError(
                f"{self.host} has sent nothing for {silent:.0f} s; check the network, or try again later"
            )
        if silent > limits.told_s:
            self._tell(f"{self.host} has sent nothing for {silent:.0f} s; still waiting")
        elif self.receiving and now - self.began > limits.told_s:
            self._judge_rate(now)
        else:
            self._tell(None)

    def _judge_rate(self, now: float) -> None:
        limits = self.limits
        while self._recent and self._recent[0][0] < now - limits.silent_s:
            self._recent.popleft()
        span = min(now - self.began, limits.silent_s)
        rate = sum(size for _, size in self._recent) / span
        if rate >= limits.slow_rate:
            self._tell(None)
        elif span >= limits.silent_s:
            raise HubConnectionError(
                f"{self.host} sends {rate:.0f} bytes a second, too slow to wait for; try again later"
            )
        else:
            self._tell(f"{self.host} sends slowly, {rate:.0f} bytes a second; still waiting")

    def _tell(self, message: str | None) -> None:
        """None: the transfer's own message again."""
        if message is not None and time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            self._message = self._message if self._message is not None else self.transfer.message
            self.transfer.message = message
        elif message is None and self._message is not None:
            self.transfer.message, self._message = self._message, None


class _Sent(httpx.SyncByteStream):
    def __init__(self, chunks: Callable[[], Iterator[bytes]]):
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks()


class _Body(httpx.SyncByteStream):
    def __init__(self, exchange: _Exchange, broken_off: Callable[[httpx.TransportError], Exception]):
        self._exchange, self._broken_off = exchange, broken_off

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._exchange.body()
        except httpx.TransportError as error:
            raise self._broken_off(error) from None

    def close(self) -> None:
        self._exchange.leave()


def _restart(file: TransferFile | None, done: int) -> None:
    if file is not None:
        file.done, file.state = done, "moving"


def _file_of(request: httpx.Request, transfer: Transfer) -> TransferFile | None:
    """The file that a request moves: the one that a pull has marked, or what an upload's address or size tells."""
    if request.method == "GET":
        moving = [file for file in transfer.files if file.state == "moving"]
        return moving[0] if len(moving) == 1 else None
    large = [file for file in transfer.files if file.sha256] if request.method == "PUT" else []
    size = request.headers.get("content-length")
    by_address = [file for file in large if file.sha256 in request.url.path]
    return next(iter(by_address or [file for file in large if str(file.size) == size]), None)


def _key(request: httpx.Request) -> str:
    return f"{request.method} {request.url}"


def _host(request: httpx.Request) -> str:
    return request.url.netloc.decode()


def _changes(request: httpx.Request) -> bool:
    return request.method not in ("GET", "HEAD") and _CHANGING.search(request.url.path) is not None


def _repeatable(request: httpx.Request) -> bool:
    """Can its body be sent again as it is? A file's cannot, which was read."""
    return isinstance(request.stream, httpx.ByteStream)


def _handed_back(answer: httpx.Response | httpx.TransportError) -> httpx.Response:
    """To huggingface_hub, which winds the file back and sends it again after a second, the next time after two."""
    if isinstance(answer, httpx.TransportError):
        raise answer
    answer.headers.pop("retry-after", None)  # it would wait as long as that says, and could not be cancelled
    return answer


def _perhaps_done(error: MtlError, request: httpx.Request) -> MtlError:
    if not _changes(request):
        return error
    text = str(error).removesuffix("; nothing has changed")
    return type(error)(f"{text}; the Hub may have taken the change all the same, so look at its page first")


def _busy(answer: httpx.Response, host: str) -> _Trouble:
    asked = _asked_wait(answer.headers)
    when = f"in {asked:.0f} s" if asked else "in some minutes"
    if answer.status_code == 429:
        failure = HubBusyError(f"{host} answered 429, too many requests; try again {when}")
        return _Trouble(failure, untaken=True, asked_s=asked)
    failure = HubBusyError(f"{host} answered {answer.status_code}, a fault of its own; try again {when}")
    return _Trouble(failure, asked_s=asked)


def _asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait: its Retry-After (seconds or a date), or the Hub's own rate limit."""
    given = headers.get("retry-after", "").strip()
    limit = _http.parse_ratelimit_headers(headers)
    if given.isdigit():
        return float(given)
    if given:
        with suppress(ValueError):
            return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0


def _unreachable(error: httpx.TransportError, host: str, limits: Limits) -> _Trouble:
    reasons = list(_chain(error))
    advice = "check the network and $HF_ENDPOINT, then try again"
    if isinstance(error, httpx.ConnectTimeout):
        return _Trouble(
            HubConnectionError(f"{host} did not answer within {limits.connect_s:.0f} s; {advice}"), untaken=True
        )
    if isinstance(error, httpx.TimeoutException):
        text = f"{host} has sent nothing for {limits.silent_s:.0f} s; check the network, or try again later"
        return _Trouble(HubConnectionError(text), lasting=True)
    if isinstance(error, httpx.ProxyError | httpx.UnsupportedProtocol):
        text = f"the proxy does not let through to {host}; check $HTTPS_PROXY and $NO_PROXY"
        return _Trouble(HubConnectionError(text), lasting=True, untaken=True)
    if any(isinstance(reason, ssl.SSLCertVerificationError) for reason in reasons):
        text = (
            f"{host}: its certificate is not trusted; check the clock, or name a proxy's certificate in $SSL_CERT_FILE"
        )
        return _Trouble(HubConnectionError(text), lasting=True, untaken=True)
    if any(isinstance(reason, socket.gaierror) for reason in reasons):
        return _Trouble(HubConnectionError(f"{host} is not found: no network, or no such host; {advice}"), untaken=True)
    if any(isinstance(reason, ConnectionRefusedError) for reason in reasons):
        return _Trouble(HubConnectionError(f"{host} refused the connection; {advice}"), untaken=True)
    return _Trouble(
        HubConnectionError(f"{host} broke the connection; {advice}"), untaken=isinstance(error, httpx.ConnectError)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_this_machine(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, HfHubHTTPError)


def _in_plain_words(error: Exception, transfer: Transfer, host: str) -> MtlError:
    """One line for whatever came out of the client."""
    for reason in _chain(error):
        if isinstance(reason, MtlError):  # wrapped by the threads that upload
            return reason
        if isinstance(reason, HfHubHTTPError):
            return _refused(reason, transfer, host)
        if isinstance(reason, httpx.TransportError):
            return _unreachable(reason, host, Limits()).failure
    log.debug("%s: the %s failed", transfer.repo_id, transfer.kind, exc_info=error)
    first = (without_secrets(str(error)).strip().splitlines() or [""])[0][:160]
    return HubError(
        f"{transfer.repo_id}: {host} answers as no Hub does ({type(error).__name__}: {first}); check $HF_ENDPOINT"
    )


def _refused(error: HfHubHTTPError, transfer: Transfer, host: str) -> HubError:
    """What an answer of 4xx means, and what to do."""
    repo, status, said = transfer.repo_id, error.response.status_code, _said(error)
    if (storage := _host(error.response.request)) != host:
        # Its addresses are signed for a short time, and take no token.
        return HubError(f"{repo}: {storage}, where the Hub keeps its files, refused ({status}); {transfer.kind} again")
    if isinstance(error, GatedRepoError):
        return HubAccessError(f"{repo}: its owner grants access one by one; ask for it on its page, then try again")
    if isinstance(error, DisabledRepoError):
        return HubAccessError(f"{repo}: the Hub has closed this repository; take another")
    if isinstance(error, RevisionNotFoundError):
        return HubNotFoundError(f"{repo}: it has no such branch, tag or commit; look at its page for those that it has")
    if isinstance(error, EntryNotFoundError):
        return HubNotFoundError(f"{repo}: a file of it is gone; try again, or look at its page")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return HubNotFoundError(
            f"{repo}: the Hub has no such model, or it is private and {_whose(error)}; check the name, or sign in with "
            "`hf auth login` or $HF_TOKEN"
        )
    if status == 401:
        return HubAccessError(
            f"{repo}: the Hub does not accept the token (401): it is missing, wrong or old; make one at {TOKENS_PAGE}"
        )
    if status == 403:
        right = "push to it" if transfer.kind == "push" else "pull it"
        return HubAccessError(f"{repo}: the token has no right to {right} (403); make one that has at {TOKENS_PAGE}")
    if status in (409, 412):
        return HubConflictError(f"{repo}: it was made or changed meanwhile ({status}{said}); look at its page first")
    return HubError(f"{repo}: the Hub refused ({status}{said}); nothing has changed")


def _whose(error: HfHubHTTPError) -> str:
    return "this token may not see it" if "authorization" in error.response.request.headers else "no token was given"


def _said(error: HfHubHTTPError) -> str:
    """The Hub's own words, where it has some: one line, without what looks like a token."""
    words = without_secrets(" ".join((error.server_message or "").split()))[:160]
    return f": {words}" if words else ""
