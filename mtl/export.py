"""A network as a file for other programs: ONNX, or safetensors with its config; checked on photos before it counts."""

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import expit

from mtl import __version__
from mtl.analysis.engine import to_input
from mtl.analysis.predict import joint_probabilities
from mtl.checkpoint import Checkpoint, read_checkpoint, write_folder
from mtl.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from mtl.errors import CheckpointError, ExportError
from mtl.files import write_atomically
from mtl.frame import photo_to_square
from mtl.model import MultiTaskNetwork
from mtl.model_files import WEIGHTS_FILE
from mtl.photo import PhotoSource, read_photo

Format = Literal["onnx", "safetensors"]
Dtype = Literal["float32", "float16"]
OPSET = 18  # the first whose Resize and ReduceMean the exporter uses as they are; onnxruntime has it since 1.14
OUTPUTS = ("class_logits", "mask_logits", "features")
BATCH_SIZE = 16
# Of a probability, by how the weights are kept: the first is arithmetic in another order, the second rounding. It is
# that of the worst pixel, on a lesion's edge: halves round weights by up to 0.05 %, and such a pixel moves by 0.03.
MAX_DIFFERENCE = {"float32": 1e-3, "float16": 5e-2}
NOTE = "for research, not a medical device; the licence of the weights is that of the model they come from"

# (N, 3, S, S) float32 as the network takes it -> class logits (N, C), mask logits (N, 1, S/2, S/2)
Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far its answers are from the network's."""

    path: Path
    format: Format
    bytes: int
    largest_difference: float  # of any class or mask probability, over all photos and batch sizes
    photos: int


def export(
    checkpoint: Checkpoint, path: Path, format: Format, photos: Sequence[PhotoSource], *, dtype: Dtype = "float32"
) -> ExportReport:
    """Write the network to `path`, a file for onnx and a folder for safetensors, and compare its answers on `photos`.

    dtype: of the weights in safetensors. Nothing is left at `path` where it answers otherwise than the network by more
    than MAX_DIFFERENCE, or cannot be written: raises ExportError then, PhotoError for a photo that cannot be read.
    """
    if not photos:
        raise ExportError("photos: got none; needed at least one to check the exported network with")
    if format == "onnx" and dtype != "float32":
        raise ExportError(f"dtype: got {dtype}; ONNX is written in float32, take safetensors for smaller weights")
    if not path.name or (format == "onnx" and path.is_dir()):
        raise ExportError(f"{path}: it is a folder; name a {'file' if format == 'onnx' else 'new folder'} in it")
    config = checkpoint.model_config
    squares = [photo_to_square(read_photo(photo), config.image_size, config.center_crop) for photo in photos]
    inputs = to_input(np.stack(squares), torch.device("cpu")).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _write_onnx if format == "onnx" else _write_safetensors
    difference = write(checkpoint, path, inputs, dtype)
    size = path.stat().st_size if format == "onnx" else sum(file.stat().st_size for file in path.iterdir())
    return ExportReport(path, format, size, difference, len(photos))


# ---- the check


def largest_difference(network: MultiTaskNetwork, other: Runner, inputs: np.ndarray) -> float:
    """The largest difference of a class or mask probability, `other` asked one by one and in batches."""
    differences = []
    for start in range(0, len(inputs), BATCH_SIZE):
        batch = inputs[start : start + BATCH_SIZE]
        wanted = _probabilities(_runner(network)(batch), network.config)
        one_by_one = [other(batch[i : i + 1]) for i in range(len(batch))]
        singles = (np.concatenate([out[0] for out in one_by_one]), np.concatenate([out[1] for out in one_by_one]))
        for given in (other(batch), singles):
            answers = zip(wanted, _probabilities(given, network.config), strict=True)
            differences += [float(np.abs(ours - theirs).max()) for ours, theirs in answers]
    # A NaN must not win a comparison.
    return max(differences) if np.isfinite(differences).all() else float("inf")


def _runner(network: MultiTaskNetwork) -> Runner:
    @torch.inference_mode()
    def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        class_logits, mask_logits, _ = network(torch.from_numpy(batch))
        return class_logits.numpy(), mask_logits.numpy()

    return run


def _probabilities(logits: tuple[np.ndarray, np.ndarray], config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    return joint_probabilities(logits[0], config), expit(logits[1].astype(np.float64))


def _require_close(difference: float, path: Path, dtype: Dtype) -> None:
    if difference > MAX_DIFFERENCE[dtype]:
        raise ExportError(
            f"{path.name}: its probabilities differ from the network's by {difference:.2g}, more than "
            f"{MAX_DIFFERENCE[dtype]:g}; nothing was written, try another format or other versions of its packages"
        )


# ---- ONNX


def _write_onnx(checkpoint: Checkpoint, path: Path, inputs: np.ndarray, dtype: Dtype) -> float:
    onnx, runtime = _onnx_packages()
    network = checkpoint.network()
    model = _onnx_model(network, onnx)
    for key, value in onnx_metadata(checkpoint).items():
        model.metadata_props.add(key=key, value=value)
    difference = float("inf")

    def write(temporary: Path) -> None:
        nonlocal difference
        onnx.save(model, temporary)
        session = runtime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        names = list(OUTPUTS[:2])
        difference = largest_difference(network, lambda batch: tuple(session.run(names, {"photos": batch})), inputs)
        _require_close(difference, path, dtype)

    write_atomically(path, write)
    return difference


def _onnx_packages() -> tuple[Any, Any]:
    """onnx and onnxruntime. The exporter of PyTorch needs onnxscript too."""
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"onnx: the package {error.name} is missing; install it with `pip install onnx onnxscript onnxruntime`"
        ) from None
    return onnx, onnxruntime


def _onnx_model(network: MultiTaskNetwork, onnx: Any) -> Any:
    """An onnx.ModelProto with a free batch size, and nothing in it about the machine that made it."""
    size = network.config.image_size
    try:
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, size, size),),
            input_names=["photos"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"x": {0: "batch"}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise ExportError(f"onnx: PyTorch {torch.__version__} cannot write this network: {reason}") from error
    assert program is not None
    model = program.model_proto
    _forget_origin(model)
    onnx.checker.check_model(model)
    return model


def _forget_origin(model: Any) -> None:
    """PyTorch notes the file and line that each node comes from, with this machine's folders."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.input, *graph.output, *graph.initializer, *graph.node):
        del part.metadata_props[:]
        part.doc_string = ""


def onnx_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """All that a program needs besides the network to answer as the page does; values are JSON."""
    config = checkpoint.model_config
    groups = {class_id: group for group, ids in config.classes.group_ids.items() for class_id in ids}
    classes = [
        {"name": name, "group": groups[class_id], "trained": config.trained[class_id]}
        for class_id, name in enumerate(config.classes.names)
    ]
    values = {
        "classes": classes,  # a class id is its place
        "mask_trained": config.mask_trained,
        "image_size": config.image_size,
        "center_crop": config.center_crop,
        "resize": "antialiased bilinear, half-pixel aligned",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "temperature": config.temperature,
        "mask_threshold": config.mask_threshold,
        "mtl_version": __version__,
        "weights": checkpoint.revision,
        "note": NOTE,
    }
    return {key: json.dumps(value) for key, value in values.items()}


# ---- safetensors


def _write_safetensors(checkpoint: Checkpoint, path: Path, inputs: np.ndarray, dtype: Dtype) -> float:
    """The folder is filled and read back under another name, and then takes its own."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ExportError(f"{path}: there is something already; name a folder that is empty or not there")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_folder(temporary, checkpoint, getattr(torch, dtype))
        other = _read_back(temporary, path.name, dtype)
        difference = largest_difference(checkpoint.network(), _runner(other), inputs)
        _require_close(difference, path, dtype)
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return difference


def _read_back(folder: Path, name: str, dtype: Dtype) -> MultiTaskNetwork:
    try:
        return read_checkpoint(folder / WEIGHTS_FILE).network()
    except CheckpointError as error:
        raise ExportError(f"{name}: the weights do not fit into {dtype}; take float32") from error
