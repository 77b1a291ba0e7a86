"""Every bench runs and gives figures; which they are is the machine's affair."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tiny import ONE_THREAD

from mtl.bench import peer
from mtl.cli import main

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

SMALL = ["--photos", "40", "--side", "64", "--image-size", "64", "--batch-size", "8", "--repetitions", "1"]


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def figures(values: Any) -> Iterator[float]:
    """Every number of a report, without what it says of the machine."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key != "machine":
                yield from figures(value)
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield values


def require_peer(report: dict[str, Any]) -> None:
    assert (report["ratio"] is not None) == peer.is_installed()


def test_inference(capsys: pytest.CaptureFixture[str]) -> None:
    report = bench(capsys, "inference", "--repetitions", "1", "--image-size", "64")
    assert all(figure > 0 for figure in figures(report))
    assert set(report["photo_to_answer"]) == {"0.3 MP", "12 MP"}
    for part in (report["photo_to_answer"]["12 MP"], report["network"]["1"]):
        require_peer(part)
    assert report["machine"]["packages"]["torch"]


def test_loading(capsys: pytest.CaptureFixture[str]) -> None:
    report = bench(capsys, "loading", *SMALL)
    assert report["photos"] == 32
    assert all(figure > 0 for figure in figures(report))
    require_peer(report)


def test_training(capsys: pytest.CaptureFixture[str]) -> None:
    report = bench(capsys, "training", *SMALL)
    assert report["epochs_measured"] == 2
    assert report["photos_per_s"]["ours"] > 0
    require_peer(report)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["startup", "scale"])
def test_others(capsys: pytest.CaptureFixture[str], what: str) -> None:
    sizes = ["--photos", "700", "--image-size", "64"] if what == "scale" else []
    report = bench(capsys, what, "--repetitions", "1", *sizes)
    assert all(figure > 0 for figure in figures(report))


def test_a_wrong_number_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "loading", "--repetitions", "0"]) == 1
    assert "--repetitions: got 0; needed 1 or more" in capsys.readouterr().err
