"""`evaluate`: how good a checkpoint is on a data folder."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.cli.options import (
    CHOOSING,
    DATA_SETTINGS,
    AddVerb,
    add_checkpoint,
    add_settings,
    add_tta,
    help_of,
    same_photos,
)
from mtl.cli.terminal import progress_bar, table
from mtl.config import ModelConfig, TrainConfig
from mtl.errors import ConfigError
from mtl.files import write_text

if TYPE_CHECKING:
    from mtl.analysis.engine import Engine
    from mtl.data.folder import Sample

# Of the report, what is printed for people; the page and the JSON have the rest.
TOLD = ("checkpoint", "split", "photos", "segmentation", "classification", "lesion_free", "calibration")


def add_verbs(add: AddVerb) -> None:
    evaluate = add("evaluate", run_evaluate, "measure a checkpoint on a data folder")
    add_settings(evaluate, DATA_SETTINGS)
    evaluate.add_argument("--split", choices=("train", "val"), default="val", help="which photos (default: val)")
    add_checkpoint(evaluate)
    evaluate.add_argument("--device", default="auto", help=help_of("device"))
    add_settings(evaluate, {"seed": TrainConfig.model_fields["seed"]})
    add_tta(evaluate)
    evaluate.add_argument(
        "--attributes",
        nargs="+",
        metavar="FILE",
        default=[],
        help="CSV files, photo names in the first column: figures for each value of the other columns, too; source, "
        "lesion size, skin tone and the folder's diagnoses.csv are told apart anyway",
    )
    evaluate.add_argument(
        "--calibrate",
        action="store_true",
        help="first fit temperature, mask threshold and which groups are named on these photos, and keep them with the "
        "weights, as training does by itself; implies --save",
    )
    evaluate.add_argument("--report", metavar="FILE", help="write an HTML page of it all, with the worst photos")
    evaluate.add_argument(
        "--save",
        action="store_true",
        help="keep the report beside the weights as evaluation.json, which a push takes along",
    )
    evaluate.epilog = f"{', '.join(CHOOSING)} default to what the checkpoint was trained with."


def run_evaluate(args: argparse.Namespace) -> None:
    from mtl.analysis.turned import with_views
    from mtl.api import MultiTaskModel
    from mtl.checkpoint import rewrite_config
    from mtl.data.folder import read_folder
    from mtl.evaluation.calibration import calibrated
    from mtl.evaluation.evaluate import evaluate, require_same_classes

    keeps = args.save or args.calibrate
    if keeps and args.tta != "off":
        raise ConfigError(f"save, calibrate: got tta {args.tta}; needed off: what is kept counts for plain answers")
    if args.calibrate and args.split != "val":
        raise ConfigError("calibrate: got the split train; needed val: of photos it has learned, a model is too sure")
    weights = _weights_here(args.checkpoint) if keeps else None
    model = MultiTaskModel.load(args.checkpoint, args.device)
    folder = read_folder(same_photos(model.checkpoint.training, args))
    require_same_classes(model.config, folder.classes.names)
    engine, samples = with_views(model.engine, args.tta), folder.split(args.split)
    about = {
        "checkpoint": model.checkpoint.name,
        "weights": model.checkpoint.revision,
        "data": folder.path.resolve().name,
        "split": args.split,
        "tta": args.tta,
    }
    files = [Path(file) for file in args.attributes]
    with progress_bar("photos", quiet=args.json) as progress:
        config = model.config
        if weights is not None and args.calibrate:
            config = calibrated(samples, engine, config, progress)
            rewrite_config(weights, config)
        measured = evaluate(samples, engine, config, progress, folder=folder.path, attribute_files=files)
    report = {**about, **measured}
    if args.report is not None:
        _write_page(Path(args.report), report, samples, engine, config)
    if weights is not None:
        _keep(weights, report)
    print(json.dumps(report) if args.json else table({part: report[part] for part in TOLD}))


def _write_page(
    path: Path, report: dict[str, Any], samples: Sequence["Sample"], engine: "Engine", config: ModelConfig
) -> None:
    from mtl.evaluation.page import write_report
    from mtl.evaluation.pictures import draw_worst

    write_report(path, report, draw_worst(report, samples, engine, config))


def _keep(weights: Path, report: dict[str, Any]) -> None:
    from mtl.hub.package import EVALUATION_FILE

    write_text(weights.with_name(EVALUATION_FILE), json.dumps(report, indent=2) + "\n")


def _weights_here(checkpoint: str | None) -> Path:
    """The file of weights beside which something is to be kept."""
    from mtl.hub.package import weights_file
    from mtl.hub.reference import is_reference
    from mtl.model_files import DEFAULT_CHECKPOINT

    if is_reference(checkpoint):
        raise ConfigError(
            f"save, calibrate: got the checkpoint {checkpoint}; needed one on this disk: pull it and name its folder"
        )
    return weights_file(Path(checkpoint or DEFAULT_CHECKPOINT))
