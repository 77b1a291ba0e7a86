"""All that is pushed of a model, in one folder. The same source gives the same bytes: to push it twice is no change."""

import json
import logging
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.checkpoint import MAX_EPOCHS, Checkpoint, is_figure, read_checkpoint, write_folder
from mtl.errors import CheckpointError
from mtl.files import write_text
from mtl.hub.card import write_card
from mtl.hub.card_body import STARTS, CardFacts
from mtl.model_files import CONFIG_FILE, FEATURES_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

CARD_FILE, CURVES_FILE = "README.md", "curves.png"
HISTORY_FILE, EVALUATION_FILE = "multitask_history.json", "evaluation.json"
# What a push brings, and takes away where the new model lacks it; whatever else a repository holds stays.
PACKAGE_FILES = (
    WEIGHTS_FILE, CONFIG_FILE, FEATURES_FILE, HISTORY_FILE, EVALUATION_FILE, CURVES_FILE, CARD_FILE,
)  # fmt: skip
BEST_FILE = "multitask_best.pth"  # the weights of a run's folder
# Of an evaluation report. Which file was measured, what the folder of photos and each of them is called, and by what
# they are told apart, is its owner's business.
EVALUATION_PARTS = ("photos", "segmentation", "classification", "lesion_free", "calibration", "intervals")
EVALUATION_DEPTH = 5  # dictionaries in one another: intervals of the classification, by group, a group's, a figure's


@dataclass(frozen=True)
class Package:
    """A folder that is ready to be pushed."""

    path: Path
    checkpoint: Checkpoint
    evaluation: dict[str, Any] | None  # of these weights, where they were measured

    @property
    def files(self) -> list[Path]:
        """In the order of PACKAGE_FILES: those that there are."""
        return [path for name in PACKAGE_FILES if (path := self.path / name).is_file()]


def build_package(
    source: Path, into: Path, *, repo_id: str | None = None, license: str | None = None, revision: str | None = None
) -> Package:
    """Write everything that is pushed of a model into the folder `into`: the weights, and what belongs to them.

    source: a `.pth` file, a run's folder, or a folder with model.safetensors, whose bytes are kept as they are.
    repo_id: where the card says that it can be loaded from. license: an identifier of the Hub; unset: the one of the
    card beside model.safetensors, else research only. revision: of the weights, where other ones are refused. Raises
    CheckpointError for such, and where the weights cannot be read.
    """
    checkpoint = read_checkpoint(source)
    if revision not in (None, checkpoint.revision):
        raise CheckpointError(
            f"{checkpoint.name}: its weights were replaced since they were loaded; load it again, then push"
        )
    checkpoint.network()  # what does not fit is told here, and not to those who pull it
    weights = weights_file(source)
    write_folder(into, checkpoint)
    if weights.suffix == ".safetensors":
        shutil.copyfile(weights, into / WEIGHTS_FILE)
    evaluation, history = _evaluation_of(weights, checkpoint), _history_of(weights, checkpoint)
    if evaluation is not None:
        write_text(into / EVALUATION_FILE, _to_json(evaluation))
    if history is not None:
        write_text(into / HISTORY_FILE, _to_json(history))
        draw_curves(history, into / CURVES_FILE)
    facts = CardFacts(
        checkpoint,
        repo_id,
        evaluation,
        run=history,
        dtype=_stored_dtype(into / WEIGHTS_FILE),
        has_curves=history is not None,
    )
    write_text(into / CARD_FILE, write_card(facts, license, _own_card(weights)))
    return Package(into, checkpoint, evaluation)


def weights_file(source: Path) -> Path:
    """The file that `read_checkpoint` reads for this source."""
    if not source.is_dir():
        return source
    best = source / BEST_FILE
    return best if best.is_file() else source / WEIGHTS_FILE


def _own_card(weights: Path) -> str | None:
    # Beside a file that lies somewhere, a README.md may be about anything.
    card = weights.with_name(CARD_FILE)
    if weights.name != WEIGHTS_FILE or not card.is_file():
        return None
    return card.read_text(encoding="utf-8", errors="replace")


def _stored_dtype(weights: Path) -> str:
    """F32 or F16: the shortest in which the file keeps weights; counts are none."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    dtypes = (entry["dtype"] for name, entry in header.items() if name != "__metadata__")
    return min((dtype for dtype in dtypes if "F" in dtype), key=lambda dtype: int(re.sub(r"\D", "", dtype)))


# ---- what belongs to these weights


def _evaluation_of(weights: Path, checkpoint: Checkpoint) -> dict[str, Any] | None:
    report = _read_object(weights.with_name(EVALUATION_FILE))
    if report is None or not _is_of(checkpoint, report, EVALUATION_FILE):
        return None
    split = {"split": report["split"]} if report.get("split") in ("train", "val") else {}
    parts = {key: _figures(report[key], EVALUATION_DEPTH) for key in EVALUATION_PARTS if key in report}
    return {"weights": checkpoint.revision, **split, **parts}


def _is_of(checkpoint: Checkpoint, content: dict[str, Any], name: str) -> bool:
    is_its_own = bool(content.get("weights") == checkpoint.revision)
    if not is_its_own:
        log.warning("%s is left out: it belongs to other weights than %s", name, checkpoint.revision)
    return is_its_own


def _figures(value: Any, depth: int) -> Any:
    """Numbers, yes and no, and dictionaries of them; None in the place of anything else."""
    if isinstance(value, dict) and depth:
        return {str(key): _figures(entry, depth - 1) for key, entry in value.items()}
    return value if isinstance(value, bool) or is_figure(value) else None


def _history_of(weights: Path, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The figures of each epoch, and how the run began; None where there is no epoch."""
    history = _read_object(weights.with_name(HISTORY_FILE))
    if history is None:
        return None
    about = history
    if weights.name == BEST_FILE:
        about = _read_object(weights.with_name(CONFIG_FILE)) or {}
    elif not _is_of(checkpoint, history, HISTORY_FILE):
        return None
    epochs = history.get("epochs")
    if not isinstance(epochs, int) or not 1 <= epochs <= MAX_EPOCHS:
        return None
    lists = {key: [_finite(value) for value in values] for key, values in history.items() if _is_curve(values, epochs)}
    return {**lists, "epochs": epochs, **_run_facts(about), "weights": checkpoint.revision}


def _run_facts(about: dict[str, Any]) -> dict[str, Any]:
    """What the run started from, without the path of a checkpoint, and how many photos it had; as its config.json."""
    start = about.get("start")
    return {
        "start": start if start in (None, *STARTS) else "checkpoint",
        "photos": _figures(about.get("photos"), 1),
        "generated_masks": _figures(about.get("generated_masks"), 0),
    }


def _finite(value: float | None) -> float | None:
    """NaN, as of a loss that diverged, is no JSON."""
    return value if is_figure(value) else None


def _is_curve(values: Any, epochs: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == epochs
        and all(value is None or isinstance(value, int | float) for value in values)
    )


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where the file is missing or holds none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        log.warning("%s is left out: it holds no JSON object", path.name)
        return None
    return content


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


# ---- the curves

LOSSES = {"loss": "all", "classification_loss": "classes", "segmentation_loss": "mask"}
SCORES = {
    "val_dice": "Dice",
    "val_jaccard": "Jaccard",
    "val_accuracy": "accuracy",
    "val_balanced_accuracy": "balanced accuracy",
}


def draw_curves(history: dict[str, Any], path: Path) -> None:
    """Losses on the left, scores on the right, over the epochs, as a PNG whose bytes repeat."""
    from matplotlib import style  # for the card's picture alone
    from matplotlib.figure import Figure

    # What somebody set for their own plots must not change a model's bytes.
    with style.context("default"):
        figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
        losses, scores = figure.subplots(1, 2)
        _draw_losses(losses, history)
        _draw_scores(scores, history)
        # Without the name and version of the program.
        figure.savefig(path, format="png", metadata={"Software": None})


def _draw_losses(axes: "Axes", history: dict[str, Any]) -> None:
    for number, (loss, name) in enumerate(LOSSES.items()):
        for side, line in (("train", "--"), ("val", "-")):
            _draw(axes, history.get(f"{side}_{loss}"), f"{name}, {side}", f"C{number}", line)
    _finish(axes, "loss")


def _draw_scores(axes: "Axes", history: dict[str, Any]) -> None:
    for number, (score, name) in enumerate(SCORES.items()):
        _draw(axes, history.get(score), name, f"C{number}", "-")
    axes.set_ylim(0, 1)
    _finish(axes, "score on the validation photos")


def _draw(axes: "Axes", values: list[float | None] | None, name: str, color: str, line: str) -> None:
    if values is None or all(value is None for value in values):
        return
    heights = [math.nan if value is None else value for value in values]
    marker = "o" if len(values) == 1 else None
    axes.plot(range(1, len(values) + 1), heights, line, color=color, marker=marker, label=name)


def _finish(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
