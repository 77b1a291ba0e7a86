"""The data and settings steps as a person meets them, in a real Chromium: skipped where there is none."""

import json
import re
import shlex
import zipfile
from pathlib import Path

import pytest
from browser import App, choose, needs_chromium, sync_api

pytestmark = needs_chromium


@pytest.fixture
def step(page: "sync_api.Page") -> "sync_api.Page":
    page.get_by_role("tab", name="Train").click()
    return page


def holding(*parts: str) -> re.Pattern[str]:
    """Any text with these parts in this order."""
    return re.compile(".*".join(map(re.escape, parts)))


def command_of(page: "sync_api.Page") -> "sync_api.Locator":
    return page.locator("#mtl-command textarea")


def test_an_uploaded_zip_is_chosen_checked_and_shown(app: App, step: "sync_api.Page", tmp_path: Path) -> None:
    broken, archive = tmp_path / "no-zip.zip", tmp_path / "my photos.zip"
    broken.write_text("no zip")
    with zipfile.ZipFile(archive, "w") as packed:
        for file in (path for path in (app.data_root / "tiny").rglob("*") if path.is_file()):
            packed.write(file, file.relative_to(app.data_root / "tiny"))
    step.get_by_role("button", name="Upload a zip of photos").click()
    upload = step.locator("#mtl-data-upload input[type=file]")
    upload.wait_for(state="attached")
    step.wait_for_timeout(500)  # gradio mounts what was folded late

    upload.set_input_files(broken)
    notice = step.locator("#mtl-upload-progress .mtl-message")
    sync_api.expect(notice).to_contain_text("no-zip.zip: this is no zip file")
    sync_api.expect(notice).to_be_visible()

    step.locator("#mtl-data-upload input[type=file]").set_input_files(archive)
    sync_api.expect(step.locator("#mtl-data input")).to_have_value("my-photos")
    card = step.locator("#mtl-data-card")
    sync_api.expect(card).to_contain_text("44 training and 16 validation photos")
    card.get_by_text("By class and side").click()
    sync_api.expect(card).to_contain_text("mean mask coverage")  # what only a check knows
    photos = step.locator("#mtl-samples img")
    sync_api.expect(photos).to_have_count(12)
    first = photos.first.get_attribute("src")
    step.locator("#mtl-others").click()
    sync_api.expect(photos.first).not_to_have_attribute("src", first or "")
    assert not list((app.folder / "gradio").rglob("my*photos.zip"))


def test_settings_are_suggested_saved_reset_loaded_and_shown_as_a_command(
    step: "sync_api.Page", tmp_path: Path
) -> None:
    choose(step, "#mtl-data", "tiny")
    step.get_by_role("button", name="suggestions for these photos").click()
    sync_api.expect(step.locator("#mtl-suggested")).to_contain_text("Freeze backbone on: 44 training photos are few")
    step.get_by_role("button", name="The same on the command line").click()
    command = command_of(step)
    step.locator("#mtl-suggested").get_by_text("Batch size").click()  # not this one
    step.locator("#mtl-use-suggested").click()
    sync_api.expect(command).to_have_value(holding("--lr 0.0001 --freeze-backbone --early-stopping-patience 20"))
    assert "--batch-size" not in command.input_value()

    with step.expect_download() as download:
        step.locator("#mtl-save").click()
    saved = tmp_path / "settings.json"
    download.value.save_as(saved)
    settings = json.loads(saved.read_text(encoding="utf-8"))
    assert (settings["freeze_backbone"], settings["early_stopping_patience"]) == (True, 20)
    assert "data_dir" not in settings

    step.locator("#mtl-reset").click()
    sync_api.expect(command).not_to_have_value(holding("--freeze-backbone"))
    # A setting that is still folded, hence not yet in the page.
    saved.write_text(json.dumps(settings | {"rotation_degrees": 7.5}), encoding="utf-8")
    load = step.locator("#mtl-load").locator("xpath=..").locator("input[type=file]")
    load.set_input_files(saved)
    sync_api.expect(command).to_have_value(
        holding("--freeze-backbone", "--early-stopping-patience 20 --rotation-degrees 7.5")
    )
    step.get_by_role("button", name="Augmentation").click()
    sync_api.expect(step.locator("#setting-rotation_degrees input")).to_have_value("7.5")
    assert shlex.split(command.input_value())[:6][-1].endswith("tiny")

    unknown = tmp_path / "unknown.json"
    unknown.write_text('{"epoch": 5}', encoding="utf-8")
    load.set_input_files(unknown)
    sync_api.expect(step.locator("#mtl-file-notice")).to_contain_text("unknown.json: epoch: there is no such setting")
    sync_api.expect(command).to_have_value(holding("--rotation-degrees 7.5"))

    step.locator("#setting-epochs input").fill("-3")
    notice = step.locator("#mtl-settings-notice")
    sync_api.expect(notice).to_contain_text("epochs: got -3")
    sync_api.expect(notice).to_be_visible()
    sync_api.expect(command).to_have_value("")
