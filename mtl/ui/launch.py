"""Starts the server of the page, with nothing that leaves this computer and nothing that is kept."""

import socket
from pathlib import Path

import gradio as gr

from mtl.errors import AddressError
from mtl.ui.theme import CSS_FILE, make_theme

KEYS_FILE = Path(__file__).with_name("keys.js")

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
            head=f"<script>{KEYS_FILE.read_text(encoding='utf-8')}</script>",
        )
    except OSError as error:
        raise AddressError(f"--port {port}: cannot listen on {host}:{port} ({error}); choose another, or 0") from error
    print(f"Skin analysis is at {url}", flush=True)
    if block:
        demo.block_thread()
    return url


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
