"""Where a token for the Hub comes from, and how it stays out of everything that is written."""

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from mtl.errors import HubAccessError

HIDDEN = "[token]"
# What the Hub gives out: access tokens, those of organisations, and what a sign-in gives (a JSON web token).
_LOOKS = (
    r"hf_oauth_[\w.-]{8,}|hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|(?<=[Bb]earer )[\w.~+/=-]{16,}"
)
_MIN_SECRET = 8  # characters; what is shorter is found in any text

_secrets: set[str] = set()
_pattern = re.compile(_LOOKS)
_installed = threading.Lock()


def find_token(given: str | bool | None = None) -> str | None:
    """The token to send: `given`, then $HF_TOKEN, then the Hub's own login; None where there is none.

    given: False or empty looks nowhere else, which is what a visitor needs who has not signed in; True is as None.
    Every token that is found is kept out of the logs from then on. Raises HubAccessError for one that no request can
    carry.
    """
    if given is False or given == "":
        return None
    token = given if isinstance(given, str) else os.environ.get("HF_TOKEN") or _login() or ""
    token = token.strip()
    if not token:
        return None
    register_secret(token)
    if not (token.isascii() and token.isprintable()) or " " in token:
        # The HTTP library would quote it in its error.
        raise HubAccessError("the token holds characters that no token has; copy it again from the Hub's settings")
    return token


def _login() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def register_secret(text: str) -> None:
    """Hide this text in everything that is logged from now on."""
    global _pattern
    if len(text) >= _MIN_SECRET:
        _secrets.add(text)
        known = sorted(_secrets, key=len, reverse=True)
        _pattern = re.compile("|".join([*map(re.escape, known), _LOOKS]))


def without_secrets(text: str) -> str:
    """The text with every registered secret, and all that looks like a token, replaced."""
    return _pattern.sub(HIDDEN, text)


class SecretFilter(logging.Filter):
    """Takes tokens out of records: message, arguments, traceback and stack. It lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _message(record) != without_secrets(_message(record)):
            self._clean_message(record)
        self._clean_traceback(record)
        return True

    def _clean_message(self, record: logging.LogRecord) -> None:
        # The arguments stay apart where they can: uvicorn's formatter takes them from the record.
        record.msg = _clean(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_clean, record.args))
        elif isinstance(record.args, Mapping):
            record.args = {key: _clean(value) for key, value in record.args.items()}
        if (message := _message(record)) != without_secrets(message):
            record.msg, record.args = without_secrets(message), ()

    def _clean_traceback(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if (clean := without_secrets(text)) != text:
                record.exc_info, record.exc_text = None, clean
        elif record.exc_text:
            record.exc_text = without_secrets(record.exc_text)
        if record.stack_info:
            record.stack_info = without_secrets(record.stack_info)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # logging itself tells what is wrong with the arguments, and goes on
        return f"{record.msg} {record.args}"


def _clean(value: Any) -> Any:
    """The same value, unless a token stands in what would be printed of it."""
    text = str(value)
    clean = without_secrets(text)
    return value if clean == text else clean


def install_secret_filter() -> None:
    """From now on no log record of any logger, and no traceback of any thread, shows a token. Calling again is free.

    It works where records are made: a filter at a logger misses those of the loggers below it.
    """
    make, hook, thread_hook = logging.getLogRecordFactory(), sys.excepthook, threading.excepthook
    if not _installed.acquire(blocking=False):
        return
    hide = SecretFilter()

    def make_clean(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        hide.filter(record)
        return record

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _write_clean(kind, error, trace):
            hook(kind, error, trace)

    def show_of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or not _write_clean(args.exc_type, args.exc_value, args.exc_traceback):
            thread_hook(args)

    logging.setLogRecordFactory(make_clean)
    sys.excepthook, threading.excepthook = show, show_of_thread


def _write_clean(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> bool:
    """Write the traceback without the tokens in it; False, and nothing written, where there are none."""
    text = "".join(traceback.format_exception(kind, error, trace))
    clean = without_secrets(text)
    if clean == text or sys.stderr is None:
        return clean != text
    sys.stderr.write(clean)
    return True
