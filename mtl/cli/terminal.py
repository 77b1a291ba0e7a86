"""What the terminal shows while a verb runs, and figures as lines."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mtl.errors import TransferCancelledError

if TYPE_CHECKING:
    from mtl.hub.transfer import Transfer

Result = TypeVar("Result")
LOOK_SECONDS = 0.1  # how often a transfer's state is looked at
BAR_DELAY_SECONDS = 0.5  # what fails at once fails in one line; without a terminal (disable=None) there is no bar


def bar(items: Sequence[Any], unit: str, *, quiet: bool) -> Any:
    from tqdm import tqdm

    return tqdm(items, unit=f" {unit}", disable=quiet or len(items) < 2 or None, delay=BAR_DELAY_SECONDS)


@contextmanager
def progress_bar(unit: str, *, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A callback (done, total) that draws a bar with rate and time left; a total of None is not known."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", disable=quiet or None, delay=BAR_DELAY_SECONDS) as shown:

        def show(done: int, total: int | None) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield show


def table(values: dict[str, Any], indent: str = "") -> str:
    """Nested figures as indented lines."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}", table(value, indent + "  ")]
        elif isinstance(value, list | dict):
            lines += [
                f"{indent}{key}: {'none' if not value else ''}".rstrip(),
                *(f"{indent}  {item}" for item in value),
            ]
        else:
            lines.append(f"{indent}{key}: {f'{value:.4f}' if isinstance(value, float) else value}")
    return "\n".join(lines)


def is_agreed(question: str) -> bool:
    """Asked on the terminal; no where there is none."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def follow(transfer: "Transfer", work: Callable[[], Result], *, quiet: bool) -> Result:
    """Run a push or pull in a thread and show how far it is. Ctrl-C cancels it; KeyboardInterrupt says what is left."""
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work)
        try:
            _show(transfer, result, quiet=quiet)
        except KeyboardInterrupt:
            transfer.cancel()
        try:
            return result.result()
        except TransferCancelledError as error:
            raise KeyboardInterrupt(str(error)) from None


def _show(transfer: "Transfer", result: "Future[Result]", *, quiet: bool) -> None:
    """A bar on a terminal; else a line for each thing that it does."""
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    said = ""
    with tqdm(unit="B", unit_scale=True, delay=BAR_DELAY_SECONDS, disable=quiet or not on_terminal) as shown:
        while not _is_done(result):
            shown.total = transfer.bytes_total
            shown.set_description_str(transfer.message, refresh=False)
            shown.update(transfer.bytes_done - shown.n)
            # Seconds that pass are no news.
            news = re.sub(r"\d+ s\b", "", transfer.message)
            if not quiet and not on_terminal and news not in ("", said):
                print(transfer.message, file=sys.stderr, flush=True)
                said = news


def _is_done(result: "Future[Result]") -> bool:
    try:
        result.exception(LOOK_SECONDS)
    except NotYetError:
        return result.done()
    return True
