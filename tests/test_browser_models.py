"""The Models tab as a person meets it, against a Hub on loopback; skipped where there is no Chromium."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from browser import App, needs_chromium, opened, sync_api
from loopback_hub import Fault, LoopbackHub, User
from planted import PLANTED_TOKEN
from test_browser_analyse import serious_findings
from tiny import tiny_config

from mtl.checkpoint import Checkpoint, read_checkpoint, write_pth
from mtl.config import ModelConfig
from mtl.model import MultiTaskNetwork
from mtl.model_files import DEFAULT_CHECKPOINT
from mtl.training.run import Run

pytestmark = needs_chromium

LONG = f"{'o' * 60}-hospital/skin-{'n' * 80}"


@dataclass
class Workplace:
    """The application, the Hub that it meets, and its one run."""

    app: App
    hub: LoopbackHub
    run: Run

    @property
    def pulled(self) -> list[str]:
        """The folders of what was pulled; what is hidden is on its way."""
        return [path.name for path in (self.app.folder / "checkpoints").glob("[!.]*")]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The token of this computer is ada's."""
    folder = tmp_path_factory.mktemp("models")
    config = ModelConfig(image_size=64)
    run = Run.create(tiny_config(folder / "data", output_dir=str(folder / "runs"), name="tiny"))
    write_pth(
        run.best_file, Checkpoint("made", MultiTaskNetwork(config).state_dict(), config, {}, 1, {"val_dice": 0.5})
    )
    run.update(state="finished", epoch=1, epochs=1)
    with LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        hub.tokens[PLANTED_TOKEN] = User("ada", "write")
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_TOKEN", PLANTED_TOKEN)
        patch.setenv("MTL_CHECKPOINTS_DIR", str(folder / "checkpoints"))
        app = App(folder)
        yield Workplace(app, hub, run)
        app.close()


@pytest.fixture(autouse=True)
def no_faults(work: Workplace) -> None:
    work.hub.faults.clear()


# ---- what a person does and sees


def open_models(page: "sync_api.Page", name: str = "Models") -> None:
    page.get_by_role("tab", name=name).click()
    # Then its facts have been read.
    sync_api.expect(card(page, "default")).to_contain_text(read_checkpoint(DEFAULT_CHECKPOINT).revision)


def card(page: "sync_api.Page", name: str) -> "sync_api.Locator":
    return page.locator(f'.mtl-model[data-name="{name}"]')


def act(page: "sync_api.Page", name: str, action: str) -> None:
    card(page, name).locator(f"[data-do={action}]").click()


def push(page: "sync_api.Page", name: str, repo_id: str) -> None:
    act(page, name, "push")
    page.locator("#mtl-push-repo input").fill(repo_id)
    page.locator("#mtl-push-go").click()


def pull(page: "sync_api.Page", reference: str, revision: str = "") -> None:
    page.locator("#mtl-pull-reference input").fill(reference)
    page.locator("#mtl-pull-revision input").fill(revision)
    page.locator("#mtl-pull-go").click()


def job(page: "sync_api.Page", kind: str) -> "sync_api.Locator":
    """The card of what was done, once it is of that kind."""
    return page.locator(f"#mtl-job .mtl-message.{kind}")


def pushed(work: Workplace, page: "sync_api.Page", repo_id: str) -> None:
    if repo_id not in work.hub.repos:
        push(page, work.run.name, repo_id)
        sync_api.expect(job(page, "good")).to_contain_text(f"{repo_id} is on the Hub")
        page.locator("#mtl-job-close").click()
        sync_api.expect(page.locator("#mtl-job")).to_be_hidden()


def test_a_run_is_pushed_from_the_train_tab_pulled_back_and_used(work: Workplace, browser: "sync_api.Browser") -> None:
    with opened(work.app, browser) as page:
        page.get_by_role("tab", name="Train").click()
        page.locator("#mtl-push-run").click()
        sync_api.expect(page.locator("#mtl-model-form")).to_contain_text(f"Push {work.run.name} to the Hub")
        sync_api.expect(page.get_by_label("Private")).to_be_checked()
        page.locator("#mtl-push-repo input").fill("ada/travels")
        page.locator("#mtl-push-tag input").fill("v1")
        page.locator("#mtl-push-go").click()
        sync_api.expect(job(page, "good")).to_contain_text("ada/travels is on the Hub")
        commit = work.hub.repos["ada/travels"].head.sha[:12]
        sync_api.expect(job(page, "good")).to_contain_text(f"commit {commit}, tag v1, private")
        pull(page, f"{work.hub.url}/ada/travels/tree/v1")
        sync_api.expect(job(page, "good")).to_contain_text("ada/travels@v1 is here")
        sync_api.expect(card(page, "ada/travels@v1")).to_contain_text(f"commit {commit}")
        page.locator("#mtl-job-use").click()
        sync_api.expect(page.locator("#mtl-model input")).to_have_value("ada/travels@v1")
        sync_api.expect(page.locator("#mtl-model-line")).to_contain_text(re.compile(r"[0-9a-f]{12} · .* 10 classes"))
        page.locator("#mtl-examples button").first.click()
        sync_api.expect(page.locator("#mtl-answer details").last).to_contain_text("ada/travels@v1, revision")
        open_models(page)
        sync_api.expect(card(page, "ada/travels@v1").locator(".badge")).to_be_visible()

        act(page, "ada/travels@v1", "delete")
        sync_api.expect(page.locator("#mtl-delete")).to_contain_text("Delete ada/travels@v1 for good?")
        page.locator("#mtl-delete-go").click()
        sync_api.expect(card(page, "ada/travels@v1")).to_have_count(0)
        sync_api.expect(card(page, "default").locator(".badge")).to_be_visible()
        assert "ada--travels@v1" not in work.pulled


def test_a_slow_pull_shows_its_files_outlives_a_reload_and_is_cancelled(
    work: Workplace, browser: "sync_api.Browser"
) -> None:
    with opened(work.app, browser) as page:
        open_models(page)
        pushed(work, page, "ada/slow")
        work.hub.faults["storage"] = Fault("drip", bytes_per_second=1_000_000)
        pull(page, "ada/slow")
        files = page.locator("#mtl-job .mtl-moves")
        sync_api.expect(files).to_contain_text("model.safetensors")
        sync_api.expect(files).to_contain_text(re.compile(r"on its way\s*23 MB [0-9a-f]{12}"))
        sync_api.expect(page.locator("#mtl-job")).to_contain_text(re.compile(r"MB of 23 MB, \d+ kB/s"))
        page.reload()
        open_models(page)
        sync_api.expect(page.locator("#mtl-job")).to_contain_text("Pulling ada/slow@main")
        # Another one has to wait.
        pull(page, "ada/other")
        sync_api.expect(page.locator("#mtl-pull-notice")).to_contain_text("wait for that, or cancel it")
        page.locator("#mtl-job-cancel").click()
        sync_api.expect(job(page, "quiet")).to_contain_text("Nothing has changed", timeout=10_000)
        assert work.pulled == []


FAULTS = {
    "other content": ("storage", Fault("corrupt")),
    "has no right": ("info", Fault("status", status=403)),
    "no such model": ("info", Fault("status", status=404)),
}


def test_each_fault_is_told_at_once_and_the_model_in_use_stays(work: Workplace, browser: "sync_api.Browser") -> None:
    with opened(work.app, browser) as page:
        open_models(page)
        pushed(work, page, "ada/faulty")
        for words, (route, fault) in FAULTS.items():
            work.hub.faults[route] = fault
            pull(page, "ada/faulty")
            sync_api.expect(job(page, "error")).to_contain_text(words, timeout=10_000)
            page.locator("#mtl-job-close").click()
            sync_api.expect(page.locator("#mtl-job")).to_be_hidden()
            work.hub.faults.clear()
        sync_api.expect(card(page, "default").locator(".badge")).to_be_visible()
        pull(page, "no name at all")
        sync_api.expect(page.locator("#mtl-pull-notice")).to_contain_text("it names no model on the Hub")


def test_another_head_is_told_before_anything_is_pushed_over_it(work: Workplace, browser: "sync_api.Browser") -> None:
    work.hub.put("ada/shared", {"README.md": b"of somebody else"}, title="Theirs", private=True)
    with opened(work.app, browser) as page:
        open_models(page)
        push(page, work.run.name, "ada/shared")
        sync_api.expect(job(page, "warning")).to_contain_text("Theirs")
        assert work.hub.repos["ada/shared"].head.title == "Theirs"
        page.locator("#mtl-job-overwrite").click()
        sync_api.expect(job(page, "good")).to_contain_text("ada/shared is on the Hub")
        assert work.hub.repos["ada/shared"].head.title != "Theirs"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    work: Workplace, browser: "sync_api.Browser", width: int, scheme: str
) -> None:
    with opened(work.app, browser, width, scheme) as page:
        open_models(page)
        states = {
            "pushed": lambda: pushed(work, page, "ada/wide"),
            "form": lambda: act(page, work.run.name, "push"),
            "question": lambda: act(page, work.run.name, "delete"),
            "fault": lambda: pull(page, LONG),
        }
        for state, reach in states.items():
            reach()
            page.wait_for_timeout(1200)  # what fades in has its colours then
            assert serious_findings(page) == [], state
            assert page.evaluate("document.documentElement.scrollWidth") <= width, state
        sync_api.expect(job(page, "error")).to_contain_text("could not be pulled")
        sync_api.expect(job(page, "error")).to_be_in_viewport()
        page.locator("#mtl-job-close").click()
