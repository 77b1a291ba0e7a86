"""`check-data` and `demo-data`."""

import argparse
import json
from pathlib import Path

from mtl.cli.options import DATA_SETTINGS, AddVerb, add_settings, settings_of
from mtl.cli.terminal import progress_bar, table
from mtl.config import TrainConfig


def add_verbs(add: AddVerb) -> None:
    check = add("check-data", run_check_data, "read a data folder and say what training would meet")
    add_settings(check, DATA_SETTINGS)

    demo = add("demo-data", run_demo_data, "write a folder of made photos to try everything with")
    demo.add_argument("folder", help="where; it must be empty or not be there")
    demo.add_argument("--photos", type=int, default=240, help="how many (default: 240)")
    demo.add_argument("--size", type=int, default=256, help="longer side in pixels (default: 256)")
    demo.add_argument("--seed", type=int, default=0, help="other photos for another seed (default: 0)")


def run_check_data(args: argparse.Namespace) -> None:
    from mtl.data.check import check_folder
    from mtl.data.folder import read_folder

    folder = read_folder(TrainConfig(**settings_of(args)))
    with progress_bar("photos", quiet=args.json) as progress:
        report = check_folder(folder, progress)
    print(json.dumps(report.to_dict()) if args.json else table(report.to_dict()))
    report.require_readable()


def run_demo_data(args: argparse.Namespace) -> None:
    from mtl.data.demo import write_demo_data

    with progress_bar("photos", quiet=args.json) as progress:
        folder = write_demo_data(Path(args.folder), args.photos, args.seed, args.size, progress)
    if args.json:
        print(json.dumps({"folder": str(folder), "photos": args.photos}))
    else:
        print(
            f"{args.photos} made photos in {folder}\ntrain on them: python -m mtl train --data-dir {folder} --epochs 3"
        )
