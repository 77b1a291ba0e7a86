"""The page in a real Chromium under its own security headers, and pages of somebody else that reach for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import pytest
from browser import CHROMIUM, FLAGS, PATIENCE_MS, App, choose, needs_chromium, sync_api, wait_until
from test_browser import write_run

from mtl.ui.launch import launch

pytestmark = needs_chromium

PHOTOS = sorted((Path(__file__).parent.parent / "assets" / "examples").glob("*.jpg"))[:2]
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
# gradio's own, whatever the headers are.
USUAL = "Method not implemented."


@contextmanager
def watched(*flags: str) -> "Iterator[tuple[sync_api.Page, list[str], set[str]]]":
    """A page, what its console complains of, and the addresses that it asks for."""
    complaints: list[str] = []
    asked: set[str] = set()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        yield page, complaints, asked
        browser.close()


def test_all_of_the_page_works_under_its_headers(app: App) -> None:
    run = write_run(app, "curves")
    with watched(*FAKE_CAMERA) as (page, complaints, asked):
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
    assert [text for text in complaints if text != USUAL] == []
    assert [address for address in asked if not address.startswith((app.url, "data:", "blob:"))] == []


FOREIGN = """async ([url, path]) => {
  const form = new FormData();
  form.append("files", new Blob(["planted"]), "planted.txt");
  await fetch(url + path, { method: "POST", mode: "no-cors", credentials: "include", body: form });
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.src = url;
  await new Promise((loaded) => (frame.onload = loaded));
}"""


def test_a_page_of_somebody_else_can_neither_write_nor_frame(app: App) -> None:
    with watched() as (page, complaints, _):
        refused: list[int] = []
        page.on("response", lambda answer: refused.append(answer.status) if "/upload" in answer.url else None)
        page.goto("data:text/html,<body>somebody else's</body>")
        page.evaluate(FOREIGN, [app.url, "/gradio_api/upload"])
    assert refused == [403]
    assert any("frame-ancestors" in text for text in complaints)


def test_the_page_opens_with_the_password() -> None:
    with gr.Blocks(analytics_enabled=False) as demo:
        name, told = gr.Textbox(label="Name"), gr.Textbox(label="Told")
        gr.Button("Greet").click(lambda name: f"Hello {name}", name, told)
    url = launch(demo, "127.0.0.1", 0, auth=("dr", "open sesame"), block=False)
    try:
        with watched() as (page, complaints, _):
            page.goto(url)
            for label, text in (("username", "dr"), ("password", "open sesame")):
                page.get_by_label(label).fill(text)
            page.get_by_role("button", name="Login").click()
            page.get_by_label("Name").fill("you")
            page.get_by_role("button", name="Greet").click()
            sync_api.expect(page.get_by_label("Told")).to_have_value("Hello you")
    finally:
        demo.close()
    assert [text for text in complaints if "Content Security" in text or "Refused" in text] == []
