"""Views of a photo averaged: the answer turns with the photo, and every door takes the views or refuses them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from builders import draw_photo, law, save
from hypothesis import given
from hypothesis import strategies as st
from serving import Shelf, rest_alone, send
from tiny import ONE_THREAD, random_network

from mtl.analysis.engine import EagerEngine, Outputs
from mtl.analysis.turned import VIEWS, View, with_views
from mtl.api import MultiTaskModel
from mtl.checkpoint import Checkpoint, write_pth
from mtl.cli import main
from mtl.config import ModelConfig
from mtl.errors import ConfigError
from mtl.serve.schema import Answer

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

SIZE = 64
CONFIG = ModelConfig(image_size=SIZE)
KINDS = ("flips", "turns")
REFUSAL = "tta: got spins; needed off, flips or turns"
# A view of the photo, and the kinds of views whose mean it does not change.
SEEN = st.sampled_from([(kind, view) for kind in KINDS for view in VIEWS[kind]])


@pytest.fixture(scope="module")
def engine(one_thread: None) -> EagerEngine:
    return EagerEngine(random_network(CONFIG), torch.device("cpu"))


@pytest.fixture(scope="module")
def model(one_thread: None) -> MultiTaskModel:
    return MultiTaskModel(Checkpoint("tiny", random_network(CONFIG).state_dict(), CONFIG), "cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As large as the network's square, so that its mirrored one gives the mirrored square."""
    pixels = draw_photo(3, SIZE, np.random.default_rng(1))[0]
    pixels[:10, :20] = 255
    return save(pixels, tmp_path_factory.mktemp("photo") / "arm.png")


@pytest.fixture
def predict(model: MultiTaskModel, photo: Path, tmp_path: Path) -> Callable[..., int]:
    """The verb on the photo; its exit status."""
    path = tmp_path / "model.pth"
    write_pth(path, model.checkpoint)
    return lambda *words: main(["predict", *map(str, words), "--checkpoint", str(path), "--device", "cpu"])


def noise(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


# ---- the engine


@law
@given(SEEN, st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_the_answer_turns_with_the_photo(engine: EagerEngine, seen: tuple[Any, View], seed: int, count: int) -> None:
    kind, view = seen
    squares, averaged = noise(seed, count), with_views(engine, kind)
    plain, other = averaged(squares), averaged(view.of(squares))
    assert_close(other.class_logits, plain.class_logits)
    assert_close(other.mask_logits, view.of(plain.mask_logits))


@law
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_it_is_the_mean_of_what_the_engine_says(engine: EagerEngine, seed: int, count: int) -> None:
    squares = noise(seed, count)
    axes = ((), (2,), (1,), (1, 2))  # left-right, upside-down, both
    each = [engine(np.ascontiguousarray(np.flip(squares, axis))) for axis in axes]
    averaged = with_views(engine, "flips")(squares)
    assert_close(averaged.class_logits, np.mean([view.class_logits for view in each], axis=0))
    upright = [np.flip(view.mask_logits, axis) for view, axis in zip(each, axes, strict=True)]
    assert_close(averaged.mask_logits, np.mean(upright, axis=0))
    assert not np.allclose(averaged.mask_logits, engine(squares).mask_logits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_picture_is_that_of_the_photo_as_it_is(kind: Any, engine: EagerEngine) -> None:
    assert np.array_equal(with_views(engine, kind)(noise(0, 2)).features, engine(noise(0, 2)).features)


@pytest.mark.parametrize(("kind", "count"), [("flips", 4), ("turns", 8)])
def test_each_view_is_another_one_and_goes_through_the_network_alone(
    kind: Any, count: int, engine: EagerEngine
) -> None:
    seen: list[np.ndarray] = []

    def watched(squares: np.ndarray) -> Outputs:
        seen.append(squares)
        return engine(squares)

    with_views(watched, kind)(noise(0, 3))
    assert [squares.shape for squares in seen] == [(3, SIZE, SIZE, 3)] * count
    assert len({squares.tobytes() for squares in seen}) == count
    assert np.array_equal(seen[0], noise(0, 3))


@pytest.mark.parametrize("view", VIEWS["turns"])
def test_a_view_is_undone(view: View) -> None:
    assert np.array_equal(view.undo(view.of(noise(0, 2))), noise(0, 2))


def test_off_is_the_engine_itself_and_others_are_refused(engine: EagerEngine) -> None:
    assert with_views(engine, "off") is engine
    with pytest.raises(ConfigError, match=REFUSAL):
        with_views(engine, "spins")  # type: ignore[arg-type]


# ---- the doors


def test_python_answers_for_a_mirrored_photo_as_for_the_photo(model: MultiTaskModel, photo: Path) -> None:
    mirrored = np.ascontiguousarray(model.examine(photo, name="", model_name="").image[:, ::-1])
    ours, theirs, plain = model.predict(photo, tta="flips"), model.predict(mirrored, tta="flips"), model.predict(photo)
    assert ours["classification"]["probabilities"] == pytest.approx(theirs["classification"]["probabilities"], abs=1e-5)
    maps = [answer["segmentation"]["confidence_map"] for answer in (ours, theirs, plain)]
    np.testing.assert_allclose(maps[0], maps[1][:, ::-1], atol=1e-5)
    assert not np.allclose(maps[0], maps[2], atol=1e-3)
    for analysis in (model.analyze(photo, tta="flips"), model.analyze_batch([photo], tta="flips")[0]):
        np.testing.assert_allclose(analysis.confidence_map, maps[0], atol=1e-5)


def test_a_record_says_which_views_it_is_of(model: MultiTaskModel, photo: Path) -> None:
    for kind in VIEWS:
        assert model.examine(photo, name="arm", model_name="tiny", tta=kind).record.tta == kind
    assert model.examine(photo, name="arm", model_name="tiny").record.tta == "off"


def test_python_refuses_other_views(model: MultiTaskModel, photo: Path) -> None:
    wrong: Any = "spins"
    for ask in (
        lambda: model.predict(photo, tta=wrong),
        lambda: model.analyze(photo, tta=wrong),
        lambda: model.analyze_batch([photo], tta=wrong),
        lambda: model.examine(photo, name="arm", model_name="tiny", tta=wrong),
    ):
        with pytest.raises(ConfigError, match=REFUSAL):
            ask()


@pytest.mark.parametrize("kind", VIEWS)
def test_the_command_line_takes_them(
    kind: Any, predict: Callable[..., int], model: MultiTaskModel, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(photo, "--json", "--tta", kind) == 0
    [answer] = json.loads(capsys.readouterr().out)["results"]
    wanted = model.predict(photo, tta=kind)["classification"]["probabilities"]
    assert answer["classification"]["probabilities"] == pytest.approx(wanted, abs=1e-5)


def test_the_command_line_refuses_others(
    predict: Callable[..., int], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(photo, "--tta", "spins") == 1
    assert "argument --tta: invalid choice: 'spins'" in capsys.readouterr().err


def test_a_file_of_answers_is_gone_on_with_by_the_same_views_only(
    predict: Callable[..., int],
    model: MultiTaskModel,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = tmp_path / "answers.jsonl"
    folder = (photo.parent, "--output-jsonl", answers)
    assert predict(*folder, "--tta", "flips") == 0
    [line] = answers.read_text().splitlines()
    wanted = model.predict(photo, tta="flips")["classification"]["probabilities"]
    assert json.loads(line)["classification"]["probabilities"] == pytest.approx(wanted, abs=1e-5)
    assert predict(*folder, "--tta", "flips") == 0
    assert predict(*folder) == 1
    assert "line 1 has tta flips, this would be off; take the same, or another file" in capsys.readouterr().err
    assert answers.read_text() == line + "\n"


def test_a_file_of_answers_from_before_there_were_views_is_of_none(
    predict: Callable[..., int], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.jsonl"
    folder = (photo.parent, "--output-jsonl", answers)
    assert predict(*folder) == 0
    old = json.loads(answers.read_text())
    assert old.pop("tta") == "off"
    answers.write_text(json.dumps(old) + "\n")
    assert predict(*folder) == 0
    assert "1 were answered before" in capsys.readouterr().out
    assert predict(*folder, "--tta", "turns") == 1


def test_rest_takes_them_and_refuses_others(model: MultiTaskModel, photo: Path) -> None:
    sent = (photo.name, photo.read_bytes())
    with rest_alone(Shelf({"tiny": model})) as url:
        for kind in VIEWS:
            answer = send(url, sent, query="?" + urlencode({"mask": "none", "tta": kind})).json
            Answer.model_validate(answer)
            wanted = model.predict(photo, tta=kind)["classification"]["probabilities"]
            assert (answer["tta"], answer["probabilities"]) == (kind, pytest.approx(wanted, abs=1e-5))
        assert send(url, sent, query="?mask=none").json["tta"] == "off"
        refused = send(url, sent, query="?tta=spins")
    assert (refused.status, refused.code) == (400, "bad_parameter")
    assert refused.json["error"]["message"] == "tta: got spins; needed: 'off', 'flips' or 'turns'"
