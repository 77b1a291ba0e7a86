"""From the start of a process to what it is for."""

import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from mtl.bench.measure import machine, medians

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "assets" / "examples" / "lesion-light-skin.jpg"
ANALYZE = "/api/v1/analyze/multitask?mask=none"
PATIENCE_S = 120
VERBS = ("", "train", "predict", "evaluate", "check-data", "demo-data", "export", "push", "pull", "runs", "bench")


def bench_startup(repetitions: int) -> dict[str, Any]:
    """Seconds: each verb's help, the page, and its first answer to a program."""
    starts = [_start_page() for _ in range(repetitions)]
    return {
        "bench": "startup",
        "machine": machine(),
        "repetitions": repetitions,
        "help_s": medians({verb: partial(_help, verb) for verb in VERBS}, repetitions),
        "first_page_s": median(page for page, _ in starts),
        "first_answer_s": median(answer for _, answer in starts),
    }


def _help(verb: str) -> None:
    """Of a verb; empty: of the whole."""
    command = [sys.executable, "-m", "mtl", *verb.split(), "--help"]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def _start_page() -> tuple[float, float]:
    """Seconds from the start to the first page, and to the first answer after that."""
    start = time.perf_counter()
    with _app() as url:
        _get_page(url)
        page = time.perf_counter() - start
        _post_photo(url)
        return page, time.perf_counter() - start


@contextmanager
def _app() -> Iterator[str]:
    """`app.py` in a process of its own on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="mtl-bench-") as folder:
        places = ["--runs-dir", f"{folder}/runs", "--data-root", f"{folder}/data"]
        command = [sys.executable, "app.py", "--port", str(port), *places]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _get_page(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as page:
                assert re.search(rb"<html", page.read())
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _post_photo(url: str) -> None:
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + EXAMPLE.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with urllib.request.urlopen(urllib.request.Request(url + ANALYZE, body, headers), timeout=PATIENCE_S) as answer:
        answer.read()
