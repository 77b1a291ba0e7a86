"""The page's plain parts, without a browser: choices, curves, words and settings."""

import gc
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from builders import save, write_folder

from mtl.config import TrainConfig
from mtl.errors import ConfigError, DataError, RunError
from mtl.training.run import Run, RunStatus, differing_settings
from mtl.ui import choices, run_views
from mtl.ui.choices import MADE_FOLDER, data_choices, data_path, is_to_be_drawn, prepare_data, read_choice, settle
from mtl.ui.curves import METRICS, PLOTS, SLOTS, CurveReader, empty_frames
from mtl.ui.fields import to_settings
from mtl.ui.live import Controls, View, make_view
from mtl.ui.models import ModelShelf
from mtl.ui.watch import LATEST, RunWatch, choose

ROOT = Path(__file__).parent.parent


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
    assert len(read_choice(data_root, names[1]).train) == 2
    assert len(read_choice(data_root, names[2]).train) == 3


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
    assert not is_to_be_drawn(tmp_path, MADE_FOLDER)
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
    """Points of the total loss, the class loss, the mask loss and the scores."""
    return [int(frame["value"].notna().sum()) for frame in frames[:4]]


def test_curves_read_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, reader = make_run(tmp_path), CurveReader()
    nothing = reader.version(run)
    assert counts(reader.frames(run)) == [0, 0, 0, 0]
    for step in (1, 2):
        run.append_event(step_event(step))
    first = reader.version(run)
    assert counts(reader.frames(run)) == [2, 2, 2, 0]
    parsed: list[object] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))
    assert reader.version(run) == first != nothing
    assert parsed == []
    with run.metrics_file.open("a") as lines:
        lines.write(json.dumps(step_event(3)) + "\n" + json.dumps(epoch_event(1))[:20])
    assert counts(reader.frames(run)) == [3, 3, 3, 0]
    with run.metrics_file.open("a") as lines:
        lines.write(json.dumps(epoch_event(1))[20:] + "\n")
    assert counts(reader.frames(run)) == [4, 4, 4, 1]
    assert len(parsed) == 2


def test_curves_follow_a_run_that_was_cut_back(tmp_path: Path) -> None:
    run, reader = make_run(tmp_path), CurveReader()
    for step in range(1, 9):
        run.append_event(step_event(step))
    before = reader.version(run)
    run.cut_back(4)
    assert reader.version(run) != before
    assert counts(reader.frames(run))[0] == 4
    for step in range(5, 20):  # longer than before the cut
        run.append_event(step_event(step))
    fresh = CurveReader().frames(run)
    assert all(frame.equals(other) for frame, other in zip(reader.frames(run), fresh, strict=True))


def test_what_a_batch_has_no_loss_for_leaves_a_gap_and_a_broken_line_is_passed_over(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    unlabelled = {key: value for key, value in step_event(1).items() if key != "classification_loss"}
    run.append_event(unlabelled)
    with run.metrics_file.open("a") as lines:
        lines.write('{"event": "st\n')
    run.append_event(step_event(2))
    assert counts(CurveReader().frames(run)) == [2, 1, 2, 0]


def test_long_curves_are_thinned_to_means_and_a_zoom_shows_every_step(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.metrics_file.write_text("".join(json.dumps(step_event(step)) + "\n" for step in range(1, 2001)))
    reader = CurveReader()
    whole = reader.frames(run)
    assert counts(whole) == [300, 300, 300, 0]
    assert whole[0]["epoch"].mean() == pytest.approx(100.05, rel=0.01)
    zoomed = reader.frames(run, (50.0, 51.0))[0].dropna()
    # Ten steps an epoch, and one more on each side so that the line runs to the edges.
    assert zoomed["epoch"].tolist() == pytest.approx([step / 10 for step in range(499, 512)])
    assert [list(frame.columns) for frame in empty_frames()] == [["epoch", "value", "curve"]] * len(PLOTS)


def test_runs_are_compared_by_any_metric(tmp_path: Path) -> None:
    runs = [make_run(tmp_path) for _ in range(2)]
    for number, run in enumerate(runs, start=1):
        run.append_event(step_event(1))
        for epoch in range(1, 1 + number):
            run.append_event(epoch_event(epoch))
    reader = CurveReader()
    for metric, points in (("validation loss", [1, 2]), ("Dice", [1, 2]), ("training loss", [1, 1])):
        frame = reader.compare(runs, metric).dropna()
        assert [(frame["run"] == run.name).sum() for run in runs] == points
    assert all(tuple(reader.compare(runs, metric)["curve"][: len(SLOTS)]) == SLOTS for metric in METRICS)


# ---- runs as pages see them


def ended(folder: Path, **status: object) -> Run:
    """A run that is over, as its folder says."""
    run = make_run(folder)
    run.update(**{"state": "stopped", "best_epoch": 2, "best": {"val_dice": 0.5}, **status})
    return run


def live(folder: Path) -> Run:
    """A run that this process trains, as its folder says."""
    run = make_run(folder)
    run.claim(epochs=3)
    run.update(state="training")
    return run


def test_the_latest_run_is_the_live_one_else_the_one_last_written_to(tmp_path: Path) -> None:
    resumed, newer = ended(tmp_path), ended(tmp_path)
    watch = RunWatch(tmp_path / "runs")
    assert [watched.name for watched in watch.look()] == sorted([resumed.name, newer.name], reverse=True)
    resumed.status_file.write_text(resumed.status_file.read_text().replace('"updated": "2', '"updated": "3'))
    watch.forget()
    assert choose(watch.look(), LATEST).name == resumed.name
    newer.claim(epochs=1)
    watch.forget()
    assert choose(watch.look(), LATEST).name == newer.name
    assert choose(watch.look(), resumed.name).name == resumed.name
    with pytest.raises(RunError, match="nothing: there is no such run"):
        choose(watch.look(), "nothing")


def test_a_watch_sees_what_changes_and_what_is_deleted(tmp_path: Path) -> None:
    run, watch = ended(tmp_path), RunWatch(tmp_path / "runs")
    assert [watched.status.state for watched in watch.look()] == ["stopped"]
    run.update(state="failed", message="why")
    watch.forget()
    assert [watched.status.message for watched in watch.look()] == ["why"]
    run.delete()
    watch.forget()
    assert watch.look() == []


def test_what_can_be_pressed(tmp_path: Path) -> None:
    watch = RunWatch(tmp_path / "runs")
    assert make_view(watch.look(), LATEST) == (None, View())
    run = ended(tmp_path)
    watch.forget()
    assert make_view(watch.look(), LATEST)[1].controls == Controls(start=True)
    run.last_file.touch()
    run.best_file.touch()
    assert make_view(watch.look(), LATEST)[1].controls == Controls(start=True, resume=True, use=True)
    run.update(resume_with={"lr": 1e-5})
    watch.forget()
    assert make_view(watch.look(), LATEST)[1].controls.resume_word == "Resume with lr 1e-05"
    run.update(resume_with={})
    watch.forget()
    other = live(tmp_path)
    watch.forget()
    # The other one stands in the way of a start and of a resume; only it can be stopped.
    assert make_view(watch.look(), run.name)[1].controls == Controls(start=False, use=True)
    assert make_view(watch.look(), other.name)[1].controls == Controls(start=False, stop=True)
    other.request_stop()
    watch.forget()
    assert make_view(watch.look(), LATEST)[1].controls == Controls(start=False, stopping=True)
    gone, view = make_view(watch.look(), "deleted")
    assert gone is None
    assert "no such run" in view.card


def test_a_page_is_sent_only_what_changed(tmp_path: Path) -> None:
    import gradio as gr

    from mtl.ui.tabs.train.run import Seen, Zoom, refresh

    run, watch, reader = live(tmp_path), RunWatch(tmp_path / "runs"), CurveReader()

    def poll(seen: Seen, zoom: Zoom | None = None) -> tuple[list, Seen]:
        watch.forget()
        *updates, seen = refresh(watch, reader, LATEST, seen, zoom, None)
        return [update for update in updates if update != gr.skip()], seen

    sent, seen = poll(Seen())
    assert len(sent) > len(PLOTS)
    again, seen = poll(seen)  # since gradio can lose one part of an answer
    assert again == sent[: -len(PLOTS)]
    assert poll(seen)[0] == []
    run.append_event(step_event(1))
    _, seen = poll(seen)
    sent, seen = poll(seen)  # once more, for the layout of plots that had no points before
    assert len(sent) == len(PLOTS)
    assert poll(seen)[0] == []
    run.update(notices=["the loss does not move: try a higher lr"])
    [card], seen = poll(seen)
    assert "try a higher lr" in card
    again, seen = poll(seen)
    assert again == [card]
    assert poll(seen)[0] == []

    zoom = Zoom(run.name, (0.0, 0.5))
    sent, seen = poll(seen, zoom)
    assert [update["x_lim"] for update in sent] == [[0.0, 0.5]] * len(PLOTS)
    sent, seen = poll(seen, zoom)
    assert not any("x_lim" in update for update in sent), "that would build the plots anew"
    assert poll(seen, zoom)[0] == []
    run.append_event(step_event(2))
    sent, seen = poll(seen, zoom)
    assert len(sent) == len(PLOTS)
    assert not any("x_lim" in update for update in sent)
    # Of another run: it does not count.
    sent, seen = poll(seen, Zoom("another", (0.0, 0.5)))
    assert [update["x_lim"] for update in sent] == [[None, None]] * len(PLOTS)
    sent, seen = poll(seen)
    assert poll(seen)[0] == []


def test_samples_follow_the_newest_unless_somebody_went_back(tmp_path: Path) -> None:
    import gradio as gr

    from mtl.ui.tabs.train.run import Seen, refresh

    run, watch, reader = live(tmp_path), RunWatch(tmp_path / "runs"), CurveReader()

    def poll(seen: Seen, pin: tuple[str, int] | None = None) -> tuple[list, Seen]:
        watch.forget()
        *updates, seen = refresh(watch, reader, LATEST, seen, None, pin)
        return updates[-3:], seen

    def write_sample(epoch: int) -> None:
        save(np.full((8, 6, 3), epoch, np.uint8), run.path / "samples" / f"epoch_{epoch:04}.png")

    nothing, seen = poll(Seen())
    assert nothing == [gr.skip()] * 3
    write_sample(1)
    (column, slider, picture), seen = poll(seen)
    assert (column["visible"], slider["value"], seen.sample) == (True, 1, (run.name, 1))
    assert "data:image/webp;base64," in picture
    write_sample(2)
    (_, slider, picture), seen = poll(seen)
    assert (slider["value"], slider["maximum"], seen.sample) == (2, 2, (run.name, 2))
    (_, slider, back), seen = poll(seen, (run.name, 1))
    assert back != picture
    assert "value" not in slider, "a visitor may still be dragging it"
    write_sample(3)
    (_, slider, picture), seen = poll(seen, (run.name, 1))
    assert (slider["maximum"], picture, seen.sample) == (3, gr.skip(), (run.name, 1))
    # While it is being written, what was there stays.
    (run.path / "samples" / "epoch_0004.png").write_bytes(b"half a pic")
    assert poll(seen)[0] == [gr.skip()] * 3


def test_many_polls_keep_nothing(tmp_path: Path) -> None:
    from mtl.ui.tabs.train.run import Seen, refresh

    run, watch, reader = live(tmp_path), RunWatch(tmp_path / "runs"), CurveReader()
    run.append_event(step_event(1))
    seen = Seen()

    def poll(times: int) -> int:
        nonlocal seen
        for _ in range(times):
            watch.forget()
            seen = refresh(watch, reader, LATEST, seen, None, None)[-1]
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = poll(20)
        assert poll(200) - before < 20_000
    finally:
        tracemalloc.stop()


# ---- words


def test_the_run_card_shows_what_the_data_check_warned_of(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = [f"photo <{number}>.jpg is blurred" for number in range(5)]
    for state in ("training", "finished", "failed"):
        card = run_views.run_card(run, RunStatus(state=state, warnings=lines))
        assert "photo &lt;2&gt;.jpg" in card
        assert "&lt;3&gt;" not in card
        assert "and 2 more, see the log" in card
    assert "warning" not in run_views.run_card(run, RunStatus(state="finished"))


def test_a_live_run_says_how_far_it_is(tmp_path: Path) -> None:
    status = RunStatus(
        state="training", epoch=2, epochs=8, step=1500, steps=5000, images_per_second=12.34, seconds_left=4000,
        memory_bytes=1_340_000_000, device="cuda:0",
    )  # fmt: skip
    card = run_views.run_card(make_run(tmp_path), status)
    for words in ("Training", "epoch 3 of 8", "1,500 of 5,000", "12.3", "1 h 7 min left", "1.3 GB", "cuda:0", "30.0%"):
        assert words in card
    waiting = run_views.run_card(make_run(tmp_path), RunStatus(state="preparing", message="reading every photo once"))
    assert "reading every photo once" in waiting
    assert "busy" in waiting


def test_the_outcome_says_what_why_and_where(tmp_path: Path) -> None:
    run = ended(tmp_path, state="failed", message="lr: the <loss> is nan; take a lower lr", epoch=0)
    card = run_views.run_card(run, run.status(), "ERROR <nan>")
    for words in ("Failed", "Lr: the &lt;loss&gt; is nan; take a lower lr", "ERROR &lt;nan&gt;", f'"{run.path}"'):
        assert words in card
    early = RunStatus(state="finished", epoch=12, epochs=50, train_seconds=700, best_epoch=7, best={"val_dice": 0.81})
    card = run_views.run_card(run, early)
    for words in ("12 of 50 epochs in 12 min, ended early", "Best, epoch 7", "0.810"):
        assert words in card
    assert run.best_file.name not in card
    run.best_file.touch()
    assert str(run.best_file) in run_views.run_card(run, early)


def test_the_table_of_runs(tmp_path: Path) -> None:
    runs = [Run.create(TrainConfig(output_dir=str(tmp_path / "runs"), name=name)) for name in ("a", "b")]
    for run, lr in zip(runs, (0.1, 0.2), strict=True):
        run.write_config({"train": TrainConfig(lr=lr, data_dir="photos/skin").model_dump(mode="json")})
        run.update(state="finished", best_epoch=1, best={"val_loss": 0.25, "val_jaccard": 0.75})
    watched = RunWatch(tmp_path / "runs").look()
    table = run_views.runs_table(watched, differing_settings(runs))
    for words in (
        *(run.name for run in runs),
        "lr 0.1",
        "lr 0.2",
        "skin",
        "0.250",
        "0.750",
        "Finished",
        "<time datetime",
    ):
        assert words in table
    question = run_views.delete_question([watched[0].run])
    assert watched[0].name in question
    assert watched[1].name not in question
    assert "No runs yet" in run_views.runs_table([], {})


def test_words_for_sizes_and_times() -> None:
    sizes = [run_views.size(count) for count in (0, 512_000, 63_900_000, 1_340_000_000)]
    assert sizes == ["0 kB", "512 kB", "64 MB", "1.3 GB"]
    assert [run_views.duration(seconds) for seconds in (40, 720, 11_100)] == ["40 s", "12 min", "3 h 5 min"]
    assert "2026-08-01 10:00 UTC" in run_views.moment("2026-08-01T12:00:00+02:00")
    assert run_views.moment("") == run_views.UNKNOWN


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
