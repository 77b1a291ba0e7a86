"""Photos decoded once: pixels at the network's size in files, found again by the bytes of the photo and its mask.

<caches>/<size, decoder>/<data folder>.rows    (S, S, 4) uint8 a photo: RGB, and the share of a pixel that is lesion
                         <data folder>.index   RECORDs: what a row shows, and what the check of the data found in it
                         <data folder>.notes   NOTEs: the hash of a file of this size and time, which need not be read
                         <data folder>.lock    held while rows are added

The files only grow, each row before its record, and row, record and note have a checksum. What does not fit its own
counts as not there: a killed process, a full disk or a damaged file costs decoding anew, and never gives wrong pixels.
Rows are read, not mapped: a mapped file that somebody cuts short kills the process, and its pages count as its memory.
"""

import errno
import hashlib
import logging
import os
import shutil
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from filelock import FileLock, Timeout

from mtl.config import TrainConfig
from mtl.data.folder import Sample
from mtl.files import write_atomically
from mtl.frame import map_to_square, photo_to_square
from mtl.photo import read_mask, read_photo

log = logging.getLogger(__name__)

VERSION = 1  # another one where the same file is to give other pixels, or the check finds other things in it
CHANNELS = 4
RECORD = np.dtype(
    [
        ("photo", "u1", 32),  # SHA-256 of its bytes; zeros: it cannot be read
        ("mask", "u1", 32),  # the same; zeros: there is none, or it cannot be read
        ("look", "<u8", 2),  # difference hash
        ("coverage", "<f8"),  # share of the mask that is lesion; NaN without a mask
        ("doubt", "u1"),  # what looks wrong with the mask, as mtl.data.check numbers it
        ("row", "<i8"),  # place in the rows; -1: nowhere
        ("row_crc", "<u4"),
        ("crc", "<u4"),  # CRC-32 of all before
    ]
)
NOTE = np.dtype([("path", "<u8", 2), ("size", "<i8"), ("mtime_ns", "<i8"), ("hash", "u1", 32), ("crc", "<u4")])
NO_HASH = bytes(32)
# A file written so lately may change again within one tick of its file system's clock (2 s on FAT).
SETTLED_NS = 2_000_000_000
RESERVE_BYTES = 500_000_000  # left free on the disk, for checkpoints and others
ROWS_AT_ONCE = 256  # after so many the room is measured again: others write to the disk, too
WAIT_SECONDS = 0.2


def read_row(sample: Sample, size: int, center_crop: bool) -> np.ndarray:
    """Decode a sample to (size, size, 4) uint8. Raises PhotoError or OSError."""
    photo = read_photo(sample.photo, min_side=size)
    return make_row(photo, None if sample.mask is None else read_mask(sample.mask), size, center_crop)


def make_row(photo: np.ndarray, mask: np.ndarray | None, size: int, center_crop: bool) -> np.ndarray:
    """(H, W, 3) uint8 and (h, w) 0/1 -> (size, size, 4) uint8: RGB, and the share that is lesion, 0..255."""
    row = np.zeros((size, size, CHANNELS), np.uint8)
    row[..., :3] = photo_to_square(photo, size, center_crop)
    if mask is not None:
        row[..., 3] = np.rint(255 * map_to_square(mask.astype(np.float32), size, center_crop))
    return row


def unknown_records(count: int) -> np.ndarray:
    """(count,) RECORDs of photos that nothing is known of."""
    records = np.zeros(count, RECORD)
    records["coverage"], records["row"] = np.nan, -1
    return records


class Stamp(NamedTuple):
    """What changes when a file is written."""

    size: int
    mtime_ns: int


def stamp_of(path: Path) -> Stamp:
    """Raises OSError."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns)


def hash_of(path: Path) -> bytes:
    """SHA-256 of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def open_cache(config: TrainConfig, data_dir: Path) -> "PhotoCache | None":
    """The cache that the settings ask for; None where it is off."""
    if config.cache_dir == "off" or not config.cache_gb:
        return None
    users = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    root = users / "multitask-skin" / "photos" if config.cache_dir == "auto" else Path(config.cache_dir)
    return PhotoCache(root.absolute(), data_dir, config.image_size, config.center_crop, round(config.cache_gb * 1e9))


class PhotoCache:
    """The photos that were decoded to one size, of all data folders; what is new is added to this folder's files.

    `trouble` says in one line what could not be kept, and why; empty where all could.
    """

    def __init__(self, root: Path, data_dir: Path, image_size: int, center_crop: bool, limit_bytes: int):
        self.root, self.image_size, self.center_crop, self.limit_bytes = root, image_size, center_crop, limit_bytes
        self.row_bytes = image_size * image_size * CHANNELS
        self.trouble = ""
        # Another Pillow may bring another JPEG decoder, whose pixels differ by one here and there.
        self._folder = root / f"{image_size}px{'-crop' if center_crop else ''}-v{VERSION}-pillow{PIL.__version__}"
        self._own = _Store(self._folder / hashlib.blake2b(os.fsencode(data_dir.resolve()), digest_size=8).hexdigest())
        self._own_notes = bytearray()  # of this process, also of files that changed lately
        self.load()

    def load(self) -> None:
        """Take in what the files hold by now."""
        self._stores = [_Store(path.with_suffix("")) for path in sorted(self._folder.glob("*.index"))]
        parts = [store.records(self.row_bytes) for store in self._stores]
        self._records = np.concatenate([np.empty(0, RECORD), *parts])
        self._store_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self._by_content = _Table(_content_keys(self._records["photo"], self._records["mask"]))
        self._notes = np.concatenate([_read_sound(self._own.notes_file, NOTE)[0], np.frombuffer(self._own_notes, NOTE)])
        self._by_path = _Table(self._notes["path"][:, 0])

    # ---- what is known

    def find(self, samples: Sequence[Sample]) -> np.ndarray:
        """(N,) RECORDs by the files' names, sizes and times; row -1 where one of a sample's two files is not known."""
        records, places = unknown_records(len(samples)), self._places(samples)
        records[places >= 0] = self._records[places[places >= 0]]
        return records

    def look_up(self, photo: bytes, mask: bytes) -> np.void | None:
        """The RECORD of a photo and mask with these hashes, NO_HASH for no mask."""
        [place] = self._places_of(np.frombuffer(photo + mask, "u1").reshape(1, 2, 32))
        return self._records[place] if place >= 0 else None

    def rows(self, samples: Sequence[Sample]) -> "CachedRows":
        """The rows of samples, as far as they are kept."""
        self.load()
        places = self._places(samples)
        return CachedRows(self.image_size, self._stores, self._records, self._store_of, places)

    def _places(self, samples: Sequence[Sample]) -> np.ndarray:
        """(N,) places among the records, -1 for none."""
        if not len(self._records):
            return np.full(len(samples), -1)
        hashes = np.zeros((len(samples), 2, 32), np.uint8)
        hashes[:, 0], known = self._noted([sample.photo for sample in samples])
        masked = np.array([sample.mask is not None for sample in samples], bool)
        hashes[masked, 1], mask_known = self._noted([sample.mask for sample in samples if sample.mask is not None])
        known[masked] &= mask_known
        return np.where(known, self._places_of(hashes), -1)

    def _places_of(self, hashes: np.ndarray) -> np.ndarray:
        """(N, 2, 32) hashes of photos and masks -> (N,) places among the records, -1 for none."""
        photos, masks = hashes[:, 0], hashes[:, 1]
        places = self._by_content.find(_content_keys(photos, masks))
        found = places >= 0
        same = (self._records["photo"][places[found]] == photos[found]) & (
            self._records["mask"][places[found]] == masks[found]
        )
        places[found] = np.where(same.all(1), places[found], -1)
        return places

    def _noted(self, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        """(N, 32) hashes of files, and (N,) bool: is the file as it was when its hash was noted?"""
        stamps = np.array([_stamp_or_none(path) for path in paths], np.int64).reshape(-1, 2)
        keys = np.array([_path_key(path) for path in paths], np.uint64).reshape(-1, 2)
        places = self._by_path.find(keys[:, 0])
        notes = self._notes[places] if len(self._notes) else np.zeros(len(paths), NOTE)
        known = (places >= 0) & (notes["path"] == keys).all(1)
        return notes["hash"], known & (notes["size"] == stamps[:, 0]) & (notes["mtime_ns"] == stamps[:, 1])

    # ---- adding

    @contextmanager
    def adding(self, waiting: Callable[[], object]) -> Iterator["Adding"]:
        """To add rows to this data folder's files. While another process does, `waiting` is called, and may raise."""
        adding = Adding(self, self._own)
        with ExitStack() as stack:
            stack.callback(adding.close)
            try:
                self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._folder.mkdir(exist_ok=True, mode=0o700)
                stack.enter_context(_held(self._own.lock(), waiting))
                self._own.repair(self.row_bytes)
                adding.open()
            except OSError as error:
                self.give_up(error)
            self.load()
            yield adding

    def note(self, path: Path, stamp: Stamp, file_hash: bytes) -> np.ndarray:
        """Remember a file's hash in this process; the NOTE."""
        note = np.zeros((), NOTE)
        note["path"], note["size"], note["mtime_ns"] = _path_key(path), *stamp
        note["hash"] = np.frombuffer(file_hash, "u1")
        _seal(note)
        self._own_notes += note.tobytes()
        return note

    def give_up(self, error: OSError) -> None:
        """Add no more."""
        self.trouble = (
            f"no more decoded photos can be kept in {self.root} ({error.strerror or error}), so the others are decoded "
            "in every epoch; make room there, raise cache_gb, or name another cache_dir"
        )

    def room(self) -> int:
        """How many rows more may be added. To make room, what others have not used for longest is removed."""
        stores = [_Store(path.with_suffix("")) for path in self.root.glob("*/*.rows")]
        others = sorted((store for store in stores if store != self._own), key=_Store.last_used)
        used = sum(store.size() for store in stores)
        while True:
            free = shutil.disk_usage(self._folder).free - RESERVE_BYTES
            rows = min(self.limit_bytes - used, free) // self.row_bytes
            if rows > 0:
                return min(rows, ROWS_AT_ONCE)
            if not others:
                return 0
            used -= others.pop(0).remove_unless_held()


class Adding:
    """Appends rows to one data folder's files until they are full; then nothing more happens."""

    def __init__(self, cache: PhotoCache, store: "_Store"):
        self._cache, self._store = cache, store
        self._files: list[FileIO] = []
        self._next_row, self._room = 0, 0

    def open(self) -> None:
        """Raises OSError."""
        self._next_row = -(-self._store.rows_size() // self._cache.row_bytes)
        for path in (self._store.rows_file, self._store.index_file, self._store.notes_file):
            self._files.append(FileIO(path, "a"))
        # A killed process may have left a part of a row.
        self._files[0].truncate(self._next_row * self._cache.row_bytes)

    def close(self) -> None:
        while self._files:
            self._files.pop().close()

    def add(self, record: np.void, row: np.ndarray) -> None:
        """Keep a row (S, S, 4), and its RECORD with the place of the row."""
        if not self._files:
            return
        rows, index, _ = self._files
        record["row"], record["row_crc"] = self._next_row, zlib.crc32(row.data)
        _seal(record)
        try:
            self._require_room()
            _write(rows, row.tobytes())
            _write(index, record.tobytes())
        except OSError as error:
            self._give_up(error)
        self._next_row += 1
        self._room -= 1

    def _require_room(self) -> None:
        self._room = self._room or self._cache.room()
        if not self._room:
            raise OSError(errno.EDQUOT, f"{self._cache.limit_bytes / 1e9:g} GB are full")

    def note(self, path: Path, stamp: Stamp, file_hash: bytes) -> None:
        """Keep the hash of a file that had this stamp before and after it was read."""
        note = self._cache.note(path, stamp, file_hash)
        if self._files and time.time_ns() - stamp.mtime_ns > SETTLED_NS:
            try:
                _write(self._files[2], note.tobytes())
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._cache.give_up(error)
        self.close()


class CachedRows:
    """The rows of a list of samples, by their place in the list."""

    def __init__(
        self, image_size: int, stores: "Sequence[_Store]", records: np.ndarray, store_of: np.ndarray, places: np.ndarray
    ):
        """places (N,): of the samples among all records (R,), whose stores are store_of (R,); -1: not kept."""
        self.image_size = image_size
        self._row_bytes = image_size * image_size * CHANNELS
        kept = places >= 0
        self._row, self._store = np.full(len(places), -1), np.full(len(places), -1)
        self._crc, self._verified = np.zeros(len(places), np.uint32), np.zeros(len(places), bool)
        self._row[kept] = records["row"][places[kept]]
        self._crc[kept] = records["row_crc"][places[kept]]
        self._store[kept] = store_of[places[kept]]
        self._stores = stores
        self._files: dict[int, FileIO] = {}
        self._lock = threading.Lock()
        for number in np.unique(self._store[kept]).tolist():
            self._open(number)
        weakref.finalize(self, _close_all, self._files)

    def _open(self, number: int) -> None:
        try:
            self._files[number] = FileIO(self._stores[number].rows_file)
            self._stores[number].touch()
        except OSError:  # another process has removed it
            self._row[self._store == number] = -1

    def __len__(self) -> int:
        return len(self._row)

    @property
    def kept(self) -> np.ndarray:
        """(N,) bool: which samples have a row."""
        return self._row >= 0

    def read(self, index: Sequence[int], out: np.ndarray) -> np.ndarray:
        """Fill out (n, S, S, 4) with the rows of n samples; (n,) bool: which are filled."""
        return np.array([self._read(i, row) for i, row in zip(index, out, strict=True)], bool)

    def _read(self, i: int, out: np.ndarray) -> bool:
        if self._row[i] < 0:
            return False
        number = int(self._store[i])
        with self._lock:
            self._files[number].seek(int(self._row[i]) * self._row_bytes)
            read = self._files[number].readinto(out.data.cast("B")) == self._row_bytes
        # Once a process: it takes three times as long as the reading.
        if read and (self._verified[i] or zlib.crc32(out.data) == self._crc[i]):
            self._verified[i] = True
            return True
        self._row[i] = -1
        log.warning("the cache of decoded photos is damaged, so it is made anew at the next run")
        self._stores[number].forget()
        return False


class _Store:
    """The files of one data folder at one size."""

    def __init__(self, stem: Path):
        self.stem = stem
        self.rows_file, self.index_file, self.notes_file = (
            stem.with_suffix(suffix) for suffix in (".rows", ".index", ".notes")
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Store) and self.stem == other.stem

    def lock(self) -> FileLock:
        return FileLock(self.stem.with_suffix(".lock"), thread_local=False)

    def rows_size(self) -> int:
        """Bytes."""
        return self.rows_file.stat().st_size if self.rows_file.exists() else 0

    def size(self) -> int:
        """Bytes of all files."""
        files = (self.rows_file, self.index_file, self.notes_file)
        return sum(path.stat().st_size for path in files if path.exists())

    def last_used(self) -> float:
        """Seconds since 1970."""
        return self.rows_file.stat().st_mtime if self.rows_file.exists() else 0.0

    def touch(self) -> None:
        with suppress(OSError):
            os.utime(self.rows_file)

    def records(self, row_bytes: int) -> np.ndarray:
        """Those that are sound and whose rows are there."""
        records, _ = _read_sound(self.index_file, RECORD)
        return records[records["row"] < self.rows_size() // row_bytes]

    def repair(self, row_bytes: int) -> None:
        """Leave only what is sound. The lock must be held.

        Rows that a record once named are never written over, since another process may be reading them: where some
        are lost, the files are made anew.
        """
        records, all_sound = _read_sound(self.index_file, RECORD)
        if not len(records) or len(records) > len(self.records(row_bytes)):
            self.forget()
            self.rows_file.unlink(missing_ok=True)
        elif not all_sound:
            write_atomically(self.index_file, lambda path: path.write_bytes(records.tobytes()), durable=False)
        notes, all_sound = _read_sound(self.notes_file, NOTE)
        if not all_sound:
            write_atomically(self.notes_file, lambda path: path.write_bytes(notes.tobytes()), durable=False)

    def forget(self) -> None:
        """What the rows show, so that they are made anew."""
        with suppress(OSError):
            self.index_file.unlink(missing_ok=True)

    def remove_unless_held(self) -> int:
        """The bytes that this frees: none while somebody adds to it."""
        size = self.size()
        try:
            with self.lock().acquire(blocking=False):
                for path in (self.index_file, self.notes_file, self.rows_file):
                    path.unlink(missing_ok=True)
        except OSError:  # a Timeout is one, too
            return 0
        return size


class _Table:
    """Finds the last place of a key in a list that does not change."""

    def __init__(self, keys: np.ndarray):
        """keys (N,) uint64."""
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(n,) -> (n,) places, -1 for none."""
        if not len(self._sorted):
            return np.full(len(keys), -1)
        places = np.searchsorted(self._sorted, keys, side="right") - 1
        return np.where(self._sorted[places] == keys, self._order[places], -1)


# ---- files of checked records


def _read_sound(path: Path, kind: np.dtype) -> tuple[np.ndarray, bool]:
    """The records of a file that fit their checksums, and whether these are all that it holds."""
    try:
        content = path.read_bytes()
    except OSError:
        return np.empty(0, kind), True
    records = np.frombuffer(content, kind, count=len(content) // kind.itemsize)
    sums = [zlib.crc32(content[at : at + kind.itemsize - 4]) for at in range(0, records.nbytes, kind.itemsize)]
    sound = records["crc"] == np.array(sums, np.uint32)
    return records[sound], bool(sound.all()) and records.nbytes == len(content)


def _seal(record: np.void | np.ndarray) -> None:
    """Give one record its checksum."""
    record["crc"] = zlib.crc32(record.tobytes()[:-4])


def _write(file: FileIO, content: bytes) -> None:
    if file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _close_all(files: dict[int, FileIO]) -> None:
    for file in files.values():
        file.close()


@contextmanager
def _held(lock: FileLock, waiting: Callable[[], object]) -> Iterator[None]:
    """The lock, taken."""
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            waiting()
            time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        lock.release()


# ---- keys


def _content_keys(photos: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, 32) hashes each -> (N,) uint64."""
    return _first_bytes(photos) ^ _first_bytes(masks)


def _first_bytes(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64)[:, 0]


def _path_key(path: Path) -> tuple[int, int]:
    """128 bits."""
    digest = hashlib.blake2b(os.fsencode(path.absolute()), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _stamp_or_none(path: Path) -> tuple[int, int]:
    try:
        return stamp_of(path)
    except OSError:
        return -1, -1
