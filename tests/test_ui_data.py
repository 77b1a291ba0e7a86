"""What stands behind the data and settings steps of the Train tab, without a browser."""

import re
import shlex
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import law, save, write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from test_command import configs, parsed
from test_suggest import folders
from tiny import ONE_THREAD

from mtl.cli import main
from mtl.command import command_line
from mtl.config import TrainConfig
from mtl.data.check import DataReport, check_folder
from mtl.data.folder import DataFolder, read_folder
from mtl.errors import ConfigError, DataError
from mtl.training.jobs import JobManager
from mtl.training.run import list_runs
from mtl.ui import data_views
from mtl.ui.checks import DataChecks, Work, folder_key
from mtl.ui.choices import MADE_FOLDER, page_config, settle, why_not
from mtl.ui.fields import ELSEWHERE, to_settings, to_values
from mtl.ui.models import ModelShelf
from mtl.ui.samples import TILES, draw_tiles, pick_samples
from mtl.ui.tabs.train import data
from mtl.ui.tabs.train.data import Folders

REAL = Path(__file__).parents[2] / "shared" / "data" / "multitask"
pytestmark = pytest.mark.usefixtures(ONE_THREAD)


def config_of(path: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(data_dir=str(path), **settings)


def read(path: Path, **settings: Any) -> DataFolder:
    return read_folder(config_of(path, **settings))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data" / "skin", train=20, val=6, size=32)


@pytest.fixture
def shelf(tmp_path: Path) -> ModelShelf:
    return ModelShelf(tmp_path / "my-model", tmp_path / "runs")


class Held:
    """Work that reports one photo at a time, each when it is let go on."""

    def __init__(self) -> None:
        self.go_on, self.calls = threading.Event(), 0

    def __call__(self, report: Callable[[int, int], None]) -> str:
        self.calls += 1
        for done in range(1, 1001):
            report(done, 1000)
            self.go_on.wait(0.01)
        return "all"


# ---- background work


def test_asked_for_twice_it_is_done_once() -> None:
    checks, held = DataChecks(), Held()
    works: list[Work] = []
    threads = [
        threading.Thread(target=lambda: works.append(checks.begin("photos", "Checking", held))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(works)) == 1
    assert checks.get("photos") is works[0]
    works[0].cancel()
    works[0].wait(5)
    assert held.calls == 1


def test_cancelled_work_stops_and_can_be_begun_anew() -> None:
    checks, held = DataChecks(), Held()
    work = checks.begin("photos", "Checking", held)
    work.cancel()
    work.wait(5)
    assert (work.state, work.result) == ("cancelled", None)
    held.go_on.set()
    again = checks.begin("photos", "Checking", held)
    again.wait(10)
    assert (again.state, again.result, again.done) == ("done", "all", 1000)
    assert checks.begin("photos", "Checking", held) is again


def test_failed_work_says_why_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(report: object) -> None:
        raise DataError("labels.json: broken")

    def crash(report: object) -> None:
        raise KeyError("/home/someone")

    told, crashed = Work("Checking", refuse), Work("Checking", crash)
    for work in (told, crashed):
        work.wait(5)
        assert work.state == "failed"
    assert told.error == "labels.json: broken"
    assert crashed.error == "Checking failed: KeyError, see the server's log"
    assert "/home/someone" in caplog.text


def test_only_the_last_results_are_kept() -> None:
    checks = DataChecks()
    for number in range(50):
        checks.begin(str(number), "Checking", lambda report: None).wait(5)
    assert checks.get("0") is None
    assert checks.get("49") is not None


# ---- data checks


def test_a_check_counts_until_the_folder_changes(photos: Path) -> None:
    checks = DataChecks()
    assert checks.report(read(photos)) is None
    checks.check(read(photos)).wait(20)
    assert checks.report(read(photos)) is not None
    save(np.full((32, 32, 3), 90, np.uint8), photos / "images" / "train" / "train_001.jpg")
    assert checks.report(read(photos)) is None


@pytest.mark.parametrize("change", ["labels.json", "masks/train/train_002.png", "images/val/val_000.jpg"])
def test_whatever_changes_in_a_folder_changes_its_key(photos: Path, change: str) -> None:
    before = folder_key(read(photos))
    assert folder_key(read(photos)) == before
    if change == "labels.json":
        (photos / change).unlink()
    else:
        save(np.zeros((40, 40), np.uint8), photos / change)
    assert folder_key(read(photos)) != before


def test_unreadable_photos_refuse_start_once_a_check_has_found_them(photos: Path) -> None:
    (photos / "images" / "train" / "train_003.jpg").write_bytes(b"no photo")
    checks, config = DataChecks(), config_of(photos, device="cpu")
    assert why_not(config, checks) is None
    checks.check(read(photos)).wait(20)
    reason = why_not(config, checks)
    assert reason is not None
    assert "train_003.jpg" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"batch_size": 21}, "batch_size: got 21"), ({"device": "mps"}, "device: mps is not there"), ({}, None)],
)
def test_what_training_would_refuse_is_said_before(photos: Path, settings: dict[str, Any], told: str | None) -> None:
    reason = why_not(config_of(photos, **settings), DataChecks())
    assert (reason is None) if told is None else (told in str(reason))


def test_a_small_folder_is_checked_unasked_a_large_one_is_not(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders(DataChecks(), photos.parent)
    monkeypatch.setattr(data, "AUTO_CHECK_PHOTOS", 25)
    large = folders.look("skin", {})
    assert (large.offer, large.work) == (data.CHECK, None)
    folders.begin("skin", {})
    work = folders.look("skin", {}).work
    assert work is not None
    work.wait(20)
    checked = folders.look("skin", {})
    assert checked.offer == ""
    assert "26" in checked.card
    small = folders.look("skin", {"include": "train_00*"})
    assert "no photo in the val split" in small.card
    monkeypatch.setattr(data, "AUTO_CHECK_PHOTOS", 26)
    assert Folders(DataChecks(), photos.parent).look("skin", {}).work is not None


def test_made_photos_are_drawn_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.ui.choices.MADE_NUMBER", 12)
    folders = Folders(DataChecks(), tmp_path)
    assert folders.look(MADE_FOLDER, {}).offer == data.DRAW
    folders.begin(MADE_FOLDER, {})
    work = folders.look(MADE_FOLDER, {}).work
    if work is not None:  # else they are drawn by now
        work.wait(30)
    assert "training and" in folders.look(MADE_FOLDER, {}).card


# ---- uploads


def upload_of(folder: Path, archive: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(file, file.relative_to(folder))
    return archive


def test_an_uploaded_zip_becomes_a_choice_and_the_upload_goes(photos: Path, tmp_path: Path) -> None:
    folders = Folders(DataChecks(), tmp_path / "root")
    upload = upload_of(photos, tmp_path / "temporary" / "My photos.zip")
    work = folders.checks.get(folders.unpack(str(upload)))
    assert work is not None
    work.wait(20)
    assert work.error == ""
    assert "20 training" in folders.look(work.result, {}).card
    assert not upload.exists()


@pytest.mark.parametrize("root", ["root", "file/root"])
def test_an_upload_that_cannot_be_taken_is_told_and_goes(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("no folder")
    upload = tmp_path / "broken.zip"
    upload.write_bytes(b"no zip")
    folders = Folders(DataChecks(), tmp_path / root)
    work = folders.checks.get(folders.unpack(str(upload)))
    assert work is not None
    work.wait(20)
    assert work.state == "failed"
    assert work.error.startswith("broken.zip: ")
    assert "\n" not in work.error
    assert not upload.exists()


def test_a_root_that_cannot_be_written_refuses_a_good_zip(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    folders = Folders(DataChecks(), tmp_path / "file" / "root")
    work = folders.checks.get(folders.unpack(str(upload_of(photos, tmp_path / "good.zip"))))
    assert work is not None
    work.wait(20)
    assert re.match(r"good\.zip: cannot be unpacked here: [^\n]+$", work.error)


# ---- sample photos


@law
@given(folders, st.integers(0, 5))
def test_every_kind_of_photo_is_shown_before_any_comes_twice(folder: DataFolder, draw: int) -> None:
    picked = pick_samples(folder, draw)
    assert len(picked) == min(TILES, len(folder.train) + len(folder.val))
    assert len({(side, sample.name) for side, sample in picked}) == len(picked)
    kinds = [(side, sample.target, bool(sample.mask)) for side, sample in picked]
    every = {(side, s.target, bool(s.mask)) for side in ("train", "val") for s in folder.split(side)}  # type: ignore[arg-type]
    assert len(set(kinds)) == len(every) or all(kinds.count(kind) <= 2 for kind in kinds)
    assert pick_samples(folder, draw) == picked


def test_tiles_are_small_and_carry_nothing_of_the_camera(photos: Path) -> None:
    place = Image.Exif()
    place.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    place[ExifTags.Base.Artist] = "somebody"
    for file in (photos / "images").rglob("*.jpg"):
        Image.new("RGB", (900, 600), "tan").save(file, exif=place)
    for tile in draw_tiles(read(photos), config_of(photos), 0):
        with Image.open(BytesIO(tile.jpeg)) as picture:
            assert picture.size == (240, 160)
            assert not picture.getexif()
        assert b"somebody" not in tile.jpeg


def test_a_mask_is_drawn_and_what_is_known_of_it_said(photos: Path) -> None:
    tiles = draw_tiles(read(photos), config_of(photos), 0)
    assert {tile.mask for tile in tiles} == {"lesion", "no lesion"}

    def is_cyan(jpeg: bytes) -> bool:
        red, green, blue = np.asarray(Image.open(BytesIO(jpeg)).convert("RGB")).astype(int).reshape(-1, 3).T
        return bool(((blue - red > 100) & (green - red > 80)).any())

    dry = [tile for tile in tiles if tile.label in ("normal", "dry", "oily") and tile.mask == "lesion"]
    assert any(is_cyan(tile.jpeg) for tile in dry)


def test_generated_masks_are_shown_only_where_they_would_be_made(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "close-ups", train=4, val=4, size=240, labels=False, masks=False)
    settings = {"generated_masks": "otsu", "lesion_photos": "*_00[0-2]*"}
    tiles = draw_tiles(read(folder, **settings), config_of(folder, **settings), 0)
    words = [(tile.side, tile.mask) for tile in tiles]
    assert words[3:] == [("training", "no mask")] + [("validation", "no mask")] * 4
    assert set(words[:3]) <= {("training", "generated mask"), ("training", "no mask generated")}
    assert ("training", "generated mask") in words
    assert {tile.mask for tile in draw_tiles(read(folder), config_of(folder), 0)} == {"no mask"}


def test_an_unreadable_photo_has_a_tile_with_the_reason(photos: Path) -> None:
    for file in (photos / "images").rglob("*.jpg"):
        file.write_bytes(b"no <photo>")
    tiles = draw_tiles(read(photos), config_of(photos), 0)
    assert all("no picture that can be read" in tile.problem and not tile.jpeg for tile in tiles)
    assert "<img" not in data_views.grid(tiles)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos are not on this machine")
def test_twelve_real_photos_are_drawn_within_two_seconds() -> None:
    folder, config = read(REAL), config_of(REAL)
    draw_tiles(folder, config, 0)  # so that the disk's speed is not measured
    began = time.process_time()
    tiles = draw_tiles(folder, config, 0)
    assert time.process_time() - began < 2
    assert len({tile.label for tile in tiles}) >= 9


# ---- words


@pytest.fixture
def good_report(photos: Path) -> DataReport:
    """A check's report that warns of nothing."""
    return replace(check_folder(read(photos)), warnings=[])


def test_problems_come_first_and_what_a_file_is_called_is_escaped(good_report: DataReport) -> None:
    unreadable = {f"<b>{n}.jpg": f"<b>{n}.jpg: damaged" for n in range(7)}
    card = data_views.problems(replace(good_report, unreadable=unreadable, warnings=["only <3> photos"]))
    assert card.index("7 files cannot be read") < card.index("only &lt;3&gt; photos")
    assert "3 more" in card
    assert "<b>0" not in card


def test_the_names_behind_a_warning_are_listed_folded(photos: Path) -> None:
    image = photos / "images" / "train" / "train_001.jpg"
    (photos / "images" / "val" / "val_001.jpg").write_bytes(image.read_bytes())
    save(np.full((32, 32), 255, np.uint8), photos / "masks" / "train" / "train_002.png")
    folder = read(photos)
    card = data_views.data_card(folder, check_folder(folder))
    _, details = card.split("By class and side")
    assert "train_001.jpg, val_001.jpg" in details
    assert "call the whole photo lesion" in details
    assert "train_002.png" in details


def test_a_good_folder_is_called_good(good_report: DataReport) -> None:
    card = data_views.problems(good_report)
    assert "Every photo and mask can be read" in card
    assert "warning" not in card


def test_progress_says_how_far_and_how_long() -> None:
    held = Held()
    work = Work("Checking the photos", held)
    while work.done < 1:
        time.sleep(0.01)
    assert re.search(r"\d+ of 1,000", data_views.progress(work))
    work._began -= 60
    assert re.search(r"(min|h \d+ min) left", data_views.progress(work))
    work.cancel()
    work.wait(5)
    assert "was cancelled" in data_views.progress(work)


# ---- settings


NAMES = [name for name in TrainConfig.model_fields if name not in ELSEWHERE]


@law
@given(configs())
def test_settings_come_back_from_the_fields_as_they_went_in(config: TrainConfig) -> None:
    # An emptied field means the default, so an empty text cannot be told from none.
    expected = {name: value for name in NAMES if (value := getattr(config, name)) not in (None, "")}
    assert to_settings(NAMES, to_values(NAMES, config)) == expected


def test_the_printed_line_is_what_start_begins(photos: Path, shelf: ModelShelf, tmp_path: Path) -> None:
    fields = {name: TrainConfig.model_fields[name].default for name in NAMES}
    fields |= {"epochs": 1.0, "batch_size": 4.0, "image_size": 64.0, "init": "none", "threads": 1.0, "device": "cpu"}
    fields |= {"precision": "float32", "include": "*_00*", "name": "page", "lr": 0.01, "labels": "labels.json"}
    settings = to_settings(list(fields), list(fields.values()))
    config = page_config(photos.parent, "skin", tmp_path / "runs", shelf, settings)
    line = command_line(config)
    assert parsed(line) == config
    jobs = JobManager(tmp_path / "runs")
    jobs.start(config)
    jobs.wait(120)
    assert main([*shlex.split(line)[3:], "--json"]) == 0
    by_line, by_page = list_runs(tmp_path / "runs")
    assert (by_line.status().state, by_page.status().state) == ("finished", "finished")
    assert by_line.settings["train"] == by_page.settings["train"]


@pytest.mark.parametrize("setting", ["init", "generated_masks"])
def test_a_model_is_named_by_the_shelf_only(photos: Path, shelf: ModelShelf, tmp_path: Path, setting: str) -> None:
    assert settle({setting: "my-model"}, photos, shelf) == {setting: str(tmp_path / "my-model")}
    for path in ("/etc/passwd", "../my-model", str(tmp_path / "my-model")):
        with pytest.raises(ConfigError, match=rf"{setting}: got .*; needed .* or the name of a model"):
            settle({setting: path}, photos, shelf)
