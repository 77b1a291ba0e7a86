"""Figures on their way from the device to the host, which does not wait for them."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


class Readings(Generic[Key]):
    """Scalars by name, handed in while they are still being computed and read in the same order once they are there.

    To read one of a GPU's at once would stop the host until the GPU has caught up, and then leave the GPU idle.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Key, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def put(self, key: Key, figures: dict[str, Tensor]) -> None:
        """key: what is given back with the figures."""
        values = torch.stack([value.detach().float() for value in figures.values()])
        if values.device.type != "cuda":
            self._pending.append((key, list(figures), values.cpu(), None))
            return
        held = torch.empty(len(values), pin_memory=True)
        held.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._pending.append((key, list(figures), held, copied))

    def arrived(self, *, wait: bool = False) -> Iterator[tuple[Key, dict[str, float]]]:
        """Each once, in order; with `wait` all, else those that are there."""
        while self._pending:
            key, names, values, copied = self._pending[0]
            if copied is not None:
                if not wait and not copied.query():
                    return
                copied.synchronize()
            self._pending.popleft()
            yield key, dict(zip(names, values.tolist(), strict=True))
