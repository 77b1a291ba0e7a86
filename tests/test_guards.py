"""The guards: on a small application for each law, and on the launched page over all of its routes."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import pytest
from builders import law
from hypothesis import given, settings
from hypothesis import strategies as st
from routes import ROOT, Answer, ask, launched, outcomes, registered, trials
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient, WebSocketDenialResponse

from mtl.errors import AddressError
from mtl.place import Place
from mtl.serve.address import check_address, host_of, is_loopback, own_hosts, read_password
from mtl.serve.guards import PAGE_PATHS, GuardSettings, guard_middleware, matches
from mtl.serve.limits import Buckets, LoginLimit, SizeLimit, client_of
from mtl.ui.launch import launch

HOME = Place()
SPACE = Place("me/skin", "me-skin.hf.space,skin.example.org")


# ---- where it listens, and by which names


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback_needs_nothing(host: str) -> None:
    check_address(host, place=HOME, auth=None, allow_anyone=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "skin.example.org"])
def test_any_other_address_needs_a_password_or_the_flag_or_a_space(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(AddressError, match="MTL_AUTH"):
        check_address(host, place=HOME, auth=None, allow_anyone=False)
    check_address(host, place=HOME, auth=("dr", "secret"), allow_anyone=False)
    check_address(host, place=HOME, auth=None, allow_anyone=True)
    check_address(host, place=SPACE, auth=None, allow_anyone=False)


def test_the_launch_refuses_before_anything_listens() -> None:
    with pytest.raises(AddressError, match="without a password"):
        launch(None, "0.0.0.0", 0, block=False)  # type: ignore[arg-type] # it does not come to the page


def test_a_password_comes_whole_and_is_never_repeated() -> None:
    assert read_password({}) is None
    assert read_password({"MTL_AUTH": "dr:a:b"}) == ("dr", "a:b")
    for given_ in ("dr", "dr:", ":topsecret", " dr:topsecret"):
        with pytest.raises(AddressError) as error:
            read_password({"MTL_AUTH": given_})
        assert "topsecret" not in str(error.value)


def test_its_names() -> None:
    assert own_hosts("127.0.0.1", HOME) == {"localhost", "127.0.0.1", "[::1]"}
    assert {"me-skin.hf.space", "skin.example.org"} < own_hosts("127.0.0.1", SPACE)
    assert "lab.example.org" in own_hosts("127.0.0.1", HOME, ["Lab.example.org:443"])
    assert own_hosts("0.0.0.0", HOME) > {"0.0.0.0", "127.0.0.1"}  # and those of this computer
    assert "[fe80::1]" in own_hosts("fe80::1", HOME)


@pytest.mark.parametrize("header", ["", "a@localhost", "localhost:", "localhost:80:80", "local host", "[::1", "a/b"])
def test_what_is_no_host_has_none(header: str) -> None:
    assert host_of(header) == ""


# ---- a small application behind the guards


def small(settings_: GuardSettings, *routes: Route) -> TestClient:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    paths = ("/", "/gradio_api/upload", "/gradio_api/info", "/gradio_api/queue/join", "/monitoring")
    echoes = [Route(path, echo, methods=["GET", "POST"]) for path in paths]
    app = Starlette(routes=[*routes, *echoes], middleware=guard_middleware(settings_))
    return TestClient(app, "http://localhost:7860", raise_server_exceptions=False)


AT_HOME = GuardSettings(own_hosts("127.0.0.1", HOME))


def code(answer: Any) -> str:
    return answer.json()["error"]["code"]


@given(st.from_regex(r"[a-z0-9.:\[\]@-]{0,40}", fullmatch=True))
@law
def test_only_a_known_host_is_answered(host: str) -> None:
    known = host_of(host) in AT_HOME.hosts
    assert small(AT_HOME).get("/", headers={"Host": host}).status_code == (200 if known else 400)


CROSS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost:7860.evil.example"},
    {"Origin": "http://localhost:7860@evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
]
OWN = [
    {},
    {"Origin": "http://localhost:7860"},
    {"Origin": "http://localhost:7860", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_a_page_of_another_site_cannot_write(headers: dict[str, str]) -> None:
    answer = small(AT_HOME).post("/gradio_api/upload", headers=headers, content=b"x")
    assert (answer.status_code, code(answer)) == (403, "cross_site")


@pytest.mark.parametrize("headers", OWN)
def test_the_page_itself_and_programs_can(headers: dict[str, str]) -> None:
    assert small(AT_HOME).post("/gradio_api/upload", headers=headers, content=b"x").text == "1"


def test_nobody_opens_a_websocket_from_elsewhere() -> None:
    client = small(AT_HOME)
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect(
            "/gradio_api/queue/join", headers={"Host": "localhost:7860", "Origin": "https://evil.example"}
        ),
    ):
        pass
    assert refused.value.status_code == 403


def test_a_link_from_another_site_opens_the_page_and_sets_nothing_off() -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert small(AT_HOME).get("/", headers=link).status_code == 200
    for path in ("/gradio_api/info", "/logout"):
        assert small(AT_HOME).get(path, headers=link).status_code == 403


def test_a_space_is_asked_by_its_own_names_behind_its_proxy() -> None:
    space = GuardSettings(own_hosts("0.0.0.0", SPACE), frozenset(SPACE.space_host.split(",")), on_space=True)
    for name in space.trusted_hosts:
        own = {"Host": name, "Origin": f"https://{name}"}
        assert small(space).post("/gradio_api/upload", headers=own, content=b"x").status_code == 200
    framed = small(space).get("/", headers={"Host": "me-skin.hf.space"}).headers["content-security-policy"]
    assert "frame-ancestors 'self' https://huggingface.co" in framed


def test_what_is_not_on_the_list_is_not_there_and_control_characters_are_refused() -> None:
    for path in ("/monitoring", "/%00", "/gradio_api/file=%0a", "/gradio_api/../monitoring", "/./monitoring"):
        assert small(AT_HOME).get(path).status_code == 404
    assert small(AT_HOME).get("/gradio_api/info?all_endpoints=true").status_code == 404


def test_every_answer_carries_the_headers() -> None:
    client = small(AT_HOME)
    for answer in (client.get("/"), client.get("/monitoring"), client.get("/", headers={"Host": "evil"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "connect-src 'self';" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_fault_tells_the_client_nothing_and_the_log_all(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Request) -> PlainTextResponse:
        raise RuntimeError(f"in {__file__}")

    answer = small(AT_HOME, Route("/config", broken)).get("/config")
    assert (answer.status_code, code(answer)) == (500, "fault")
    assert "test_guards" not in answer.text
    assert f"in {__file__}" in caplog.text


def test_headers_that_gradio_believes_are_taken_away() -> None:
    def believed(request: Request) -> PlainTextResponse:
        return PlainTextResponse(",".join(sorted({"x-forwarded-host", "x-gradio-server"} & set(request.headers))))

    client = small(AT_HOME, Route("/config", believed))
    assert client.get("/config", headers={"X-Forwarded-Host": "evil", "X-Gradio-Server": "http://evil"}).text == ""
    assert client.get("/config", headers={"X-Forwarded-Host": "localhost:7860"}).text == "x-forwarded-host"


# ---- sizes


def limited(limit: int, at_once: int = 8, stall_s: float = 5.0) -> TestClient:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    guard = Middleware(SizeLimit, lambda path: limit, large=0, at_once=at_once, stall_s=stall_s)
    return TestClient(Starlette(routes=[Route("/", echo, methods=["POST"])], middleware=[guard]))


@given(st.lists(st.integers(0, 40), max_size=6), st.booleans())
@law
def test_the_bytes_of_the_whole_request_count_announced_or_not(parts: list[int], announced: bool) -> None:
    body = [b"x" * part for part in parts]
    answer = limited(100).post("/", content=b"".join(body) if announced else iter(body))
    assert answer.status_code == (413 if sum(parts) > 100 else 200)
    assert (code(answer) if sum(parts) > 100 else answer.text) in ("too_large", str(sum(parts)))


@pytest.mark.parametrize("length", ["1" * 30, "-1", "x", "1_0", "²"])
def test_a_length_that_is_none_is_too_large(length: str) -> None:
    assert limited(100).post("/", headers=[(b"content-length", length.encode())], content=b"x").status_code == 413


def call(app: Any, receive: Callable[[], Any], path: str = "/") -> list[Any]:
    """The messages of an ASGI application's answer to a POST whose body `receive` gives."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "client": ("1", 1)}
    asyncio.run(app(scope, receive, send))
    return sent


def test_a_client_that_stops_sending_is_not_waited_for() -> None:
    async def nothing() -> Any:
        await asyncio.sleep(60)

    assert call(limited(100, stall_s=0.05).app, nothing)[0]["status"] == 408


def test_a_client_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.serve.limits.SLOWEST_BYTES_PER_S", 1_000)

    async def drip() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert call(limited(100_000, stall_s=0.1).app, drip)[0]["status"] == 408


def test_only_some_uploads_run_at_once() -> None:
    async def both() -> list[int]:
        go_on, statuses = asyncio.Event(), []

        async def slow() -> Any:
            await go_on.wait()
            return {"type": "http.request", "body": b"x"}

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        app = limited(100, at_once=1).app
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        first = asyncio.create_task(app(dict(scope), slow, send))
        await asyncio.sleep(0.05)
        await app(dict(scope), slow, send)
        go_on.set()
        await first
        await app(dict(scope), slow, send)
        return statuses

    assert asyncio.run(both()) == [503, 200, 200]


def test_an_upload_that_is_here_leaves_its_place_to_the_next() -> None:
    """What is made of it may take long: analyses wait for each other in a queue of their own."""
    both_here = asyncio.Barrier(2)

    async def work(request: Request) -> PlainTextResponse:
        await request.body()
        await both_here.wait()
        return PlainTextResponse("")

    async def body() -> Any:
        return {"type": "http.request", "body": b"x"}

    async def both() -> list[int]:
        guard = Middleware(SizeLimit, lambda path: 100, large=0, at_once=1)
        app = Starlette(routes=[Route("/", work, methods=["POST"])], middleware=[guard])
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        async with asyncio.timeout(10):
            await asyncio.gather(*(app(dict(scope), body, send) for _ in range(2)))
        return statuses

    assert asyncio.run(both()) == [200, 200]


# ---- rates


@given(st.lists(st.floats(0, 5), max_size=60))
@law
def test_no_more_than_the_bucket_and_its_rate_get_through(pauses: list[float]) -> None:
    now, passed = 0.0, 0
    buckets = Buckets(5, 0.5, clock=lambda: now)
    for pause in pauses:
        now += pause
        if not buckets.wait("me"):
            buckets.take("me")
            passed += 1
    assert passed <= 5 + 0.5 * now + 1e-6
    assert buckets.wait("somebody else") == 0


def test_a_full_memory_forgets_who_was_seen_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.serve.limits.MAX_CLIENTS", 3)
    buckets = Buckets(1, 0.001)
    for client in "abcd":
        buckets.take(client)
    assert [bool(buckets.wait(client)) for client in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("6.6.6.6, 8.8.8.8", "8.8.8.8"),  # the left one is what the client says of itself
        ("8.8.8.8, 10.0.3.4", "8.8.8.8"),  # a second proxy within
        ("made up", "made up"),
        ("2001:4860:4860::8888", "2001:4860:4860::/64"),
        ("", "10.0.0.1"),
    ],
)
def test_a_client_behind_a_proxy_is_whom_the_proxy_has_seen(forwarded: str, client: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"type": "http", "client": ("10.0.0.1", 1), "headers": headers}
    assert client_of(scope, behind_proxy=True) == client
    assert client_of(scope, behind_proxy=False) == "10.0.0.1"


def test_on_a_space_a_client_that_writes_too_often_waits_and_reads_on() -> None:
    client = small(GuardSettings(AT_HOME.hosts, on_space=True))

    def write(address: str) -> Any:
        return client.post("/gradio_api/queue/join", headers={"X-Forwarded-For": address}, content=b"{}")

    answers = [write("8.8.8.8") for _ in range(400)]
    late = [answer for answer in answers if answer.status_code == 429]
    assert late
    assert int(late[0].headers["retry-after"]) >= 1
    assert client.get("/", headers={"X-Forwarded-For": "8.8.8.8"}).status_code == 200
    assert write("8.8.4.4").status_code == 200
    at_home = small(AT_HOME)
    assert {at_home.post("/gradio_api/queue/join", content=b"{}").status_code for _ in range(400)} == {200}


def test_wrong_passwords_are_slowed_right_ones_are_not() -> None:
    async def door(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        right = (await request.body()) == b"right" or request.headers.get("authorization") == "right"
        await PlainTextResponse("", 200 if right else 401)(scope, receive, send)

    client = TestClient(LoginLimit(door, Buckets(2, 0.01), behind_proxy=False))
    assert {client.post("/login", content=b"right").status_code for _ in range(9)} == {200}
    asked = [lambda: client.post("/login", content=b"wrong"), lambda: client.get("/", headers={"Authorization": "no"})]
    assert [one().status_code for one in asked] == [401, 401]
    assert [one().status_code for one in asked] == [429, 429]
    assert client.get("/").status_code == 401  # nothing was guessed


# ---- what gradio stumbles over


def test_an_event_cannot_send_the_server_for_a_web_address() -> None:
    client = small(AT_HOME)

    def event(path: str, encoding: str = "utf-8") -> int:
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [[file], None], "fn_index": 1}).encode(encoding)
        return client.post("/gradio_api/queue/join", content=body).status_code

    assert event("/tmp/photo.jpg") == 200
    assert event("https://example.org/photo.jpg") == 400
    assert event("http://example.org/photo.jpg", "utf-16") == 400


# ---- the launched page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gr.Blocks]:
    with launched(tmp_path_factory.mktemp("launched")) as demo:
        yield demo


@pytest.fixture(scope="module")
def url(page: gr.Blocks) -> str:
    return page.local_url


def test_every_route_in_every_wrong_way(page: gr.Blocks) -> None:
    for name, tried in trials(registered(page)).items():
        for trial, answer in outcomes(page.local_url, tried):
            told = f"{name}: {trial.method} {trial.route.path} -> {answer.status}"
            assert answer.status < 500, told
            assert answer.status >= 300 or not trial.refused, told
            _check_silence(answer)


def _check_silence(answer: Answer) -> None:
    assert b"Traceback" not in answer.body
    assert str(ROOT).encode() not in answer.body
    assert b"site-packages" not in answer.body


def test_what_is_on_the_list_is_registered(page: gr.Blocks) -> None:
    there = [route.template for route in registered(page)]
    signing_in = ("/login/huggingface", "/login/callback")  # on a Space
    for template in PAGE_PATHS:
        example = template.replace("{path:path}", "a").replace("{", "").replace("}", "")
        assert template in signing_in or any(matches(path, example) for path in there), template


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/openapi.json", "/health", "/theme.css"])
def test_what_can_be_read_says_nothing_of_the_server(page: gr.Blocks, path: str) -> None:
    answer = ask(page.local_url, "GET", path)
    assert answer.status == 200
    _check_silence(answer)


def test_no_page_of_another_origin_may_read_along(page: gr.Blocks) -> None:
    asked = {"Origin": page.local_url.rstrip("/"), "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "GET"):
        answer = ask(page.local_url, method, "/config", asked)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_private_endpoints_are_not_described(page: gr.Blocks) -> None:
    described = json.loads(ask(page.local_url, "GET", "/gradio_api/info").body)
    private = {fn.api_name for fn in page.fns.values() if fn.api_visibility == "private"}
    assert private
    assert not {f"/{name}" for name in private} & set(described["named_endpoints"])
    assert not described["unnamed_endpoints"]


TRICKS = (
    "../" * 8 + "etc/hostname", "%2e%2e/" * 8 + "etc/hostname", "..%2f" * 8 + "etc/hostname", "/etc/hostname",
    "%2Fetc%2Fhostname", "....//" * 8 + "etc/hostname", "..\\..\\etc\\hostname", "a/" * 3000, "a" * 300, "ü" * 200,
    "https://example.org/a", "file:///etc/hostname", "~/.bashrc", ".", "", "%00", "a%0d%0aSet-Cookie:%20a=b",
)  # fmt: skip


def test_path_tricks_lead_nowhere(page: gr.Blocks) -> None:
    for route in registered(page):
        if route.has_parameters and "GET" in route.methods and "heartbeat" not in route.path:
            for trick in TRICKS:
                path = route.template[: route.template.index("{")] + quote(trick, safe="/%:")
                assert ask(page.local_url, "GET", path).status in (400, 403, 404, 405, 307), path


def test_a_download_comes_from_the_folder_of_downloads_and_not_through_a_link(page: gr.Blocks) -> None:
    folder = Path(page.GRADIO_CACHE)
    (folder / "mine").mkdir()
    for name in ("made.csv", "link.csv"):
        file = folder / "mine" / name
        file.write_text("a") if name == "made.csv" else file.symlink_to("/etc/hostname")
    status = {name: ask(page.local_url, "GET", f"/gradio_api/file={folder}/mine/{name}").status
              for name in ("made.csv", "link.csv", "../../../../../../../../etc/hostname")}  # fmt: skip
    assert list(status.values()) == [200, 404, 404]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
BODY = st.fixed_dictionaries(
    {},
    optional={
        "data": JSON, "session_hash": JSON, "fn_index": JSON, "fn_name": JSON, "event_id": JSON,
        "component_id": JSON, "trigger_id": JSON, "simple_format": JSON,
    },
)  # fmt: skip
EVENTS = (
    "queue/join",
    "call/analyze",
    "call/predict",
    "call/v2/predict",
    "cancel",
    "reset",
    "component_server",
    "upload",
)


HEADERS = st.sampled_from(["Cookie", "Range", "X-Forwarded-Proto", "X-Forwarded-For", "Authorization", "Referer"])


@given(st.sampled_from(EVENTS), BODY, st.dictionaries(HEADERS, st.from_regex("[ -~]{0,20}", fullmatch=True)))
@settings(law, max_examples=100)
def test_no_event_makes_it_stumble(url: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
    headers = {**headers, "Content-Type": "application/json"}
    answer = ask(url, "POST", f"/gradio_api/{path}", headers, json.dumps(body).encode())
    assert answer.status < 500, answer.body
    _check_silence(answer)


@given(st.sampled_from([path.partition("{")[0] for path in PAGE_PATHS]), st.text(max_size=20), st.text(max_size=20))
@settings(law, max_examples=100)
def test_no_address_makes_it_stumble(url: str, path: str, more: str, query: str) -> None:
    answer = ask(url, "GET", f"{path}{quote(more)}?{quote(query)}&session_hash=a&upload_id=b")
    assert answer.status < 500, answer.body
    _check_silence(answer)


def test_a_full_queue_says_when_to_come_again() -> None:
    go_on = threading.Event()

    async def start() -> tuple[gr.Blocks, str]:
        with gr.Blocks(analytics_enabled=False) as demo:
            gr.api(lambda: bool(go_on.wait(60)), api_name="wait")
        return demo, launch(demo, "127.0.0.1", 0, block=False)

    demo, url = asyncio.run(start())
    try:
        headers = {"Content-Type": "application/json"}
        answers = [ask(url, "POST", "/gradio_api/call/wait", headers, b'{"data": []}') for _ in range(80)]
        full = [answer for answer in answers if answer.status == 503]
        assert full
        assert int(full[0].headers["retry-after"]) > 0
    finally:
        go_on.set()
        demo.close(verbose=False)


def test_the_password_guards_the_page_and_rest_and_guessing_is_slowed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with launched(tmp_path, auth=("dr", "open sesame")) as demo:
        url, form = demo.local_url, {"Content-Type": "application/x-www-form-urlencoded"}

        def log_in(password: str) -> Answer:
            return ask(url, "POST", "/login", form, f"username=dr&password={password}".encode())

        for path in ("/config", "/gradio_api/info", "/gradio_api/file=x", "/openapi.json", "/health"):
            assert ask(url, "GET", path).status in (401, 404), path
        assert ask(url, "POST", "/gradio_api/upload", {"Content-Type": "multipart/form-data"}).status == 401
        assert log_in("open+sesame").status == 200
        assert [log_in("guess").status for _ in range(6)] == [400] * 5 + [429]
        assert log_in("open+sesame").status == 429
    assert "open sesame" not in "".join(capfd.readouterr())
