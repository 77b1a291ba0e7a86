"""REST as programs meet it: the answers, every refusal, limits, and what is left behind: nothing."""

import base64
import csv
import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from builders import draw_photo, law
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from serving import ANALYZE, Shelf, ask, form, rest_alone, send, serving
from tiny import ONE_THREAD, random_network

from mtl.analysis.engine import Engine, Outputs
from mtl.api import MultiTaskModel
from mtl.checkpoint import Checkpoint
from mtl.config import ModelConfig
from mtl.errors import DeviceError
from mtl.serve.answer import encode_mask, run_lengths
from mtl.serve.codes import CODES
from mtl.serve.rest import RestLimits
from mtl.serve.schema import Answer, Error, Health, NoHealth, Results

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
NO_PHOTO = ("letter.jpg", b"Dear all")


def tiny_model(engine: Engine | None = None) -> MultiTaskModel:
    config = ModelConfig(image_size=64, temperature=0.2)
    model = MultiTaskModel(Checkpoint("tiny", random_network(config).state_dict(), config), "cpu")
    if engine:
        model.engine = engine  # type: ignore[assignment]
    return model


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


PHOTO = ("arm.png", encoded(draw_photo(1, 64, np.random.default_rng(0))[0][:48]))


class HeldEngine:
    """Answers when it is let to, and counts."""

    def __init__(self) -> None:
        self.go, self.calls = threading.Event(), 0
        self._engine = tiny_model().engine

    def __call__(self, squares: np.ndarray) -> Outputs:
        self.calls += 1
        assert self.go.wait(30)
        return self._engine(squares)


@pytest.fixture(scope="module")
def model(one_thread: None) -> MultiTaskModel:
    return tiny_model()


@pytest.fixture(scope="module")
def url(model: MultiTaskModel) -> Iterator[str]:
    with serving(Shelf({"tiny": model, "broken": None})) as url:
        yield url


def decoded(mask: Any) -> np.ndarray:
    """A mask of any form as (H, W) 0/1."""
    if isinstance(mask, str):
        greys = np.asarray(Image.open(BytesIO(base64.b64decode(mask.partition(",")[2]))))
        assert set(np.unique(greys)) <= {0, 255}
        return greys // 255
    if isinstance(mask, dict):
        values = np.arange(len(mask["counts"])) % 2
        return np.repeat(values, mask["counts"]).reshape(mask["size"], order="F")
    return np.array(mask)


# ---- answers


def test_a_photos_answer_is_that_of_the_model_in_the_form_that_the_schema_tells(
    url: str, model: MultiTaskModel
) -> None:
    answer = send(url, PHOTO).json
    Answer.model_validate_json(json.dumps(answer), strict=True)
    wanted = model.predict(PHOTO[1])
    assert answer["file"] == "arm.png"
    for place in (answer, answer["classification"]):
        assert place["predicted_class"] == wanted["classification"]["predicted_class"]
        assert place["probabilities"] == pytest.approx(wanted["classification"]["probabilities"], abs=1e-6)
    assert answer["lesion_coverage"] == answer["segmentation"]["area_ratio"] == wanted["segmentation"]["mask"].mean()
    assert answer["model"]["name"] == "tiny"


@pytest.mark.parametrize("query", ["", "?mask=list", "?mask=png", "?mask=rle"])
def test_every_form_of_the_mask_is_the_mask(query: str, url: str, model: MultiTaskModel) -> None:
    answer = send(url, PHOTO, query=query).json
    Answer.model_validate(answer)
    mask = model.predict(PHOTO[1])["segmentation"]["mask"]
    assert 0 < mask.mean() < 1
    assert np.array_equal(decoded(answer["lesion_mask"]), mask)


def test_no_mask(url: str) -> None:
    assert send(url, PHOTO, query="?mask=none").json["lesion_mask"] is None


@law
@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1)))
def test_runs_and_pngs_decode_to_the_mask(mask: np.ndarray) -> None:
    runs = run_lengths(mask)
    assert sum(runs["counts"]) == mask.size
    assert all(runs["counts"][1:])
    assert np.array_equal(decoded(runs), mask)
    assert np.array_equal(decoded(encode_mask(mask, "png")), mask)


def test_several_photos_are_answered_in_their_order_each_with_its_answer_or_reason(url: str) -> None:
    results = send(url, PHOTO, NO_PHOTO, PHOTO, query="?mask=none").json
    Results.model_validate(results)
    assert [result["file"] for result in results["results"]] == ["arm.png", "letter.jpg", "arm.png"]
    assert results["results"][1]["error"]["code"] == "unreadable_photo"


def test_a_body_may_be_the_photo(url: str) -> None:
    answer = ask(f"{url}{ANALYZE}?mask=none", PHOTO[1], {"Content-Type": "image/png"})
    assert (answer.status, answer.json["file"], answer.json["width"]) == (200, "photo", 64)


def test_thresholds_are_heard(url: str, model: MultiTaskModel) -> None:
    middle = float(np.median(model.predict(PHOTO[1])["segmentation"]["confidence_map"]))
    asked = {"mask": "none", "conf_thresh": middle, "name_confidence": 1, "lesion_threshold": 0.99}
    answer = send(url, PHOTO, query="?" + urlencode(asked)).json
    assert answer["segmentation"]["threshold"] == middle
    assert 0.4 < answer["lesion_coverage"] < 0.6
    assert answer["has_lesions"] is False
    assert {answer["skin_type"], answer["hair_type"]} <= {"uncertain", "not seen"}


def test_an_unnamed_group_has_no_class_for_an_answer() -> None:
    config = ModelConfig(image_size=64, temperature=0.2, unnamed_groups=("skin type", "hair type"))
    unnamed = MultiTaskModel(Checkpoint("tiny", random_network(config).state_dict(), config), "cpu")
    with rest_alone(Shelf({"tiny": unnamed})) as url:
        answer = send(url, PHOTO, query="?mask=none&name_confidence=0").json
    Answer.model_validate(answer)
    groups = answer["classification"]["groups"].values()
    said = {answer["skin_type"], answer["hair_type"], *(group["answer"] for group in groups)}
    assert "uncertain" in said <= {"uncertain", "not seen"}
    assert not any(group["named"] for group in groups)


# ---- refusals


BODY, HEADERS = form([PHOTO])
EMPTY, EMPTY_HEADERS = form([("", b"")])
REFUSED: dict[str, tuple[int, str, dict[str, Any]]] = {
    "no content type": (415, "unsupported_media_type", {"headers": {"Content-Type": ""}}),
    "json": (415, "unsupported_media_type", {"headers": {"Content-Type": "application/json"}}),
    "no boundary": (400, "bad_request", {"headers": {"Content-Type": "multipart/form-data"}}),
    "another boundary": (400, "bad_request", {"headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
    "cut short": (400, "bad_request", {"body": BODY[:-20]}),
    "empty field": (400, "no_file", {"body": EMPTY, "headers": EMPTY_HEADERS}),
    "empty body": (400, "no_file", {"body": b"", "headers": {"Content-Type": "image/jpeg"}}),
    "wrong method": (405, "method_not_allowed", {"body": None, "headers": {}}),
    "delete": (405, "method_not_allowed", {"body": None, "headers": {}, "method": "DELETE"}),
    "wrong mask": (400, "bad_parameter", {"query": "?mask=jpg"}),
    "threshold of 1": (400, "bad_parameter", {"query": "?conf_thresh=1"}),
    "threshold that is no number": (400, "bad_parameter", {"query": "?conf_thresh=nan"}),
    "unknown parameter": (400, "bad_parameter", {"query": "?threshold=0.4"}),
    "unknown model": (404, "unknown_model", {"query": "?model=../../etc/passwd"}),
    "broken model": (503, "no_model", {"query": "?model=broken"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, url: str) -> None:
    status, code, request = REFUSED[case]
    request = {"body": BODY, "headers": HEADERS, **request}
    answer = ask(f"{url}{ANALYZE}{request.pop('query', '')}", **request)
    assert (answer.status, answer.code) == (status, code)
    Error.model_validate(answer.json)
    message = answer.json["error"]["message"]
    assert message.isprintable()
    assert not {"/secret", "Traceback", ".py"} & set(message.split())


def test_a_file_under_another_field_and_settings_in_the_body_are_told(url: str) -> None:
    body, headers = form([PHOTO], field="photo")
    assert "`photo`" in ask(url + ANALYZE, body, headers).json["error"]["message"]
    text = BODY.replace(b"--\r\n", b"\r\n") + b'Content-Disposition: form-data; name="mask"\r\n\r\npng\r\n'
    closed = text + HEADERS["Content-Type"].partition("=")[2].join(["--", "--\r\n"]).encode()
    answer = ask(url + ANALYZE, closed, HEADERS)
    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert "mask" in answer.json["error"]["message"]


def test_other_addresses_below_the_api(url: str) -> None:
    for path in ("/api/v1/", "/api/v1/analyze", f"{ANALYZE}/"):
        assert (ask(url + path).status, ask(url + path).code) == (404, "not_found")


def test_a_file_that_is_no_photo_is_named(url: str) -> None:
    answer = send(url, NO_PHOTO)
    assert (answer.status, answer.code) == (422, "unreadable_photo")
    assert answer.json["error"]["message"].startswith("letter.jpg: no picture")


def test_too_many_files_and_too_many_bytes(model: MultiTaskModel, url: str) -> None:
    with rest_alone(Shelf({"tiny": model}), limits=RestLimits(max_files=2)) as alone:
        answer = send(alone, PHOTO, PHOTO, PHOTO)
        assert (answer.status, answer.code) == (413, "too_many_files")
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    announced = {**HEADERS, "Content-Length": str(RestLimits().max_request_bytes + 1)}
    connection.request("POST", ANALYZE, headers=announced)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (413, "too_large")
    connection.close()


def test_what_nobody_foresaw_is_told_without_details(caplog: pytest.LogCaptureFixture) -> None:
    def broken(squares: np.ndarray) -> Outputs:
        raise RuntimeError("/secret/path")

    with rest_alone(Shelf({"tiny": tiny_model(broken)})) as url:
        one, several = send(url, PHOTO), send(url, PHOTO, NO_PHOTO)
    assert (one.status, one.code) == (500, "fault")
    assert [result["error"]["code"] for result in several.json["results"]] == ["fault", "unreadable_photo"]
    assert b"/secret" not in one.body + several.body
    assert "/secret/path" in caplog.text  # for the owner
    assert "arm.png" not in caplog.text


def test_a_device_that_gives_no_answer_may_be_asked_again() -> None:
    def lent_out(squares: np.ndarray) -> Outputs:
        raise DeviceError("no GPU at /secret/path")

    with rest_alone(Shelf({"tiny": tiny_model(lent_out)})) as url:
        answer = send(url, PHOTO)
    assert (answer.status, answer.code) == (503, "busy")
    assert "Retry-After" in answer.headers
    assert b"/secret" not in answer.body


JUNK = st.one_of(st.binary(max_size=200), st.text(max_size=80).map(str.encode))


@settings(law, max_examples=40)
@given(JUNK, st.sampled_from(["image/png", "multipart/form-data; boundary=b", "multipart/form-data; boundary=", "a/b"]))
def test_junk_is_refused_in_one_form(url: str, junk: bytes, media_type: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="\r\n'
    for body in (junk, part + junk, part.replace(b"\r\n", b'x"\r\n\r\n') + junk + b"\r\n--b--"):
        answer = ask(url + ANALYZE, body, {"Content-Type": media_type})
        assert 400 <= answer.status < 500
        assert CODES[answer.code][0] == answer.status


@settings(law, max_examples=40)
@given(
    st.sampled_from(["mask", "conf_thresh", "name_confidence", "lesion_threshold", "model", "tta", "x"]),
    st.one_of(st.text(max_size=20), st.floats().map(str)),
)
def test_any_parameter_is_heard_or_refused(url: str, name: str, value: str) -> None:
    answer = send(url, NO_PHOTO, query="?" + urlencode({name: value}, errors="replace"))
    assert answer.status in (400, 404, 422, 503)
    Error.model_validate(answer.json)


@pytest.mark.skipif(not CORPORA.is_dir(), reason="needs ../shared/corpora, which is not part of the repository")
def test_hostile_images(url: str) -> None:
    """A quarter of them, each refused with its reason, or answered where it may be."""
    with (CORPORA / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "images_bad"][::4]
    for start in range(0, len(rows), 25):
        batch = rows[start : start + 25]
        files = [(Path(row["file"]).name, (CORPORA / row["file"]).read_bytes()) for row in batch]
        for row, result in zip(batch, send(url, *files, query="?mask=none").json["results"], strict=True):
            if row["expected"] == "error":
                assert result["error"]["code"] == "unreadable_photo", row["file"]
            elif row["expected"] == "result":
                assert "error" not in result, row["file"]
            else:
                assert result.get("error", {"code": "unreadable_photo"})["code"] == "unreadable_photo", row["file"]
    refused = next(file for row, file in zip(batch, files, strict=True) if row["expected"] == "error")
    answer = send(url, refused)
    assert (answer.status, answer.code) == (422, "unreadable_photo")


# ---- limits


def test_beyond_the_queue_requests_are_refused_at_once() -> None:
    engine = HeldEngine()
    with rest_alone(Shelf({"held": tiny_model(engine)}), limits=RestLimits(at_once=1, waiting=1)) as url:
        with ThreadPoolExecutor(6) as senders:
            sent = [senders.submit(send, url, PHOTO) for _ in range(6)]
            refused = [done.result() for done in islice(as_completed(sent, timeout=20), 4)]
            assert all((answer.status, answer.code) == (503, "busy") for answer in refused)
            assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
            assert engine.calls <= 1
            engine.go.set()
        assert sorted(done.result().status for done in sent) == [200, 200, 503, 503, 503, 503]
        assert send(url, PHOTO).status == 200


def test_photos_of_a_client_that_has_left_are_not_analysed() -> None:
    engine = HeldEngine()
    with rest_alone(Shelf({"held": tiny_model(engine)}), limits=RestLimits(at_once=1, waiting=0)) as url:
        body, headers = form([PHOTO] * 20)
        address = urlsplit(url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.request("POST", ANALYZE, body, headers)
        while not engine.calls:
            time.sleep(0.01)
        connection.close()
        time.sleep(0.2)  # for the server to hear of it
        engine.go.set()
        while send(url, PHOTO).status == 503:
            time.sleep(0.01)
        assert engine.calls <= 3


def test_nothing_of_a_photo_is_kept_or_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    before = set(Path(tempfile.gettempdir()).rglob("*"))
    noise = np.random.default_rng(0).integers(0, 255, (800, 800, 3), dtype=np.uint8)  # over a megabyte: to the disk
    assert send(url, ("patient.png", encoded(noise)), ("patient.jpg", b"x" * 2_000_000)).status == 200
    assert set(Path(tempfile.gettempdir()).rglob("*")) == before
    assert "patient" not in caplog.text


# ---- health, password, schema


def test_health(url: str, model: MultiTaskModel) -> None:
    health = ask(f"{url}/health")
    Health.model_validate(health.json)
    assert health.json["model"]["revision"] == model.checkpoint.revision
    assert health.json["model"]["classes"] == list(model.config.classes.names)
    assert ask(f"{url}/health", b"").code == "method_not_allowed"


def test_health_without_a_model() -> None:
    with rest_alone(Shelf({"broken": None})) as url:
        health, analyze = ask(f"{url}/health"), send(url, PHOTO)
    assert (health.status, health.json["status"]) == (503, "no model")
    NoHealth.model_validate(health.json)
    assert (analyze.status, analyze.code) == (503, "no_model")
    assert b"/secret" not in health.body + analyze.body


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_the_password_stands_before_all(model: MultiTaskModel) -> None:
    with rest_alone(Shelf({"tiny": model}), auth=("anna", "pässwörd:1")) as url:
        wrong = [{}, basic("anna:"), basic("anna:passwort"), basic("Anna:pässwörd:1"), basic("anna")]
        wrong += [{"Authorization": value} for value in ("Basic", "Basic ???", "Bearer x", "basic \xff")]
        for headers in wrong:
            for answer in (send(url, PHOTO, headers=headers), *(ask(url + p, None, headers) for p in GUARDED)):
                assert (answer.status, answer.code) == (401, "unauthorized")
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        right = basic("anna:pässwörd:1")
        assert send(url, PHOTO, headers=right).status == 200
        assert ask(f"{url}/health", None, right).status == 200
        schema = ask(f"{url}/openapi.json", None, right).json
        assert schema["paths"]["/health"]["get"]["security"] == [{"password": []}]
        assert schema["components"]["securitySchemes"]["password"]["scheme"] == "basic"
        assert "401" in schema["paths"][ANALYZE]["post"]["responses"]


GUARDED = ("/health", "/openapi.json")


def test_the_schema_is_ours_and_complete(url: str) -> None:
    schema = ask(f"{url}/openapi.json").json
    assert set(schema["paths"]) == {ANALYZE, "/health"}
    analyze = schema["paths"][ANALYZE]["post"]
    assert {p["name"] for p in analyze["parameters"]} == {
        "mask", "conf_thresh", "name_confidence", "lesion_threshold", "model", "tta",
    }  # fmt: skip
    assert "file" in analyze["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {int(status) for status in analyze["responses"]} == {200, *(s for s, _ in CODES.values())} - {401}
    assert schema["components"]["schemas"]["Fault"]["properties"]["code"]["enum"] == list(CODES)
    assert "securitySchemes" not in schema["components"]
    told = set(_references(schema))
    assert told == {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}


def _references(node: Any) -> Iterator[str]:
    """Everything that a schema refers to."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _references(child)
