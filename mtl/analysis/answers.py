"""A file of answers, a line of JSON a photo, that is gone on with where it stopped; and its parts, one a process.

Which of several processes answers a photo hangs on the photo's name alone, and each looks for its photos in the parts
of all: so they may be as many as one likes, and another number each time.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from mtl.errors import ConfigError

log = logging.getLogger(__name__)

DIGEST_BYTES = 16
# What answers hold that were given before there was a choice, and say nothing of it.
FORMERLY = {"tta": "off"}


@dataclass(frozen=True)
class Shard:
    """This process's share of the photos: number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ConfigError(f"RANK: got {self.rank} of WORLD_SIZE {self.count}; needed one from 0, below WORLD_SIZE")

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Shard":
        """As torchrun says it; the whole where it does not. Raises ConfigError."""
        rank, count = environ.get("RANK", "0"), environ.get("WORLD_SIZE", "1")
        if not (rank.isdecimal() and count.isdecimal()):
            raise ConfigError(f"RANK, WORLD_SIZE: got {rank} and {count}; needed whole numbers, as torchrun sets them")
        return cls(int(rank), int(count))

    def holds(self, digest: bytes) -> bool:
        return int.from_bytes(digest) % self.count == self.rank

    def file(self, path: Path) -> Path:
        """answers.jsonl, or answers.rank0of2.jsonl for one of several."""
        return path if self.count == 1 else path.with_name(f"{path.stem}.rank{self.rank}of{self.count}{path.suffix}")


def digest_of(folder: str, name: str) -> bytes:
    """What stands for a photo: two photos have an equal one with a chance of 1 to 10^38."""
    text = f"{folder}\0{name}".encode("utf-8", "surrogatepass")  # names of files may be no text
    return blake2b(text, digest_size=DIGEST_BYTES).digest()


class AnswerFile:
    """The part of this shard, to be opened with `with`. Knows which of the shard's photos have an answer in any part.

    That takes 16 bytes of memory for each photo answered before.
    """

    def __init__(self, path: Path, folders: Sequence[str], same: Mapping[str, Any], shard: Shard):
        """folders: where the photos are. same: fields that answers of one file share, as which weights gave them.

        Raises ConfigError where what is there is of other folders or of other weights, or is no file of answers.
        """
        self.path, self.shard = shard.file(path), shard
        self._whole, self._folders, self._same = path, folders, same
        self._locks: list[FileLock] = []
        self._answered = np.empty(0, f"S{DIGEST_BYTES}")

    def __enter__(self) -> "AnswerFile":
        try:
            self._lock_and_cut()
            self._answered = self._read_answered()
            self._file = self.path.open("ab")
            self._begin = self._file.tell()
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._let_go()

    def __len__(self) -> int:
        """How many of the shard's photos had an answer when it was opened."""
        return len(self._answered)

    def wants(self, folder: str, name: str) -> bool:
        """Is this photo of the shard, and without an answer?"""
        digest = digest_of(folder, name)
        if not self.shard.holds(digest):
            return False
        at = int(np.searchsorted(self._answered, np.bytes_(digest)))
        # numpy gives such bytes back without the zeros at their end.
        return at == len(self._answered) or self._answered[at].ljust(DIGEST_BYTES, b"\0") != digest

    def write(self, answer: Mapping[str, Any]) -> None:
        """Append a line, which is in the system's hands when this returns: killing the process does not lose it."""
        self._file.write(json.dumps({**answer, **self._same}).encode() + b"\n")
        self._file.flush()

    def written(self) -> int:
        """How many lines were appended since it was opened, also where an interrupt broke into `write`."""
        self._file.flush()
        with self.path.open("rb") as file:
            file.seek(self._begin)
            return sum(1 for _ in file)

    def parts(self) -> list[Path]:
        """The files that hold answers, of whatever number of processes."""
        stem, suffix = re.escape(self._whole.stem), re.escape(self._whole.suffix)
        named = re.compile(rf"{stem}(\.rank\d+of\d+)?{suffix}")
        folder = self._whole.parent
        return sorted(path for path in folder.iterdir() if named.fullmatch(path.name)) if folder.is_dir() else []

    # ---- what was there before

    def _lock_and_cut(self) -> None:
        """Take this shard's part; the first shard also those that no shard of today writes, to cut them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        todays = {Shard(rank, self.shard.count).file(self._whole) for rank in range(self.shard.count)}
        former = [path for path in self.parts() if path not in todays] if self.shard.rank == 0 else []
        for path in (self.path, *former):
            self._lock(path)
            _cut_half_line(path)

    def _lock(self, path: Path) -> None:
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise ConfigError(f"{path}: another process writes there; wait for its end, or name another file") from None
        except (OSError, NotImplementedError) as error:  # some network disks know no locks
            log.info("%s: it cannot be locked (%s)", path.name, error)
            return
        self._locks.append(lock)

    def _let_go(self) -> None:
        for lock in self._locks:
            lock.release()

    def _read_answered(self) -> np.ndarray:
        """Sorted digests of the photos of this shard that any part has an answer for."""
        digests = bytearray()
        for part in self.parts():
            for answer in self._read_part(part):
                digest = digest_of(answer["folder"], answer["photo"])
                if self.shard.holds(digest):
                    digests += digest
        return np.unique(np.frombuffer(bytes(digests), f"S{DIGEST_BYTES}"))

    def _read_part(self, part: Path) -> Iterator[dict[str, Any]]:
        with part.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # another process is writing it
                    return
                yield self._checked(line, f"{part}: line {number}")

    def _checked(self, line: bytes, place: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
            folder, _ = answer["folder"], answer["photo"] + ""
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ConfigError(f"{place} is no answer; remove the line, or name another file") from None
        if folder not in self._folders:
            raise ConfigError(f"{place} is of the folder {folder}; name that one too, or another file")
        for field, value in self._same.items():
            if (came := answer.get(field, FORMERLY.get(field))) != value:
                raise ConfigError(f"{place} has {field} {came}, this would be {value}; take the same, or another file")
        return answer


def _cut_half_line(path: Path) -> None:
    """Drop what a killed process had begun to write behind the last whole line."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)
