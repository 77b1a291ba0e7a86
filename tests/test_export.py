"""The network in other formats: the same answers, everything needed in the file, and nothing left where it is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from builders import draw_photo, save
from tiny import ONE_THREAD, random_network

from mtl.api import MultiTaskModel
from mtl.checkpoint import Checkpoint, read_checkpoint
from mtl.config import ModelConfig
from mtl.errors import ExportError, PhotoError
from mtl.export import MAX_DIFFERENCE, OUTPUTS, export, largest_difference

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

ROOT = Path(__file__).parent.parent
CONFIG = ModelConfig(
    image_size=64, class_counts=(3, 0, *[5] * 8), mask_count=4, temperature=1.5, mask_threshold=0.4, center_crop=True
)
CHECKPOINT = Checkpoint("tiny", random_network(CONFIG).state_dict(), CONFIG)

# A program without this project and without PyTorch: what it needs to know stands in the file.
ALONE = """
import json, sys
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
known = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
squares = []
for name in sys.argv[2:]:
    photo = Image.open(name).convert("RGB")
    if known["center_crop"]:
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        photo = photo.crop((left, top, left + side, top + side))
    size = (known["image_size"], known["image_size"])
    squares.append(np.asarray(photo.resize(size, Image.Resampling.BILINEAR), np.float32) / 255)
x = (np.stack(squares) - np.float32(known["mean"])) / np.float32(known["std"])
logits, mask_logits, _ = session.run(None, {"photos": x.transpose(0, 3, 1, 2)})
logits = np.where([c["trained"] for c in known["classes"]], logits / known["temperature"], -np.inf)
odds = np.exp(logits - logits.max(axis=1, keepdims=True))
masks = 1 / (1 + np.exp(-mask_logits[:, 0]))
print(json.dumps({
    "probabilities": (odds / odds.sum(axis=1, keepdims=True)).tolist(),
    "masks": masks.tolist(),
    "names": [c["name"] for c in known["classes"]],
    "foreign": sorted({"torch", "mtl", "onnx"} & set(sys.modules)),
}))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of several shapes."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for number, (height, width) in enumerate([(96, 96), (80, 120), (150, 70)]):
        pixels = draw_photo(number, 160, np.random.default_rng(number))[0][:height, :width]
        paths.append(save(pixels, folder / f"{number}.png"))
    return paths


@pytest.fixture(scope="module")
def onnx_file(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "out" / "model.onnx"
    report = export(CHECKPOINT, path, "onnx", photos)
    assert (report.path, report.format, report.photos, report.bytes) == (path, "onnx", 3, path.stat().st_size)
    assert 0 < report.largest_difference < 1e-5
    return path


def test_onnxruntime_alone_gives_the_pages_answers(onnx_file: Path, photos: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, str(script), str(onnx_file), *map(str, photos)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    theirs: dict[str, Any] = json.loads(run.stdout)
    ours = MultiTaskModel(CHECKPOINT, "cpu").analyze_batch(list(photos))
    assert theirs["foreign"] == []
    assert theirs["names"] == list(CONFIG.classes.names)
    np.testing.assert_allclose(theirs["probabilities"], [answer.probabilities for answer in ours], atol=1e-4)
    masks = [1 / (1 + np.exp(-answer.mask_logits)) for answer in ours]
    np.testing.assert_allclose(theirs["masks"], masks, atol=1e-4)


def test_the_file_says_all_that_is_needed_and_nothing_of_this_machine(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    known = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert known["classes"][1] == {"name": "dry", "group": "skin type", "trained": False}
    assert [known[key] for key in ("image_size", "temperature", "mask_threshold", "center_crop", "mask_trained")] == [
        64, 1.5, 0.4, True, True,
    ]  # fmt: skip
    assert known["weights"] == CHECKPOINT.revision
    assert [output.name for output in model.graph.output] == list(OUTPUTS)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, [side.dim_value for side in shape[1:]]) == ("batch", [3, 64, 64])
    content = onnx_file.read_bytes()
    assert not [path for path in (ROOT, sys.prefix, Path.home()) if str(path).encode() + b"/" in content]
    assert b"stack_trace" not in content


@pytest.mark.parametrize(("dtype", "size"), [("float32", 23.1e6), ("float16", 11.8e6)])
def test_safetensors_are_read_back(dtype: Any, size: float, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "a" / "model"
    report = export(CHECKPOINT, path, "safetensors", photos, dtype=dtype)
    assert report.bytes == pytest.approx(size, rel=0.01)
    assert report.largest_difference <= MAX_DIFFERENCE[dtype]
    again = read_checkpoint(path)
    assert again.model_config == CONFIG
    assert (again.revision == CHECKPOINT.revision) == (dtype == "float32")
    assert [file.name for file in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(("scale", "named"), [(1e4, "its probabilities differ from"), (1e6, "do not fit into float16")])
def test_a_network_that_answers_otherwise_is_not_written(
    scale: float, named: str, photos: list[Path], tmp_path: Path
) -> None:
    """Large logits that differ little: half precision does not keep the difference, or not even the size."""
    weights = {name: value.clone() for name, value in CHECKPOINT.state_dict.items()}
    head = weights["classification_head.8.weight"]
    head[:] = scale * head[0] * (1 + 1e-4 * torch.arange(len(head))[:, None])
    with pytest.raises(ExportError, match=named):
        export(Checkpoint("steep", weights, CONFIG), tmp_path / "model", "safetensors", photos, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_a_wrong_batch_and_what_is_no_number() -> None:
    network = CHECKPOINT.network()
    inputs = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)

    def same(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            return tuple(part.numpy() for part in network(torch.from_numpy(batch))[:2])

    def first_only(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, masks = same(batch)
        return np.repeat(classes[:1], len(batch), 0), masks

    def nothing(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, masks = same(batch)
        return classes, masks * np.nan

    assert largest_difference(network, same, inputs) < 1e-4
    assert largest_difference(network, first_only, inputs) > 1e-3
    assert largest_difference(network, nothing, inputs) == float("inf")


def test_what_is_there_already_stays(photos: list[Path], tmp_path: Path) -> None:
    save(np.zeros((2, 2), np.uint8), tmp_path / "model" / "mine.png")
    with pytest.raises(ExportError, match="there is something already"):
        export(CHECKPOINT, tmp_path / "model", "safetensors", photos)
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "mine.png"]


def test_what_cannot_be_exported_is_one_line(photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="needed at least one"):
        export(CHECKPOINT, tmp_path / "x.onnx", "onnx", [])
    with pytest.raises(ExportError, match="ONNX is written in float32"):
        export(CHECKPOINT, tmp_path / "x.onnx", "onnx", photos, dtype="float16")
    for place in (Path("."), Path("/"), tmp_path):
        with pytest.raises(ExportError, match="it is a folder; name a file in it"):
            export(CHECKPOINT, place, "onnx", photos)
    with pytest.raises(ExportError, match="it is a folder; name a new folder in it"):
        export(CHECKPOINT, Path("."), "safetensors", photos)
    with pytest.raises(PhotoError):
        export(CHECKPOINT, tmp_path / "x.onnx", "onnx", [b"no photo"])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match="onnx: the package onnxruntime is missing; install it with"):
        export(CHECKPOINT, tmp_path / "x.onnx", "onnx", photos)
