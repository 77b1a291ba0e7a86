"""The command line: `python -m mtl VERB`. What a verb needs is imported when it runs, so that `--help` is quick."""

import argparse
import json
import logging
import os
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic.fields import FieldInfo

from mtl.command import option_name, read_settings
from mtl.config import TrainConfig, section_of, type_of
from mtl.errors import ConfigError, MtlError, PhotoError, RunError

if TYPE_CHECKING:
    from mtl.training.run import Run, RunStatus

Verb = Callable[[argparse.Namespace], None]

# What decides which photos are the validation ones: measured on others, a checkpoint would meet its training photos.
FROM_CHECKPOINT = ("seed", "val_fraction", "include", "labels", "classes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0, or 1 with one line that says what came, what was needed and what to do."""
    # A level of the handler: a run lowers the logger's, since its log.txt wants more.
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    logging.basicConfig(format="%(message)s", handlers=[terminal])
    verb = "mtl"
    try:
        args = make_parser().parse_args(arguments)
        verb = f"mtl {args.verb}"
        args.run(args)
    except MtlError as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{verb}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone (`| head`); Python must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # What the system refuses at any place: a full disk, a lost network drive, too many open files.
        place = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error) or type(error).__name__
        print(f"{verb}: {place}{reason} (the system's answer to reading or writing)", file=sys.stderr)
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A wrong option is told like every other wrong setting, in one line."""
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mtl", description="One network, two answers from one photo: skin or hair type, and lesion mask."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, run: Verb, help_text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.set_defaults(run=run)
        return verb

    train = add("train", run_train, "train on a data folder")
    _add_settings(train, TrainConfig.model_fields)
    train.add_argument(
        "--config", metavar="FILE", help="settings (JSON) as the page saves them, or a run's config.json; options win"
    )
    train.add_argument("--resume", metavar="PATH", help="a run's folder: go on with it; a .pth: start from it")

    predict = add("predict", run_predict, "analyse photos: class, probabilities, lesion mask")
    predict.add_argument("photos", nargs="+", metavar="PHOTO", help="photo files or folders")
    predict.add_argument("--checkpoint", metavar="PATH", help="a .pth file or a folder; unset: the shipped model")
    predict.add_argument("--device", default="auto", help=_help("device"))
    predict.add_argument("--conf-thresh", type=float, metavar="P", help="mask threshold; unset: the checkpoint's")
    predict.add_argument("--output-dir", metavar="DIR", help="write masks and overlays (PNG) there")

    evaluate = add("evaluate", run_evaluate, "measure a checkpoint on a data folder")
    _add_settings(evaluate, {k: v for k, v in TrainConfig.model_fields.items() if section_of(v) == "data"})
    evaluate.add_argument("--split", choices=("train", "val"), default="val", help="which photos (default: val)")
    evaluate.add_argument("--checkpoint", metavar="PATH", help="a .pth file or a folder; unset: the shipped model")
    evaluate.add_argument("--device", default="auto", help=_help("device"))
    _add_settings(evaluate, {"seed": TrainConfig.model_fields["seed"]})
    evaluate.epilog = f"{', '.join(FROM_CHECKPOINT)} default to what the checkpoint was trained with."

    check = add("check-data", run_check_data, "read a data folder and say what training would meet")
    _add_settings(check, {k: v for k, v in TrainConfig.model_fields.items() if section_of(v) == "data"})

    demo = add("demo-data", run_demo_data, "write a folder of made photos to try everything with")
    demo.add_argument("folder", help="where; it must be empty or not be there")
    demo.add_argument("--photos", type=int, default=240, help="how many (default: 240)")
    demo.add_argument("--size", type=int, default=256, help="longer side in pixels (default: 256)")
    demo.add_argument("--seed", type=int, default=0, help="other photos for another seed (default: 0)")

    runs = add("runs", run_runs, "list the training runs, or stop or delete one")
    runs.add_argument("--output-dir", default=TrainConfig.model_fields["output_dir"].default, help=_help("output_dir"))
    action = runs.add_mutually_exclusive_group()
    action.add_argument("--stop", metavar="NAME", help="ask this run to stop; it keeps its best and its last state")
    action.add_argument("--delete", metavar="NAME", help="delete this run's folder; asks once")
    runs.add_argument("--yes", action="store_true", help="delete without asking")
    return parser


# ---- options from settings


def _add_settings(parser: argparse.ArgumentParser, fields: dict[str, FieldInfo]) -> None:
    """One option a setting; only those given on the line override, so a default stands in one place."""
    for name, field in fields.items():
        option = option_name(name)
        help_text = f"{field.description} (default: {field.default})".replace("%", "%%")
        common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help_text}
        kind = type_of(field)
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, **common)
        elif typing.get_origin(kind) is typing.Literal:
            parser.add_argument(option, choices=typing.get_args(kind), **common)
        else:
            parser.add_argument(option, type=kind, metavar=name.rpartition("_")[2].upper(), **common)


def _help(name: str) -> str:
    return str(TrainConfig.model_fields[name].description)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name in TrainConfig.model_fields}


# ---- the verbs


def run_train(args: argparse.Namespace) -> None:
    from mtl.training.fit import train

    # A run's folder holds its own settings, which those on the line change; all else starts from the defaults.
    goes_on = args.resume is not None and not args.resume.endswith(".pth")
    settings = (read_settings(Path(args.config)) if args.config else {}) | _settings(args)
    config = None if goes_on else TrainConfig(**settings)
    overrides = settings if goes_on else None
    try:
        with _progress_bar("photos read", quiet=args.json) as progress:
            run = train(
                config,
                resume=args.resume,
                overrides=overrides,
                show_progress=not args.json,
                check_progress=progress,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(Path(args.resume) if goes_on else None, config)) from None
    status = run.status()
    checkpoint = str(run.best_file) if run.best_file.is_file() else None
    if args.json:
        best = {"epoch": status.best_epoch, **status.best}
        print(json.dumps({"run": str(run.path), "state": status.state, "checkpoint": checkpoint, "best": best}))
    elif checkpoint is None or status.best_epoch is None:
        print(f"{status.state}: {run.path}\nno epoch was finished, so there is no checkpoint yet")
    else:
        print(f"{status.state}: {run.path}\n{_best_line(status)}\n{checkpoint}")


def _how_to_go_on(resumed: Path | None, config: TrainConfig | None) -> str:
    """What an interrupted training leaves: the run resumed, or the one that this process made, if it came so far."""
    from mtl.training.run import Run, list_runs

    if resumed is not None:
        runs = [Run(resumed)]
    else:
        newest_first = list_runs((config or TrainConfig()).output_dir)
        runs = [run for run in newest_first if run.status().pid == os.getpid()]
    if runs and runs[0].last_file.is_file():
        return f"stopped; go on with --resume {runs[0].path}"
    return "stopped before there was a checkpoint to go on from"


def _best_line(status: "RunStatus") -> str:
    scores = {key.removeprefix("val_").replace("_", " "): v for key, v in status.best.items() if key.startswith("val_")}
    figures = ", ".join(f"{key} {value:.3f}" for key, value in scores.items())
    return f"best epoch {status.best_epoch}: {figures}"


def run_predict(args: argparse.Namespace) -> None:
    from mtl.analysis.files import analyse_file, find_photos, result_paths
    from mtl.api import MultiTaskModel

    photos = find_photos(args.photos)
    places = [None] * len(photos) if args.output_dir is None else result_paths(photos, Path(args.output_dir))
    model = MultiTaskModel.load(args.checkpoint, args.device)
    results: list[dict[str, Any]] = []
    failed: list[PhotoError] = []
    for photo, place in _bar(list(zip(photos, places, strict=True)), "photos", quiet=args.json):
        try:
            results.append(analyse_file(photo, model.engine, model.config, args.conf_thresh, place))
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


def _prediction_line(result: dict[str, Any]) -> str:
    if "error" in result:
        return str(result["error"])
    parts = [_class_words(result["classification"]), _mask_words(result["segmentation"])]
    return f"{result['photo']}: " + "; ".join([*parts, *([result["overlay"]] if "overlay" in result else [])])


def _class_words(classification: dict[str, Any]) -> str:
    if not classification["trained"]:
        return "classes not trained"
    answers = [
        f"{group} {a['answer']} ({a['predicted_class']} {a['confidence']:.0%})"
        if a["answer"] == "uncertain"
        else f"{group} {a['answer']} {a['confidence']:.0%}"
        for group, a in classification["groups"].items()
        if a["applies"]
    ]
    return ", ".join(answers) or "no skin or hair type seen"


def _mask_words(segmentation: dict[str, Any]) -> str:
    if not segmentation["trained"]:
        return "mask not trained"
    lesions = len(segmentation["lesions"])
    return f"{lesions} lesion{'s' * (lesions != 1)}, {segmentation['lesion_area_ratio']:.1%} of the photo"


def run_evaluate(args: argparse.Namespace) -> None:
    from mtl.api import MultiTaskModel
    from mtl.data.folder import read_folder
    from mtl.evaluation import evaluate, require_same_classes

    model = MultiTaskModel.load(args.checkpoint, args.device)
    trained_with = {k: v for k, v in model.checkpoint.training.items() if k in FROM_CHECKPOINT}
    folder = read_folder(TrainConfig(**{**trained_with, **_settings(args)}))
    require_same_classes(model.config, folder.classes.names)
    with _progress_bar("photos", quiet=args.json) as progress:
        report = {
            "checkpoint": model.checkpoint.name,
            "split": args.split,
            **evaluate(folder.split(args.split), model.engine, model.config, progress),
        }
    print(json.dumps(report) if args.json else _table(report))


def run_check_data(args: argparse.Namespace) -> None:
    from mtl.data.check import check_folder
    from mtl.data.folder import read_folder

    folder = read_folder(TrainConfig(**_settings(args)))
    with _progress_bar("photos", quiet=args.json) as progress:
        report = check_folder(folder, progress)
    print(json.dumps(report.to_dict()) if args.json else _table(report.to_dict()))
    report.require_readable()


def run_demo_data(args: argparse.Namespace) -> None:
    from mtl.data.demo import write_demo_data

    with _progress_bar("photos", quiet=args.json) as progress:
        folder = write_demo_data(Path(args.folder), args.photos, args.seed, args.size, progress)
    if args.json:
        print(json.dumps({"folder": str(folder), "photos": args.photos}))
    else:
        print(
            f"{args.photos} made photos in {folder}\ntrain on them: python -m mtl train --data-dir {folder} --epochs 3"
        )


def run_runs(args: argparse.Namespace) -> None:
    if args.stop is not None:
        _stop_run(_named_run(args.output_dir, args.stop), as_json=args.json)
    elif args.delete is not None:
        _delete_run(_named_run(args.output_dir, args.delete), as_json=args.json, sure=args.yes)
    else:
        _list_runs(args.output_dir, as_json=args.json)


def _named_run(output_dir: str, name: str) -> "Run":
    from mtl.training.run import list_runs

    runs = {run.name: run for run in list_runs(output_dir)}
    if name not in runs:
        newest = ", ".join(list(runs)[:3]) or "none"
        raise RunError(f"{name}: no such run in {output_dir}; the newest there: {newest}")
    return runs[name]


def _stop_run(run: "Run", *, as_json: bool) -> None:
    state = run.status().state
    if not run.status().live:
        raise RunError(f"{run.name}: it is not being trained ({state}), so there is nothing to stop")
    run.request_stop()
    line = f"{run.name} was asked to stop; `python -m mtl train --resume {run.path}` goes on with it"
    print(json.dumps({"run": str(run.path), "state": run.status().state}) if as_json else line)


def _delete_run(run: "Run", *, as_json: bool, sure: bool) -> None:
    size = f"{run.size_bytes / 1e6:.0f} MB"
    if not sure and not _is_agreed(f"delete {run.path} ({size}) for good?"):
        raise RunError(f"{run.name}: kept; answer y, or add --yes, to delete it")
    run.delete()
    print(json.dumps({"deleted": str(run.path)}) if as_json else f"deleted {run.path} ({size})")


def _is_agreed(question: str) -> bool:
    """Asked on the terminal; no where there is none."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _list_runs(output_dir: str, *, as_json: bool) -> None:
    from mtl.training.run import list_runs

    runs = list_runs(output_dir)
    if as_json:
        print(json.dumps({"runs": [_run_figures(run) for run in runs]}))
    elif not runs:
        print(f"no runs in {output_dir}; start one with `python -m mtl train --data-dir FOLDER`")
    else:
        print("\n".join(_run_line(run) for run in runs))


def _run_figures(run: "Run") -> dict[str, Any]:
    figures = {"duration_seconds": round(run.duration, 1), "size_bytes": run.size_bytes}
    return {"run": str(run.path), "name": run.name, **asdict(run.status()), **figures}


def _run_line(run: "Run") -> str:
    status = run.status()
    progress = f"epoch {status.epoch} of {status.epochs}"
    best = _best_line(status) if status.best_epoch else ""
    parts = [run.name, status.state, progress, _span(run.duration), best, status.message]
    return "  ".join(part for part in parts if part)


def _span(seconds: float) -> str:
    """A time as one reads it: 40 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


# ---- the terminal

BAR_DELAY_SECONDS = 0.5  # what fails at once fails in one line; without a terminal (disable=None) there is no bar


def _bar(items: Sequence[Any], unit: str, *, quiet: bool) -> Any:
    from tqdm import tqdm

    return tqdm(items, unit=f" {unit}", disable=quiet or len(items) < 2 or None, delay=BAR_DELAY_SECONDS)


@contextmanager
def _progress_bar(unit: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that draws a bar with rate and time left."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", disable=quiet or None, delay=BAR_DELAY_SECONDS) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _table(values: dict[str, Any], indent: str = "") -> str:
    """Nested figures as indented lines."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}", _table(value, indent + "  ")]
        elif isinstance(value, list | dict):
            lines += [
                f"{indent}{key}: {'none' if not value else ''}".rstrip(),
                *(f"{indent}  {item}" for item in value),
            ]
        else:
            lines.append(f"{indent}{key}: {f'{value:.4f}' if isinstance(value, float) else value}")
    return "\n".join(lines)
