"""From a file to the answer with the shipped model: however the photo lies in its file, whatever the file is."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from test_photo import CORPORA, corpus_rows, turned
from tiny import ONE_THREAD

from mtl.analysis.files import analyse_file
from mtl.analysis.predict import Analysis
from mtl.api import MultiTaskModel
from mtl.data.made.photo import LESION, make_photo
from mtl.errors import PhotoError
from mtl.photo import read_photo

REAL = CORPORA.parent / "data" / "multitask" / "images" / "val"
REAL_KINDS = ("isic18", "hair", "skin")  # what the names begin with
MADE_KINDS = (LESION, "curly")
TIE = 0.002  # of probabilities, a tenth of what an orientation may change
# JPEG codes rows and columns alike with these, as a camera does that turns nothing but its EXIF: else the network would
# be asked about eight differently coded photos. The flat table is about as fine as quality 95.
SAME_EITHER_WAY: dict[str, Any] = {"qtables": [[4] * 64] * 2, "subsampling": 0}
MAX_SECONDS, MAX_GROWTH_MB = 10, 1000

pytestmark = pytest.mark.usefixtures(ONE_THREAD)


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    return MultiTaskModel.load(device="cpu")


# ---- eight orientations


def as_turned_jpeg(photo: np.ndarray, orientation: int) -> bytes:
    """A JPEG that holds the photo as this EXIF orientation says it was taken."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = BytesIO()
    turned(Image.fromarray(photo), orientation).save(file, "JPEG", exif=exif, **SAME_EITHER_WAY)
    return file.getvalue()


def check_orientations(photo: np.ndarray, model: MultiTaskModel) -> None:
    """The same class and probabilities; masks that part only where the network is all but undecided."""
    height, width = photo.shape[:2]
    assert height != width
    files = [as_turned_jpeg(photo, orientation) for orientation in range(1, 9)]
    upright, *others = [model.analyze(file) for file in files]
    for other in others:
        assert (other.height, other.width) == (height, width)
        # The same class, or one that is as likely: where none is seen, all nine are.
        assert upright.probabilities[other.predicted_class_id] >= upright.probabilities.max() - TIE
        assert [group.answer for group in other.groups] == [group.answer for group in upright.groups]
        assert np.abs(other.probabilities - upright.probabilities).max() <= 0.02
        check_masks(upright, other)


def check_masks(one: Analysis, other: Analysis) -> None:
    apart = one.mask != other.mask
    assert apart.mean() <= 0.01
    assert np.abs(one.confidence_map[apart] - one.threshold).max(initial=0) <= 0.05
    assert np.abs(one.confidence_map - other.confidence_map).max() <= 0.1


@pytest.mark.parametrize("kind", MADE_KINDS)
def test_every_orientation_of_a_made_photo_gets_one_answer(kind: str, model: MultiTaskModel) -> None:
    check_orientations(make_photo(kind, 1, (336, 256)).image, model)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_without_loss_an_orientation_changes_nothing(orientation: int, model: MultiTaskModel) -> None:
    """Not even where the network is far from all that it has learned, and a level more or less would move it."""
    photo = make_photo("dry", 1, (336, 256)).image
    file, exif = BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turned(Image.fromarray(photo), orientation).save(file, "PNG", exif=exif)
    upright, other = model.analyze(photo), model.analyze(file.getvalue())
    # The model may go on with its faster engine between the two, which rounds otherwise.
    assert np.abs(upright.confidence_map - other.confidence_map).max() <= 1e-3
    assert np.abs(upright.probabilities - other.probabilities).max() <= 1e-3


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data, which is not part of the repository")
@pytest.mark.parametrize("kind", REAL_KINDS)
def test_every_orientation_of_a_real_photo_gets_one_answer(kind: str, model: MultiTaskModel) -> None:
    photo = read_photo(min(REAL.glob(f"{kind}_*")))
    height, width = (side // 16 * 16 for side in photo.shape[:2])
    check_orientations(photo[: height - 16 * (height == width), :width], model)


# ---- the corpora: every file through the whole analysis, in one process that watches its memory


def analyse_all(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """For each file its size or its refusal, the seconds, and the process's peak of memory above idle so far, in MB."""
    torch.set_num_threads(1)
    model = MultiTaskModel.load(device="cpu")
    model.analyze(np.zeros((300, 400, 3), np.uint8))
    idle = peak_mb()
    for path in paths:
        started = time.monotonic()
        answer: dict[str, Any] = {"file": str(path.relative_to(CORPORA))}
        try:
            found = analyse_file(path, model.engine, model.config)["segmentation"]
            answer["size"] = [found["height"], found["width"]]
        except PhotoError as error:
            answer["error"] = str(error)
        yield answer | {"seconds": time.monotonic() - started, "growth_mb": peak_mb() - idle}


def peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@pytest.mark.skipif(not CORPORA.is_dir(), reason="needs ../shared/corpora, which is not part of the repository")
@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_every_file_of_the_corpora_is_answered_as_its_row_says_soon_and_in_little_memory(every: int) -> None:
    rows = corpus_rows()[::every]
    answers = answers_of_another_process([row["file"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        check_answer(row, answer)
    slowest = max(answers, key=lambda answer: answer["seconds"])
    growth = max(answer["growth_mb"] for answer in answers)
    print(f"{len(rows)} files; slowest: {slowest}; most memory above idle: {growth:.0f} MB")
    assert slowest["seconds"] < MAX_SECONDS
    assert growth < MAX_GROWTH_MB
    assert not list(Path("/tmp").glob("CORPUS_CANARY_*"))


def answers_of_another_process(files: list[str]) -> list[dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, __file__],
        input="\n".join(files),
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def check_answer(row: dict[str, str], answer: dict[str, Any]) -> None:
    assert answer["file"] == row["file"]
    if "error" in answer:
        assert row["expected"] in ("error", "either"), answer
        assert "\n" not in answer["error"]
        assert str(CORPORA) not in answer["error"]
    else:
        assert row["expected"] in ("result", "either") or "or a result if" in row["note"], answer
        assert not row["width"] or answer["size"] == [int(row["height"]), int(row["width"])]


if __name__ == "__main__":
    for answer in analyse_all([CORPORA / line for line in sys.stdin.read().splitlines()]):
        print(json.dumps(answer), flush=True)
