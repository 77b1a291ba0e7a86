"""What `app.py` is started with: its options, and the variables of the environment that stand in for them."""

import argparse
import logging
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mtl.errors import ConfigError, MtlError
from mtl.hub.reference import is_reference, parse_reference
from mtl.hub.tokens import find_token, register_secret
from mtl.place import Place, choose_folder, place_of
from mtl.serve.address import PASSWORD_VARIABLE, check_address, read_password

log = logging.getLogger(__name__)

MAX_PORT = 65535


@dataclass(frozen=True)
class Options:
    """Checked, with a folder for runs that can be written."""

    host: str
    port: int
    place: Place
    data_root: Path
    runs_dir: Path
    checkpoints_dir: Path
    checkpoint: Path
    temporary: Path | None
    open_browser: bool
    auth: tuple[str, str] | None  # user, password
    allow_anyone: bool  # to listen on other addresses without a password
    allowed_hosts: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `python app.py --help`")


def read_options(arguments: Sequence[str], environ: MutableMapping[str, str], home: Path) -> Options:
    """Read and check all there is to start with; pulls the model that it names.

    home: the application's own folder. What gradio would stumble over on import, and the password, are taken out of
    `environ`, so that no child process inherits them. Raises MtlError where the application cannot start so.
    """
    port = environ.pop("GRADIO_SERVER_PORT", "") or "7860"
    args = _make_parser(environ).parse_args(arguments)
    place, auth = place_of(environ), _take_password(environ)
    # Before a model is pulled for nothing.
    check_address(args.host, place=place, auth=auth, allow_anyone=args.allow_anyone)
    checkpoints_dir = _choose_readable("--checkpoints-dir", args.checkpoints_dir, home / "checkpoints", place)
    runs_dir = choose_folder("--runs-dir", args.runs_dir, home / "runs", place)
    if place.on_space and not place.zero_gpu and runs_dir == home / "runs":
        log.warning("runs are lost when the Space restarts; add persistent storage to it to keep them")
    return Options(
        args.host,
        read_port(port if args.port is None else args.port),
        place,
        _choose_readable("--data-root", args.data_root, home / "data", place),
        runs_dir,
        checkpoints_dir,
        choose_checkpoint(args.checkpoint, environ.get("MTL_MODEL"), checkpoints_dir, home / "checkpoints" / "default"),
        _path(environ.get("GRADIO_TEMP_DIR")),
        args.open,
        auth,
        args.allow_anyone,
        tuple(args.allowed_host),
    )


def _make_parser(environ: MutableMapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="app.py", description="Skin analysis: train and use one network for skin, hair and lesions.")
    # A Space sets this variable and the port's.
    host = environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    parser.add_argument("--host", default=host, help="address to listen on")
    parser.add_argument("--port", help="0: a free one; unset: $GRADIO_SERVER_PORT, or 7860")
    for option, variable, help_text in (
        ("--data-root", "MTL_DATA_ROOT", "the folder whose folders can be trained on"),
        ("--runs-dir", "MTL_RUNS_DIR", "where runs are kept"),
        ("--checkpoints-dir", "MTL_CHECKPOINTS_DIR", "where models are kept that were pulled from the Hub"),
    ):
        default = _path(environ.get(variable))
        parser.add_argument(option, type=Path, default=default, help=f"{help_text} (or ${variable})")
    parser.add_argument(
        "--checkpoint", help="the model to start with: a path, a name in the checkpoints folder, or hf://owner/name"
    )
    parser.add_argument("--allow-anyone", action="store_true", help="listen on other addresses without a password")
    parser.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME", help="a name that this page is also reached by"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


def _path(text: str | None) -> Path | None:
    """An empty variable counts as unset: the current folder is never meant by it."""
    return Path(text) if text else None


def read_port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_PORT):
        raise ConfigError(f"--port (or GRADIO_SERVER_PORT): got {text}; needed 0 (a free one) to {MAX_PORT}")
    return int(text)


def _choose_readable(option: str, given: Path | None, default: Path, place: Place) -> Path:
    """A folder that is written to now and then: photos or models may well lie where they can be read only."""
    if given or not place.on_space:
        return given or default
    return choose_folder(option, None, default, place)


def _take_password(environ: MutableMapping[str, str]) -> tuple[str, str] | None:
    auth = read_password(environ)
    environ.pop(PASSWORD_VARIABLE, None)
    if auth:
        register_secret(auth[1])
    return auth


def choose_checkpoint(option: str | None, variable: str | None, checkpoints_dir: Path, shipped: Path) -> Path:
    """The model to start with, which can be read; the shipped one is not looked at, for without it one can train.

    Raises MtlError for one named by the option, where somebody sits to read it. One named by the variable, on a server
    that starts by itself, gives way to the shipped one with a warning, if that is there.
    """
    if option is not None:
        return _find_checkpoint(option, checkpoints_dir)
    if not variable:
        return shipped
    try:
        return _find_checkpoint(variable, checkpoints_dir)
    except MtlError as error:
        if not shipped.is_dir():
            raise
        log.warning("MTL_MODEL: %s. The page starts with the shipped model", error)
        return shipped


def _find_checkpoint(named: str, checkpoints_dir: Path) -> Path:
    from mtl.checkpoint import read_checkpoint

    if is_reference(named):
        from mtl.hub.pull import resolve

        path = resolve(parse_reference(named), checkpoints_dir, token=find_token()).path
    elif named == Path(named).name and (checkpoints_dir / named).is_dir():
        path = checkpoints_dir / named
    else:
        path = Path(named)
    read_checkpoint(path).network()
    return path
