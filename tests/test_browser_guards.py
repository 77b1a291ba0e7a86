"""The page in a real Chromium under its own security headers, and pages of somebody else that reach for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, FLAGS, PATIENCE_MS, App, choose, needs_chromium, sync_api, wait_until
from routes import launched
from test_browser import write_run

pytestmark = needs_chromium

PHOTOS = sorted((Path(__file__).parent.parent / "assets" / "examples").glob("*.jpg"))[:2]


# What a browser says when it refuses something, or knows a header not.
REFUSALS = ("Content Security", "Refused", "Permissions-Policy", "Cross-Origin", "ERR_BLOCKED")


class Watch:
    """A page, what its browser refuses, and the addresses that it asks for."""

    def __init__(self, page: "sync_api.Page"):
        self.page, self.refusals, self.asked = page, list[str](), set[str]()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda line: self._hear(line.text))
        page.on("request", lambda request: self.asked.add(request.url))

    def _hear(self, text: str) -> None:
        if any(words in text for words in REFUSALS):
            self.refusals.append(text)


@pytest.fixture
def watch(browser: "sync_api.Browser") -> Iterator[Watch]:
    """In a browser of its own, with a camera."""
    flags = [*FLAGS, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    own = browser.browser_type.launch(executable_path=CHROMIUM, args=flags)
    yield Watch(own.new_page(viewport={"width": 1280, "height": 900}))
    own.close()


def test_all_of_the_page_works_under_its_headers(app: App, watch: Watch) -> None:
    run = write_run(app, "curves")
    page = watch.page
    page.goto(app.url)
    page.wait_for_selector("#mtl-examples img")
    page.set_input_files("#mtl-upload input[type=file]", PHOTOS)
    done = page.locator("#mtl-strip button.done")
    sync_api.expect(done).to_have_count(2)
    page.wait_for_function("document.querySelector('#mtl-viewer img').naturalWidth > 0")
    for button in ("csv", "zip", "report"):
        with page.expect_download() as download:
            page.locator(f"#mtl-{button}").click()
        assert download.value.path().stat().st_size > 100

    page.get_by_role("button", name="Camera and settings").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#mtl-camera video')?.videoWidth > 0")
    page.locator("#mtl-camera .button-wrap button").first.click()
    sync_api.expect(done).to_have_count(3)

    page.get_by_role("tab", name="Train").click()
    choose(page, "#mtl-data", "tiny")
    sync_api.expect(page.locator("#mtl-data-card")).to_contain_text("training and")
    page.locator("#mtl-runs").get_by_label(f"tick {run.name}").check()
    curves = page.locator("#mtl-compare svg.marks .mark-line path[d*=L]")
    wait_until(lambda: curves.count() == 1, "a curve")
    page.get_by_role("tab", name="About").click()
    run.delete()
    assert watch.refusals == []
    assert [address for address in watch.asked if not address.startswith((app.url, "data:", "blob:"))] == []


FOREIGN = """async ([url, path]) => {
  const form = new FormData();
  form.append("files", new Blob(["planted"]), "planted.txt");
  await fetch(url + path, { method: "POST", mode: "no-cors", credentials: "include", body: form }).catch(() => 0);
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.src = url;
  await new Promise((loaded) => (frame.onload = loaded));
}"""


def test_a_page_of_somebody_else_can_neither_write_nor_frame(app: App, watch: Watch) -> None:
    watch.page.goto("data:text/html,<body>somebody else's</body>")
    watch.page.evaluate(FOREIGN, [app.url, "/gradio_api/upload"])
    assert f"{app.url}/gradio_api/upload" in watch.asked
    assert list(app.folder.rglob("planted.txt")) == []
    assert watch.page.frames[1].url.startswith("chrome-error:")


def test_the_page_opens_with_the_password(watch: Watch, tmp_path: Path) -> None:
    page = watch.page
    with launched(tmp_path, auth=("dr", "open sesame")) as demo:
        page.goto(demo.local_url)
        for label, text in (("username", "dr"), ("password", "open sesame")):
            page.get_by_label(label).fill(text)
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#mtl-examples img")
        page.set_input_files("#mtl-upload input[type=file]", PHOTOS[:1])
        sync_api.expect(page.locator("#mtl-strip button.done")).to_have_count(1)
        page.goto("about:blank")
    assert watch.refusals == []
