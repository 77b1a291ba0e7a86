"""Uploaded zips: the forms that are understood, and that a hostile one leaves nothing behind, in memory or on disk."""

import csv
import os
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pytest
from builders import law, lay_out, write_folder
from hypothesis import given
from hypothesis import strategies as st

from mtl.config import TrainConfig
from mtl.data import archive as archive_module
from mtl.data.archive import HIDDEN_PREFIX, LEFTOVER_SECONDS, MAX_ENTRIES, safe_name, unpack_photos
from mtl.data.folder import read_folder
from mtl.errors import ArchiveError, DataError

ROOT = Path(__file__).parents[1]
CORPORA = ROOT.parent / "shared" / "corpora"
CANARIES = Path("/tmp")

Files = Mapping[str, str | bytes]
PHOTOS: Files = {f"images/{name}.jpg": f"photo {name}" for name in "abcde"}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def named(name: str) -> zipfile.ZipInfo:
    """An entry of exactly this name: the constructor would cut it at a NUL."""
    info = zipfile.ZipInfo("x")
    info.filename = name
    return info


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in files.items():
            target.writestr(named(name), content, compress_type=method)
    return path


def zip_folder(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED, below: str = "") -> Path:
    with zipfile.ZipFile(path, "w", method) as target:
        for file in sorted(folder.rglob("*")):
            target.write(file, PurePosixPath(below, file.relative_to(folder).as_posix()))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def attempt(path: Path, parent: Path) -> tuple[Path | None, str]:
    """The folder that a zip became, or the message that refused it."""
    try:
        return unpack_photos(path, parent), ""
    except DataError as refused:
        return None, str(refused)


def patched(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    path = tmp_path / "uploads"
    path.mkdir()
    return path


# What comes out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("below", ["", "skin photos", "home/me/skin"])
def test_a_folder_zipped_and_unpacked_is_the_same(tmp_path: Path, parent: Path, method: int, below: str) -> None:
    original = write_folder(tmp_path / "skin")
    unpacked = unpack_photos(zip_folder(original, tmp_path / "up.zip", method, below), parent)
    assert unpacked == parent / "up"
    assert contents(unpacked) == contents(original)
    assert os.listdir(parent) == ["up"]


FORMS: dict[str, tuple[Files, dict[str, str]]] = {
    "photos alone": ({"a.jpg": "", "b.JPG": ""}, {"a.jpg": "images/a.jpg", "b.JPG": "images/b.JPG"}),
    "photos in a folder, the labels above": (
        {"ds/photos/a.jpg": "", "ds/photos/b.png": "", "ds/Labels.csv": "image,label\na.jpg,dry\n"},
        {"ds/photos/a.jpg": "images/a.jpg", "ds/photos/b.png": "images/b.png", "ds/Labels.csv": "labels.csv"},
    ),
    "photos and masks": (
        {"in/a.jpg": "", "in/b.jpg": "", "masks/a.png": ""},
        {"in/a.jpg": "images/a.jpg", "in/b.jpg": "images/b.jpg", "masks/a.png": "masks/a.png"},
    ),
    "sides": ({"ds/train/a.jpg": "", "ds/valid/b.jpg": ""},
              {"ds/train/a.jpg": "images/train/a.jpg", "ds/valid/b.jpg": "images/val/b.jpg"}),
    "upper case": ({"Images/a.jpg": "", "Images/b.jpg": "", "Masks/a.png": ""},
                   {"Images/a.jpg": "images/a.jpg", "Images/b.jpg": "images/b.jpg", "Masks/a.png": "masks/a.png"}),
    "backslashes": ({"ds\\images\\a.jpg": "", "ds\\images\\b.jpg": ""},
                    {"ds\\images\\a.jpg": "images/a.jpg", "ds\\images\\b.jpg": "images/b.jpg"}),
    "another label file": ({"a.jpg": "", "b.jpg": "", "metadata.json": "{}"},
                           {"a.jpg": "images/a.jpg", "b.jpg": "images/b.jpg", "metadata.json": "metadata.json"}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_become_the_layout(tmp_path: Path, parent: Path, form: str) -> None:
    files, places = FORMS[form]
    unpacked = unpack_photos(write_zip(tmp_path / "up.zip", files), parent)
    assert contents(unpacked) == {place: str(files[name]).encode() for name, place in places.items()}


def test_folders_named_as_classes_become_labels(tmp_path: Path, parent: Path) -> None:
    files = {"ds/Dry/1.jpg": "a", "ds/Dry/2.jpg": "b", "ds/kinky/1.jpg": "c", "ds/none/1.jpg": "d", "ds/loose.jpg": "e"}
    unpacked = unpack_photos(write_zip(tmp_path / "up.zip", files), parent)
    read = read_folder(TrainConfig(data_dir=str(unpacked)))
    targets = {sample.name: sample.target for sample in read.train + read.val}
    assert targets == {
        "Dry-1.jpg": (1, -1),
        "Dry-2.jpg": (1, -1),
        "kinky-1.jpg": (-1, 8),
        "none-1.jpg": (-2, -2),
        "loose.jpg": (-1, -1),
    }
    assert (unpacked / "images/kinky-1.jpg").read_text() == "c"


def test_folders_of_classes_keep_their_sides(tmp_path: Path, parent: Path) -> None:
    files = {"train/dry/a.jpg": "", "train/oily/b.jpg": "", "val/dry/c.jpg": ""}
    read = read_folder(TrainConfig(data_dir=str(unpack_photos(write_zip(tmp_path / "up.zip", files), parent))))
    assert [sample.name for sample in read.train] == ["a.jpg", "b.jpg"]
    assert [sample.target for sample in read.val] == [(1, -1)]


@pytest.mark.parametrize(
    "files",
    [
        {"nv/a.jpg": "", "mel/b.jpg": "", "none/c.jpg": ""},
        {**PHOTOS, "labels.csv": "image,label\na.jpg,nv\nb.jpg,mel\nc.jpg,none\n"},
        {**PHOTOS, "labels.json": '{"a.jpg": "nv", "b.jpg": "mel", "c.jpg": "none"}'},
    ],
)
def test_labels_of_other_classes_bring_their_own(tmp_path: Path, parent: Path, files: Files) -> None:
    unpacked = unpack_photos(write_zip(tmp_path / "up.zip", files), parent)
    read = read_folder(TrainConfig(data_dir=str(unpacked)))
    assert read.classes.names == ("mel", "nv")


def test_a_mistyped_class_is_no_class_of_its_own(tmp_path: Path, parent: Path) -> None:
    files = {**PHOTOS, "labels.csv": "image,label\na.jpg,dry\nb.jpg,oliy\n"}
    with pytest.raises(DataError, match=r"labels.csv line 3: b.jpg: got 'oliy'"):
        unpack_photos(write_zip(tmp_path / "up.zip", files), parent)


def test_what_is_no_photo_is_left_out(tmp_path: Path, parent: Path) -> None:
    harmless = (
        "README.txt", "LICENSE", "images/attribution.txt", "images/metadata.csv", "run.sh", "x.exe", "more.zip",
        "overlays/a.png", "__MACOSX/images/._a.jpg", "images/.DS_Store", "images/Thumbs.db", ".git/a.jpg", "best.pth",
    )  # fmt: skip
    files = PHOTOS | dict.fromkeys(harmless, "x")
    assert set(contents(unpack_photos(write_zip(tmp_path / "up.zip", files), parent))) == set(PHOTOS)


def test_no_mode_of_the_archive_is_honoured(tmp_path: Path, parent: Path) -> None:
    path = tmp_path / "up.zip"
    with zipfile.ZipFile(path, "w") as target:
        for name, content in PHOTOS.items():
            info = named(name)
            info.external_attr = 0o106777 << 16  # set-user-id, and all may run it
            target.writestr(info, content)
    before = os.umask(0o022)
    os.umask(before)
    for file in unpack_photos(path, parent).rglob("*.jpg"):
        assert file.stat().st_mode & 0o7777 == 0o666 & ~before


@pytest.mark.parametrize(("flags", "name"), [(0x800, "säure.jpg"), (0, "säure.jpg"), (0, "peau_séche_日本.jpg")])
def test_names_in_other_scripts(tmp_path: Path, parent: Path, flags: int, name: str) -> None:
    """With the UTF-8 flag; and without, as macOS writes UTF-8."""
    as_utf8 = name.encode().decode("latin-1")
    path = write_zip(tmp_path / "up.zip", {**PHOTOS, f"images/{name}": ""})
    if not flags:  # the bytes stay; the flag goes, in the local header and in the directory
        data = bytearray(path.read_bytes())
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = data.rfind(signature)
            data[at + offset : at + offset + 2] = b"\0\0"
        path.write_bytes(data)
    assert as_utf8.encode("latin-1") in path.read_bytes()
    assert (unpack_photos(path, parent) / "images" / name).exists()


def test_a_cp437_name_stays_one(tmp_path: Path, parent: Path) -> None:
    path = write_zip(tmp_path / "up.zip", {**PHOTOS, "images/s#ure.jpg": ""})
    patched(path, b"s#ure", "säure".encode("cp437"))
    assert (unpack_photos(path, parent) / "images" / "säure.jpg").exists()


def test_a_folder_that_is_there_is_never_touched(tmp_path: Path, parent: Path) -> None:
    path = write_zip(tmp_path / "up.zip", PHOTOS)
    lay_out(parent / "up", {"mine.txt": "keep"})
    (parent / "up-2").symlink_to("nowhere")
    assert unpack_photos(path, parent).name == "up-3"
    assert contents(parent / "up") == {"mine.txt": b"keep"}


def test_uploads_at_once_get_a_folder_each(tmp_path: Path, parent: Path) -> None:
    path = write_zip(tmp_path / "up.zip", PHOTOS)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: unpack_photos(path, parent), range(16)))
    assert len(set(folders)) == 16
    assert {tuple(contents(folder)) for folder in folders} == {tuple(PHOTOS)}
    assert set(parent.iterdir()) == set(folders)


def test_progress_counts_the_bytes(tmp_path: Path, parent: Path) -> None:
    seen: list[tuple[int, int]] = []
    unpack_photos(write_zip(tmp_path / "up.zip", PHOTOS), parent, progress=lambda *state: seen.append(state))
    assert seen == [(7 * number, 35) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Skin photos (2)", "Skin-photos-2"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("", "photos"),
        ("..", "photos"),
        ("日本", "日本"),
        ("con", "photos-con"),
        ("LPT1.x", "photos-LPT1.x"),
        ("console", "console"),
        ("a" * 99, "a" * 56),
    ],
)
def test_folder_names_are_made_safe(given: str, name: str) -> None:
    assert safe_name(given) == name


@given(st.text())
@law
def test_a_safe_name_is_one_part_of_a_path(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name) <= 60
    assert TrainConfig(name=name).name == name
    assert Path("parent", name).parent == Path("parent")
    assert not name.startswith(".")
    assert safe_name(name) == name


# What is refused


def link(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as target:
        info = named("images/link.jpg")
        info.external_attr = 0o120777 << 16
        target.writestr(info, "/etc/passwd")


def overlap(path: Path) -> None:
    """Two entries of one name and content, that is stored once."""
    with zipfile.ZipFile(path, "a") as target:
        twin = named("images/z.jpg")
        target.writestr(twin, "once")
        copy = named("images/y.jpg")
        for key in ("header_offset", "compress_size", "file_size", "CRC", "date_time", "flag_bits", "external_attr"):
            setattr(copy, key, getattr(twin, key))
        target.filelist.append(copy)


def encrypt(path: Path) -> None:
    patched(path, b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")


def spoil(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("images/z.jpg", "the pixels")
    patched(path, b"the pixels", b"The pixels")


def lie(declared: int) -> Callable[[Path], None]:
    """A file that says to be of another size than its 10,000 bytes."""

    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as target:
            target.writestr("images/z.jpg", bytes(10_000))
        patched(path, struct.pack("<L", 10_000), struct.pack("<L", declared))

    return change


def split(path: Path) -> None:
    patched(path, b"PK\x05\x06\0\0\0\0", b"PK\x05\x06\x02\0\x02\0")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def odd_method(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 10] = 9
    path.write_bytes(data)


def wide(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr("images/z.jpg", bytes(70_000_000))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (link, "link.jpg: a link or device"),
    "entries that share bytes": (overlap, "entries overlap"),
    "encrypted": (encrypt, "remove the password"),
    "a wrong checksum": (spoil, "z.jpg is damaged"),
    "says to be smaller": (lie(9_000), "z.jpg is damaged"),
    "says to be larger": (lie(11_000), "z.jpg is damaged"),
    "says to be huge": (lie(4_000_000_000), "z.jpg: 4,000 MB, too large"),
    "a bomb": (wide, "z.jpg: 70 MB, too large"),
    "a part of many": (split, "a part of a split zip"),
    "cut short": (cut, "damaged or cut short"),
    "an unknown method": (odd_method, "packed by method 9"),
    "a 7z": (lambda path: path.write_bytes(b"7z\xbc\xaf'\x1c" + bytes(99)), "this is a 7z archive"),
    "no zip": (lambda path: path.write_bytes(b"<html>"), "this is no zip file"),
    "empty": (lambda path: path.write_bytes(b""), "this is no zip file"),
    "not there": (Path.unlink, "cannot be unpacked here: no such file"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_or_hostile_zip_is_refused(tmp_path: Path, parent: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    path = write_zip(tmp_path / "up.zip", PHOTOS)
    change(path)
    with pytest.raises(ArchiveError, match=message) as refused:
        unpack_photos(path, parent)
    assert str(refused.value).startswith("up.zip: ")
    assert str(tmp_path) not in str(refused.value)
    assert not os.listdir(parent)


REFUSED: dict[str, tuple[Files, str]] = {
    "no photos": ({"readme.txt": "x"}, "no photos found"),
    "masks alone": ({"masks/a.png": ""}, "no photos found"),
    "up": ({**PHOTOS, "images/../../x.jpg": ""}, "x.jpg: its path leads out"),
    "absolute": ({**PHOTOS, "/x.txt": ""}, "x.txt: its path leads out"),
    "a drive": ({**PHOTOS, "C:x.txt": ""}, "leads out"),
    "a share": ({**PHOTOS, "\\\\host\\x.txt": ""}, "leads out"),
    "up, by backslashes": ({**PHOTOS, "..\\x.txt": ""}, "leads out"),
    "a NUL": ({**PHOTOS, "images/x.jpg\0.txt": ""}, "control characters"),
    "a line end": ({**PHOTOS, "images/x\n.jpg": ""}, "control characters"),
    "no name": ({**PHOTOS, "": "x"}, "an entry: its path"),
    "deep": ({**PHOTOS, "d/" * 30 + "x.txt": ""}, "20 folders deep"),
    "long": ({**PHOTOS, "d" * 300 + ".txt": ""}, "not every disk can hold"),
    "long in all": ({**PHOTOS, "/".join(["d" * 100] * 11): ""}, "path is too long"),
    "a device of Windows": ({**PHOTOS, "images/nul.jpg": ""}, "not every disk can hold"),
    "twice, but for case": ({**PHOTOS, "images/A.jpg": ""}, "A.jpg is in it twice"),
    "twice, but for accents": ({"images/\u00e9.jpg": "", "images/e\u0301.jpg": ""}, "is in it twice"),
    "a camera's raw photo": ({**PHOTOS, "images/f.dng": ""}, "f.dng: DNG is not read yet"),
    "two data folders": ({"x/images/a.jpg": "", "y/images/b.jpg": ""}, "both x/images/ and y/images/"),
    "labels that would be lost": ({**PHOTOS, "extra/labels.csv": ""}, "labels.csv lies in extra/"),
    "a folder that is no class": ({"dry/a.jpg": "", "oliy/b.jpg": ""}, "oliy/ is none of the classes normal, dry"),
    "folders in folders": ({"x/y/a.jpg": "", "z/b.jpg": ""}, "a.jpg lies too deep"),
    "a huge table": ({**PHOTOS, "labels.json": " " * 17_000_000}, "labels.json: 17 MB, too large"),
    "labels without photo": ({**PHOTOS, "labels.json": '{"z.jpg": 0}'}, "labels.json: there is no photo z.jpg"),
    "a mask without photo": ({**PHOTOS, "masks/z.png": ""}, "masks/: z.png: there is no photo named z"),
    "a folder in images": ({**PHOTOS, "images/more/f.jpg": ""}, "there is a folder more/ in it"),
    "one side": ({"images/train/a.jpg": ""}, "up: no photo in the val split"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_zip_with_something_wrong_in_it_is_refused(tmp_path: Path, parent: Path, case: str) -> None:
    files, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        unpack_photos(write_zip(tmp_path / "up.zip", files), parent)
    assert not os.listdir(parent)


def test_an_exact_duplicate_is_refused(tmp_path: Path, parent: Path) -> None:
    path = write_zip(tmp_path / "up.zip", {**PHOTOS, "images/y.jpg": "", "images/z.jpg": ""})
    with pytest.raises(ArchiveError, match=r"y\.jpg is in it twice"):
        unpack_photos(patched(path, b"images/z.jpg", b"images/y.jpg"), parent)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_ENTRIES", 4, "holds 5 entries"),
        ("MAX_DIRECTORY_BYTES", 100, "table of contents"),
        ("MAX_TOTAL_BYTES", 34, "too much"),
        ("SPARE_DISK_BYTES", 1 << 60, "the disk has room for 0 MB"),
    ],
)
def test_limits_of_the_whole(
    tmp_path: Path, parent: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    path = write_zip(tmp_path / "up.zip", PHOTOS)
    monkeypatch.setattr(archive_module, limit, value)
    with pytest.raises(ArchiveError, match=message):
        unpack_photos(path, parent)
    assert not os.listdir(parent)


def peak_bytes(work: Callable[[], object]) -> int:
    """What `work` has allocated at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("method", "size_mb"),
    [(zipfile.ZIP_DEFLATED, 60), (zipfile.ZIP_BZIP2, 100), (zipfile.ZIP_LZMA, 40)],
)
def test_a_bomb_is_unpacked_in_pieces(
    tmp_path: Path, parent: Path, monkeypatch: pytest.MonkeyPatch, method: int, size_mb: int
) -> None:
    """Were it not for the limit of growth: 100 MB in 100 bytes of bzip2 are still not in memory all at once."""
    monkeypatch.setattr(archive_module, "MAX_GROWTH", 1 << 30)
    path = write_zip(tmp_path / "up.zip", PHOTOS)
    with zipfile.ZipFile(path, "a", method) as target, target.open("images/z.jpg", "w") as photo:
        for _ in range(size_mb):
            photo.write(bytes(1_000_000))
    assert peak_bytes(lambda: unpack_photos(path, parent)) < 25_000_000
    assert (parent / "up" / "images" / "z.jpg").stat().st_size == size_mb * 1_000_000


def test_a_huge_table_of_contents_stays_out_of_memory(tmp_path: Path, parent: Path) -> None:
    path = tmp_path / "up.zip"
    record = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 9, 1, 0, 0, 0, 0, 0, 0) + b"x"
    with path.open("wb") as file:
        for _ in range(430):
            file.write(record * 1000)
        size = file.tell()
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFE, 0xFFFE, size, 0, 0))
    assert attempt(path, parent)[1].startswith("up.zip: its table of contents has 20210000 bytes")
    assert peak_bytes(lambda: attempt(path, parent)) < 5_000_000


def test_many_empty_entries_are_refused_soon(tmp_path: Path, parent: Path) -> None:
    path = write_zip(tmp_path / "up.zip", {f"ds/e{number}.txt": "" for number in range(20_000)})
    started = time.monotonic()
    with pytest.raises(ArchiveError, match="no photos found"):
        unpack_photos(path, parent)
    assert time.monotonic() - started < 5
    assert MAX_ENTRIES >= 20_000


# Laws of what is left behind

PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "images", "masks", "train", "C:", "a.jpg", "b.png", "\\", "..\\", "\0"]),
    st.text(max_size=6),
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


@given(st.lists(NAMES, max_size=4, unique=True), st.booleans())
@law
def test_nothing_is_written_outside_the_folder(names: list[str], with_photos: bool) -> None:
    with TemporaryDirectory() as root:
        files = (dict(PHOTOS) if with_photos else {}) | dict.fromkeys(names, "x")
        path = write_zip(Path(root, "up.zip"), files)
        parent = Path(root, "deep", "uploads")
        parent.mkdir(parents=True)
        unpacked, message = attempt(path, parent)
        assert "\n" not in message
        assert root not in message
        assert list(parent.iterdir()) == ([unpacked] if unpacked else [])
        outside = {file for file in Path(root).rglob("*") if not file.is_relative_to(parent)}
        assert outside == {path, parent.parent}


class StoppedError(Exception):
    pass


def test_a_stop_leaves_nothing(tmp_path: Path, parent: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        unpack_photos(write_zip(tmp_path / "up.zip", PHOTOS), parent, progress=stop)
    assert not os.listdir(parent)


UNTIL_KILLED = """
import sys, time
from pathlib import Path
from mtl.data.archive import unpack_photos
def wait(done, total):
    if done > total / 2:
        print("half", flush=True)
        time.sleep(60)
unpack_photos(Path(sys.argv[1]), Path(sys.argv[2]), progress=wait)
"""


def test_a_kill_leaves_no_data_folder(tmp_path: Path, parent: Path) -> None:
    path = write_zip(tmp_path / "up.zip", PHOTOS)
    command = [sys.executable, "-c", UNTIL_KILLED, path, parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    leftovers = list(parent.iterdir())
    assert [leftover.name.startswith(HIDDEN_PREFIX) for leftover in leftovers] == [True]

    unpacked = unpack_photos(path, parent)
    assert set(parent.iterdir()) == {unpacked, *leftovers}, "another upload might still be at it"
    yesterday = time.time() - LEFTOVER_SECONDS - 60
    os.utime(leftovers[0], (yesterday, yesterday))
    assert set(parent.iterdir()) - {unpack_photos(path, parent)} == {unpacked, *leftovers}
    assert not leftovers[0].exists()


# The corpora


def hostile() -> list[tuple[str, str]]:
    index = CORPORA / "index.csv"
    if not index.is_file():
        return []
    with index.open(newline="", encoding="utf-8") as lines:
        return [(row["file"], row["expected"]) for row in csv.DictReader(lines) if row["kind"] == "archives_bad"]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not here")
@pytest.mark.parametrize(("file", "expected"), hostile())
def test_corpus(tmp_path: Path, parent: Path, file: str, expected: str) -> None:
    started = time.monotonic()
    unpacked, message = attempt(CORPORA / file, parent)
    assert time.monotonic() - started < 10
    assert not list(CANARIES.glob("CORPUS_CANARY_*"))
    assert set(tmp_path.iterdir()) == {parent}
    if unpacked is None:
        assert expected != "result", message
        assert not os.listdir(parent)
        assert not any(word in message for word in ("\n", "Traceback", str(tmp_path), str(CORPORA), "/tmp"))
    else:
        assert expected != "error"
        assert os.listdir(parent) == [unpacked.name]
        read = read_folder(TrainConfig(data_dir=str(unpacked)))
        assert len(read.train + read.val) >= 12
        assert read.classes.names == ("mel", "nv")
