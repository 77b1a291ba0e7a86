"""`train` and `runs`."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.cli.options import AddVerb, add_settings, help_of, settings_of
from mtl.cli.terminal import is_agreed, progress_bar
from mtl.command import read_settings
from mtl.config import TrainConfig
from mtl.errors import RunError

if TYPE_CHECKING:
    from mtl.training.run import Run, RunStatus


def add_verbs(add: AddVerb) -> None:
    train = add("train", run_train, "train on a data folder")
    add_settings(train, TrainConfig.model_fields)
    train.add_argument(
        "--config", metavar="FILE", help="settings (JSON) as the page saves them, or a run's config.json; options win"
    )
    train.add_argument("--resume", metavar="PATH", help="a run's folder: go on with it; a .pth: start from it")
    together = train.add_argument_group(
        "several processes", "They share each batch, so that the same settings give the same curve. torchrun does, too."
    )
    together.add_argument(
        "--devices", type=_positive, default=1, metavar="N", help="processes on this machine, each on its own GPU, or "
        "all on its CPU (default: 1)",
    )  # fmt: skip
    together.add_argument(
        "--num-nodes", type=_positive, default=1, metavar="M", help="machines: each is given the same command, finds "
        "data_dir at the same path, and has output_dir on a disk that all share (default: 1)",
    )  # fmt: skip
    together.add_argument(
        "--rendezvous", metavar="HOST:PORT", help="one of the machines and a free port of it, where all meet"
    )

    runs = add("runs", run_runs, "list the training runs, or stop or delete one")
    runs.add_argument(
        "--output-dir", default=TrainConfig.model_fields["output_dir"].default, help=help_of("output_dir")
    )
    action = runs.add_mutually_exclusive_group()
    action.add_argument("--stop", metavar="NAME", help="ask this run to stop; it keeps its best and its last state")
    action.add_argument("--delete", metavar="NAME", help="delete this run's folder; asks once")
    runs.add_argument("--yes", action="store_true", help="delete without asking")


def _positive(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"got {word}; needed 1 or more")
    return int(word)


def run_train(args: argparse.Namespace) -> None:
    from mtl.training import ranks

    if args.devices * args.num_nodes > 1 and ranks.launched() == 1:
        from mtl.training.launch import launch

        launch(sys.argv[1:], args.devices, args.num_nodes, args.rendezvous)
    else:
        _train_here(args)


def _train_here(args: argparse.Namespace) -> None:
    from mtl.training import ranks
    from mtl.training.fit import train

    # A run's folder holds its own settings, which those on the line change; all else starts from the defaults.
    goes_on = args.resume is not None and not args.resume.endswith(".pth")
    settings = (read_settings(Path(args.config)) if args.config else {}) | settings_of(args)
    config = None if goes_on else TrainConfig(**settings)
    overrides = settings if goes_on else None
    try:
        with progress_bar("photos read", quiet=args.json or not ranks.is_first()) as progress:
            run = train(
                config,
                resume=args.resume,
                overrides=overrides,
                show_progress=not args.json,
                check_progress=progress,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(Path(args.resume) if goes_on else None, config)) from None
    if ranks.is_first():
        _print_result(run, as_json=args.json)


def _print_result(run: "Run", *, as_json: bool) -> None:
    status = run.status()
    checkpoint = str(run.best_file) if run.best_file.is_file() else None
    if as_json:
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
    if not sure and not is_agreed(f"delete {run.path} ({size}) for good?"):
        raise RunError(f"{run.name}: kept; answer y, or add --yes, to delete it")
    run.delete()
    print(json.dumps({"deleted": str(run.path)}) if as_json else f"deleted {run.path} ({size})")


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
