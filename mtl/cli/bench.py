"""`bench`: how fast this machine does what people wait for."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from mtl.cli.options import AddVerb, add_checkpoint, help_of
from mtl.cli.terminal import table
from mtl.config import TrainConfig
from mtl.errors import ConfigError

WHAT = {
    "inference": "a photo to its answer, and the network alone",
    "training": "whole epochs, from files to weights",
    "loading": "the loader alone, decoding and from the cache",
    "startup": "each verb's help, the page and its first answer",
    "scale": "what grows with the number of photos",
}


def add_verbs(add: AddVerb) -> None:
    bench = add("bench", run_bench, "measure speed, against segmentation_models_pytorch where that is installed")
    bench.add_argument("what", choices=WHAT, help="; ".join(f"{name}: {text}" for name, text in WHAT.items()))
    add_checkpoint(bench)
    bench.add_argument("--device", default="auto", help=help_of("device"))
    bench.add_argument("--data-dir", metavar="DIR", help="photos to train on or load; unset: made ones")
    bench.add_argument("--include", metavar="GLOB", help=help_of("include"))
    bench.add_argument("--photos", type=int, nargs="+", metavar="N", help="made ones (default: 320; scale: 1000 10000)")
    bench.add_argument("--side", type=int, default=512, metavar="PX", help="of made photos (default: 512)")
    bench.add_argument("--batch-size", type=int, default=16, metavar="N", help="photos a step (default: 16)")
    bench.add_argument("--image-size", type=int, nargs="+", default=[224], metavar="PX", help="(default: 224)")
    bench.add_argument("--repetitions", type=int, metavar="N", help="of each measurement, in turns (default: 3 or 15)")
    for name in ("precision", "compile"):
        bench.add_argument(f"--{name}", default="auto", help=help_of(name))


def run_bench(args: argparse.Namespace) -> None:
    if args.repetitions is not None and args.repetitions < 1:
        raise ConfigError(f"--repetitions: got {args.repetitions}; needed 1 or more")
    figures = BENCHES[args.what](args)
    print(json.dumps(figures, indent=2) if args.json else table(figures))


def _inference(args: argparse.Namespace) -> dict[str, Any]:
    from mtl.bench.inference import bench_inference

    return bench_inference(args.checkpoint, args.device, args.image_size, args.repetitions or 15)


def _training(args: argparse.Namespace) -> dict[str, Any]:
    from mtl.bench.training import bench_training

    with tempfile.TemporaryDirectory(prefix="mtl-bench-") as place:
        return bench_training(_train_config(args, Path(place)), args.repetitions or 3)


def _loading(args: argparse.Namespace) -> dict[str, Any]:
    from mtl.bench.loading import bench_loading

    with tempfile.TemporaryDirectory(prefix="mtl-bench-") as place:
        return bench_loading(_train_config(args, Path(place)), args.repetitions or 3)


def _train_config(args: argparse.Namespace, place: Path) -> TrainConfig:
    """Of the given photos, or of made ones in `place`; the cache lies there, too."""
    from mtl.bench.photos import write_photos

    data_dir = args.data_dir or write_photos(place / "data", (args.photos or [320])[0], args.side)
    return TrainConfig(
        data_dir=str(data_dir),
        include=args.include,
        cache_dir=str(place / "cache"),
        image_size=args.image_size[0],
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
        compile=args.compile,
    )


def _startup(args: argparse.Namespace) -> dict[str, Any]:
    from mtl.bench.startup import bench_startup

    return bench_startup(args.repetitions or 3)


def _scale(args: argparse.Namespace) -> dict[str, Any]:
    from mtl.bench.scale import bench_scale

    return bench_scale(args.photos or [1_000, 10_000], min(args.image_size), args.batch_size)


BENCHES = {"inference": _inference, "training": _training, "loading": _loading, "startup": _startup, "scale": _scale}
