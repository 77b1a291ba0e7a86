"""Reading many photos at once: Pillow and numpy let go of the interpreter lock, so threads do."""

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Yield `function` of each item, in order. Whoever stops iterating waits for the calls under way, no others."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="photos")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
