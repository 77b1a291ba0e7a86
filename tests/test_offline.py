"""Nothing leaves this computer: training, analysis and the page, each under a guard that refuses and notes calls."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from planted import PLANTED_TOKEN

ROOT = Path(__file__).parent.parent
TINY = ["--epochs", "1", "--batch-size", "4", "--image-size", "64", "--threads", "1", "--device", "cpu"]


@dataclass
class Guarded:
    """Runs Python with the guard of tests/guard in it."""

    folder: Path

    @property
    def notes(self) -> Path:
        return self.folder / "calls.txt"

    @property
    def environ(self) -> dict[str, str]:
        guard = os.pathsep.join([str(ROOT / "tests" / "guard"), str(ROOT)])
        return os.environ | {"PYTHONPATH": guard, "MTL_CONNECTIONS": str(self.notes), "MTL_REFUSE": "calls"}

    def run(self, *arguments: str | Path) -> str:
        """What it prints; it must succeed, and have called nobody."""
        command = [sys.executable, *map(str, arguments)]
        ended = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        assert self.calls() == []
        return ended.stdout

    def calls(self) -> list[str]:
        watching, *calls = self.notes.read_text(encoding="utf-8").splitlines()
        assert watching == "watching"
        return calls


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


# ---- the guard


@pytest.mark.parametrize(
    ("call", "noted"),
    [
        ("socket.socket().connect(('192.0.2.1', 80))", "socket.connect '192.0.2.1'"),
        ("socket.getaddrinfo('example.org', 80)", "socket.getaddrinfo 'example.org'"),
        ("socket.getaddrinfo(b'example.org', 80)", "socket.getaddrinfo b'example.org'"),
        ("socket.gethostbyname('example.org')", "socket.gethostbyname 'example.org'"),
        ("socket.gethostbyaddr('192.0.2.1')", "socket.gethostbyaddr '192.0.2.1'"),
        ("socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 53))", "socket.connect '192.0.2.1'"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))", "socket.sendto '192.0.2.1'"),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 53))", "socket.connect '2001:db8::1'"),
        ("urllib.request.urlopen('https://example.org')", "socket.getaddrinfo 'example.org'"),
        ("subprocess.run(['curl', 'example.org'])", "subprocess.Popen curl example.org"),
        ("subprocess.run('cd / && wget example.org', shell=True)", "subprocess.Popen /bin/sh -c cd / && wget"),
        ("os.system('git clone x')", "os.system git clone x"),
        (
            "subprocess.run([sys.executable, '-c', 'import socket; socket.gethostbyname(\"example.org\")'], check=1)",
            "socket.gethostbyname 'example.org'",
        ),
    ],
)
def test_the_guard_notes_and_refuses(call: str, noted: str, guarded: Guarded) -> None:
    code = f"import os, socket, subprocess, sys, urllib.request\n{call}"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=guarded.environ, capture_output=True, text=True, timeout=60)
    assert "guard refuses" in ended.stderr
    assert len(guarded.calls()) == 1
    assert noted in guarded.calls()[0]


def test_the_guard_lets_this_computer_pass(guarded: Guarded) -> None:
    code = """
import socket, subprocess
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(("localhost", server.getsockname()[1]))
subprocess.run(["true"], check=True)
"""
    guarded.run("-c", code)


# ---- the application


@pytest.fixture(scope="module")
def photo() -> Path:
    return next(iter(sorted((ROOT / "assets" / "examples").glob("*.jpg"))))


def test_training_and_analysis_call_nobody(tiny_data: Path, photo: Path, guarded: Guarded) -> None:
    # One process for all: importing torch is most of what each takes.
    code = """
import json, sys
from pathlib import Path
from mtl import MultiTaskModel
from mtl.cli import main
data, photo, *settings = sys.argv[1:]
assert main(["train", "--data-dir", data, "--output-dir", "runs", "--name", "tiny", "--json", *settings]) == 0
[run] = Path("runs").glob("*tiny")
assert main(["evaluate", "--data-dir", data, "--checkpoint", str(run), "--json"]) == 0
assert main(["predict", photo, "--output-dir", "out", "--json"]) == 0
print(json.dumps(MultiTaskModel.load().predict(photo)["classification"]))
"""
    told = guarded.run("-c", code, tiny_data, photo, *TINY)
    trained, evaluated, predicted, loaded = map(json.loads, told.splitlines())
    assert trained["state"] == "finished"
    assert evaluated["classification"]["images"] == 6
    assert predicted["results"][0]["classification"]["predicted_class"] == loaded["predicted_class"]


@contextmanager
def served(guarded: Guarded, **variables: str) -> Iterator[str]:
    """The address of `app.py`, which ends as a Space ends it: by SIGTERM, in order."""
    folder = guarded.folder
    command = [sys.executable, ROOT / "app.py", "--port", "0", "--runs-dir", folder / "runs", "--data-root", folder]
    with (folder / "app.log").open("w") as log:
        process = subprocess.Popen(command, env=guarded.environ | variables, stdout=log, stderr=log, cwd=folder)
    try:
        yield wait_for_address(folder / "app.log", process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def wait_for_address(log: Path, process: "subprocess.Popen[bytes]") -> str:
    for _ in range(900):
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found.group()
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_the_page_calls_nobody_and_ends_in_order(photo: Path, guarded: Guarded) -> None:
    left = guarded.folder / "visitors"
    with served(guarded, GRADIO_TEMP_DIR=str(left)) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert "Skin analysis" in client.get("/").text
        assert client.get("/health").json()["status"] == "ok"
        answer = client.post("/api/v1/analyze/multitask", files={"file": (photo.name, photo.read_bytes())})
        assert answer.json()["lesion_coverage"] >= 0
    assert guarded.calls() == []
    log = (guarded.folder / "app.log").read_text()
    assert "Traceback" not in log
    assert PLANTED_TOKEN not in log
    assert not list(left.rglob("*.jpg"))
