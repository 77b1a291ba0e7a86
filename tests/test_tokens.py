"""A token is found where it should be, and stands in nothing that is written."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from builders import law
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from mtl.errors import HubAccessError
from mtl.hub import tokens
from mtl.hub.tokens import HIDDEN, SecretFilter, find_token, register_secret, without_secrets

TOKEN = "hf_PlantedPlantedPlantedPlantedPlanted"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEiLCJpYXQiOjF9.c2lnbmF0dXJlc2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tokens, "_secrets", set())
    monkeypatch.setattr(tokens, "_pattern", tokens._pattern)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_where_a_token_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_token() is None
    (tmp_path / "token").write_text("hf_fromlogin00000000000", encoding="utf-8")
    assert find_token() == "hf_fromlogin00000000000"
    monkeypatch.setenv("HF_TOKEN", " hf_fromenvironment00000\n")
    assert find_token() == "hf_fromenvironment00000"
    assert find_token("hf_given00000000000000000") == "hf_given00000000000000000"


def test_a_visitor_without_a_token_gets_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_token("") is None
    assert find_token(False) is None
    assert find_token(True) == TOKEN


@pytest.mark.parametrize("wrong", ["hf_with space in it 0000", "hf_zwei\nZeilen0000000000", "hf_größer0000000000000"])
def test_what_no_request_can_carry_is_refused_unquoted(wrong: str) -> None:
    with pytest.raises(HubAccessError) as caught:
        find_token(wrong)
    assert wrong[:8] not in str(caught.value)


@pytest.mark.parametrize(
    "secret", [TOKEN, JWT, f"hf_oauth_{JWT}", "api_org_abcdefghijklmnopqrstuvwxyz", "Bearer abcdefghijklmnop.qrst"]
)
def test_what_looks_like_a_token_is_hidden(secret: str) -> None:
    clean = without_secrets(f"sent {secret}, got 401")
    assert secret.removeprefix("Bearer ") not in clean
    assert clean.startswith("sent ")
    assert clean.endswith(", got 401")


@pytest.mark.parametrize("text", ["hf_hub_download(repo_id)", "hf://ada/skin@main", "Bearer of news", "shf_1"])
def test_what_is_no_token_stays(text: str) -> None:
    assert without_secrets(text) == text


@law
@given(st.text(st.characters(codec="utf-8"), min_size=8, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_registered_secret_never_remains(secret: str, before: str, after: str) -> None:
    register_secret(secret)
    assert secret not in without_secrets(before + secret + after).replace(HIDDEN, "\0")


def record_of(message: object, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("x", logging.WARNING, "x.py", 1, message, args, exc_info)


@pytest.mark.parametrize(
    "record",
    [
        record_of(f"token {TOKEN}"),
        record_of("headers %s", {"authorization": f"Bearer {TOKEN}"}),
        record_of("Bearer %s", "not.registered.but.a.token"),
        record_of("%(token)s", {"token": TOKEN}),
        record_of("it failed", error=ValueError(TOKEN)),
        record_of(ValueError(TOKEN)),
    ],
)
def test_records_are_cleaned(record: logging.LogRecord) -> None:
    assert SecretFilter().filter(record)
    formatted = logging.Formatter("%(message)s").format(record)
    for text in (formatted, str(record.msg), str(record.args), str(record.exc_text), str(record.exc_info)):
        assert TOKEN not in text
        assert "not.registered" not in text


def test_a_record_with_too_few_arguments_is_cleaned_too() -> None:
    record = record_of("%s %s", TOKEN)
    SecretFilter().filter(record)
    assert record.args == (HIDDEN,)


def test_arguments_that_hold_no_token_stay_as_they_are() -> None:
    arguments = ("127.0.0.1", "GET", "/health", 1.1, 200)
    record = record_of('%s - "%s %s HTTP/%s" %d', *arguments)
    SecretFilter().filter(record)
    assert record.args == arguments


PROGRAM = f"""
import logging, sys, threading
from mtl.hub.tokens import install_secret_filter
install_secret_filter(); install_secret_filter()
logging.basicConfig(level=logging.DEBUG)
logging.getLogger("some.library").warning("sent %s", "{TOKEN}")
try:
    raise ValueError("{TOKEN}")
except ValueError:
    logging.getLogger("httpx2").exception("it failed")
thread = threading.Thread(target=lambda: int("{TOKEN}"))
thread.start(); thread.join()
print("alive", file=sys.stderr)
raise RuntimeError("at last {TOKEN}") from KeyError("{TOKEN}")
"""


def test_once_installed_nothing_that_a_process_writes_has_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert TOKEN not in done.stderr + done.stdout
    assert done.stderr.count(HIDDEN) >= 5
    for part in ("WARNING:some.library", "it failed", "alive", "RuntimeError: at last", "invalid literal"):
        assert part in done.stderr
