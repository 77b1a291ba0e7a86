"""Starts the server of the page, with nothing that leaves this computer and nothing that is kept."""

import json
import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from mtl.errors import AddressError
from mtl.place import Place
from mtl.serve.address import check_address, given_hosts, is_loopback, own_hosts
from mtl.serve.answer import Models
from mtl.serve.guards import GuardSettings, guarded
from mtl.serve.rest import RestLimits, rest_routes
from mtl.ui.labels import page_translations
from mtl.ui.texts import LANGUAGES, translations
from mtl.ui.theme import CSS_FILE, make_theme

log = logging.getLogger(__name__)

PAGE_FILE, KEYS_FILE = (Path(__file__).with_name(name) for name in ("page.js", "keys.js"))

OWN_MACHINE = Place()
# Of one request. A zip of ten thousand photos fits; it goes to the disk as it comes, not through the memory.
MAX_UPLOAD_BYTES = 2 * 1024**3
MAX_SPACE_UPLOAD_BYTES = 200_000_000  # where nothing is trained


def launch(
    demo: gr.Blocks,
    host: str,
    port: int,
    *,
    place: Place = OWN_MACHINE,
    models: Models | None = None,
    auth: tuple[str, str] | None = None,
    allow_anyone: bool = False,
    allowed_hosts: Sequence[str] = (),
    open_browser: bool = False,
    block: bool = True,
) -> str:
    """Serve the page and return its address; with `block`, only when interrupted.

    models: what REST answers with; unset: no REST. auth: the one user and password, for both. allow_anyone: listen on
    any address without one. allowed_hosts: more names of this server, as behind a proxy. Raises AddressError.
    """
    check_address(host, place=place, auth=auth, allow_anyone=allow_anyone)
    limits = RestLimits()
    rest = rest_routes(models, auth=auth, limits=limits) if models else []
    settings = GuardSettings(
        hosts=own_hosts(host, place, allowed_hosts),
        trusted_hosts=given_hosts(place, allowed_hosts),
        on_space=place.on_space,
        max_upload_bytes=_max_upload_bytes(place),
        rest=tuple((route.path, limits.max_request_bytes) for route in rest),
        files=Path(get_upload_folder()),
    )
    demo.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    try:
        port = port or _free_port(host)
        _, url, _ = demo.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            show_error=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            max_file_size=settings.max_upload_bytes,
            app_kwargs={"lifespan": guarded(settings, rest), "openapi_url": None},
            theme=make_theme(),
            css_paths=CSS_FILE,
            head=_head(),
            i18n=page_translations(),
        )
    except OSError as error:
        raise AddressError(f"--port {port}: cannot listen on {host}:{port} ({error}); choose another, or 0") from error
    print(f"Skin analysis is at {url}", flush=True)
    if allow_anyone and not auth and not place.on_space and not is_loopback(host):
        print("Everybody who can reach this computer can use the page: no password is set.", flush=True)
    if block:
        demo.block_thread()
    return url


def load_analysis() -> threading.Thread:
    """Load in the background what an analysis needs, torch above all; whoever asks for one before waits for the same.

    What trainings, reports and exports need besides is loaded with the first of them: here it would only keep the
    first analysis waiting. An end of the process waits for this thread: one that is broken off in the middle of loading
    a library may bring the process down.
    """
    loading = threading.Thread(target=_load, name="loading")
    loading.start()
    return loading


def _load() -> None:
    try:
        import mtl.api  # noqa: F401
    # The edge of a thread: whoever asks for an analysis is told so again.
    except Exception:
        log.exception("what an analysis needs cannot be loaded")


def _max_upload_bytes(place: Place) -> int:
    return MAX_SPACE_UPLOAD_BYTES if place.on_space and place.why_no_training() else MAX_UPLOAD_BYTES


def _head() -> str:
    """The scripts that every part of the page needs, and its words."""
    words = json.dumps({language: dict(translations(language)) for language in LANGUAGES}).replace("<", "\\u003c")
    scripts = (path.read_text(encoding="utf-8") for path in (PAGE_FILE, KEYS_FILE))
    return "".join(f"<script>{script}</script>" for script in (f"window.mtl = {{ words: {words} }};", *scripts))


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])
