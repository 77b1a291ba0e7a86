"""The page's plain parts, without a browser: choices, curves, words, settings, and what a session keeps."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import write_folder

from mtl.analysis.lesion import find_lesions
from mtl.analysis.predict import Analysis, GroupAnswer
from mtl.config import TrainConfig
from mtl.errors import ConfigError, DataError, PhotoError
from mtl.photo import read_photo
from mtl.training.run import Run, RunStatus
from mtl.ui import choices, views
from mtl.ui.choices import MADE_FOLDER, data_choices, data_path, describe_data, prepare_data, settle
from mtl.ui.curves import CurveReader, empty_curves
from mtl.ui.fields import to_settings
from mtl.ui.models import ModelShelf
from mtl.ui.session import Entry, analyse_entry, shown_photo

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "assets" / "examples" / "lesion-light-skin.jpg"


def make_run(folder: Path) -> Run:
    return Run.create(TrainConfig(output_dir=str(folder / "runs"), name="tiny"))


def step_event(step: int) -> dict[str, float | str]:
    losses = {"loss": 1 / step, "classification_loss": 1.0, "segmentation_loss": 0.5}
    return {"event": "step", "step": step, "epochs_done": step / 10, **losses}


def epoch_event(epoch: int) -> dict[str, float | str]:
    losses = {"val_loss": 1.0, "val_classification_loss": 0.7, "val_segmentation_loss": 0.3, "val_dice": 0.9}
    return {"event": "epoch", "step": 10 * epoch, "epoch": epoch, **losses}


# ---- choices


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A root that holds photos itself, and a folder of its own name that does too."""
    root = write_folder(tmp_path / "data", train=2, val=1)
    write_folder(root / "data", train=3, val=1)
    (root / "no photos").mkdir()
    return root


def test_choices_tell_the_root_from_a_folder_of_its_name(data_root: Path) -> None:
    labels, names = zip(*data_choices(data_root), strict=True)
    assert labels == ("Made photos", "data (the folder itself)", "data")
    assert [data_path(data_root, name) for name in names[1:]] == [data_root, data_root / "data"]
    assert "2 training" in describe_data(data_root, names[1])
    assert "3 training" in describe_data(data_root, names[2])


@pytest.mark.parametrize("name", ["..", "/", "no photos", "data/images", "", "../data"])
def test_only_a_choice_is_a_folder(data_root: Path, name: str) -> None:
    with pytest.raises(DataError, match="no such folder"):
        data_path(data_root, name)


@pytest.fixture
def shelf(tmp_path: Path) -> ModelShelf:
    run = make_run(tmp_path)
    run.best_file.touch()
    return ModelShelf(tmp_path / "my-model", tmp_path / "runs")


OUTSIDE = ["/etc/hostname", "../secret.json", "..", ".", "images", "sub/labels.json", "..\\secret.json", "link.json",
           "app.py", "nul\0", "x" * 300]  # fmt: skip


@pytest.mark.parametrize("setting", ["labels", "classes"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_files_outside_the_data_folder_are_refused(
    data_root: Path, shelf: ModelShelf, setting: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (data_root.parent / "secret.json").write_text("secret")
    (data_root / "link.json").symlink_to(data_root.parent / "secret.json")
    with pytest.raises(ConfigError, match=f"{setting}: there is no file") as error:
        settle({setting: name}, data_root, shelf)
    assert "\n" not in str(error.value)


def test_files_in_the_data_folder_and_class_names_are_taken(data_root: Path, shelf: ModelShelf) -> None:
    settings = {"labels": "labels.json", "classes": "dry, oily/wet", "include": "*", "name": "x"}
    assert settle(settings, data_root, shelf) == settings


def test_weights_are_a_start_or_a_model_of_the_shelf(tmp_path: Path, data_root: Path, shelf: ModelShelf) -> None:
    first, run = shelf.names()
    assert first == "my-model"
    assert settle({"init": first}, data_root, shelf) == {"init": str(tmp_path / "my-model")}
    assert settle({"init": run}, data_root, shelf) == {"init": str(tmp_path / "runs" / run / "multitask_best.pth")}
    for start in choices.STARTS:
        assert settle({"init": start}, data_root, shelf) == {"init": start}
    for bad in ("/etc/hostname", "../my-model", f"{run}/multitask_best.pth", "runs"):
        with pytest.raises(
            ConfigError, match=r"init: got .*; needed auto, imagenet, lite0, none or the name of a model"
        ):
            settle({"init": bad}, data_root, shelf)


# ---- made photos


def test_interrupted_drawing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "MADE_NUMBER", 3)

    def interrupt(done: int, photos: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choices.write_demo_data(tmp_path / MADE_FOLDER, 3, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert len(list(prepare_data(tmp_path, MADE_FOLDER))) == 1
    assert "photos" in describe_data(tmp_path, MADE_FOLDER)
    assert [path.name for path in tmp_path.iterdir()] == [MADE_FOLDER]


def test_two_visitors_may_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "MADE_NUMBER", 3)
    failed: list[BaseException] = []

    def start() -> None:
        try:
            list(prepare_data(tmp_path, MADE_FOLDER))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert (tmp_path / MADE_FOLDER / "labels.json").is_file()


def test_a_root_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be written") as error:
        list(prepare_data(tmp_path / "file" / "data", MADE_FOLDER))
    assert "\n" not in str(error.value)


# ---- settings


def test_a_whole_number_stays_one_and_a_broken_one_is_told() -> None:
    names = ["epochs", "lr", "labels"]
    assert TrainConfig(**to_settings(names, [3.0, 0.5, ""])).epochs == 3
    with pytest.raises(ConfigError, match=r"epochs: got 0\.7"):
        TrainConfig(**to_settings(names, [0.7, None, ""]))


def test_numbers_show_their_bounds_and_step_by_them() -> None:
    from mtl.ui.fields import make_field

    size, rate, epochs = (make_field(name).get_config() for name in ("image_size", "lr", "epochs"))
    assert (size["step"], rate["step"], epochs["step"]) == (32, 0.001, 1)
    assert size["info"].endswith("; 64 to 1,024")
    assert rate["info"].endswith("; above 0, at most 10")
    assert epochs["precision"] is None


# ---- curves


def counts(frames: list) -> list[int]:
    return [int(frame["value"].notna().sum()) for frame in frames]


def test_curves_read_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, reader = make_run(tmp_path), CurveReader()
    nothing, frames = reader.read(run)
    assert counts(frames) == [0, 0, 0, 0]
    for step in (1, 2):
        run.append_event(step_event(step))
    first, frames = reader.read(run)
    assert counts(frames) == [2, 2, 2, 0]
    parsed: list[object] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))
    assert reader.read(run)[0] == first != nothing
    assert parsed == []
    with run.metrics_file.open("a") as lines:
        lines.write(json.dumps(step_event(3)) + "\n" + json.dumps(epoch_event(1))[:20])
    assert counts(reader.read(run)[1]) == [3, 3, 3, 0]
    with run.metrics_file.open("a") as lines:
        lines.write(json.dumps(epoch_event(1))[20:] + "\n")
    assert counts(reader.read(run)[1]) == [4, 4, 4, 1]
    assert len(parsed) == 2


def test_curves_follow_a_run_that_was_cut_back(tmp_path: Path) -> None:
    run, reader = make_run(tmp_path), CurveReader()
    for step in range(1, 9):
        run.append_event(step_event(step))
    before, _ = reader.read(run)
    run.cut_back(4)
    after, frames = reader.read(run)
    assert after != before
    assert counts(frames)[0] == 4
    for step in range(5, 20):  # longer than before the cut
        run.append_event(step_event(step))
    _, frames = reader.read(run)
    _, fresh = CurveReader().read(run)
    assert all(frame.equals(other) for frame, other in zip(frames, fresh, strict=True))


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.metrics_file.write_text("".join(json.dumps(step_event(step)) + "\n" for step in range(1, 2000)))
    assert counts(CurveReader().read(run)[1]) == [300, 300, 300, 0]
    assert [list(frame.columns) for frame in empty_curves()] == [["epoch", "value", "curve"]] * 4


# ---- words


def an_analysis(*, share: float = 0.0, side: int = 64, mask_trained: bool = True, trained: bool = True) -> Analysis:
    """Dry skin, and a lesion over the top rows that make up `share` of the photo."""
    logits = np.full((side, side), -9.0, np.float32)
    logits[: round(share * side)] = 9.0
    names, probabilities = ("dry", "oily"), np.array([0.8, 0.2]) * trained
    group = GroupAnswer("skin type", names, tuple(probabilities), (trained,) * 2, float(trained), applies=trained)
    return Analysis(side, side, probabilities, (group,), logits, False, 0.5, mask_trained)


def an_entry(analysis: Analysis) -> Entry:
    lesions = tuple(find_lesions(analysis.mask))
    return Entry(Path("photo.jpg"), replace(analysis), lesions, analysis.lesion_area_ratio)


def test_a_lesion_is_counted_and_measured() -> None:
    entry = an_entry(an_analysis(share=0.25))
    assert views.lesion_words(entry) == "1 lesion, 25.0 % of the photo"
    assert "Dry skin 80 %" in views.answer_card(entry)
    assert views.alt_text(2, entry) == "Photo 2: dry skin 80 %; 1 lesion, 25.0 % of the photo"


def test_specks_are_no_lesion_and_get_no_table() -> None:
    entry = an_entry(an_analysis())
    assert views.lesion_words(entry) == "no lesion found"
    specks = replace(entry, lesion_area_ratio=0.003)
    assert views.lesion_words(specks) == "no lesion found, only specks, together 0.3 % of the photo"
    assert "<table" not in views.answer_card(specks)


def test_what_is_not_trained_is_not_answered() -> None:
    no_mask = an_entry(an_analysis(share=0.5, mask_trained=False))
    assert "mask not trained" in views.answer_card(no_mask)
    assert "no lesion" not in views.alt_text(1, no_mask)
    no_class = an_entry(an_analysis(share=0.5, trained=False))
    card = views.answer_card(no_class)
    assert "<h2>1 lesion" in card
    assert "not trained, no photos" in card
    assert "seen" not in card
    assert views.alt_text(1, no_class) == "Photo 1: 1 lesion, 50.0 % of the photo"


def test_the_run_card_shows_what_the_data_check_warned_of(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = [f"photo <{number}>.jpg is blurred" for number in range(5)]
    for state in ("training", "finished", "failed"):
        card = views.run_card(run, RunStatus(state=state, warnings=lines))
        assert "photo &lt;2&gt;.jpg" in card
        assert "&lt;3&gt;" not in card
        assert "and 2 more, see log.txt" in card
    assert "warning" not in views.run_card(run, RunStatus(state="finished"))


# ---- what a session keeps


class StillModel:
    """In place of a network: the same answer for every photo, at its size."""

    def analyze(self, photo: np.ndarray) -> Analysis:
        return replace(an_analysis(share=0.25), height=photo.shape[0], width=photo.shape[1])


def test_no_map_of_the_photo_s_size_is_kept() -> None:
    entry, thumbnail = analyse_entry(PHOTO, StillModel())  # type: ignore[arg-type]
    views.answer_card(entry)
    views.alt_text(1, entry)
    views.caption(1, entry)
    shown_photo(entry, overlay=True)
    assert entry.analysis is not None
    arrays = [value for value in vars(entry.analysis).values() if isinstance(value, np.ndarray)]
    assert max(value.size for value in [*arrays, thumbnail]) < read_photo(PHOTO).size / 4
    assert not {"mask", "confidence_map"} & set(vars(entry.analysis))


def test_a_photo_that_is_gone_is_told(tmp_path: Path) -> None:
    from mtl.ui.tabs.analyse import _show

    photo = tmp_path / "photo.jpg"
    photo.write_bytes(PHOTO.read_bytes())
    entry, _ = analyse_entry(photo, StillModel())  # type: ignore[arg-type]
    assert _show([entry], 0, True)[0] is not None
    photo.unlink()
    with pytest.raises(PhotoError):
        shown_photo(entry, overlay=True)
    shown, card, index = _show([entry], 0, True)
    assert (shown, index) == (None, 0)
    assert "add it again" in card


# ---- app.py


@pytest.mark.parametrize(
    ("options", "variables", "told"),
    [
        (["--port", "99999"], {}, "got 99999; needed 0"),
        (["--port=-5"], {}, "got -5; needed 0"),
        ([], {"GRADIO_SERVER_PORT": "abc"}, "GRADIO_SERVER_PORT): got abc"),
        (["--port", "0", "--checkpoint", "nonsense"], {}, "nonsense: there is no such checkpoint"),
    ],
)
def test_what_cannot_be_started_with_is_told_in_one_line(
    options: list[str], variables: dict[str, str], told: str
) -> None:
    command = [sys.executable, str(ROOT / "app.py"), *options]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, timeout=120)
    assert ended.returncode == 1
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1
