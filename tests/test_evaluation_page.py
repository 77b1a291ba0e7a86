"""The page of an evaluation: nothing of it comes from elsewhere, every figure stands in it, and every name is text."""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import draw_photo, law, save, write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import ONE_THREAD, random_network, tiny_config

from mtl.analysis.engine import EagerEngine
from mtl.analysis.overlay import EDGE
from mtl.config import UNKNOWN, ModelConfig
from mtl.data.folder import Sample, read_folder
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.markup import UNIT, between, percent, reliability_diagram, signed_percent
from mtl.evaluation.page import write_report
from mtl.evaluation.pictures import MAX_SIDE_PX, YELLOW, Picture, draw_truth, draw_worst

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

CONFIG = ModelConfig(image_size=64, class_counts=(4,) * 9 + (0,))
ABOUT = {"checkpoint": "tiny", "weights": "0123456789ab", "data": "made", "split": "val"}
VOID = {"meta", "img", "path", "circle", "rect"}
HOSTILE = "<script>alert('x')</script>\"&"
Made = tuple[dict[str, Any], dict[str, list[Picture]]]


def tiny_engine() -> EagerEngine:
    return EagerEngine(random_network(CONFIG), torch.device("cpu"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An evaluation of a tiny network on photos of which some have no lesion, and its pictures."""
    folder = write_folder(tmp_path_factory.mktemp("page") / "data", train=2, val=60)
    (folder / "diagnoses.csv").write_text(
        "image,label\n" + "\n".join(f"val_{n:03}.jpg,{'nevus' if n % 2 else 'mole'}" for n in range(60))
    )
    samples, engine = read_folder(tiny_config(folder)).split("val"), tiny_engine()
    report = ABOUT | evaluate(samples, engine, CONFIG, folder=folder, replicates=20)
    return report, draw_worst(report, samples, engine, CONFIG)


class Page(HTMLParser):
    """What a page holds: its tags, the addresses in them, and its text. Fails where a tag does not close."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def written(report: Mapping[str, Any], pictures: Mapping[str, list[Picture]], folder: Path) -> tuple[str, Page]:
    write_report(folder / "page.html", report, pictures)
    html = (folder / "page.html").read_text(encoding="utf-8")
    return html, Page(html)


def numbers(found: Any) -> Iterator[float]:
    if isinstance(found, dict):
        for key, value in found.items():
            yield from numbers(value) if key != "trained" else ()
    elif isinstance(found, list):
        for value in found:
            yield from numbers(value)
    elif found is not None and not isinstance(found, str):
        yield found


def told(value: float) -> set[str]:
    """The ways in which the page may write a figure."""
    return {f"{value:,}", f"{value:.3f}", percent(value).removesuffix(UNIT), signed_percent(value).removesuffix(UNIT)}


# ---- the page


def test_nothing_comes_from_elsewhere_and_every_tag_closes(made: Made, tmp_path: Path) -> None:
    html, page = written(*made, tmp_path)
    assert "script" not in page.tags
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert len(page.addresses) == page.tags.count("img") == sum(len(drawn) for drawn in made[1].values())
    assert not re.search(r"https?:|url\(|@import|<link", html)


def test_every_figure_of_the_report_stands_there(made: Made, tmp_path: Path) -> None:
    report, pictures = made
    _, page = written(report, pictures, tmp_path)
    words = set(re.split(r"[\s()]+", page.text.replace("<\u00a0", "<")))
    parts = ("photos", "segmentation", "classification", "lesion_free", "calibration", "reliability", "confusion",
             "intervals", "breakdown")  # fmt: skip
    assert report["breakdown"].keys() == {"lesion size", "diagnoses"} | (report["breakdown"].keys() & {"skin tone"})
    for part in parts:
        for value in numbers(report[part]):
            ways = {way.replace("<\u00a0", "<") for way in told(value)} | {f"{value:.4g}", f"{100 * value:.0f}"}
            assert ways & words, (part, value)
    for entry in (entry for entries in report["worst"].values() for entry in entries):
        assert entry["name"] in page.text
    for said in ("For research. Not a medical device.", "0123456789ab", "made", "validation photos", "not trained"):
        assert said in page.text


def test_names_are_text_wherever_they_come_from(made: Made, tmp_path: Path) -> None:
    report = json.loads(
        json.dumps(made[0]).replace("nevus", "NAME").replace("straight", "NAME").replace("hair type", "GROUP")
    )
    report = renamed(report, {"NAME": HOSTILE, "GROUP": f"{HOSTILE} group", "diagnoses": HOSTILE})
    report |= dict.fromkeys(ABOUT, HOSTILE)
    pictures = {"classification": [Picture(HOSTILE, HOSTILE, b"", HOSTILE)]}
    html, page = written(report, pictures, tmp_path)
    assert "<script" not in html
    assert page.text.count(HOSTILE) > 9


def renamed(found: Any, names: Mapping[str, str]) -> Any:
    """Keys and texts of a report, some of them exchanged."""
    if isinstance(found, dict):
        return {names.get(key, key): renamed(value, names) for key, value in found.items()}
    if isinstance(found, list):
        return [renamed(value, names) for value in found]
    return names.get(found, found) if isinstance(found, str) else found


@law
@given(st.text(max_size=30))
def test_whatever_a_value_is_called_the_page_holds(
    made: Made, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    report = deepcopy(made[0])
    report["breakdown"] = {name: {name: {"photos": 6}}}
    written(report | dict.fromkeys(ABOUT, name.replace("\ud800", "")), {}, tmp_path_factory.getbasetemp())


def test_one_photo_of_which_nothing_is_known_is_a_page_of_dashes(tmp_path: Path) -> None:
    photo = save(draw_photo(3, 64, np.random.default_rng(0))[0], tmp_path / "images" / "one.png")
    samples = [Sample(photo, None, (UNKNOWN, UNKNOWN), "one.png")]
    engine = tiny_engine()
    report = ABOUT | evaluate(samples, engine, CONFIG, folder=tmp_path, replicates=3)
    pictures = draw_worst(report, samples, engine, CONFIG)
    html, page = written(report, pictures, tmp_path)
    assert "None" not in page.text
    assert "nan" not in page.text
    assert page.text.count("–") > 20
    assert "Too few labels" in page.text
    assert "<svg" not in html
    assert "Worst photos" not in page.text


def test_a_report_without_intervals_has_none(made: Made, tmp_path: Path) -> None:
    _, page = written(made[0] | {"intervals": {}, "breakdown": {}}, {}, tmp_path)
    assert " to " not in page.text.partition("Calibration")[0]
    assert "No intervals were made" in page.text


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.00001, "< 0.01 %"), (0.0003, "0.03 %"), (0.0421, "4.2 %"), (0.9999, "100.0 %")],
)
def test_shares_have_sensible_digits(value: float, words: str) -> None:
    assert percent(value).replace("\u00a0", " ") == words


def test_an_interval_has_its_unit_once() -> None:
    assert between({"low": 0.0, "high": 0.25}, percent) == f"0 to 25.0{UNIT}"
    assert between({"low": -0.02, "high": 0.18}, signed_percent) == f"−2.0 to +18.0{UNIT}"
    assert between(None, percent) == "–"


def test_the_diagram_has_a_bar_and_a_count_for_each_bin(made: Made) -> None:
    bins = made[0]["reliability"]
    drawn = Page(reliability_diagram(bins))
    assert drawn.tags.count("rect") == drawn.tags.count("circle") == len(bins)
    assert {str(each["images"]) for each in bins} <= set(drawn.text.split())


# ---- the pictures


def test_the_worst_photos_are_drawn_in_their_order_and_small(made: Made) -> None:
    report, pictures = made
    assert {task: [picture.name for picture in drawn] for task, drawn in pictures.items()} == {
        task: [entry["name"] for entry in entries] for task, entries in report["worst"].items()
    }
    for picture in (picture for drawn in pictures.values() for picture in drawn):
        with Image.open(BytesIO(picture.jpeg)) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= MAX_SIDE_PX
    entry, picture = report["worst"]["classification"][0], pictures["classification"][0]
    assert picture.caption.startswith(f"label {entry['label']}, answered {entry['predicted']} ")
    assert picture.caption.endswith(" %")
    assert pictures["segmentation"][0].caption == f"Jaccard {report['worst']['segmentation'][0]['jaccard']:.3f}"


def test_a_large_photo_is_made_smaller_with_its_mask(tmp_path: Path) -> None:
    photo, mask = draw_photo(0, 700, np.random.default_rng(1))
    sample = Sample(
        save(photo[:400], tmp_path / "wide.png"),
        save(mask[:400] * np.uint8(255), tmp_path / "mask.png"),
        (0, UNKNOWN),
        "wide.png",
    )
    calls: list[tuple[int, int]] = []
    report = {"worst": {"segmentation": [{"name": "wide.png", "jaccard": 0.25}]}}
    drawn = draw_worst(report, [sample], tiny_engine(), CONFIG, lambda *done: calls.append(done))
    with Image.open(BytesIO(drawn["segmentation"][0].jpeg)) as image:
        assert image.size == (320, 183)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.abs(pixels - YELLOW).sum(axis=2) < 60).sum() > 50
    assert calls == [(1, 1)]


def test_the_true_outline_is_dashed_and_leaves_the_rest_as_it_was() -> None:
    photo = np.full((100, 120, 3), 200, np.uint8)
    truth = np.zeros((100, 120), bool)
    truth[30:70, 40:90] = True
    drawn = draw_truth(photo, truth)
    line = (drawn == YELLOW).all(axis=2)
    edge = (drawn == EDGE).all(axis=2)
    ring = truth.copy()
    ring[32:68, 42:88] = False
    assert 0.3 * ring.sum() < line.sum() < 0.7 * ring.sum()
    assert not (line & ~ring).any()
    assert (drawn[~line & ~edge] == 200).all()
    assert draw_truth(photo, np.zeros_like(truth)) is photo
