"""Answers for any number of photos: some are read and others measured in threads while the network runs on a batch."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl.analysis.engine import Engine
from mtl.analysis.files import answer_of
from mtl.analysis.predict import Analysis, Square, analyse_squares, photo_and_square
from mtl.config import ModelConfig
from mtl.errors import PhotoError

# Decoded photos that may be held, 3 bytes a pixel; above it nothing more is read until some are answered. Each thread
# may be reading one photo more, or measuring one, which takes about 30 bytes a pixel.
MAX_HELD_PX = 200_000_000
BATCHES_HELD = 3  # being filled, in the network, and being measured: small photos are held in no greater number


class PhotoFile(NamedTuple):
    """A photo in one of the folders that are analysed."""

    folder: str  # as it was named
    name: str  # relative to the folder, with "/"
    results: dict[str, Path] | None = None  # where its pictures go, by kind

    @property
    def path(self) -> Path:
        return Path(self.folder, self.name)


class ReadPhoto(NamedTuple):
    """A photo in memory."""

    photo: PhotoFile
    pixels: np.ndarray  # (H, W, 3) uint8
    square: Square

    @property
    def size_px(self) -> int:
        return self.pixels.shape[0] * self.pixels.shape[1]


class Answer(NamedTuple):
    """What is known of a photo."""

    photo: PhotoFile
    fields: dict[str, Any]  # as `answer_of` gives them, or {"error": one line}
    error: PhotoError | None = None


@dataclass(frozen=True)
class Answerer:
    """A network with all that its answers take: a photo is read, run in a batch, and measured."""

    engine: Engine
    config: ModelConfig
    conf_thresh: float | None = None

    @property
    def threshold(self) -> float:
        """From which probability a pixel is lesion."""
        return self.config.mask_threshold if self.conf_thresh is None else self.conf_thresh

    def read(self, photo: PhotoFile) -> ReadPhoto | Answer:
        """The photo in memory; where it cannot be read, that is the answer."""
        try:
            return ReadPhoto(photo, *photo_and_square(photo.path, self.config))
        except PhotoError as error:
            return Answer(photo, {"error": str(error)}, error)

    def run(self, batch: list[ReadPhoto]) -> list[Analysis]:
        return analyse_squares([read.square for read in batch], self.engine, self.config, threshold=self.threshold)

    def measure(self, read: ReadPhoto, analysis: Analysis) -> Answer:
        return Answer(read.photo, answer_of(analysis, read.pixels, self.config, read.photo.results))


def answer_photos(photos: Iterator[PhotoFile], answerer: Answerer, batch_size: int) -> Iterator[Answer]:
    """Yield each photo's answer as soon as it is known, in no fixed order.

    The photos are asked for a few ahead, however many there are. Whoever stops iterating waits for what is under way.
    """
    threads = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(threads, "photos") as workers,
        # One batch at a time: a second one at once would only share the processor, and take twice the memory.
        ThreadPoolExecutor(1, "network") as network,
    ):
        flow = _Flow(photos, answerer, batch_size, threads, workers, network)
        while flow.advance():
            yield from flow.collect()


@dataclass
class _Flow:
    """What is under way. Only the thread that iterates changes it."""

    photos: Iterator[PhotoFile]
    answerer: Answerer
    batch_size: int
    threads: int
    workers: ThreadPoolExecutor
    network: ThreadPoolExecutor
    reading: "set[Future[ReadPhoto | Answer]]" = field(default_factory=set)
    ready: list[ReadPhoto] = field(default_factory=list)  # for the next batch
    running: "dict[Future[list[Analysis]], list[ReadPhoto]]" = field(default_factory=dict)
    measuring: "dict[Future[Answer], ReadPhoto]" = field(default_factory=dict)

    def advance(self) -> bool:
        """Start what can be started, and wait until something is done; False where all is."""
        while len(self.reading) < self.threads and self._has_room() and (photo := next(self.photos, None)):
            self.reading.add(self.workers.submit(self.answerer.read, photo))
        # A batch that is not full goes where no more photos come: there are none, or no room for them.
        if self.ready and not self.running and (len(self.ready) >= self.batch_size or not self.reading):
            batch, self.ready = self.ready[: self.batch_size], self.ready[self.batch_size :]
            self.running[self.network.submit(self.answerer.run, batch)] = batch
        under_way: list[Future[Any]] = [*self.reading, *self.running, *self.measuring]
        wait(under_way, return_when=FIRST_COMPLETED)
        return bool(under_way)

    def _has_room(self) -> bool:
        held = [*self.ready, *(read for batch in self.running.values() for read in batch), *self.measuring.values()]
        return len(held) < BATCHES_HELD * self.batch_size and sum(read.size_px for read in held) < MAX_HELD_PX

    def collect(self) -> Iterator[Answer]:
        """Pass on what is done to its next part; the answers among it."""
        for reading in _done(self.reading):
            self.reading.remove(reading)
            read = reading.result()
            if isinstance(read, Answer):
                yield read
            else:
                self.ready.append(read)
        for running in _done(self.running):
            for read, analysis in zip(self.running.pop(running), running.result(), strict=True):
                self.measuring[self.workers.submit(self.answerer.measure, read, analysis)] = read
        for measuring in _done(self.measuring):
            del self.measuring[measuring]
            yield measuring.result()


def _done(futures: "Iterable[Future[Any]]") -> "list[Future[Any]]":
    return [future for future in futures if future.done()]
