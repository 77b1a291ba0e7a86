"""What several test modules share: one short run, trained once; one server and one browser, started once."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from builders import write_folder
from planted import PLANTED_TOKEN, files_with

from mtl.training.run import Run

if TYPE_CHECKING:
    from browser import App
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Locks of devices lie among the temporary files: a training on this machine must not meet those of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("temporary"))
        patch.setenv("TMPDIR", folder)  # what processes inherit
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("HF_TOKEN", PLANTED_TOKEN)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))  # of decoded photos, and others'
        yield
        assert files_with(PLANTED_TOKEN, tmp_path_factory.getbasetemp()) == []


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would the processes that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests share what they prepare; and two browsers with their servers are too much for two cores."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "browser" if "test_browser" in file else file

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """What a test wrote goes with it, so it is searched for the planted token before."""
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    found = files_with(PLANTED_TOKEN, folder) if folder else []
    yield
    assert found == [], f"the planted token was written to {', '.join(map(str, found))}"


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from more threads, and results repeat exactly at an equal number of them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 + 6 photos with labels and masks: three training steps and two validation batches an epoch."""
    return write_folder(tmp_path_factory.mktemp("tiny") / "skin", train=12, val=6)


@pytest.fixture(scope="session")
def finished_run(tiny_data: Path, one_thread: None) -> Run:
    """An uninterrupted run of two epochs; read it, never write in it."""
    from tiny import tiny_config

    from mtl.training.fit import train

    return train(tiny_config(tiny_data, name="whole"))


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[App]":
    """The application in a process of its own, with the data folders `tiny` and `broken`."""
    from browser import App

    from mtl.data.demo import write_demo_data

    folder = tmp_path_factory.mktemp("app")
    write_demo_data(folder / "data" / "tiny", photos=60, size=64)
    (folder / "data" / "broken" / "images").mkdir(parents=True)
    app = App(folder)
    yield app
    app.close()


# Of a module, not of all: while it is open, an event loop runs in this thread, and other tests run their own.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from browser import CHROMIUM, FLAGS, sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(app: "App", browser: "Browser") -> "Iterator[Page]":
    """Of a visitor of its own."""
    from browser import opened

    with opened(app, browser) as page:
        yield page
