"""Weights on disk: what is written is read back bit for bit, and every other file is refused in one line."""

import csv
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from tiny import ONE_THREAD, random_network
from torch import Tensor

from mtl.checkpoint import (
    FEATURES_FILE,
    Checkpoint,
    config_from_dict,
    config_to_dict,
    read_checkpoint,
    weights_revision,
    write_folder,
    write_pth,
    write_training_features,
)
from mtl.config import Classes, ModelConfig
from mtl.errors import CheckpointError

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
MOMENTS = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    counts = (4,) * 9 + (0,)
    config = ModelConfig(
        image_size=64, class_counts=counts, temperature=1.5, mask_threshold=0.4, unnamed_groups=("hair type",)
    )
    weights = random_network(config).state_dict()
    return Checkpoint("made", weights, config, {"epochs": 7, "lr": 0.01}, 3, {"val_loss": 0.25}, MOMENTS)


@pytest.fixture(scope="module")
def payload(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a sound .pth holds; take a copy."""
    path = tmp_path_factory.mktemp("sound") / "multitask_best.pth"
    write_pth(path, checkpoint)
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def refused(path: Path) -> str:
    """The one line with which a file is refused, by the reader or where its weights meet the network."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path).network()
    message = str(caught.value)
    assert message.count("\n") == 0
    assert "weights_only" not in message
    assert str(path.parent) not in message
    return message


# ---- there and back


def test_a_pth_comes_back_bit_for_bit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_pth(tmp_path / "a.pth", checkpoint)
    back = read_checkpoint(tmp_path / "a.pth")
    assert all(torch.equal(back.state_dict[key], value) for key, value in checkpoint.state_dict.items())
    assert list(back.state_dict) == list(checkpoint.state_dict)
    assert (back.model_config, back.training) == (checkpoint.model_config, checkpoint.training)
    assert (back.epoch, back.metrics) == (3, {"val_loss": 0.25})
    assert back.optimizer is not None
    assert torch.equal(back.optimizer["state"][0]["exp_avg"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
    assert (tmp_path / "a.pth").stat().st_mode & 0o777 == 0o644


def test_the_layout_of_a_pth_is_the_contract(payload: dict[str, Any]) -> None:
    assert set(payload) == {"state_dict", "config", "epoch", "metrics", "optimizer"}
    assert payload["config"]["num_classes_classification"] == 10
    assert payload["config"]["num_classes_segmentation"] == 1
    assert payload["config"]["class_counts"] == [4] * 9 + [0]
    assert payload["epoch"] == 3
    assert all(isinstance(value, Tensor) for value in payload["state_dict"].values())
    json.dumps(payload["config"])


@pytest.mark.parametrize(("dtype", "bytes_a_weight"), [(torch.float32, 4), (torch.float16, 2)])
def test_a_shipped_folder_comes_back(
    dtype: torch.dtype, bytes_a_weight: int, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    write_folder(tmp_path / "mine", checkpoint, dtype)
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"model.safetensors", "config.json"}
    assert (tmp_path / "mine/model.safetensors").stat().st_size < 6_000_000 * bytes_a_weight
    back = read_checkpoint(tmp_path / "mine")
    for key, value in checkpoint.state_dict.items():
        # Biases, scales and statistics stay whole.
        wanted = value.to(dtype).float() if value.is_floating_point() and value.ndim > 1 else value
        assert torch.equal(back.state_dict[key], wanted)
    assert (back.name, back.epoch, back.metrics, back.optimizer) == ("mine", 3, {"val_loss": 0.25}, None)
    assert (back.model_config, back.training) == (checkpoint.model_config, checkpoint.training)
    assert read_checkpoint(tmp_path / "mine/model.safetensors").model_config == back.model_config
    assert not back.network().training


def test_what_ships_tells_nothing_private(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Of settings the known ones that anybody may see, of figures the numbers; a `.pth` keeps all."""
    private = {"include": "mrs_smith_*", "lesion_photos": "ward7_*", "name": "ward7", "data_dir": "/home/ada"}
    training = {**private, "of nobody's": "secret", "lr": 0.1, "device": "cpu", "epochs": ["list"]}
    metrics = {"val_dice": 0.5, "note": "mrs smith", "huge": 10**401, "nan": float("nan"), "flag": True}
    told = replace(checkpoint, training=training, metrics=metrics)
    write_folder(tmp_path / "mine", told)
    saved = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert saved["training"] == {"lr": 0.1, "device": "cpu"}
    assert saved["checkpoint"]["metrics"] == {"val_dice": 0.5}
    write_pth(tmp_path / "x.pth", replace(told, metrics={}))
    assert read_checkpoint(tmp_path / "x.pth").training == training


def test_a_runs_folder_stands_for_its_best_epoch(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_pth(tmp_path / "multitask_best.pth", checkpoint)
    assert read_checkpoint(tmp_path).epoch == 3


def test_a_config_comes_back_through_json(checkpoint: Checkpoint) -> None:
    saved = json.loads(json.dumps(config_to_dict(checkpoint.model_config, {"lr": 0.1})))
    assert config_from_dict(saved, "x") == (checkpoint.model_config, {"lr": 0.1})
    assert saved.pop("unnamed_groups") == ["hair type"]  # files of before there were any have no such entry
    assert config_from_dict(saved, "x")[0] == checkpoint.model_config.replace(unnamed_groups=())
    assert config_to_dict(checkpoint.model_config.replace(unnamed_groups=()), {"lr": 0.1}) == saved


@pytest.mark.parametrize("number", [2, 7, 10])
def test_a_file_of_another_program_needs_the_numbers_of_classes_only(number: int) -> None:
    config, _ = config_from_dict({"num_classes_classification": number, "num_classes_segmentation": 1}, "x")
    assert config.num_classes_classification == number
    assert (config.classes == Classes()) == (number == 10)


def test_a_failed_write_leaves_the_old_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_pth(tmp_path / "a.pth", checkpoint)
    before = (tmp_path / "a.pth").read_bytes()
    with pytest.raises(AttributeError):
        write_pth(tmp_path / "a.pth", replace(checkpoint, metrics={"cannot be pickled": lambda: None}))
    assert (tmp_path / "a.pth").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


# ---- the revision, and what is kept of the training photos


def test_the_revision_is_of_the_weights_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_pth(tmp_path / "a.pth", checkpoint)
    write_folder(tmp_path / "whole", checkpoint)
    write_folder(tmp_path / "half", checkpoint, torch.float16)
    assert re.fullmatch("[0-9a-f]{12}", checkpoint.revision)
    assert read_checkpoint(tmp_path / "a.pth").revision == checkpoint.revision
    assert read_checkpoint(tmp_path / "whole").revision == checkpoint.revision
    assert replace(checkpoint, training={}, epoch=9, name="b").revision == checkpoint.revision
    assert read_checkpoint(tmp_path / "half").revision != checkpoint.revision


@pytest.mark.parametrize("change", ["a value", "a shape", "a name"])
def test_other_weights_have_another_revision(change: str) -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    others: dict[str, dict[str, Tensor]] = {
        "a value": {"a": weights["a"], "b": torch.tensor([0.0, 1e-30])},
        "a shape": {"a": weights["a"].view(3, 2), "b": weights["b"]},
        "a name": {"a": weights["a"], "c": weights["b"]},
    }
    assert weights_revision(weights) != weights_revision(others[change])
    assert weights_revision(weights) == weights_revision(dict(reversed(weights.items())))


KEPT = {"mean": np.arange(5, dtype=np.float32), "whitening": np.eye(5, dtype=np.float16)}


def test_training_features_come_back_with_their_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_pth(tmp_path / "a.pth", checkpoint)
    write_training_features(tmp_path, KEPT, checkpoint.state_dict)
    from_pth = read_checkpoint(tmp_path / "a.pth")
    write_folder(tmp_path / "half", from_pth, torch.float16)
    for back in (from_pth, read_checkpoint(tmp_path / "half")):
        assert back.training_features is not None
        assert all(np.array_equal(back.training_features[key], value) for key, value in KEPT.items())
    assert (tmp_path / FEATURES_FILE).stat().st_mode & 0o777 == 0o644


def test_weights_that_went_on_learning_leave_theirs_behind(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_training_features(tmp_path, KEPT, checkpoint.state_dict)
    later = {key: value + 1 for key, value in checkpoint.state_dict.items()}
    write_pth(tmp_path / "a.pth", replace(checkpoint, state_dict=later))
    assert read_checkpoint(tmp_path / "a.pth").training_features is None


@pytest.mark.parametrize("content", ["cut", "text", "empty", "too large", "no metadata", "folder"])
def test_what_is_no_file_of_training_features_is_left_out(content: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_pth(tmp_path / "a.pth", checkpoint)
    path = tmp_path / FEATURES_FILE
    write_training_features(tmp_path, KEPT, checkpoint.state_dict)
    match content:
        case "cut":
            path.write_bytes(path.read_bytes()[:-7])
        case "text":
            path.write_text("Not Found")
        case "empty":
            path.write_bytes(b"")
        case "too large":
            path.write_bytes(path.read_bytes() + bytes(2_000_000))
        case "no metadata":
            safetensors.numpy.save_file(KEPT, path)
        case "folder":
            path.unlink()
            path.mkdir()
    back = read_checkpoint(tmp_path / "a.pth")
    assert back.training_features is None
    assert back.revision == checkpoint.revision


def test_weights_that_are_no_tensors_are_refused_beside_training_features_too(
    checkpoint: Checkpoint, payload: dict[str, Any], tmp_path: Path
) -> None:
    write_training_features(tmp_path, KEPT, checkpoint.state_dict)
    sparse = payload["state_dict"] | {WEIGHT: payload["state_dict"][WEIGHT].to_sparse()}
    torch.save(payload | {"state_dict": sparse}, tmp_path / "a.pth")
    assert "torch.sparse_coo" in refused(tmp_path / "a.pth")


# ---- refused


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no such checkpoint; needed a \.pth file or a folder"):
        read_checkpoint(tmp_path / "no.pth")
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        read_checkpoint(tmp_path)


WEIGHT = "encoder.features.0.0.weight"
COUNTER = "encoder.features.0.1.num_batches_tracked"


def with_infinity(weight: Tensor) -> Tensor:
    weight = weight.clone()
    weight[0, 0, 0, 0] = float("inf")
    return weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(WEIGHT), f"{WEIGHT} is missing"),
        (lambda w: w.update({"extra.weight": torch.ones(1)}), "extra.weight is no weight of this network"),
        (lambda w: w.update({"": torch.ones(1)}), "is no weight of this network"),
        (lambda w: w.update({WEIGHT: torch.ones(3, 3)}), r"the shape \(3, 3\); needed \(32, 3, 3, 3\)"),
        (lambda w: w.update({WEIGHT: w[WEIGHT] * float("nan")}), "not finite"),
        (lambda w: w.update({WEIGHT: with_infinity(w[WEIGHT])}), "not finite"),
        (lambda w: w.update({WEIGHT: w[WEIGHT].to(torch.int8)}), "torch.int8"),
        (lambda w: w.update({WEIGHT: w[WEIGHT].to(torch.complex64)}), "torch.complex64"),
        (lambda w: w.update({COUNTER: torch.tensor(0.5)}), "torch.float32"),
        (lambda w: w.update({WEIGHT: w[WEIGHT].to_sparse()}), "torch.sparse_coo"),
        (lambda w: w.update({WEIGHT: w[WEIGHT].to("meta")}), "needed plain torch.float32"),
        (lambda w: w.update({WEIGHT: torch.ones(1, dtype=torch.float64).expand(2**40)}), "more than 2 GB"),
        (lambda w: w.update({WEIGHT: [1, 2]}), "is no tensor"),
        (lambda w: w.update({0: None}), "is no tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "weights",
)
def test_wrong_weights_are_named(
    change: Callable[[dict[str, Any]], Any], message: str, payload: dict[str, Any], tmp_path: Path
) -> None:
    weights = dict(payload["state_dict"])
    change(weights)
    torch.save(payload | {"state_dict": weights}, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "wrong.pth").network()
    refused(tmp_path / "wrong.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": None}, "no state_dict and config"),
        ({"config": {"image_size": 65}}, "image_size: got 65"),
        ({"config": {"num_classes_segmentation": 2}}, "num_classes_segmentation: got 2"),
        ({"config": {"num_classes_classification": 10**9}}, "10 classes but says 1000000000"),
        ({"config": {"num_classes_classification": "ten"}}, "10 classes but says ten"),
        ({"config": {"surprise": 1}}, "surprise: there is no such setting"),
        ({"config": {3: 1}}, "config does not fit"),
        ({"config": {"num_classes_classification": 5}}, "has the shape"),
        ({"epoch": "three"}, "epoch"),
        ({"epoch": -1}, "epoch"),
        ({"metrics": [1]}, "metrics"),
        ({"state_dict": [1]}, "no state_dict and config"),
    ],
    ids=str,
)
def test_wrong_entries_are_named(change: dict[str, Any], message: str, payload: dict[str, Any], tmp_path: Path) -> None:
    torch.save(payload | change, tmp_path / "wrong.pth")
    assert message in refused(tmp_path / "wrong.pth")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "\x00", '{"a":' * 100_000, '{"checkpoint": [1]}', '{"checkpoint": {"epoch": null}}'],
    ids=["cut", "list", "zero", "deep", "epoch in a list", "no epoch"],
)
def test_a_wrong_config_beside_safetensors(content: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", checkpoint)
    (tmp_path / "mine/config.json").write_text(content)
    refused(tmp_path / "mine")


def test_safetensors_without_its_config(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", checkpoint)
    (tmp_path / "mine/config.json").unlink()
    assert "config.json is missing" in refused(tmp_path / "mine")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_truncated_file(kind: str, share: float, checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = write_one(kind, checkpoint, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


def write_one(kind: str, checkpoint: Checkpoint, folder: Path) -> Path:
    if kind == "pth":
        write_pth(folder / "a.pth", checkpoint)
        return folder / "a.pth"
    write_folder(folder / "a", checkpoint)
    return folder / "a/model.safetensors"


@pytest.mark.parametrize("place", [0.0001, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_in_a_pth(place: float, checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = write_one("pth", checkpoint, tmp_path)
    content = bytearray(path.read_bytes())
    # Behind each record stands padding that belongs to nothing; weights fill nearly all of the file.
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.txt"])
def test_a_text_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("Not Found\n")
    refused(tmp_path / name)


def test_a_git_lfs_pointer_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(tmp_path / "a.pth")


class Canary:
    """Its pickle runs a command that makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("entry", ["state_dict", "optimizer", "metrics"])
def test_code_in_a_pickle_never_runs(entry: str, payload: dict[str, Any], tmp_path: Path) -> None:
    torch.save(payload | {entry: Canary(tmp_path / "ran")}, tmp_path / "evil.pth")
    assert "never loaded" in refused(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_another_networks_weights(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    assert "no state_dict and config" in refused(tmp_path / "linear.pth")


# ---- files that try to break the application


def corpus() -> list[Any]:
    if not (CORPORA / "index.csv").is_file():
        return [pytest.param("", marks=pytest.mark.skip(reason="the corpus of bad files is not beside the repository"))]
    with (CORPORA / "index.csv").open(newline="") as rows:
        return [row["file"] for row in csv.DictReader(rows) if row["kind"] == "checkpoints_bad"]


@pytest.mark.parametrize("file", corpus())
def test_the_corpus_is_refused(file: str, tmp_path: Path) -> None:
    path = CORPORA / file
    if path.suffix == ".safetensors":
        (tmp_path / "model.safetensors").symlink_to(path)
        (tmp_path / "config.json").write_text("{}")
        path = tmp_path / "model.safetensors"
    before = time.monotonic()
    refused(path)
    assert time.monotonic() - before < 2
    assert not list(Path("/tmp").glob("CORPUS_CANARY_*"))
