"""One photo, one answer, whoever asks: Python, the page, REST and gradio's client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import draw_photo, save
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from serving import Shelf, ask, send, serving
from test_rest import decoded, tiny_model
from tiny import ONE_THREAD

from mtl.api import DEFAULT_CHECKPOINT, MultiTaskModel
from mtl.serve.schema import Answer
from mtl.ui.desk import Desk, mask

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

REAL = Path(__file__).parents[2] / "shared" / "data" / "multitask" / "images"


@pytest.fixture(scope="module")
def model(one_thread: None) -> MultiTaskModel:
    """The shipped one, where its answers are worth comparing."""
    return MultiTaskModel.load(device="cpu") if DEFAULT_CHECKPOINT.is_dir() else tiny_model()


@pytest.fixture(scope="module")
def url(model: MultiTaskModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("transfers")))
        with serving(Shelf({"default": model, "broken": None})) as url:
            yield url


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(url, verbose=False, download_files=tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six made ones, and four real ones where there are some."""
    folder = tmp_path_factory.mktemp("photos")
    made = [
        save(draw_photo(number, 150 + 20 * number, np.random.default_rng(number))[0], folder / f"made {number}.png")
        for number in range(6)
    ]
    return [*made, *sorted(REAL.rglob("*.jpg"))[:: max(1, len(list(REAL.rglob("*.jpg"))) // 4)][:4]]


def test_all_doors_give_the_same_answer(
    photos: list[Path], model: MultiTaskModel, url: str, client: Client, tmp_path: Path
) -> None:
    if len(photos) < 10:
        pytest.skip("needs ../shared/data, which is not part of the repository")
    desk = Desk(tmp_path)
    desk.take(photos)
    assert len(list(desk.analyse_waiting(model, "default"))) == 10
    surest = []
    for number, path in enumerate(photos):
        wanted = model.predict(path)
        probabilities, pixels = wanted["classification"]["probabilities"], wanted["segmentation"]["mask"]
        by_rest = [send(url, (path.name, path.read_bytes()), query=f"?mask={form}").json for form in ("list", "rle")]
        by_client = client.predict(handle_file(str(path)), api_name="/analyze")
        for answer in (*by_rest, by_client):
            assert answer["probabilities"] == pytest.approx(probabilities, abs=1e-4)
            assert np.array_equal(decoded(answer["lesion_mask"]), pixels)
        shown = desk.photos[number]
        assert shown.analysis is not None
        assert shown.record is not None
        assert shown.analysis.probabilities == pytest.approx(probabilities, abs=1e-4)
        assert np.array_equal(mask(shown), pixels)
        assert by_client["segmentation"]["area_px"] == shown.record.measures.area_px == pixels.sum()
        surest.append(round(max(probabilities), 4))
    assert len(set(surest)) > 4  # of ten photos, not of one


def test_the_clients_answer_has_the_form_of_rest(photos: list[Path], client: Client) -> None:
    for form in ("png", "rle", "none"):
        answer = client.predict(handle_file(str(photos[0])), mask=form, api_name="/analyze")
        Answer.model_validate(answer)
    assert (answer["lesion_mask"], answer["tta"]) == (None, "off")
    assert answer["file"] == photos[0].name
    # Not the first photo: it shows no class, so that all its views say the same of the classes.
    turned, once = (
        client.predict(handle_file(str(photos[1])), mask="none", tta=tta, api_name="/analyze")
        for tta in ("turns", "off")
    )
    assert turned["tta"] == "turns"
    assert turned["probabilities"] != once["probabilities"]


def test_it_is_the_only_endpoint_that_is_shown(url: str) -> None:
    info = ask(f"{url}/gradio_api/info").json
    assert (list(info["named_endpoints"]), info["unnamed_endpoints"]) == (["/analyze"], {})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"mask": "list"}, "mask: got list; needed: png, rle or none (REST gives lists)"),
        ({"conf_thresh": 2}, "conf_thresh: got 2; needed: less than 1"),
        ({"tta": "spins"}, "tta: got spins; needed: 'off', 'flips' or 'turns'"),
        ({"model": "other"}, "model: got other; there is none of this name, so leave it out"),
        ({"model": "broken"}, "the model cannot be loaded; the log of the server has the reason"),
    ],
)
def test_errors_come_as_one_line(settings: dict[str, Any], line: str, photos: list[Path], client: Client) -> None:
    with pytest.raises(AppError) as told:
        client.predict(handle_file(str(photos[0])), **settings, api_name="/analyze")
    assert told.value.message == line


def test_a_file_that_is_no_photo(client: Client, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear all")
    with pytest.raises(AppError) as told:
        client.predict(handle_file(str(tmp_path / "letter.jpg")), api_name="/analyze")
    assert told.value.message.startswith("letter.jpg: no picture that can be read; ")


FILE = {"meta": {"_type": "gradio.FileData"}}
NO_UPLOAD = [{"path": "{photo}"}, {"path": "{photo}", **FILE}, {"path": 7}, {}, None, [1], "{photo}", {"path": "\0"}]


@pytest.mark.parametrize("sent", NO_UPLOAD)
def test_only_uploaded_files_are_read(sent: Any, url: str, photos: list[Path]) -> None:
    """Whatever a program claims to have uploaded: a photo elsewhere on the server stays there."""
    sent = json.loads(json.dumps(sent).replace("{photo}", str(photos[0])))
    body = json.dumps({"data": [sent, "none", None, 0.5, 0.01, None, "off"]}).encode()
    started = ask(f"{url}/gradio_api/call/analyze", body, {"Content-Type": "application/json"})
    events = ask(f"{url}/gradio_api/call/analyze/{started.json['event_id']}").body.decode()
    assert "event: error" in events
    assert "skin_type" not in events
    assert str(photos[0].parent) not in events
    assert "Traceback" not in events
