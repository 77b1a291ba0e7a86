"""`predict --output-jsonl`: each photo of a folder once, however often it is stopped, and by however many processes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import draw_photo, law, lay_out, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import ONE_THREAD, random_network

from mtl.analysis import stream
from mtl.analysis.answers import AnswerFile, Shard
from mtl.analysis.engine import EagerEngine, Outputs
from mtl.analysis.files import walk_photos
from mtl.analysis.stream import Answerer, PhotoFile, answer_photos
from mtl.checkpoint import Checkpoint, write_pth
from mtl.cli import main
from mtl.config import ModelConfig
from mtl.errors import ConfigError
from mtl.model import MultiTaskNetwork

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

ROOT = Path(__file__).parent.parent
CONFIG = ModelConfig(image_size=64)
SAME = {"weights": "abc"}
GOOD = ["a.jpg", "B.PNG", "grey.png", "line\nbreak.jpg", "turned.jpg", "sub/a.jpg", "sub/deep/ä ö.jpg"]
BROKEN = ["cut.jpg", "letter.jpg", "sub/empty.png", "gone.jpg"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    write_pth(path, Checkpoint("model", random_network(CONFIG).state_dict(), CONFIG))
    return path


@pytest.fixture(scope="module")
def network(one_thread: None) -> MultiTaskNetwork:
    return random_network(CONFIG)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good, odd and broken photos, and of what is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(GOOD):
        pixels, _ = draw_photo(number, 70 + number, np.random.default_rng(number))
        save(pixels, folder / name)
    Image.open(folder / "grey.png").convert("L").save(folder / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.full((40, 80, 3), 150, np.uint8)).save(folder / "turned.jpg", exif=turned)
    whole = (folder / "a.jpg").read_bytes()
    lay_out(folder, {"cut.jpg": whole[: len(whole) // 2], "letter.jpg": "Dear all", "sub/empty.png": ""})
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    lay_out(folder, {"._a.jpg": "", ".hidden/x.jpg": "", "readme.txt": ""})
    (folder / "circle").symlink_to(folder)
    return folder


@pytest.fixture
def predict(checkpoint: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the verb on a folder into answers.jsonl; its exit status."""

    def run(folder: Path, *options: object) -> int:
        words = [folder, "--output-jsonl", tmp_path / "answers.jsonl", "--checkpoint", checkpoint, "--device", "cpu"]
        return main(["predict", *map(str, [*words, *options])])

    return run


def answers_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in sorted(folder.glob("*.jsonl")) for line in part.read_text().splitlines()]


def by_name(folder: Path) -> dict[str, dict[str, Any]]:
    """The answer of each photo, which has exactly one."""
    answers = answers_in(folder)
    named = {answer["photo"]: answer for answer in answers}
    assert len(named) == len(answers)
    return named


# ---- what is in the file


def test_each_photo_has_a_line_with_its_answer_or_its_error(
    predict: Callable[..., int], photos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(photos, "--recursive", "--json") == 1
    printed = capsys.readouterr()
    told = {"answers": str(tmp_path / "answers.jsonl"), "photos": 11, "failed": 4, "answered_before": 0}
    assert json.loads(printed.out) == told
    assert "4 of 11 photos could not be analysed, the first: " in printed.err
    answers = by_name(tmp_path)
    assert set(answers) == {*GOOD, *BROKEN}
    assert {name for name, answer in answers.items() if "error" in answer} == set(BROKEN)
    assert {answer["folder"] for answer in answers.values()} == {photos.as_posix()}
    main(["predict", "--json", *(str(photos / name) for name in GOOD), "--checkpoint", str(checkpoint)])
    for name, alone in zip(GOOD, json.loads(capsys.readouterr().out)["results"], strict=True):
        assert set(answers[name]) == {*alone, "folder", "weights", "mask_threshold", "tta"}
        assert_same(answers[name], alone | {"photo": name})


def assert_same(answer: dict[str, Any], other: dict[str, Any]) -> None:
    """But for the last digits, which hang on the batch."""
    kinds, others = answer["classification"], other["classification"]
    assert answer["photo"] == other["photo"]
    assert kinds["probabilities"] == pytest.approx(others["probabilities"], abs=1e-4)
    for key in ("height", "width", "threshold"):
        assert answer["segmentation"][key] == other["segmentation"][key]
    ratio = other["segmentation"]["lesion_area_ratio"]
    assert answer["segmentation"]["lesion_area_ratio"] == pytest.approx(ratio, abs=2e-3)


def test_without_recursive_only_the_folder_itself(predict: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    predict(photos)
    assert set(by_name(tmp_path)) == {name for name in (*GOOD, *BROKEN) if "/" not in name}


def test_names_that_are_no_text(predict: Callable[..., int], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    save(np.full((64, 64, 3), 99, np.uint8), folder / "x.jpg")
    try:
        os.rename(folder / "x.jpg", os.fsencode(folder) + b"/\xff.jpg")
    except OSError:
        pytest.skip("this disk takes text only")
    assert predict(folder) == 0
    [name] = by_name(tmp_path)
    assert os.fsencode(name) == b"\xff.jpg"
    assert predict(folder) == 0
    assert len(answers_in(tmp_path)) == 1


def test_pictures_are_written_along(predict: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    predict(photos, "--recursive", "--output-dir", tmp_path / "out")
    answer = by_name(tmp_path)["turned.jpg"]
    with Image.open(answer["mask"]) as mask, Image.open(answer["overlay"]) as overlay:
        assert mask.size == overlay.size == (40, 80)
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {f"{name}_{kind}.png" for name in GOOD for kind in ("mask", "overlay")}


# ---- stopped and gone on with


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos for a second or two, which take the room of ten."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(10):
        pixels, _ = draw_photo(number, 160, np.random.default_rng(number))
        first = save(pixels, folder / f"{number}.jpg")
        for copy in range(1, 6):
            os.link(first, folder / f"{number}-{copy}.jpg")
    lay_out(folder, {"letter.jpg": "Dear all"})
    return folder


def start(folder: Path, checkpoint: Path, answers: Path) -> "subprocess.Popen[str]":
    """The verb in a process of its own, once it has written a few answers."""
    command = [sys.executable, "-m", "mtl", "predict", folder, "--output-jsonl", answers, "--checkpoint", checkpoint]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*map(str, command), "--batch-size", "1", "--device", "cpu"],
        cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while lines_of(answers) < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    return process


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_and_gone_on_with(predict: Callable[..., int], many: Path, checkpoint: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    with start(many, checkpoint, answers) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with answers.open("a") as file:
        file.write('{"folder": "' + str(many))  # as a kill leaves it at its worst
    assert 5 <= lines_of(answers) < 61
    predict(many, "--batch-size", 4)
    resumed = by_name(tmp_path)
    (whole := tmp_path / "whole").mkdir()
    assert predict(many, "--output-jsonl", whole / "answers.jsonl") == 1
    uninterrupted = by_name(whole)
    assert set(resumed) == set(uninterrupted) == {path.name for path in many.iterdir()}
    for name, answer in resumed.items():
        if "error" in answer:
            assert answer == uninterrupted[name]
        else:
            assert_same(answer, uninterrupted[name])


def test_ctrl_c_says_where_it_stopped(
    predict: Callable[..., int], many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.jsonl"

    def press() -> None:
        while lines_of(answers) < 5:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    (pressing := threading.Thread(target=press)).start()
    assert predict(many, "--batch-size", 1) == 130
    pressing.join()
    stopped = lines_of(answers)
    said = f"stopped after {stopped} photos, whose answers are in {answers}; the same command goes on there"
    assert capsys.readouterr().err == f"mtl predict: {said}\n"
    assert 5 <= stopped < 61


def test_a_stop_within_a_line_counts_it(
    predict: Callable[..., int], many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write, answers = AnswerFile.write, tmp_path / "answers.jsonl"

    def stopped_after_third(file: AnswerFile, answer: Mapping[str, Any]) -> None:
        write(file, answer)
        if lines_of(answers) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswerFile, "write", stopped_after_third)
    assert predict(many, "--batch-size", 1) == 130
    assert lines_of(answers) == 3
    assert "stopped after 3 photos" in capsys.readouterr().err


def test_another_number_of_processes(
    predict: Callable[..., int], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(rank: int, count: int) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(count))
        predict(photos, "--recursive")

    process(0, 2)
    process(1, 2)
    part = tmp_path / "answers.rank1of2.jsonl"
    assert set(by_name(tmp_path)) == {*GOOD, *BROKEN}
    part.write_bytes(part.read_bytes()[:-9])
    for rank in range(3):
        process(rank, 3)
    assert set(by_name(tmp_path)) == {*GOOD, *BROKEN}
    (tmp_path / "answers.rank0of2.jsonl").unlink()
    process(0, 1)
    assert set(by_name(tmp_path)) == {*GOOD, *BROKEN}


names = st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8), max_size=20, unique=True)


@law
@given(names, st.lists(st.tuples(st.integers(1, 4), st.integers(0, 400)), max_size=4))
def test_each_photo_once_however_it_was_cut(photos: list[str], stops: list[tuple[int, int]]) -> None:
    """stops: of each attempt, the number of processes, and how many bytes of each part are lost."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "answers.jsonl"
        for count, lost in [*stops, (2, 0)]:
            for rank in range(count):
                with AnswerFile(path, ["f"], SAME, Shard(rank, count)) as file:
                    for name in filter(lambda name: file.wants("f", name), photos):
                        file.write({"folder": "f", "photo": name})
                file.path.write_bytes(file.path.read_bytes()[: -lost or None])
        assert Counter(answer["photo"] for answer in answers_in(Path(place))) == Counter(photos)


def test_none_of_many_is_wanted_again(tmp_path: Path) -> None:
    photos = [f"{number}.jpg" for number in range(3000)]
    for wanted in (photos, []):
        with AnswerFile(tmp_path / "answers.jsonl", ["f"], SAME, Shard()) as file:
            assert [name for name in photos if file.wants("f", name)] == wanted
            for name in wanted:
                file.write({"folder": "f", "photo": name})


@law
@given(names, st.integers(1, 5))
def test_each_photo_is_of_one_share(photos: list[str], count: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        files = [AnswerFile(Path(place) / "a.jsonl", ["f"], SAME, Shard(rank, count)) for rank in range(count)]
        for name in photos:
            assert sum(file.wants("f", name) for file in files) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Dear all\n", "line 1 is no answer; remove the line"),
        ('{"photo": "x"}\n', "line 1 is no answer; remove the line"),
        ('{"folder": "g", "photo": "x", "weights": "abc"}\n', "line 1 is of the folder g; name that one too"),
        ('{"folder": "f", "photo": "x", "weights": "old"}\n', "line 1 has weights old, this would be abc"),
    ],
)
def test_answers_of_something_else_are_not_mixed_in(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigError, match=said), AnswerFile(path, ["f"], SAME, Shard()):
        pass
    assert path.read_text() == line


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    second = AnswerFile(path, ["f"], SAME, Shard())
    with AnswerFile(path, ["f"], SAME, Shard()), pytest.raises(ConfigError, match="another process writes there"):
        second.__enter__()
    with second:
        pass


@pytest.mark.parametrize(("rank", "count"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_a_share_that_cannot_be(rank: str, count: str) -> None:
    with pytest.raises(ConfigError, match="RANK"):
        Shard.of({"RANK": rank, "WORLD_SIZE": count})


# ---- memory


def asked_ahead(folder: Path, network: MultiTaskNetwork, batch_size: int) -> tuple[int, int]:
    """The most photos that were asked for and not yet answered, with a slow network, and the largest batch."""
    asked = answered = most = 0
    batches = []

    def names() -> Iterator[PhotoFile]:
        nonlocal asked, most
        for name in walk_photos(folder, recursive=False):
            asked += 1
            most = max(most, asked - answered)
            yield PhotoFile(str(folder), name)

    eager = EagerEngine(network, next(network.parameters()).device)

    def slow(squares: np.ndarray) -> Outputs:
        batches.append(len(squares))
        time.sleep(0.01)
        return eager(squares)

    for _ in answer_photos(names(), Answerer(slow, CONFIG), batch_size):
        answered += 1
    assert asked == answered == 61
    return most, max(batches)


def test_few_photos_are_read_ahead(many: Path, network: MultiTaskNetwork) -> None:
    threads = os.cpu_count() or 1
    most, batch = asked_ahead(many, network, batch_size=8)
    assert batch == 8
    assert most <= stream.BATCHES_HELD * 8 + threads


def test_fewer_where_they_are_large(many: Path, network: MultiTaskNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_HELD_PX", 3 * 160 * 160)
    most, batch = asked_ahead(many, network, batch_size=8)
    threads = os.cpu_count() or 1
    assert batch <= 2 + threads
    assert most <= 3 + threads


def test_a_fault_ends_it(many: Path, network: MultiTaskNetwork) -> None:
    def broken(squares: np.ndarray) -> Outputs:
        raise RuntimeError("out of memory")

    photos = (PhotoFile(str(many), name) for name in walk_photos(many, recursive=False))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(answer_photos(photos, Answerer(broken, CONFIG), 4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("photos", "network"))]
