"""Starts the server of the page, with nothing that leaves this computer and nothing that is kept."""

import json
import socket
from pathlib import Path

import gradio as gr

from mtl.errors import AddressError
from mtl.ui.labels import page_translations
from mtl.ui.texts import LANGUAGES, translations
from mtl.ui.theme import CSS_FILE, make_theme

PAGE_FILE, KEYS_FILE = (Path(__file__).with_name(name) for name in ("page.js", "keys.js"))

# Of one file: a zip of ten thousand photos fits. It goes to the disk as it comes, not through the memory.
MAX_UPLOAD = "2gb"


def launch(demo: gr.Blocks, host: str, port: int, *, open_browser: bool = False, block: bool = True) -> str:
    """Serve the page and return its address; with `block`, only when interrupted."""
    demo.queue(default_concurrency_limit=4, max_size=64)
    try:
        port = port or _free_port(host)
        _, url, _ = demo.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            show_error=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            max_file_size=MAX_UPLOAD,
            theme=make_theme(),
            css_paths=CSS_FILE,
            head=_head(),
            i18n=page_translations(),
        )
    except OSError as error:
        raise AddressError(f"--port {port}: cannot listen on {host}:{port} ({error}); choose another, or 0") from error
    print(f"Skin analysis is at {url}", flush=True)
    if block:
        demo.block_thread()
    return url


def _head() -> str:
    """The scripts that every part of the page needs, and its words."""
    words = json.dumps({language: dict(translations(language)) for language in LANGUAGES}).replace("<", "\\u003c")
    scripts = (path.read_text(encoding="utf-8") for path in (PAGE_FILE, KEYS_FILE))
    return "".join(f"<script>{script}</script>" for script in (f"window.mtl = {{ words: {words} }};", *scripts))


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
