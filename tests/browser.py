"""A real server and a real Chromium for the tests of the page; without Chromium they are skipped."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from planted import PLANTED_TOKEN

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page is not tested")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not tested")

ROOT = Path(__file__).parent.parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 90_000  # for what a loaded machine may take; a test that passes does not wait for it
sync_api.expect.set_options(timeout=PATIENCE_MS)


class App:
    """`app.py` as its users start it, in a process of its own."""

    def __init__(self, folder: Path):
        self.folder, self.runs_dir, self.data_root = folder, folder / "runs", folder / "data"
        self._start()

    def _start(self) -> None:
        folder = self.folder
        self._log = (folder / "app.log").open("w+", encoding="utf-8")
        command = [sys.executable, "app.py", "--port", "0", "--runs-dir", self.runs_dir, "--data-root", self.data_root]
        self.connections = folder / "connections.txt"
        temporary = {
            "GRADIO_TEMP_DIR": str(folder / "gradio"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT / "tests" / "guard"),
            "MTL_CONNECTIONS": str(self.connections),
        }
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT, env=os.environ | temporary
        )
        self.url = self._wait_for_address()

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text(encoding="utf-8")

    def _wait_for_address(self) -> str:
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+", self.log()):
                return found.group()
            assert self.process.poll() is None, self.log()
            time.sleep(0.1)
        raise AssertionError(f"no address after a minute: {self.log()}")

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._end()

    def kill_and_restart(self) -> None:
        """As after a crash: nothing is told to the process, and another one starts on the same folders."""
        self.process.kill()
        self.process.wait()
        self._end()
        self._start()

    def _end(self) -> None:
        self._log.close()
        calls = self.connections.read_text(encoding="utf-8").splitlines()[1:]
        assert calls == [], "the application called other computers"


@contextmanager
def opened(
    app: App, browser: "sync_api.Browser", width: int = 1280, scheme: str = "light"
) -> Iterator["sync_api.Page"]:
    """A page of a visitor of its own; what goes wrong in it, or in the server meanwhile, fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: None if is_of_a_plot_that_left(error) else errors.append(str(error)))
    page.goto(app.url)
    page.wait_for_selector("#mtl-examples img")
    yield page
    told = page.content() + app.log()
    context.close()
    assert not errors, errors
    assert "Traceback" not in told
    assert PLANTED_TOKEN not in told


def is_of_a_plot_that_left(error: "sync_api.Error") -> bool:
    """gradio's plot reads its width on after it has left the page; none of our own scripts reads one."""
    return "reading 'offsetWidth'" in str(error)


def choose(page: "sync_api.Page", box: str, option: str) -> None:
    """Again where another was hit: a list is brought up to date while it is open, and so may move."""
    field = page.locator(f"{box} input")
    for _ in range(3):
        field.click()
        options = page.locator(f"#{field.get_attribute('aria-controls')}")
        options.get_by_role("option", name=option, exact=True).click()
        if field.input_value() == option:
            return
    sync_api.expect(field).to_have_value(option)


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_MS / 1000) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
