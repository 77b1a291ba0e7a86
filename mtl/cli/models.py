"""`predict`, `export` and `average`: what is done with checkpoints."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from mtl.cli.terminal import bar, progress_bar
from mtl.errors import ConfigError, PhotoError

BATCH_SIZE = 16
EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"


def add_verbs(add: AddVerb) -> None:
    predict = add("predict", run_predict, "analyse photos: class, probabilities, lesion mask")
    predict.add_argument("photos", nargs="+", metavar="PHOTO", help="photo files or folders")
    add_checkpoint(predict)
    predict.add_argument("--device", default="auto", help=help_of("device"))
    predict.add_argument("--conf-thresh", type=float, metavar="P", help="mask threshold; unset: the checkpoint's")
    add_tta(predict)
    predict.add_argument("--output-dir", metavar="DIR", help="write masks and overlays (PNG) there")
    predict.add_argument(
        "--output-jsonl",
        metavar="FILE",
        help="for folders of any size: append each photo's answer to FILE, a line of JSON each; photos that have one "
        "are skipped, so the same command goes on where it stopped; under torchrun each process writes a part of it",
    )
    predict.add_argument(
        "--batch-size", type=int, metavar="N", help=f"photos at once, with --output-jsonl (default: {BATCH_SIZE})"
    )
    predict.add_argument("--recursive", action="store_true", help="subfolders too, with --output-jsonl")

    export = add("export", run_export, "write the network for other programs, and check it on photos")
    export.add_argument(
        "--format", required=True, choices=("onnx", "safetensors"), help="onnx: a file; safetensors: a folder"
    )
    add_checkpoint(export)
    export.add_argument("--output", metavar="PATH", help="unset: model.onnx, or the folder model")
    export.add_argument("--photos", nargs="+", metavar="PHOTO", help="to check it on; unset: the made examples")
    export.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of weights in safetensors")

    average = add("average", run_average, "make one checkpoint of several that were trained on from the same weights")
    average.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help=".pth files or folders, two or more")
    average.add_argument("--output", required=True, metavar="DIR", help="folder for the new checkpoint")
    add_settings(average, DATA_SETTINGS)
    average.add_argument("--device", default="auto", help=help_of("device"))
    average.epilog = f"Of the settings, {', '.join(CHOOSING)} default to what the first was trained with."


def run_predict(args: argparse.Namespace) -> None:
    if args.output_jsonl is not None:
        _predict_folders(args)
        return
    if args.recursive or args.batch_size is not None:
        raise ConfigError("--recursive, --batch-size: got one without --output-jsonl; name the file of answers, too")
    from mtl.analysis.files import analyse_file, find_photos, result_paths
    from mtl.analysis.turned import with_views
    from mtl.api import MultiTaskModel

    photos = find_photos(args.photos)
    places = [None] * len(photos) if args.output_dir is None else result_paths(photos, Path(args.output_dir))
    model = MultiTaskModel.load(args.checkpoint, args.device)
    engine = with_views(model.engine, args.tta)
    results: list[dict[str, Any]] = []
    failed: list[PhotoError] = []
    for photo, place in bar(list(zip(photos, places, strict=True)), "photos", quiet=args.json):
        try:
            results.append(analyse_file(photo, engine, model.config, args.conf_thresh, place))
        except PhotoError as error:
            failed.append(error)
            results.append({"photo": str(photo), "error": str(error)})
    if args.json:
        print(json.dumps({"results": results}))
    else:
        for result in results:
            print(_prediction_line(result))
    if failed:
        raise PhotoError(f"{len(failed)} of {len(photos)} photos could not be analysed, the first: {failed[0]}")


def _predict_folders(args: argparse.Namespace) -> None:
    from mtl.analysis.answers import AnswerFile, Shard
    from mtl.analysis.folders import PhotoFolders
    from mtl.analysis.stream import Answerer, answer_photos
    from mtl.analysis.turned import with_views
    from mtl.api import MultiTaskModel

    batch_size = BATCH_SIZE if args.batch_size is None else args.batch_size
    if batch_size < 1:
        raise ConfigError(f"--batch-size: got {batch_size}; needed 1 or more")
    shard, output_dir = Shard.of(os.environ), args.output_dir and Path(args.output_dir)
    folders = PhotoFolders(args.photos, recursive=args.recursive, output_dir=output_dir)
    model = MultiTaskModel.load(args.checkpoint, _own_device(args.device))
    answerer = Answerer(with_views(model.engine, args.tta), model.config, args.conf_thresh)
    same = {"weights": model.checkpoint.revision, "mask_threshold": answerer.threshold, "tta": args.tta}
    with (
        AnswerFile(Path(args.output_jsonl), folders.names, same, shard) as file,
        progress_bar("photos", quiet=args.json or shard.rank > 0) as progress,
    ):
        wanted = (photo for photo in folders.photos() if file.wants(photo.folder, photo.name))
        done, failed, first = 0, 0, None
        try:
            for photo, fields, error in answer_photos(wanted, answerer, batch_size):
                file.write({"folder": photo.folder, "photo": photo.name, **fields})
                done += 1
                if error:
                    failed, first = failed + 1, first or error
                progress(done, None)
        except KeyboardInterrupt:
            written = file.written()
            stop = f"stopped after {written} photos, whose answers are in {file.path}; the same command goes on there"
            raise KeyboardInterrupt(stop) from None
    told = {"answers": str(file.path), "photos": done, "failed": failed, "answered_before": len(file)}
    print(json.dumps(told) if args.json else f"{file.path}: {done} photos, {len(file)} were answered before")
    if first:
        raise PhotoError(f"{failed} of {done} photos could not be analysed, the first: {first}")


def _own_device(name: str) -> str:
    """Under torchrun each process of a machine has a GPU of its own."""
    import torch

    local_rank = os.environ.get("LOCAL_RANK", "")
    if name not in ("auto", "cuda") or not local_rank.isdecimal() or not torch.cuda.is_available():
        return name
    return f"cuda:{int(local_rank) % torch.cuda.device_count()}"


def _prediction_line(result: dict[str, Any]) -> str:
    if "error" in result:
        return str(result["error"])
    parts = [_class_words(result["classification"]), _mask_words(result["segmentation"])]
    return f"{result['photo']}: " + "; ".join([*parts, *([result["overlay"]] if "overlay" in result else [])])


def _class_words(classification: dict[str, Any]) -> str:
    if not classification["trained"]:
        return "classes not trained"
    answers = [_group_words(group, a) for group, a in classification["groups"].items() if a["applies"]]
    return ", ".join(answers) or "no skin or hair type seen"


def _group_words(group: str, told: dict[str, Any]) -> str:
    from mtl.analysis.words import never_named, untranslated

    if not told["named"]:
        return f"{group} uncertain ({never_named(untranslated)})"
    if told["answer"] == "uncertain":
        return f"{group} uncertain ({told['predicted_class']} {told['confidence']:.0%})"
    return f"{group} {told['answer']} {told['confidence']:.0%}"


def _mask_words(segmentation: dict[str, Any]) -> str:
    if not segmentation["trained"]:
        return "mask not trained"
    lesions = len(segmentation["lesions"])
    return f"{lesions} lesion{'s' * (lesions != 1)}, {segmentation['lesion_area_ratio']:.1%} of the photo"


def run_average(args: argparse.Namespace) -> None:
    from mtl.checkpoint import read_checkpoint, write_folder
    from mtl.data.folder import read_folder
    from mtl.device import choose_device
    from mtl.training.average import average

    output = Path(args.output)
    if output.exists():
        raise ConfigError(f"--output: {output} is there already; needed a new folder")
    checkpoints = [read_checkpoint(source) for source in args.checkpoints]
    folder = read_folder(same_photos(checkpoints[0].training, args))
    with progress_bar("photos", quiet=args.json) as progress:
        mean = average(checkpoints, folder, choose_device(args.device), progress)
    write_folder(output, mean)
    config = mean.model_config
    fitted = {"temperature": config.temperature, "mask_threshold": config.mask_threshold}
    told = {"path": str(output), "weights": mean.revision, **fitted}
    print(json.dumps(told) if args.json else f"{output}: the mean of {len(checkpoints)} checkpoints, {mean.revision}")


def run_export(args: argparse.Namespace) -> None:
    from mtl.analysis.files import find_photos
    from mtl.api import MultiTaskModel
    from mtl.export import export

    photos = find_photos(args.photos or [str(EXAMPLES)])
    path = Path(args.output or ("model.onnx" if args.format == "onnx" else "model"))
    checkpoint = MultiTaskModel.load(args.checkpoint, "cpu").checkpoint
    report = export(checkpoint, path, args.format, photos, dtype=args.dtype)
    if args.json:
        print(json.dumps({**asdict(report), "path": str(report.path)}))
    else:
        print(
            f"{report.path}: {report.format}, {report.bytes / 1e6:.1f} MB; largest difference of a probability on "
            f"{report.photos} photos: {report.largest_difference:.1g}"
        )
