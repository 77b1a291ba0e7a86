"""Every checkpoint of the corpus of bad ones is refused in two seconds, with its reason, and nothing in it runs."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import draw_photo, save
from loopback_hub import LoopbackHub

from mtl.api import DEFAULT_CHECKPOINT
from mtl.errors import MtlError
from mtl.hub.pull import pull
from mtl.hub.reference import HubReference

CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
ROOT = Path(__file__).parent.parent
LIMIT_SECONDS = 2.0
WAYS = 9  # three guises, three callers
# What the message has to name, of the kinds that are told apart; the others by what the library says of them.
REASONS = {
    "empty.pth": "empty",
    "trunc_50pct.pth": "cut off",
    "bitflip_09.pth": "damaged",
    "html_404.pth": "a web page",
    "lfs_pointer.pth": "git lfs pull",
    "deflate_bomb_300MB.pth": "compressed",
    "zip_slip.pth": "leads out of it",
    "exec_os_system.pth": "never loaded",
    "exec_eval_after_weights.pth": "never loaded",
    "exec_legacy.pth": "never loaded",
    "full_module.pth": "never loaded",
    "malicious1_v4.pkl": "never loaded",
    "malicious1.zip": "none that PyTorch wrote",
    "payload_tensor.pth": "holds a Tensor",
    "payload_empty_dict.pth": "no state_dict",
    "hdr_50k_entries.safetensors": "50000 tensors",
    "hdr_len_over_file.safetensors": "invalid header length",
    "only_metadata.safetensors": "is missing",
}

pytestmark = pytest.mark.skipif(
    not (CORPORA / "index.csv").is_file(), reason="the corpus of bad files is not beside the repository"
)


def corpus() -> list[str]:
    if not (CORPORA / "index.csv").is_file():
        return []
    with (CORPORA / "index.csv").open(newline="") as rows:
        return [row["file"] for row in csv.DictReader(rows) if row["kind"] == "checkpoints_bad"]


def canaries() -> list[Path]:
    """Files that the payloads make where they run."""
    return list(Path("/tmp").glob("CORPUS_CANARY_*"))


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What was answered, by the file's name, from one process that may start no program and call no computer."""
    folder = tmp_path_factory.mktemp("refusals")
    photo = save(draw_photo(1, 64, np.random.default_rng(0))[0], folder / "photo.png")
    environ = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "guard"), str(ROOT)]),
        "MTL_CONNECTIONS": str(folder / "calls.txt"),
        "MTL_REFUSE": "calls",
    }
    command = [sys.executable, ROOT / "tests" / "refusals.py", photo, *(CORPORA / name for name in corpus())]
    ended = subprocess.run(
        command, cwd=folder, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=300
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (folder / "calls.txt").read_text() == "watching\n"
    # The payloads write into the current folder, too.
    assert {path.name for path in folder.iterdir()} == {"photo.png", "calls.txt"}
    assert canaries() == []
    answers: dict[str, list[dict[str, Any]]] = {}
    for line in ended.stdout.splitlines():
        answer = json.loads(line)
        answers.setdefault(answer["file"], []).append(answer)
    return answers


@pytest.mark.parametrize("name", corpus())
def test_it_is_refused_in_one_line(name: str, refusals: dict[str, list[dict[str, Any]]]) -> None:
    answers = refusals[str(CORPORA / name)]
    assert len(answers) == WAYS
    for answer in answers:
        message, way = answer["message"], answer["way"]
        assert message, f"{way} accepted it"
        assert "\n" not in message, way
        # Neither where it lies nor advice to load it unsafely.
        assert str(CORPORA) not in message, way
        assert "weights_only" not in message, way
        assert answer["seconds"] < LIMIT_SECONDS, way


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_the_reason_is_named(name: str, reason: str, refusals: dict[str, list[dict[str, Any]]]) -> None:
    [answers] = [answers for file, answers in refusals.items() if Path(file).name == name]
    # Under its own name: in another file's place it is no longer what it was.
    told = [answer["message"] for answer in answers if "." not in answer["way"]]
    assert len(told) == 3
    assert all(reason in message for message in told), told


# ---- out of a repository


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.mark.parametrize("place", ["model.safetensors", "multitask_best.pth"])
def test_a_repository_that_holds_it_is_not_pulled(place: str, hub: LoopbackHub, tmp_path: Path) -> None:
    token = hub.add_user("mara")
    config = (DEFAULT_CHECKPOINT / "config.json").read_bytes()
    reference = HubReference("mara", place.replace(".", "-"))
    # A .pth is no part of what is pulled, whatever is in it: those that would run code will do.
    names = [name for name in corpus() if place.endswith(".safetensors") or "exec" in name]
    assert len(names) >= 3
    for name in names:
        hub.put(reference.repo_id, {"config.json": config, place: (CORPORA / name).read_bytes()})
        begin = time.perf_counter()
        with pytest.raises(MtlError) as caught:
            pull(reference, tmp_path, token=token, endpoint=hub.url)
        assert time.perf_counter() - begin < LIMIT_SECONDS, name
        message = str(caught.value)
        assert "\n" not in message, name
        assert str(tmp_path) not in message, name
        # Not even a part of it stays.
        assert [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".")] == [], name
    assert canaries() == []
