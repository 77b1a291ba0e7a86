"""The desks without a browser: photos come, are answered, corrected and measured, and go with their visitor."""

import math
import os
import shutil
import tempfile
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from builders import save
from PIL import Image
from tiny import ONE_THREAD, random_network

from mtl.analysis.bundle import write_bundle
from mtl.analysis.engine import FEATURE_COUNT, Outputs
from mtl.analysis.record import Record
from mtl.analysis.table import Failure
from mtl.api import MultiTaskModel
from mtl.checkpoint import Checkpoint
from mtl.config import ModelConfig
from mtl.errors import ConfigError, MtlError, PhotoError
from mtl.ui import desk as desks
from mtl.ui.desk import MAX_PHOTOS, Desk, DeskPhoto, Desks
from mtl.ui.tabs.analyse.stage import apply_edit, look, mask_of, photo_of, strip_value, thumbnails_of, viewer_value

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

SIDE = 32  # of the engine's map
RADIUS, SLOPE = 8.0, 0.5  # of its disc, in cells; logits a cell
HEIGHT, WIDTH = 320, 320


class DiscEngine:
    """Sees the same disc in every photo, surer towards its middle, and dry skin; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, squares: np.ndarray) -> Outputs:
        self.calls += 1
        rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
        disc = SLOPE * (RADIUS - np.hypot(rows, columns))
        classes = np.zeros((len(squares), 10), np.float32)
        classes[:, 1] = 8
        features = np.zeros((len(squares), FEATURE_COUNT), np.float32)
        return Outputs(classes, np.tile(disc.astype(np.float32), (len(squares), 1, 1)), features)


def disc_area(threshold: float) -> float:
    """Pixels of the photo within the disc at which the engine's map has this probability."""
    radius = RADIUS - math.log(threshold / (1 - threshold)) / SLOPE
    return math.pi * (radius * HEIGHT / SIDE) ** 2


@pytest.fixture(scope="module")
def network_model(one_thread: None) -> MultiTaskModel:
    config = ModelConfig(image_size=64)
    return MultiTaskModel(Checkpoint("tiny", random_network(config).state_dict(), config), device="cpu")


@pytest.fixture
def model(network_model: MultiTaskModel) -> Iterator[MultiTaskModel]:
    """Answers from the disc; `model.engine.calls` counts."""
    network, network_model.engine = network_model.engine, DiscEngine()  # type: ignore[assignment]
    yield network_model
    network_model.engine = network


@pytest.fixture
def all_desks() -> Iterator[Desks]:
    all_desks = Desks(kept_s=60)
    yield all_desks
    all_desks.close()


@pytest.fixture
def desk(all_desks: Desks) -> Desk:
    return all_desks.of("visitor")


def a_photo(path: Path) -> Path:
    """Skin with some grain."""
    grain = np.random.default_rng(0).normal(0, 6, (HEIGHT, WIDTH, 3))
    return save((np.array([205, 160, 135]) + grain).clip(0, 255).astype(np.uint8), path)


def answered(desk: Desk, model: MultiTaskModel, photo: Path) -> DeskPhoto:
    """A photo with its answer."""
    desk.take([photo])
    assert list(desk.analyse_waiting(model, "disc")) == [len(desk.photos)]
    return desk.photos[-1]


def picture(url: str) -> Image.Image:
    """Of a data URL."""
    return Image.open(BytesIO(b64decode(url.partition(",")[2])))


def drawn_mask(rows: slice, columns: slice, size: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    """A rectangle as the page sends it: white on black, PNG."""
    mask, file = np.zeros(size, np.uint8), BytesIO()
    mask[rows, columns] = 255
    Image.fromarray(mask).convert("RGB").save(file, "PNG")
    return file.getvalue()


# ---- photos come and are answered


def test_files_are_copied_under_names_that_tell_nothing(desk: Desk, tmp_path: Path) -> None:
    """Gradio keeps uploads of the same content under one path, whoever sent them: another may still need it."""
    upload = a_photo(tmp_path / "my <photo>.PNG")
    desk.take([upload, upload])
    assert upload.exists()
    assert [photo.name for photo in desk.photos] == ["my <photo>.PNG"] * 2
    assert len({photo.path for photo in desk.photos}) == 2
    assert all(photo.path.parent == desk.folder and "photo" not in photo.path.name for photo in desk.photos)
    assert [photo.state for photo in desk.photos] == ["waiting", "waiting"]


def test_too_many_photos_are_refused_and_none_is_taken(desk: Desk, tmp_path: Path) -> None:
    photo = a_photo(tmp_path / "photo.png")
    with pytest.raises(PhotoError, match=f"{MAX_PHOTOS + 1} photos; needed: at most {MAX_PHOTOS}"):
        desk.take([photo] * (MAX_PHOTOS + 1))
    assert (desk.photos, list(desk.folder.iterdir())) == ([], [])


def test_bad_files_get_reasons_of_their_own_and_the_others_go_on(
    desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    notes, cut = tmp_path / "notes.jpg", tmp_path / "cut.png"
    notes.write_text("no photo")
    cut.write_bytes(a_photo(tmp_path / "whole.png").read_bytes()[:9000])
    desk.take([notes, a_photo(tmp_path / "good.png"), cut, a_photo(tmp_path / "good too.png")])
    assert list(desk.analyse_waiting(model, "disc")) == [1, 2, 3, 4]
    assert [photo.state for photo in desk.photos] == ["failed", "done", "failed", "done"]
    assert "no picture" in desk.photos[0].error
    assert "cut short" in desk.photos[2].error
    for photo in desk.photos:
        assert "\n" not in photo.error
        assert photo.path.stem not in photo.error
    outcomes = desk.outcomes()
    assert outcomes[0] == Failure("notes.jpg", desk.photos[0].error)
    assert isinstance(outcomes[1], Record)
    assert (outcomes[1].name, outcomes[1].model.name) == ("good.png", "disc")


def test_an_analysis_can_be_stopped_and_go_on(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    desk.take([a_photo(tmp_path / f"{number}.png") for number in range(4)])
    for number in desk.analyse_waiting(model, "disc"):
        if number == 2:
            desk.stop()
    assert [photo.state for photo in desk.photos] == ["done", "done", "waiting", "waiting"]
    assert (desk.waiting, len(desk.outcomes())) == (2, 2)
    assert list(desk.analyse_waiting(model, "disc")) == [3, 4]
    assert (desk.waiting, model.engine.calls) == (0, 4)  # type: ignore[attr-defined]


def test_the_photo_that_is_shown_is_answered_first(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    desk.take([a_photo(tmp_path / f"{number}.png") for number in range(4)])
    desk.selected = 3
    assert list(desk.analyse_waiting(model, "disc")) == [3, 1, 2, 4]


def test_photos_that_come_meanwhile_are_answered_by_the_analysis_at_work(
    desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    desk.take([a_photo(tmp_path / "first.png")])
    numbers = []
    for number in desk.analyse_waiting(model, "disc"):
        numbers.append(number)
        if number == 1:
            desk.take([a_photo(tmp_path / "second.png")])
            assert list(desk.analyse_waiting(model, "disc")) == []
    assert numbers == [1, 2]


def test_another_model_answers_anew_and_keeps_what_was_drawn_and_measured(
    desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.jpg"
    notes.write_text("no photo")
    desk.take([notes])
    photo = answered_after(desk, model, tmp_path)
    desks.correct(photo, drawn_mask(slice(0, 9), slice(0, 9)))
    desks.set_scale(photo, (0, 0), (0, 10), 5)
    assert photo.record
    before = photo.record
    desk.forget_answers()
    assert [photo.state for photo in desk.photos] == ["failed", "waiting"]
    assert list(desk.analyse_waiting(model, "another")) == [2]
    record = desk.photos[1].record
    assert record
    assert (record.model.name, record.corrected) == ("another", True)
    assert (record.measures, record.scale) == (before.measures, before.scale)


def test_the_views_that_are_asked_for_are_taken(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    desk.take([a_photo(tmp_path / "photo.png")])
    for kind, calls in (("off", 1), ("flips", 5), ("turns", 13)):
        desk.forget_answers()
        assert list(desk.analyse_waiting(model, "disc", kind)) == [1]  # type: ignore[arg-type]
        record = desk.photos[0].record
        assert record
        assert (record.tta, model.engine.calls) == (kind, calls)  # type: ignore[attr-defined]


def answered_after(desk: Desk, model: MultiTaskModel, folder: Path) -> DeskPhoto:
    """A further photo; whatever waits is analysed."""
    desk.take([a_photo(folder / "further.png")])
    list(desk.analyse_waiting(model, "disc"))
    return desk.photos[-1]


def test_no_map_of_the_photo_s_size_is_kept(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    desks.cut_at(photo, 0.3)
    desks.correct(photo, drawn_mask(slice(0, 90), slice(0, 90)))
    look(desk)
    desks.drawn(photo, 200)
    arrays = [value for value in vars(photo.analysis).values() if isinstance(value, np.ndarray)]
    assert max(array.size for array in arrays) <= SIDE**2
    assert sum(len(text) for text in (photo.thumbnail, photo.correction)) < HEIGHT * WIDTH / 4


# ---- what a person changes


@pytest.mark.parametrize("threshold", [0.1, 0.35, 0.5, 0.8, 0.9])
def test_another_threshold_cuts_the_kept_map_without_the_network(
    threshold: float, desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    before = photo.record
    desks.cut_at(photo, threshold)
    record = photo.record
    assert before
    assert record
    assert model.engine.calls == 1  # type: ignore[attr-defined]
    area, diameter = disc_area(threshold), 2 * math.sqrt(disc_area(threshold) / math.pi)
    assert record.measures.area_px == pytest.approx(area, rel=0.02)
    assert record.measures.lesions[0].equivalent_diameter_px == pytest.approx(diameter, rel=0.01)
    assert record.threshold == threshold
    assert (record.groups, record.at) == (before.groups, before.at)
    assert desks.mask(photo).sum() == record.measures.area_px


@pytest.mark.parametrize(("asked", "taken"), [(-3, 0.01), (0, 0.01), (1, 0.99), (7, 0.99)])
def test_a_threshold_that_is_no_probability_is_moved_to_the_nearest(
    asked: float, taken: float, desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    apply_edit(photo, {"kind": "threshold", "threshold": asked})
    assert photo.record
    assert photo.record.threshold == taken


@pytest.mark.parametrize("shrunk", [1, 4])
def test_a_drawn_mask_is_measured_and_marked(shrunk: int, desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    """Whatever size the page draws at; and the model's mask comes back with what was said of it."""
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    before, thumbnail = photo.record, photo.thumbnail
    rows, columns = slice(80 // shrunk, 160 // shrunk), slice(40 // shrunk, 200 // shrunk)
    desks.correct(photo, drawn_mask(rows, columns, (HEIGHT // shrunk, WIDTH // shrunk)))
    record = photo.record
    assert before
    assert record
    assert record.corrected
    assert record.measures.area_px == pytest.approx(80 * 160, rel=0.01)
    assert (record.measures.area_interval_px, record.measures.certainty) == (None, None)
    assert desks.mask(photo)[80:160, 40:200].mean() > 0.99
    assert photo.thumbnail != thumbnail
    assert np.array(picture(desks.shown_mask(photo)).convert("L")).max() == 255
    desks.correct(photo, b"")
    assert photo.record == replace(before, quality=photo.record.quality)
    assert model.engine.calls == 1  # type: ignore[attr-defined]


def test_a_new_threshold_takes_the_place_of_what_was_drawn(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    desks.correct(photo, drawn_mask(slice(0, 90), slice(0, 90)))
    desks.cut_at(photo, 0.5)
    assert photo.record
    assert not photo.record.corrected
    assert photo.record.measures.area_px == pytest.approx(disc_area(0.5), rel=0.02)


def test_a_drawing_that_is_no_picture_changes_nothing(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    before = photo.record
    with pytest.raises(PhotoError):
        desks.correct(photo, b"no picture")
    assert (photo.record, photo.correction) == (before, b"")


def test_the_scale_is_taken_from_two_points_and_removed(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    # The page says (x, y): three across and four down are five.
    apply_edit(photo, {"kind": "scale", "points": [[10, 20], [40, 60]], "mm": 5})
    assert photo.record
    assert photo.record.scale
    assert photo.record.scale.mm_per_px == pytest.approx(0.1)
    kept = photo.record
    for points, mm in (([[1, 1], [1, 1]], 5), ([[0, 0], [9, 9]], 0), ([[0, 0], [9, 9]], None)):
        with pytest.raises(ConfigError):
            apply_edit(photo, {"kind": "scale", "points": points, "mm": mm})
    assert photo.record == kept
    apply_edit(photo, {"kind": "unscale"})
    assert photo.record.scale is None


def test_the_confidence_counts_for_answers_that_are_there_and_for_those_to_come(
    desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    desk.set_name_confidence(1.0)
    later = answered(desk, model, a_photo(tmp_path / "later.png"))
    assert [each.record and each.record.name_confidence for each in (photo, later)] == [1.0, 1.0]
    desk.selected = 1
    assert "uncertain" in look(desk)[2]


def test_a_photo_that_is_gone_is_told(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    photo.path.unlink()
    for act in (desks.shown, lambda gone: desks.drawn(gone, 100), lambda gone: desks.cut_at(gone, 0.5)):
        with pytest.raises(PhotoError, match="add it again"):
            act(photo)


# ---- what leaves the desk


def test_a_shown_photo_carries_no_metadata(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Canary", 6
    with Image.open(a_photo(tmp_path / "photo.png")) as image:
        image.crop((0, 0, 200, 100)).save(tmp_path / "turned.jpg", exif=exif)
    photo = answered(desk, model, tmp_path / "turned.jpg")
    for url, size in ((desks.shown(photo), (100, 200)), (desks.drawn(photo, 50), (25, 50))):
        assert picture(url).size == size
        assert not picture(url).getexif()
        assert b"Canary" not in b64decode(url.partition(",")[2])


def test_the_zip_has_every_outcome_and_masks_of_the_photo_s_size(
    desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    notes, target = tmp_path / "notes.jpg", tmp_path / "all.zip"
    notes.write_text("no photo")
    desk.take([a_photo(tmp_path / "arm.png"), notes])
    desk.take([a_photo(tmp_path / "arm.png")])
    list(desk.analyse_waiting(model, "disc"))
    desks.correct(desk.photos[2], drawn_mask(slice(0, 100), slice(0, 100)))
    desk.take([a_photo(tmp_path / "still waiting.png")])
    write_bundle(target, desk.bundle())
    with zipfile.ZipFile(target) as bundle:
        masks = [name for name in bundle.namelist() if name.startswith("masks/")]
        areas = []
        for name in masks:
            with bundle.open(name) as file, Image.open(file) as mask:
                assert mask.size == (WIDTH, HEIGHT)
                areas.append(np.count_nonzero(mask))
        table = bundle.read("results.csv").decode("utf-8-sig")
    assert len(masks) == 2
    assert areas == [desks.mask(photo).sum() for photo in desk.photos if photo.record]
    assert areas[1] == 100 * 100
    assert [word in table for word in ("notes.jpg", "still waiting")] == [True, False]


# ---- whose photos they are


def test_a_token_opens_its_own_desk_only(all_desks: Desks, model: MultiTaskModel, tmp_path: Path) -> None:
    mine, other = all_desks.of("mine"), all_desks.of("other")
    answered(mine, model, a_photo(tmp_path / "photo.png"))
    desks.correct(mine.photos[0], drawn_mask(slice(0, 9), slice(0, 9)))
    thumbnails, photo, mask = thumbnails_of(all_desks), photo_of(all_desks), mask_of(all_desks)
    assert picture(thumbnails({"token": mine.token, "numbers": [1]})[0]).size == (144, 144)
    assert picture(photo({"token": mine.token, "number": 1})["url"]).size == (WIDTH, HEIGHT)
    assert mask({"token": mine.token, "number": 1})["url"]
    for token in (other.token, "", None, mine.token[:-1], mine.token + "x", "ü" * 24):
        assert thumbnails({"token": token, "numbers": [1]}) == [""]
        assert photo({"token": token, "number": 1})["url"] == ""
        assert mask({"token": token, "number": 1})["url"] == ""
    for number in (0, -1, 2, 10**9):
        assert photo({"token": mine.token, "number": number})["url"] == ""


def test_what_a_page_is_sent_holds_no_path(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    notes = tmp_path / "notes.jpg"
    notes.write_text("no photo")
    desk.take([a_photo(tmp_path / "photo.png"), notes])
    list(desk.analyse_waiting(model, "disc"))
    for desk.selected in (0, 1, 2):
        sent = repr((strip_value(desk), viewer_value(desk), look(desk)[2]))
        assert str(desk.folder) not in sent
        assert desk.photos[0].path.name not in sent


def test_clearing_removes_the_files_and_ends_a_running_analysis(
    desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    desk.take([a_photo(tmp_path / f"{number}.png") for number in range(3)])
    for number in desk.analyse_waiting(model, "disc"):
        assert number == 1
        desk.clear()
    assert (desk.photos, desk.selected, list(desk.folder.iterdir())) == ([], 0, [])
    assert model.engine.calls == 1  # type: ignore[attr-defined]


def test_a_desk_goes_some_time_after_its_page_and_not_before(tmp_path: Path) -> None:
    brief, patient = Desks(kept_s=0), Desks(kept_s=3600)
    left = {}
    for all_desks in (brief, patient):
        desk = left[all_desks] = all_desks.of("left")
        all_desks.of("open").take([a_photo(tmp_path / "photo.png")])
        desk.take([a_photo(tmp_path / "photo.png")])
        all_desks.leave("left")
        all_desks.leave("never seen")
        all_desks.sweep()
        assert [path.exists() for path in (desk.folder, all_desks.of("open").folder)] == [all_desks is patient, True]
    assert brief.by_token(left[brief].token) is None
    # A page that comes back has its photos again.
    assert patient.of("left") is left[patient]
    assert brief.of("left") is not left[brief]
    for all_desks in (brief, patient):
        folder = all_desks.of("open").folder
        all_desks.close()
        assert not folder.exists()


def test_folders_of_dead_processes_are_removed_and_of_living_ones_kept(all_desks: Desks) -> None:
    root = all_desks.of("visitor").folder.parent
    dead = next(pid for pid in range(2**22 - 1, 0, -1) if not psutil.pid_exists(pid))
    started = {pid: round(100 * psutil.Process(pid).create_time()) for pid in (os.getpid(), os.getppid())}
    # The last is one that was killed before this process was given its number.
    names = [f"{dead}-1-", *(f"{pid}-{start}-" for pid, start in started.items()), f"{os.getpid()}-1-"]
    folders = [Path(tempfile.mkdtemp(prefix=name, dir=root)) for name in names]
    for folder in folders:
        a_photo(folder / "photo.png")
    Desks()
    assert [folder.exists() for folder in folders] == [False, True, True, False]
    for folder in folders[1:3]:
        shutil.rmtree(folder)


def test_nobody_else_on_this_computer_can_look_into_a_desk(desk: Desk) -> None:
    assert desk.folder.stat().st_mode & 0o077 == 0
    assert desk.folder.parent.stat().st_mode & 0o077 == 0


NONSENSE = (
    {"kind": "threshold", "threshold": "nan"},
    {"kind": "threshold"},
    {"kind": "scale", "points": [[0, 0], [float("nan"), 1]], "mm": 1},
    {"kind": "scale", "points": [[0, 0], [1e-320, 0]], "mm": 1},
    {"kind": "scale", "points": [[0, 0], [1, 0]], "mm": 1e308},
    {"kind": "scale", "points": [[0, 0]], "mm": 1},
    {"kind": "mask", "mask": "data:image/png;base64,!"},
    {"kind": "mask", "mask": "data:image/png;base64,QUJD"},
)


@pytest.mark.parametrize("edit", NONSENSE, ids=str)
def test_nonsense_is_refused_and_changes_nothing(
    edit: dict[str, Any], desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    before = photo.record
    with pytest.raises(MtlError):
        apply_edit(photo, edit)
    assert (photo.record, photo.correction, photo.scale) == (before, b"", None)


def test_a_drawn_mask_larger_than_the_page_draws_is_refused(desk: Desk, model: MultiTaskModel, tmp_path: Path) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    buffer = BytesIO()
    Image.new("1", (9000, 5500)).save(buffer, "PNG")
    with pytest.raises(PhotoError, match="9000 x 5500"):
        desks.correct(photo, buffer.getvalue())


def test_removed_photos_never_give_their_names_to_new_ones(desk: Desk, tmp_path: Path) -> None:
    desk.take([a_photo(tmp_path / "photo.png")])
    first = desk.photos[0].id
    desk.clear()
    desk.take([a_photo(tmp_path / "photo.png")])
    assert desk.photos[0].id != first


@pytest.mark.parametrize("edit", [{}, {"kind": "nonsense"}, {"kind": "mask", "mask": ""}])
def test_an_unknown_edit_changes_nothing(
    edit: dict[str, str], desk: Desk, model: MultiTaskModel, tmp_path: Path
) -> None:
    photo = answered(desk, model, a_photo(tmp_path / "photo.png"))
    before = photo.record
    apply_edit(photo, edit)
    assert photo.record == before
