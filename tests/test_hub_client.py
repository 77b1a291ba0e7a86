"""The real client over our HTTP: what it sends where, how long it waits, what it says."""

import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, constants
from huggingface_hub.utils import _http, get_session
from loopback_hub import Fault, LoopbackHub

from mtl.errors import (
    HubAccessError,
    HubBusyError,
    HubConflictError,
    HubConnectionError,
    HubError,
    HubNotFoundError,
    TransferCancelledError,
)
from mtl.hub import client
from mtl.hub.client import Limits, hub_address, hub_client
from mtl.hub.transfer import Transfer, TransferFile

QUICK = Limits(connect_s=0.5, told_s=0.2, silent_s=0.6, waits_s=(0.05, 0.1), longest_wait_s=1.5, poll_s=0.02)
REPO = "ada/skin"


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.put(REPO, {"model.safetensors": bytes(300_000), "config.json": b"{}"}, private=True)
        yield hub


@pytest.fixture
def hub(running: LoopbackHub) -> Iterator[LoopbackHub]:
    running.log.clear()
    yield running
    running.faults = {}


@pytest.fixture
def token(hub: LoopbackHub) -> str:
    return hub.add_user("ada")


def info(hub: LoopbackHub, token: str, transfer: Transfer | None = None, limits: Limits = QUICK) -> str:
    return ask(hub.url, token, transfer, limits)


def ask(address: str, token: str = "", transfer: Transfer | None = None, limits: Limits = QUICK) -> str:
    """The commit of main."""
    with hub_client(token, address, transfer or Transfer("pull", REPO), limits) as api:
        return str(api.model_info(REPO).sha)


def commit(hub: LoopbackHub, token: str, content: bytes, name: str = "config.json", limits: Limits = QUICK) -> str:
    transfer = Transfer("push", REPO, [TransferFile(name, len(content))])
    with hub_client(token, hub.url, transfer, limits) as api:
        done = api.create_commit(REPO, [CommitOperationAdd(name, content)], commit_message="test")
    return str(done.oid)


def test_the_client_answers(hub: LoopbackHub, token: str) -> None:
    assert info(hub, token) == hub.repos[REPO].head.sha


def test_the_token_goes_to_the_hub_only(hub: LoopbackHub, token: str) -> None:
    commit(hub, token, token.encode(), "model.safetensors")
    with hub_client(token, hub.url, Transfer("pull", REPO), QUICK) as api:
        answer = get_session().get(
            f"{hub.url}/{REPO}/resolve/main/model.safetensors", headers={"authorization": f"Bearer {api.token}"}
        )
    assert answer.content == token.encode()
    assert {call.route for call in hub.log if not call.authorized} == {"upload", "storage"}
    assert all(call.host.startswith("localhost") for call in hub.log if not call.authorized)


def test_the_hubs_own_port_may_be_written_out() -> None:
    wire = client._Wire("https://HUB.example:443", Transfer("pull", REPO), QUICK)
    assert wire._home == ("https", "hub.example", None)


def test_where_the_hub_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub_address() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example/")
    assert hub_address() == "http://mirror.example"
    assert hub_address("https://other.example") == "https://other.example"
    for wrong in ("huggingface.co", "file:///etc/passwd", "https://user:secret@host", "http://[::1"):
        with pytest.raises(HubError, match="no address of a Hub") as caught:
            hub_address(wrong)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "part"),
    [
        (401, HubAccessError, "does not accept the token"),
        (403, HubAccessError, "no right to pull it"),
        (404, HubNotFoundError, "no such model, or it is private"),
        (409, HubConflictError, "meanwhile (409: fault 409)"),
        (412, HubConflictError, "meanwhile (412"),
        (418, HubError, "refused (418"),
        (429, HubBusyError, "too many requests"),
        (500, HubBusyError, "a fault of its own"),
        (503, HubBusyError, "a fault of its own"),
    ],
)
def test_what_a_status_means(hub: LoopbackHub, token: str, status: int, kind: type[HubError], part: str) -> None:
    hub.faults["info"] = Fault("status", status=status)
    with pytest.raises(HubError) as caught:
        info(hub, token)
    assert type(caught.value) is kind
    assert part in str(caught.value)
    assert REPO in str(caught.value) or hub.url.removeprefix("http://") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert token not in str(caught.value)


def test_strangers_and_wrong_tokens(hub: LoopbackHub) -> None:
    with pytest.raises(HubNotFoundError, match="no token was given"):
        info(hub, "")
    with pytest.raises(HubNotFoundError, match="this token may not see it"):
        info(hub, hub.add_user("bob"))
    with pytest.raises(HubAccessError, match="wrong or old"):
        info(hub, "hf_nobodysnobodysnobodys")
    with pytest.raises(HubAccessError, match="no right to push to it"):
        commit(hub, hub.add_user("ada", "read"), b"{ }")


def test_a_gated_model(hub: LoopbackHub) -> None:
    repo = hub.repos[REPO]
    repo.gated, repo.private = True, False
    try:
        with pytest.raises(HubAccessError, match="ask for it on its page"):
            info(hub, hub.add_user("bob"))
    finally:
        repo.gated, repo.private = False, True


def test_one_fault_is_got_over(hub: LoopbackHub, token: str) -> None:
    transfer = Transfer("pull", REPO)
    for fault in (Fault("status", status=503, times=2), Fault("close", times=1), Fault("status", status=429, times=1)):
        hub.faults["info"] = fault
        assert info(hub, token, transfer) == hub.repos[REPO].head.sha
        assert "trying again" not in transfer.message


def test_what_it_waits_for_is_told_at_once(hub: LoopbackHub, token: str) -> None:
    hub.faults["info"] = Fault("status", status=503)
    transfer = Transfer("pull", REPO)
    with watched(transfer) as messages, pytest.raises(HubBusyError):
        info(hub, token, transfer, replace(QUICK, waits_s=(0.2, 0.2)))
    told = [message for message in messages if "trying again" in message]
    assert [message.partition("; ")[2] for message in told] == [
        "trying again in 0.2 s (1 of 2)",
        "trying again in 0.2 s (2 of 2)",
    ]
    assert "503" in told[0]


class watched:  # noqa: N801 - used as a function
    """Every message that a transfer has meanwhile."""

    def __init__(self, transfer: Transfer):
        self._transfer, self._messages, self._over = transfer, [transfer.message], threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            if self._transfer.message != self._messages[-1]:
                self._messages.append(self._transfer.message)

    def __enter__(self) -> list[str]:
        self._thread.start()
        return self._messages

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("asked", [1, "date"])
def test_a_short_retry_after_is_honoured(hub: LoopbackHub, token: str, asked: float | str) -> None:
    wait = formatdate(time.time() + 1.4, usegmt=True) if asked == "date" else asked
    hub.faults["info"] = Fault("status", status=429, retry_after=wait, times=1)
    info(hub, token)
    first, second = hub.calls("info")
    assert second.at - first.at >= (0.3 if asked == "date" else 1.0)


def test_a_long_retry_after_is_told_and_not_waited_for(hub: LoopbackHub, token: str) -> None:
    hub.faults["info"] = Fault("status", status=429, retry_after=300)
    with pytest.raises(HubBusyError, match="try again in 300 s"):
        info(hub, token)
    assert len(hub.calls("info")) == 1


@pytest.mark.parametrize("fault", [Fault("status", status=503), Fault("close"), Fault("hang")])
def test_a_commit_is_never_sent_twice(hub: LoopbackHub, token: str, fault: Fault) -> None:
    hub.faults["commit"] = fault
    with pytest.raises(HubError, match="may have taken the change all the same"):
        commit(hub, token, b'{"a": 1}')
    assert len(hub.calls("commit")) <= 1


def test_a_commit_that_was_surely_not_taken_is_sent_again(hub: LoopbackHub, token: str) -> None:
    hub.faults["commit"] = Fault("status", status=429, times=1)
    assert commit(hub, token, b'{"b": 2}') == hub.repos[REPO].head.sha


@pytest.mark.parametrize("fault", [Fault("status", status=503, times=1), Fault("close", times=1)])
def test_an_upload_is_sent_again_from_its_beginning(hub: LoopbackHub, token: str, fault: Fault) -> None:
    content = fault.kind.encode() * 100_000
    hub.faults["upload"] = fault
    commit(hub, token, content, "model.safetensors")
    assert hub.read(REPO, "model.safetensors") == content


def test_an_upload_that_never_works_ends(hub: LoopbackHub, token: str) -> None:
    hub.faults["upload"] = Fault("status", status=500)
    with pytest.raises(HubBusyError, match="500"):
        commit(hub, token, b"never" * 1000, "model.safetensors")
    assert len(hub.calls("upload")) == 3


def test_an_upload_counts_its_bytes(hub: LoopbackHub, token: str) -> None:
    content = b"counted" * 50_000
    sha256 = hashlib.sha256(content).hexdigest()
    transfer = Transfer("push", REPO, [TransferFile("model.safetensors", len(content), sha256)])
    with hub_client(token, hub.url, transfer, QUICK) as api:
        api.create_commit(REPO, [CommitOperationAdd("model.safetensors", content)], commit_message="test")
    assert transfer.bytes_done == len(content)


def test_silence_is_told_and_ends(hub: LoopbackHub, token: str) -> None:
    hub.faults["info"] = Fault("hang")
    transfer, began = Transfer("pull", REPO), time.monotonic()
    with watched(transfer) as messages, pytest.raises(HubConnectionError, match="has sent nothing for"):
        info(hub, token, transfer)
    assert time.monotonic() - began < 2
    assert any("still waiting" in message for message in messages)


def test_a_cancel_acts_at_once(hub: LoopbackHub, token: str) -> None:
    hub.faults["info"] = Fault("hang")
    transfer = Transfer("pull", REPO)
    began = time.monotonic()
    threading.Timer(0.3, transfer.cancel).start()
    with pytest.raises(TransferCancelledError, match="nothing has changed"):
        info(hub, token, transfer, Limits())
    assert time.monotonic() - began < 2


def test_a_cancel_at_the_commit_does_not_claim_that_nothing_changed(hub: LoopbackHub, token: str) -> None:
    hub.faults["commit"] = Fault("hang", done=True)
    transfer, before = Transfer("push", REPO), hub.repos[REPO].head.sha
    threading.Timer(0.4, transfer.cancel).start()
    with (
        pytest.raises(TransferCancelledError, match="look at its page") as caught,
        hub_client(token, hub.url, transfer, Limits()) as api,
    ):
        api.create_commit(REPO, [CommitOperationAdd("config.json", b'{"c": 3}')], commit_message="test")
    assert hub.repos[REPO].head.sha != before
    assert "nothing has changed" not in str(caught.value)


def test_one_transfer_at_a_time_and_the_second_can_be_cancelled(hub: LoopbackHub, token: str) -> None:
    second = Transfer("pull", REPO)
    with hub_client(token, hub.url, Transfer("pull", REPO), QUICK):
        threading.Timer(0.3, second.cancel).start()
        with watched(second) as messages, pytest.raises(TransferCancelledError):
            info(hub, token, second)
    assert any("another push or pull" in message for message in messages)
    assert info(hub, token)


def test_two_threads_both_get_through(hub: LoopbackHub, token: str) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(info(hub, token))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hub.repos[REPO].head.sha] * 4


def test_no_network() -> None:
    for address, part in (("http://127.0.0.1:9", "refused the connection"), ("http://hub.invalid", "is not found")):
        with pytest.raises(HubConnectionError, match=part):
            ask(address)


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(HubConnectionError, match=r"hub\.example refused the connection"):
        ask("http://hub.example")


def test_the_environments_proxy_is_used(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback Hub as a proxy does not know the way, and says 404; without it, the host is not found at all."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "other.example")
    monkeypatch.setenv("http_proxy", hub.url)
    with pytest.raises(HubNotFoundError):
        ask("http://hub.example")


def test_an_address_that_is_no_hub(hub: LoopbackHub) -> None:
    with pytest.raises(HubError) as caught:
        ask(f"{hub.url}/lfs")
    assert "\n" not in str(caught.value)


def test_offline_mode_asks_nobody(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubConnectionError, match="HF_HUB_OFFLINE"):
        info(hub, "")
    assert not hub.log


def test_what_the_library_had_is_put_back(hub: LoopbackHub, token: str) -> None:
    before = state()
    info(hub, token)
    hub.faults["info"] = Fault("status", status=403)
    with pytest.raises(HubAccessError):
        info(hub, token)
    assert state() == before
    assert not client._one_at_a_time.locked()


def state() -> tuple[object, ...]:
    return (
        _http._GLOBAL_CLIENT_FACTORY,
        constants.HF_HUB_DISABLE_XET,
        constants.HF_HUB_DISABLE_TELEMETRY,
        logging.getLogger("huggingface_hub").level,
        huggingface_hub.utils.are_progress_bars_disabled(),
    )


def test_errors_of_our_own_pass_as_they_are(hub: LoopbackHub) -> None:
    for error in (HubConflictError("mine"), FileNotFoundError(2, "no such file")):
        with pytest.raises(type(error)) as caught, hub_client("", hub.url, Transfer("pull", REPO), QUICK):
            raise error
        assert caught.value is error


def test_nothing_is_written_to_the_terminal_and_no_token_to_the_log(
    hub: LoopbackHub, token: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.faults["upload"] = Fault("status", status=503, times=1)
    commit(hub, token, b"quiet" * 10_000, "model.safetensors")
    hub.faults["info"] = Fault("status", status=403)
    with pytest.raises(HubAccessError):
        info(hub, token)
    assert capfd.readouterr() == ("", "")
    assert token not in caplog.text
