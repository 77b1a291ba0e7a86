"""The command line: `python -m mtl VERB`. What a verb needs is imported when it runs, so that `--help` is quick."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from mtl.cli import bench, data, evaluate, hub, models, runs
from mtl.errors import ConfigError, MtlError
from mtl.hub.tokens import install_secret_filter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0, or 1 with one line that says what came, what was needed and what to do."""
    # A level of the handler: a run lowers the logger's, since its log.txt wants more.
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    logging.basicConfig(format="%(message)s", handlers=[terminal])
    install_secret_filter()
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

    def add(name: str, run: Callable[[argparse.Namespace], None], help_text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.set_defaults(run=run)
        return verb

    for verbs_of in (runs, models, evaluate, data, hub, bench):
        verbs_of.add_verbs(add)
    return parser
