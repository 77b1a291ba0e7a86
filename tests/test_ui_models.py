"""The Models tab without a browser: what is on the shelf, what is said of it, who may do what, and its jobs."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import law, save, write_folder
from hypothesis import given
from hypothesis import strategies as st
from loopback_hub import Fault, LoopbackHub, User
from planted import PLANTED_TOKEN
from tiny import ONE_THREAD, random_network, tiny_config

from mtl.checkpoint import Checkpoint, read_checkpoint, write_pth
from mtl.checkpoint import write_folder as write_weights
from mtl.config import ModelConfig
from mtl.errors import CheckpointError, HubConflictError, HubError, MtlError, RequestError, RunError
from mtl.place import Place
from mtl.training.run import Run
from mtl.ui import model_views
from mtl.ui.checks import CancelError
from mtl.ui.model_desk import ModelDesk
from mtl.ui.model_facts import FactReader, ModelFacts, read_facts
from mtl.ui.model_views import Score
from mtl.ui.models import ModelShelf
from mtl.ui.texts import LANGUAGES, Words
from mtl.ui.transfers import Job, Jobs, PushOrder
from mtl.ui.visitor import Visitor

pytestmark = [
    pytest.mark.usefixtures(ONE_THREAD),
    # How huggingface_hub 2.4 hands a file to its own HTTP library.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

EN = Words("en")
OWN, SPACE = Place(), Place(space_id="ada/skin-space")
HOST = Visitor(OWN)
METRICS = {"val_dice": 0.5, "val_loss": 1.0}
PATIENCE_S = 60.0


def made_checkpoint(seed: int = 0) -> Checkpoint:
    config = ModelConfig(image_size=64, class_counts=(4,) * 9 + (0,))
    return Checkpoint("made", random_network(config, seed).state_dict(), config, {}, 3, METRICS)


def made_run(folder: Path, name: str, seed: int = 1) -> Run:
    run = Run.create(tiny_config(folder / "data", output_dir=str(folder / "runs"), name=name))
    write_pth(run.best_file, made_checkpoint(seed))
    run.update(state="finished", epoch=3, epochs=3)
    return run


def make_desk(folder: Path, place: Place = OWN) -> ModelDesk:
    shelf = ModelShelf(folder / "given", folder / "runs", folder / "checkpoints", "cpu")
    photo = save(torch.zeros(80, 90, 3, dtype=torch.uint8).numpy(), folder / "photo.png")
    return ModelDesk(shelf, place, folder / "data", folder / "checkpoints", [photo])


@pytest.fixture
def desk(tmp_path: Path) -> ModelDesk:
    """A given model and one run."""
    write_weights(tmp_path / "given", made_checkpoint())
    made_run(tmp_path, "tiny")
    return make_desk(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """It knows the token of this computer as ada's."""
    with LoopbackHub() as hub:
        hub.tokens[PLANTED_TOKEN] = User("ada", "write")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def ended(desk: ModelDesk) -> Job:
    job = desk.jobs.current
    assert job is not None
    job.wait(PATIENCE_S)
    assert job.state != "running"
    return job


# ---- the shelf


def test_a_pulled_model_stands_beside_the_given_one_and_the_runs_with_the_same_weights(
    desk: ModelDesk, hub: LoopbackHub
) -> None:
    given, run = desk.shelf.names()
    desk.begin_push(PushOrder(run, "ada/skin", tag="v1", message="first"), None, HOST, EN, overwrite=False)
    pushed = ended(desk)
    assert pushed.state == "done", pushed.error
    assert pushed.result.changed
    desk.begin_pull("ada/skin", "v1", None, HOST, EN)
    assert ended(desk).state == "done", desk.jobs.current
    assert desk.shelf.names() == [given, "ada/skin@v1", run]
    revisions = {desk.shelf.get(name).checkpoint.revision for name in (run, "ada/skin@v1")}
    assert revisions == {made_checkpoint(1).revision}
    assert desk.suggested_repo(desk.shelf.find("ada/skin@v1"), HOST) == "ada/skin"
    assert hub.repos["ada/skin"].private

    # Again: nothing changes. Another model: the head that is not known is told, and then it may be overwritten.
    desk.begin_push(PushOrder(run, "ada/skin"), None, HOST, EN, overwrite=False)
    assert not ended(desk).result.changed
    desk.begin_push(PushOrder(given, "ada/skin"), None, HOST, EN, overwrite=False)
    conflict = ended(desk)
    assert isinstance(conflict.error, HubConflictError)
    assert conflict.order is not None
    desk.begin_push(conflict.order, None, HOST, EN, overwrite=True)
    assert ended(desk).result.changed
    assert len(hub.repos["ada/skin"].log()) == 3  # with the one that made it

    desk.delete("ada/skin@v1", HOST, EN)
    assert desk.shelf.names() == [given, run]
    assert list((desk.checkpoints_dir).glob("[!.]*")) == []


def test_what_cannot_be_deleted_says_why_and_links_are_not_followed(
    desk: ModelDesk, tmp_path: Path, hub: LoopbackHub
) -> None:
    given, name = desk.shelf.names()
    with pytest.raises(CheckpointError, match="started with it"):
        desk.delete(given, HOST, EN)
    with pytest.raises(CheckpointError, match="no such model"):
        desk.delete("../given", HOST, EN)
    run = desk.shelf.find(name).run
    assert run is not None
    run.claim(3)
    with pytest.raises(RunError, match="being trained"):
        desk.delete(name, HOST, EN)
    assert 'data-do="delete"' not in desk.cards(given, HOST, EN)
    run.update(state="finished")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").touch()
    (run.path / "link").symlink_to(outside)
    desk.delete(name, HOST, EN)
    assert desk.shelf.names() == [given]
    assert (outside / "kept.txt").is_file()
    assert (tmp_path / "given" / "model.safetensors").is_file()


# ---- what is said of a model


def test_a_card_tells_revision_and_figures_of_these_weights_only(desk: ModelDesk) -> None:
    model = desk.shelf.models()[1]
    revision = made_checkpoint(1).revision
    facts = read_facts(model)
    assert (facts.revision, facts.epoch) == (revision, 3)
    trained = ({"Dice": Score("0.500")}, "validation while it was trained, epoch 3")
    assert model_views.key_figures(facts, EN) == trained
    assert model_views.class_words(facts, EN) == "9 of 10 classes trained"
    report = {"weights": revision, "photos": 6, "segmentation": {"dice": 0.25, "jaccard": None}}
    for weights, figures in (("of others", trained[0]), (revision, {"Dice": Score("0.250")})):
        (model.folder / "evaluation.json").write_text(json.dumps(report | {"weights": weights}))
        assert model_views.key_figures(read_facts(model), EN)[0] == figures


def test_figures_have_their_intervals_where_the_file_has_them(desk: ModelDesk) -> None:
    model = desk.shelf.models()[1]
    bounds = {"dice": {"low": 0.2, "high": 0.3}, "jaccard": {"low": "0", "high": 10**400}}
    report = {"weights": made_checkpoint(1).revision, "segmentation": {"dice": 0.25, "jaccard": 0.125}}
    (model.folder / "evaluation.json").write_text(json.dumps(report | {"intervals": {"segmentation": bounds}}))
    facts = read_facts(model)
    figures, _ = model_views.key_figures(facts, EN)
    assert [f"{name} {score}" for name, score in figures.items()] == ["Dice 0.250 (0.200 to 0.300)", "Jaccard 0.125"]
    assert "0,200 bis 0,300" in model_views.cards([(model, facts, set())], "", Words("de"))


def test_a_card_tells_how_answers_are_read(desk: ModelDesk) -> None:
    model = desk.shelf.models()[1]
    config = ModelConfig(temperature=1.434, mask_threshold=0.45, unnamed_groups=("skin type",))

    def card(config: ModelConfig, t: Words) -> str:
        return model_views.cards([(model, ModelFacts("0" * 12, config), set())], "", t)

    assert "calibrated, temperature 1.43 · mask cut at 0.45 · never named: skin type" in card(config, EN)
    assert "kalibriert, Temperatur 1,43 · Schwelle der Maske 0,45 · nie genannt: Hauttyp" in card(config, Words("de"))
    assert "not calibrated · mask cut at 0.50<" in card(ModelConfig(), EN)


def test_damaged_weights_can_be_deleted_and_nothing_else(desk: ModelDesk) -> None:
    model = desk.shelf.models()[1]
    model.path.write_bytes(b"no weights")
    facts = read_facts(model)
    assert isinstance(facts.problem, CheckpointError)
    card = model_views.cards([(model, facts, {"use", "push", "delete"})], "", EN)
    assert "cannot be used" in card
    assert buttons(card) == ["delete"]


def test_a_run_that_is_trained_is_read_again_when_it_ends(desk: ModelDesk) -> None:
    reader, model = FactReader(), desk.shelf.models()[1]
    assert model.run is not None
    first = reader.read(model)
    model.run.claim(9)
    write_pth(model.path, made_checkpoint(2))
    assert reader.read(model) == first
    model.run.update(state="finished")
    assert reader.read(model).revision == made_checkpoint(2).revision


class _Buttons(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def buttons(html: str) -> list[str | None]:
    parser = _Buttons()
    parser.feed(html)
    return [attributes.get("data-do") for tag, attributes in parser.tags if tag == "button"]


@law
@given(st.text(min_size=1), st.sampled_from(LANGUAGES))
def test_whatever_a_file_or_the_hub_says_is_text_on_the_page(text: str, language: str) -> None:
    t = Words(language)
    job = Job("push", text, lambda _: None)
    job.state, job.error = "failed", HubError(text.replace("{", "").replace("}", ""))
    config = ModelConfig()
    facts = ModelFacts("0" * 12, config, evaluation={"photos": text, "data": text, "segmentation": {"dice": 0.5}})
    for html in (model_views.job_card(job, True, t), model_views.model_line(facts, t)):
        parser = _Buttons()
        parser.feed(html)
        assert {tag for tag, _ in parser.tags} <= {"div", "b", "p", "code", "time"}


@pytest.mark.parametrize("number", [10**400, 1e400, float("nan"), "0.5", True, None, [1]], ids=range(7))
def test_figures_that_are_none_are_left_out(number: Any) -> None:
    report = {"photos": number, "data": "\ud800" * 9, "segmentation": {"dice": number, "jaccard": 0.25}}
    facts = ModelFacts("0" * 12, ModelConfig(), metrics={"val_dice": number}, evaluation=report)
    assert model_views.key_figures(facts, EN)[0] == {"Jaccard": Score("0.250")}
    model_views.key_figures(facts, EN)[1].encode()
    assert model_views.key_figures(replace(facts, evaluation={}), EN)[0] == {}


# ---- who may do what

STRANGER, SIGNED_IN, OWNER = Visitor(SPACE), Visitor(SPACE, "eve"), Visitor(SPACE, "Ada")


@pytest.mark.parametrize(
    ("visitor", "may_change", "may_push"),
    [(HOST, True, True), (STRANGER, False, False), (SIGNED_IN, False, True), (OWNER, True, True)],
)
def test_on_a_space_strangers_change_nothing_and_the_signed_in_push(
    visitor: Visitor, may_change: bool, may_push: bool
) -> None:
    assert (not visitor.why_no_change(EN), not visitor.why_no_push(EN)) == (may_change, may_push)


def test_a_stranger_on_a_space_begins_nothing_that_takes_the_hosts_disk_or_token(
    tmp_path: Path, desk: ModelDesk, hub: LoopbackHub
) -> None:
    space = make_desk(tmp_path, SPACE)
    run = space.shelf.names()[1]
    begun: list[Callable[[], None]] = [
        lambda: space.begin_pull("ada/skin", "", None, STRANGER, EN),
        lambda: space.begin_evaluation(run, "data", "val", STRANGER, EN),
        lambda: space.delete(run, STRANGER, EN),
        lambda: space.begin_push(PushOrder(run, "eve/skin"), None, STRANGER, EN, overwrite=False),
    ]
    for begin in begun:
        with pytest.raises(RequestError):
            begin()
    # Signed in, but no token came with it: the computer's own is not taken.
    with pytest.raises(HubError, match="no token"):
        space.begin_push(PushOrder(run, "eve/skin"), None, SIGNED_IN, EN, overwrite=False)
    # The host's own models may be private ones.
    for name in space.shelf.names():
        with pytest.raises(RequestError, match="belongs to the host"):
            space.begin_push(PushOrder(name, "eve/skin"), "hf_of_eve", SIGNED_IN, EN, overwrite=False)
        with pytest.raises(RequestError, match="belongs to the host"):
            space.begin_export(name, "onnx", STRANGER, EN)
    assert space.jobs.current is None
    assert hub.log == []
    space.begin_pull("ada/none", "", None, OWNER, EN)
    assert ended(space).state == "failed"
    assert hub.log
    assert not any(call.authorized for call in hub.log)


def test_a_visitor_pushes_under_their_own_name_and_others_see_nothing_of_it(
    tmp_path: Path, desk: ModelDesk, hub: LoopbackHub
) -> None:
    trainers = Place(space_id="ada/skin-space", training_allowed=True)
    space, token = make_desk(tmp_path, trainers), hub.add_user("eve")
    eve = Visitor(trainers, "eve")
    space.begin_push(PushOrder(space.shelf.names()[1], "eve/skin"), token, eve, EN, overwrite=False)
    job = ended(space)
    assert job.state == "done", job.error
    assert {call.user for call in hub.calls("commit")} == {"eve"}
    assert not hasattr(job, "_function")
    assert token not in str(vars(job))
    for visitor, sees in ((STRANGER, False), (Visitor(SPACE, "bob"), False), (SIGNED_IN, True), (OWNER, True)):
        assert ("eve/skin" in model_views.job_card(job, visitor.may_see(job.user), EN)) == sees


def test_the_account_line_says_where_a_token_comes_from(
    desk: ModelDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "token of this computer" in desk.account(HOST, can_sign_in=False, t=EN)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "hf auth login" in desk.account(HOST, can_sign_in=False, t=EN)
    space = make_desk(tmp_path, SPACE)
    assert "hf_oauth" in space.account(STRANGER, can_sign_in=False, t=EN)
    assert "sign in" in space.account(STRANGER, can_sign_in=True, t=EN)
    assert "eve" in space.account(SIGNED_IN, can_sign_in=True, t=EN)


# ---- jobs


def test_one_job_at_a_time_and_a_cancelled_one_makes_room() -> None:
    jobs, begun = Jobs(), threading.Event()

    def work(job: Job) -> None:
        begun.set()
        while True:
            job.report(1, 2)

    job = Job("evaluate", "x", work)
    jobs.begin(job)
    assert begun.wait(PATIENCE_S)
    with pytest.raises(MtlError, match="wait for that, or cancel it"):
        jobs.begin(Job("export", "y", lambda _: None))
    assert "Evaluating x" in model_views.job_card(job, True, EN)
    jobs.put_away(job)
    assert jobs.current is job
    job.cancel()
    job.wait(PATIENCE_S)
    assert job.state == "cancelled"
    jobs.put_away(job)
    assert jobs.current is None
    other = Job("export", "y", lambda _: "made")
    jobs.begin(other)
    other.wait(PATIENCE_S)
    assert (other.state, other.result) == ("done", "made")


def test_what_nobody_foresaw_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def work(_: Job) -> None:
        raise ZeroDivisionError("inside")

    job = Job("push", "ada/skin", work)
    job.start()
    job.wait(PATIENCE_S)
    card = model_views.job_card(job, True, EN)
    assert "ZeroDivisionError" in card
    assert "inside" not in card
    assert "inside" in caplog.text


def test_a_slow_pull_is_cancelled_and_a_fault_is_told_while_the_models_stay(desk: ModelDesk, hub: LoopbackHub) -> None:
    run = desk.shelf.names()[1]
    desk.begin_push(PushOrder(run, "ada/skin"), None, HOST, EN, overwrite=False)
    ended(desk)
    before = desk.shelf.names()
    hub.faults["storage"] = Fault("drip", bytes_per_second=1000)
    desk.begin_pull("ada/skin", "", None, HOST, EN)
    job = desk.jobs.current
    assert job is not None
    assert job.transfer is not None
    while not job.transfer.bytes_done:
        assert job.state == "running", job.error
        job.wait(0.05)
    card = model_views.job_card(job, True, EN)
    assert "model.safetensors" in card
    assert "on its way" in card
    job.cancel()
    job.wait(3)
    assert job.state == "cancelled"
    hub.faults["storage"] = Fault("corrupt")
    desk.begin_pull("ada/skin", "", None, HOST, EN)
    assert isinstance(ended(desk).error, HubError)
    assert "as they were" in model_views.job_card(desk.jobs.current, True, EN)
    assert desk.shelf.names() == before


def test_an_evaluation_is_kept_beside_own_weights(desk: ModelDesk, tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "skin", train=2, val=12)
    name = desk.shelf.names()[1]
    desk.begin_evaluation(name, "skin", "val", HOST, EN)
    job = ended(desk)
    assert job.state == "done", job.error
    report, is_kept = job.result
    assert is_kept
    facts = read_facts(desk.shelf.find(name))
    assert facts.evaluation == json.loads(json.dumps(report))
    assert model_views.key_figures(facts, EN)[1] == "evaluated on 12 photos, skin, val"
    assert report["breakdown"]["lesion size"]
    desk.begin_evaluation(name, "../data", "val", HOST, EN)
    assert "no such folder" in str(ended(desk).error)


def test_an_evaluation_has_a_page_to_download_until_the_next_job(desk: ModelDesk, tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "skin", train=2, val=6)
    desk.begin_evaluation("given", "skin", "val", HOST, EN)
    job = ended(desk)
    assert job.state == "done", job.error
    report, is_kept = job.result
    assert is_kept == (desk.shelf.find("given").origin == "own")
    assert job.file is not None
    assert job.file.name == "given-evaluation.html"
    page = job.file.read_text(encoding="utf-8")
    assert report["weights"] in page
    assert page.count("<img") == sum(len(entries) for entries in report["worst"].values())
    card = model_views.job_card(job, True, EN)
    low, high = (report["intervals"]["segmentation"]["dice"][bound] for bound in ("low", "high"))
    assert f"Dice {report['segmentation']['dice']:.3f} ({low:.3f} to {high:.3f})" in card
    assert "photos that it does worst on" in card
    desk.jobs.put_away(job)
    assert not job.file.exists()


def test_an_evaluation_says_what_it_does_and_is_cancelled_between_its_steps() -> None:
    job = Job("evaluate", "x", lambda _: None)
    job.report(3, 6)
    assert "3 of 6 photos" in model_views.job_card(job, True, EN)
    job.report(6, 6)
    assert "Working out intervals" in (card := model_views.job_card(job, True, EN))
    assert "fill busy" in card
    job.go_on("draw")
    job.report(20, 20)
    assert "Drawing the photos" in (card := model_views.job_card(job, True, EN))
    assert "20 of 20 photos" in card
    job.cancel()
    with pytest.raises(CancelError):
        job.go_on("draw")


@pytest.mark.parametrize(("format_", "name"), [("safetensors", "given.zip")])
def test_an_export_is_there_to_download_until_the_next_job(desk: ModelDesk, format_: Any, name: str) -> None:
    desk.begin_export("given", format_, HOST, EN)
    job = ended(desk)
    assert job.state == "done", job.error
    file = job.file
    assert file is not None
    assert file.name == name
    assert job.result.photos == 1
    assert read_checkpoint(job.result.path).revision == made_checkpoint().revision
    desk.jobs.put_away(job)
    assert not file.exists()
