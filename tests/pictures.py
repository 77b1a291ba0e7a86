"""Makes the README's two pictures: `python -m tests.pictures`. Only made photos are shown."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from browser import CHROMIUM, FLAGS, PATIENCE_MS, ROOT, App

EPOCHS = "6"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        app = App(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(app.url)
            _analyse(page)
            page.screenshot(path=ROOT / "assets" / "analyse.png")
            _train(page)
            page.screenshot(path=ROOT / "assets" / "train.png")
        finally:
            browser.close()
            app.close()


def _analyse(page: Page) -> None:
    for example in ("hair curly", "hair coily", "mole dark skin", "lesion light skin"):
        page.locator(f"#mtl-examples button[title='{example}']").click()
        expect(page.locator("#mtl-answer")).to_contain_text(example.replace(" ", "-"), timeout=PATIENCE_MS)
    expect(page.locator("#mtl-strip button.done")).to_have_count(4, timeout=PATIENCE_MS)
    expect(page.locator("#mtl-viewer .wait")).to_be_hidden(timeout=PATIENCE_MS)
    page.wait_for_timeout(1500)


def _train(page: Page) -> None:
    page.get_by_role("tab", name="Train").click()
    page.locator("#setting-epochs input").fill(EPOCHS)
    page.locator("#mtl-start").click()
    expect(page.locator("#mtl-run-card")).to_contain_text("Finished", timeout=15 * 60_000)
    page.wait_for_timeout(4000)


if __name__ == "__main__":
    main()
