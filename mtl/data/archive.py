"""The only unpacker: an uploaded zip of photos becomes a new data folder, or nothing at all.

A zip is treated as hostile. Every entry's name, kind and size is judged before a byte is written, what is written is
counted, and it goes to a hidden folder that takes its name only when all of it is there and can be read.
"""

import bz2
import json
import lzma
import os
import re
import shutil
import stat
import struct
import tempfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from io import BufferedReader, FileIO
from itertools import count, pairwise
from pathlib import Path, PurePosixPath
from typing import IO

from mtl.config import TrainConfig
from mtl.data.arrange import LABEL_FILES, TABLE_SUFFIXES, Arrangement, arrange, own_classes
from mtl.data.folder import read_folder
from mtl.data.labels import read_csv, read_json
from mtl.errors import ArchiveError
from mtl.files import write_text

Progress = Callable[[int, int], None]

MAX_ENTRIES = 100_000
MAX_DIRECTORY_BYTES = 16_000_000  # the zip's table of contents, which is read whole
MAX_DEPTH = 20
MAX_PATH_CHARACTERS = 1000
MAX_NAME_BYTES = 255  # of one file or folder, on nearly every disk
MAX_PICTURE_BYTES = 600_000_000  # the decoder's 100 megapixels at 16 bits a channel
MAX_TABLE_BYTES = 16_000_000  # JSON and CSV are read whole
MAX_TOTAL_BYTES = 50_000_000_000
SPARE_DISK_BYTES = 500_000_000  # left for the runs
# An empty mask saved as BMP shrinks a thousandfold, photos do not shrink: so only much that came from little is a bomb.
MAX_GROWTH = 100
SMALL_FILE_BYTES = 64_000_000
SMALL_TOTAL_BYTES = 1_000_000_000

# Of an entry's flags (APPNOTE 4.4.4).
ENCRYPTED_FLAGS = 0x41
LZMA_END_FLAG = 0x2
UTF8_FLAG = 0x800
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
CHUNK_BYTES = 1 << 20
LZMA_MEMORY_BYTES = 256_000_000  # the zip says how much history its LZMA entries need, up to 4 GB
LOCAL_HEADER_BYTES = 30
FOREIGN = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive", b"\x1f\x8b": "a gzip archive"}

HIDDEN_PREFIX = ".unpacking-"
LEFTOVER_SECONDS = 24 * 3600
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
RESERVED_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices, on Windows


def unpack_photos(archive: Path, parent: Path, name: str | None = None, progress: Progress | None = None) -> Path:
    """Unpack an uploaded zip of photos into a new folder under `parent`, and return that folder.

    `mtl.data.arrange` says which forms are understood and what is left out. name: of the folder, made safe; unset:
    the zip's; where it is taken, "-2" and so on is added. progress(bytes done, bytes in all) may raise to stop.
    Whatever goes wrong, nothing is left under `parent`. Raises ArchiveError for a zip that is broken or hostile, or
    that the disk has no room for, and DataError for a data folder that cannot be read.
    """
    wanted = safe_name(archive.stem if name is None else name)
    try:
        with _opened(archive) as source, _hidden_folder(parent) as hidden:
            entries = _judged(source.infolist(), archive.stat().st_size)
            plan = arrange(entries)
            targets = {target: entries[path] for path, target in plan.targets.items()}
            _require_room(targets, archive.stat().st_size, parent)
            folder = hidden / wanted  # messages about the data folder name it
            _extract(source, targets, folder, progress)
            _write_labels(folder, plan)
            read_folder(TrainConfig(data_dir=str(folder)))
            return _publish(folder, parent)
    except ArchiveError as error:
        raise ArchiveError(f"{archive.name}: {error}") from error.__cause__
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ArchiveError(f"{archive.name}: cannot be unpacked here: {reason}") from error


def safe_name(text: str) -> str:
    """A folder name of at most 56 letters, digits, dots, hyphens and underscores; "photos" where nothing is left."""
    name = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", text)).strip(".-")[:56].rstrip(".-")
    return f"photos-{name}"[:56] if RESERVED_NAME.fullmatch(name) else name or "photos"


class _BoundedReader(BufferedReader):
    """A file of which no single read may take much memory: zipfile reads the table of contents in one."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise ArchiveError(f"its table of contents has {size} bytes; needed at most {MAX_DIRECTORY_BYTES}")
        return super().read(size)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    with _BoundedReader(FileIO(archive)) as stream:
        _require_one_part(stream)
        try:
            source = zipfile.ZipFile(stream)
        except ArchiveError:
            raise
        except Exception as error:  # given a hostile file, zipfile raises nearly every type there is
            stream.seek(0)
            raise ArchiveError(_why_no_zip(stream.read(4))) from error
        with source:
            yield source


def _require_one_part(stream: BufferedReader) -> None:
    """Refuse a part of a split zip: its end record (APPNOTE 4.3.16) counts more than one disk."""
    start = max(0, stream.seek(0, os.SEEK_END) - 65_557)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if 0 <= at <= len(tail) - 8 and struct.unpack_from("<HH", tail, at + 4) not in ((0, 0), (0xFFFF, 0xFFFF)):
        raise ArchiveError("a part of a split zip; needed one whole file, so zip it anew without splitting")


def _why_no_zip(head: bytes) -> str:
    for signature, kind in FOREIGN.items():
        if head.startswith(signature):
            return f"this is {kind}; needed a zip"
    if head.startswith(b"PK"):
        return "the zip is damaged or cut short; zip it anew, or upload it again"
    return "this is no zip file; needed a zip of photos"


def _judged(infos: Sequence[zipfile.ZipInfo], archive_bytes: int) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Path -> entry, without folders; every entry must be harmless, also those that will be left out."""
    if len(infos) > MAX_ENTRIES:
        raise ArchiveError(f"it holds {len(infos)} entries; needed at most {MAX_ENTRIES}, so split it by photos")
    entries: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in infos:
        path = _safe_path(info)
        _require_plain(info, path.name)
        if _name(info).endswith("/"):
            continue
        if path in entries:
            raise ArchiveError(f"{path.name} is in it twice; keep one")
        entries[path] = info
    _refuse_overlaps(infos, archive_bytes)
    return entries


def _name(info: zipfile.ZipInfo) -> str:
    """The entry's path as it was meant: macOS does not flag its UTF-8, old Windows programs write backslashes."""
    name = info.filename
    if not info.flag_bits & UTF8_FLAG:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _safe_path(info: zipfile.ZipInfo) -> PurePosixPath:
    """The entry's path, which stays inside the folder that it is laid into."""
    name = _name(info)
    path = PurePosixPath(name)
    shown = path.name[:80] or "an entry"
    # zipfile cuts names at a NUL; the whole one is in orig_filename.
    if CONTROL_CHARACTER.search(name + info.orig_filename):
        raise ArchiveError(f"{shown}: control characters in its name; rename it")
    if not path.parts or path.is_absolute() or ".." in path.parts or any(p[1:2] == ":" for p in path.parts):
        raise ArchiveError(f"{shown}: its path leads out of the folder; needed relative paths, so zip it anew")
    if len(path.parts) > MAX_DEPTH or len(str(path)) > MAX_PATH_CHARACTERS:
        raise ArchiveError(f"{shown}: it lies more than {MAX_DEPTH} folders deep, or its path is too long; move it up")
    if any(len(part.encode()) > MAX_NAME_BYTES or RESERVED_NAME.fullmatch(part) for part in path.parts):
        raise ArchiveError(f"{shown}: a name that not every disk can hold; rename it")
    return path


def _require_plain(info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & ENCRYPTED_FLAGS:
        raise ArchiveError("it is encrypted; remove the password and zip it anew")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"{name}: a link or device; needed ordinary files, so zip what it links to")
    if info.volume:
        raise ArchiveError("a part of a split zip; needed one whole file, so zip it anew without splitting")
    if info.compress_type not in METHODS:
        raise ArchiveError(f"{name}: packed by method {info.compress_type}, which is not read; zip it anew as Deflate")


def _refuse_overlaps(infos: Iterable[zipfile.ZipInfo], archive_bytes: int) -> None:
    """Entries that share bytes: a small zip could so hold the same bomb many times (Fifield 2019)."""
    spans = sorted(
        (info.header_offset, info.header_offset + LOCAL_HEADER_BYTES + len(info.orig_filename) + info.compress_size)
        for info in infos
    )
    for (_, end), (start, _) in pairwise([*spans, (archive_bytes, archive_bytes)]):
        if end > start:
            raise ArchiveError("its entries overlap each other; zip it anew with an ordinary program")


def _require_room(targets: Mapping[str, zipfile.ZipInfo], archive_bytes: int, parent: Path) -> None:
    """Judge the sizes that the zip declares; `_chunks` holds every file to its own."""
    for target, info in targets.items():
        is_table = Path(target).suffix.lower() in TABLE_SUFFIXES
        limit = MAX_TABLE_BYTES if is_table else MAX_PICTURE_BYTES
        if info.file_size > min(limit, max(SMALL_FILE_BYTES, MAX_GROWTH * info.compress_size)):
            raise ArchiveError(f"{Path(target).name}: {_size(info.file_size)}, too large; remove it or save it smaller")
    total = sum(info.file_size for info in targets.values())
    if total > min(MAX_TOTAL_BYTES, max(SMALL_TOTAL_BYTES, MAX_GROWTH * archive_bytes)):
        raise ArchiveError(f"it unpacks to {_size(total)}, which is too much; upload it in parts")
    free = max(0, shutil.disk_usage(parent).free - SPARE_DISK_BYTES)
    if total > free:
        raise ArchiveError(f"it unpacks to {_size(total)}, but the disk has room for {_size(free)}; free some")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


@contextmanager
def _hidden_folder(parent: Path) -> Iterator[Path]:
    """A folder under `parent` that is gone afterwards; those of killed processes go after a day."""
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(f"{HIDDEN_PREFIX}*"):
        with suppress(FileNotFoundError):  # another upload has just ended
            if time.time() - leftover.lstat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=HIDDEN_PREFIX, dir=parent, ignore_cleanup_errors=True) as hidden:
        yield Path(hidden)


def _extract(
    source: zipfile.ZipFile, targets: Mapping[str, zipfile.ZipInfo], folder: Path, progress: Progress | None
) -> None:
    """Write each entry to its place (path in the folder -> entry), in files of the process's own mode."""
    total = sum(info.file_size for info in targets.values())
    done = 0
    for target, info in targets.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for chunk in _chunks(source, info):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)


def _chunks(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """An entry's content, piece by piece: as many bytes as it declares, with its checksum, or ArchiveError."""
    left, checksum = info.file_size, 0
    unpack = _unpack_bounded if info.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA) else _unpack
    try:
        for chunk in unpack(source, info):
            left -= len(chunk)
            if left < 0:
                break
            checksum = zlib.crc32(chunk, checksum)
            yield chunk
    except Exception as error:  # each decompressor has its own
        raise _damaged(info) from error
    if left or checksum != info.CRC:
        raise _damaged(info)


def _unpack(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with source.open(info) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _unpack_bounded(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """bzip2 and LZMA: zipfile would unpack all that it reads at once, and 4 KB of bzip2 can hold 4 GB."""
    packed = copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # so zipfile hands the bytes out as they are
    with source.open(packed) as stream:
        decompressor = bz2.BZ2Decompressor() if info.compress_type == zipfile.ZIP_BZIP2 else _lzma(info, stream)
        while not decompressor.eof:
            data = stream.read(CHUNK_BYTES) if decompressor.needs_input else b""
            if decompressor.needs_input and not data:
                return
            yield decompressor.decompress(data, CHUNK_BYTES)


def _lzma(info: zipfile.ZipInfo, stream: IO[bytes]) -> lzma.LZMADecompressor:
    """For a zip's LZMA (APPNOTE 5.8): version and length, 2 bytes each, then the 5 that start a .lzma file too."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY_BYTES)
    size = -1 if info.flag_bits & LZMA_END_FLAG else info.file_size
    decompressor.decompress(stream.read(9)[4:] + struct.pack("<q", size))
    return decompressor


def _damaged(info: zipfile.ZipInfo) -> ArchiveError:
    return ArchiveError(f"{PurePosixPath(info.filename).name} is damaged in the zip; zip it anew, or upload it again")


def _write_labels(folder: Path, plan: Arrangement) -> None:
    """Write labels.json where folders are classes, and classes.json where labels name only classes of their own."""
    if plan.labels:
        write_text(folder / "labels.json", json.dumps(plan.labels, indent=1, ensure_ascii=False))
    classes = folder / "classes.json"
    if not classes.exists() and (names := own_classes(_label_names(folder))):
        write_text(classes, json.dumps(names, ensure_ascii=False))


def _label_names(folder: Path) -> list[str]:
    """The labels that are given as text; none where some are not."""
    path = next((folder / name for name in LABEL_FILES if (folder / name).exists()), None)
    if path is None:
        return []
    if path.suffix == ".csv":
        return [row["label"] for _, row in read_csv(path, ("image", "label"))]
    content = read_json(path)
    labels = list(content.values()) if isinstance(content, dict) else []
    return labels if all(isinstance(label, str) for label in labels) else []


def _publish(folder: Path, parent: Path) -> Path:
    """Give the folder its name under `parent`, or the next one that is free."""
    for number in count(1):
        target = parent / (folder.name if number == 1 else f"{folder.name}-{number}")
        if os.path.lexists(target):
            continue
        try:
            return folder.rename(target)
        except OSError:
            if not os.path.lexists(target):  # else another upload took the name just now
                raise
    raise AssertionError("numbers do not end")
