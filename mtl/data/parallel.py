"""Reading many photos at once: Pillow and numpy let go of the interpreter lock, so threads do."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # calls a thread that are under way or done before their turn


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None, ahead: int | None = None
) -> Generator[Result]:
    """Yield `function` of each item, in order; what it raises is raised here.

    While one result is looked at, at most `ahead` more are made. Whoever stops iterating waits for the calls under
    way, no others. `items` are taken in the caller's thread.
    """
    threads = threads or os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads, thread_name_prefix="photos")
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > (ahead or AHEAD * threads):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
