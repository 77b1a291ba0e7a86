"""Photos decoded once: the cache gives what decoding gives, bit for bit, or nothing, whatever happens to its files."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import draw_photo, law, save, write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import ONE_THREAD, tiny_config

from mtl.config import ModelConfig, TrainConfig
from mtl.data import cache as cache_module
from mtl.data.cache import SETTLED_NS, PhotoCache, _Store, open_cache, read_row
from mtl.data.check import check_folder, read_once
from mtl.data.dataset import PhotoDataset, hold_where_they_fit, make_loader
from mtl.data.folder import DataFolder, Sample, read_folder
from mtl.errors import DataError
from mtl.training.fit import train
from mtl.training.run import Run

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

SIZE = 64
ROW_BYTES = SIZE * SIZE * 4
LARGE = 10**9
CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return settled(write_folder(tmp_path / "skin", train=8, val=4))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def settled(data: Path) -> Path:
    """The folder as it is a minute after it was written."""
    for path in data.rglob("*.*"):
        os.utime(path, (time.time() - 60,) * 2)
    return data


def folder_of(data: Path) -> DataFolder:
    return read_folder(TrainConfig(data_dir=str(data)))


def cache_of(root: Path, data: Path, size: int = SIZE, limit: int = LARGE, center_crop: bool = False) -> PhotoCache:
    return PhotoCache(root, data, size, center_crop, limit)


def fill(cache: PhotoCache, data: Path) -> PhotoCache:
    read_once(samples_of(data), cache=cache)
    return cache


def samples_of(data: Path) -> list[Sample]:
    folder = folder_of(data)
    return [*folder.train, *folder.val]


def kept_rows(cache: PhotoCache, samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """(N, S, S, 4) as the cache gives them, and (N,) bool: which it gives."""
    out = np.zeros((len(samples), cache.image_size, cache.image_size, 4), np.uint8)
    return out, cache.rows(samples).read(range(len(samples)), out)


def require_right(cache: PhotoCache, samples: list[Sample], kept: int) -> None:
    """So many rows are there, and each is what decoding gives."""
    rows, there = kept_rows(cache, samples)
    assert there.sum() == kept
    for index in np.flatnonzero(there):
        np.testing.assert_array_equal(rows[index], read_row(samples[index], cache.image_size, cache.center_crop))


def decoded_in(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many photos a call decodes."""
    from mtl.data import check

    counted: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(check, "make_row", lambda *given: counted.append(1) or cache_module.make_row(*given))
        call()
    return len(counted)


# ---- the same as decoding

FORMATS = st.sampled_from([("jpg", "RGB"), ("png", "RGB"), ("png", "L"), ("webp", "RGB"), ("bmp", "RGB"), ("gif", "P")])
SIDES = st.integers(20, 300)
PHOTOS = st.tuples(FORMATS, SIDES, SIDES, st.booleans(), st.integers(1, 8))


@law
@given(
    st.lists(PHOTOS, min_size=1, max_size=5), st.sampled_from([(64, False), (64, True), (224, False)]), st.integers(0)
)
def test_the_cache_is_decoding_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], setting: tuple[int, bool], seed: int
) -> None:
    folder, rng = tmp_path_factory.mktemp("mix"), np.random.default_rng(seed)
    samples = [_written(folder / str(number), rng, *photo) for number, photo in enumerate(drawn)]
    cache = PhotoCache(folder / "photos", folder, *setting, LARGE)
    records, problems = read_once(samples, cache=cache)
    assert problems == {}
    require_right(cache, samples, len(samples))
    plain, _ = read_once(samples)
    for name in ("photo", "mask", "look", "coverage", "doubt"):
        np.testing.assert_array_equal(records[name], plain[name])
        np.testing.assert_array_equal(cache.find(samples)[name], plain[name])


def _written(
    stem: Path, rng: np.random.Generator, kind: tuple[str, str], width: int, height: int, masked: bool, orientation: int
) -> Sample:
    suffix, mode = kind
    photo = stem.with_suffix(f".{suffix}")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode).save(photo, exif=exif)
    mask = save(rng.integers(0, 2, (30, 40), np.uint8) * np.uint8(255), stem.with_suffix(".mask.png"))
    return Sample(photo, mask if masked else None, (-1, -1), photo.name)


def test_what_the_check_finds_is_the_same_with_a_cache_and_from_it(data: Path, root: Path) -> None:
    shutil.copy(data / "images/train/train_002.jpg", data / "images/val/copy.jpg")
    (data / "images/train/train_003.jpg").write_bytes(b"no photo")
    (data / "masks/val/val_001.png").write_bytes(b"no mask")
    save(np.full((64, 64), 255, np.uint8), data / "masks/train/train_001.png")
    save(draw_photo(3, 100, np.random.default_rng(1))[1] * np.uint8(90), data / "masks/train/train_004.png")
    report = check_folder(folder_of(data)).to_dict()
    assert len(report["unreadable"]) == 2
    assert report["duplicates_across_splits"]
    assert len(report["doubtful_masks"]) == 2
    for _ in range(2):
        assert check_folder(folder_of(data), cache=cache_of(root, data)).to_dict() == report


def test_a_training_is_the_same_with_and_without_cache(tiny_data: Path, root: Path, finished_run: Run) -> None:
    for place in ("off", str(root)):
        run = train(tiny_config(tiny_data, cache_dir=place))
        assert list(run.events()) == list(finished_run.events())
    assert len(list(root.glob("64px*/*.rows"))) == 1


def test_generated_masks_are_kept_too(data: Path, root: Path) -> None:
    shutil.rmtree(data / "masks" / "train")
    config = tiny_config(data, epochs=1, generated_masks="otsu", lesion_photos="train_*", cache_dir=str(root))
    run = train(config)
    made = {path.stem: path for path in (run.path / "generated_masks").glob("*.png")}
    assert made
    samples = [replace(s, mask=made[s.photo.stem]) for s in folder_of(data).train if s.photo.stem in made]
    assert cache_of(root, data).look_up(*(cache_module.hash_of(path) for path in (samples[0].photo, samples[0].mask)))


# ---- read once


def test_a_second_run_reads_nothing_again(data: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded_in(lambda: fill(cache_of(root, data), data), monkeypatch) == 12
    monkeypatch.setattr("mtl.data.check.hash_of", None)
    seen: list[tuple[int, int]] = []
    check_folder(folder_of(data), lambda done, total: seen.append((done, total)), cache_of(root, data))
    assert seen == [(12, 12)]


def test_a_copied_folder_is_hashed_and_not_decoded(data: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache_of(root, data), data)
    copy = Path(shutil.copytree(data, data.parent / "copy"))
    cache = cache_of(root, copy)
    assert decoded_in(lambda: fill(cache, copy), monkeypatch) == 0
    require_right(cache, samples_of(copy), 12)


@pytest.mark.parametrize("changed", ["images/train/train_001.jpg", "masks/train/train_001.png"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_changed_photo_or_mask_is_read_anew(
    changed: str, at_once: bool, data: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache_of(root, data), data)
    save(
        draw_photo(7, 64, np.random.default_rng(9))[0][..., : 3 if "images" in changed else 1].squeeze(), data / changed
    )
    if not at_once:
        os.utime(data / changed, (time.time() - 30,) * 2)
    samples = samples_of(data)
    # Not before it has been read again: its row would show the old one.
    require_right(cache_of(root, data), samples, 11)
    cache = cache_of(root, data)
    assert decoded_in(lambda: fill(cache, data), monkeypatch) == 1
    require_right(cache, samples, 12)


def test_a_file_written_a_moment_ago_is_hashed_again(data: Path, root: Path) -> None:
    photo = data / "images/train/train_000.jpg"
    photo.touch()
    cache = fill(cache_of(root, data), data)
    require_right(cache, samples_of(data), 12)
    # Another process does not trust its time: it may be written again within the same tick.
    require_right(cache_of(root, data), samples_of(data), 11)
    os.utime(photo, ns=(time.time_ns() - 2 * SETTLED_NS,) * 2)
    require_right(fill(cache_of(root, data), data), samples_of(data), 12)
    require_right(cache_of(root, data), samples_of(data), 12)


def test_sizes_and_crops_have_their_own_rows(data: Path, root: Path) -> None:
    for size, crop in ((64, False), (64, True), (96, False)):
        require_right(fill(cache_of(root, data, size, center_crop=crop), data), samples_of(data), 12)
    assert len(list(root.iterdir())) == 3


def test_a_photo_that_vanished_is_still_there(data: Path, root: Path) -> None:
    dataset = PhotoDataset(folder_of(data).train, ModelConfig(image_size=SIZE), cache=fill(cache_of(root, data), data))
    before = dataset[range(8)]
    shutil.rmtree(data / "images")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(before, dataset[range(8)], strict=True))
    assert dataset.missing == {}


# ---- killed, stopped, two at once

BUILDER = """
import sys
from pathlib import Path
from mtl.config import TrainConfig
from mtl.data.cache import PhotoCache
from mtl.data.check import read_once
from mtl.data.folder import read_folder
data, root = map(Path, sys.argv[1:])
folder = read_folder(TrainConfig(data_dir=str(data)))
cache = PhotoCache(root, data, 64, False, 10**9)
read_once([*folder.train, *folder.val], lambda done, total: print(done, flush=True), cache)
"""


def builder(data: Path, root: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUILDER, str(data), str(root)]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True)


def test_a_killed_builder_loses_nothing_that_was_done(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = settled(write_folder(tmp_path / "skin", train=150, val=10))
    done = 0
    for stop_at in (20, 70):
        with builder(data, root) as process:
            assert process.stdout
            done = max(int(next(process.stdout)) for _ in range(stop_at))
            process.send_signal(signal.SIGKILL)
        cache = cache_of(root, data)
        kept = np.count_nonzero(cache.find(samples_of(data))["row"] >= 0)
        assert kept >= done
        require_right(cache, samples_of(data), kept)
    decoded = decoded_in(lambda: fill(cache, data), monkeypatch)
    assert decoded == 160 - kept
    require_right(cache, samples_of(data), 160)


def test_two_builders_at_once_make_one_cache(tmp_path: Path, root: Path) -> None:
    data = settled(write_folder(tmp_path / "skin", train=60, val=10))
    with builder(data, root) as one, builder(data, root) as other:
        assert one.wait(60) == other.wait(60) == 0
    require_right(cache_of(root, data), samples_of(data), 70)
    [rows] = root.glob("*/*.rows")
    assert rows.stat().st_size == 70 * ROW_BYTES


class Stop(Exception):  # noqa: N818
    pass


def test_a_stop_keeps_what_was_done(data: Path, root: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        check_folder(folder_of(data), stop, cache_of(root, data))
    require_right(cache_of(root, data), samples_of(data), 5)
    require_right(fill(cache_of(root, data), data), samples_of(data), 12)


def test_a_stop_counts_while_another_process_builds(data: Path, root: Path) -> None:
    asked: list[int] = []

    def stop(done: int, total: int) -> None:
        asked.append(done)
        raise Stop

    with cache_of(root, data).adding(lambda: None), pytest.raises(Stop):
        check_folder(folder_of(data), stop, cache_of(root, data))
    assert asked == [0]


# ---- damage

DAMAGES: dict[str, Callable[[Path, bytes], None]] = {
    "index cut short": lambda stem, _: cut(stem.with_suffix(".index")),
    "index overwritten": lambda stem, noise: overwrite(stem.with_suffix(".index"), noise),
    "index gone": lambda stem, _: stem.with_suffix(".index").unlink(),
    "rows cut short": lambda stem, _: cut(stem.with_suffix(".rows")),
    "rows overwritten": lambda stem, noise: overwrite(stem.with_suffix(".rows"), noise),
    "rows gone": lambda stem, _: stem.with_suffix(".rows").unlink(),
    "notes overwritten": lambda stem, noise: overwrite(stem.with_suffix(".notes"), noise),
    "notes gone": lambda stem, _: stem.with_suffix(".notes").unlink(),
}


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def overwrite(path: Path, noise: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(noise)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_mended(damage: str, data: Path, root: Path) -> None:
    samples = samples_of(data)
    fill(cache_of(root, data), data)
    [rows] = root.glob("*/*.rows")
    DAMAGES[damage](rows.with_suffix(""), bytes(range(1, 251)))
    _, there = kept_rows(cache_of(root, data), samples)
    assert there.sum() < 12
    require_right(cache_of(root, data), samples, int(kept_rows(cache_of(root, data), samples)[1].sum()))
    # The dataset decodes what is lost.
    dataset = PhotoDataset(samples, ModelConfig(image_size=SIZE), cache=cache_of(root, data))
    plain = PhotoDataset(samples, ModelConfig(image_size=SIZE))
    assert torch.equal(dataset[range(12)].photos, plain[range(12)].photos)
    require_right(fill(cache_of(root, data), data), samples, 12)
    require_right(cache_of(root, data), samples, 12)


@law
@given(st.data())
def test_no_damage_gives_wrong_pixels(tmp_path_factory: pytest.TempPathFactory, draw: Any) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    data, root = settled(write_folder(folder / "skin", train=3, val=2)), folder / "photos"
    samples = samples_of(data)
    fill(cache_of(root, data), data)
    for path in sorted(root.glob("*/*.*")):
        content = bytearray(path.read_bytes())
        for place in draw.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=3)):
            content[place : place + 1] = draw.draw(st.binary(max_size=2))
        path.write_bytes(content)
    for _ in range(2):
        rows, there = kept_rows(cache_of(root, data), samples)
        for index in np.flatnonzero(there):
            np.testing.assert_array_equal(rows[index], read_row(samples[index], SIZE, False))
    for _ in range(2):  # what only reading the rows could show is made anew in the second run
        cache = fill(cache_of(root, data), data)
        kept_rows(cache, samples)
    require_right(cache, samples, 5)


# ---- how much


def last_used(root: Path, size: int, seconds_ago: float) -> None:
    [rows] = root.glob(f"{size}px*/*.rows")
    os.utime(rows, (time.time() - seconds_ago,) * 2)


def test_what_was_unused_for_longest_goes_first(data: Path, root: Path) -> None:
    samples = samples_of(data)
    for size in (64, 96):
        fill(cache_of(root, data, size), data)
        last_used(root, size, seconds_ago=1000 - size)
    cache_of(root, data, 64).rows(samples)  # used, though it is older
    held = sum(path.stat().st_size for path in root.glob("*/*.*"))
    cache = fill(cache_of(root, data, 128, limit=held + 6 * 128**2 * 4), data)
    assert cache.trouble == ""
    require_right(cache, samples, 12)
    require_right(cache_of(root, data, 64), samples, 12)
    require_right(cache_of(root, data, 96), samples, 0)


def test_what_does_not_fit_is_decoded_and_told_once(data: Path, root: Path) -> None:
    cache = cache_of(root, data, limit=5 * ROW_BYTES + 1000)
    report = check_folder(folder_of(data), cache=cache)
    [told] = [warning for warning in report.warnings if "decoded" in warning]
    assert told.startswith(f"no more decoded photos can be kept in {root}")
    assert "cache_gb" in told
    require_right(cache, samples_of(data), 5)
    dataset = PhotoDataset(samples_of(data), ModelConfig(image_size=SIZE), cache=cache)
    assert torch.equal(
        dataset[range(12)].photos, PhotoDataset(samples_of(data), ModelConfig(image_size=SIZE))[range(12)].photos
    )


def test_a_run_trains_where_nothing_can_be_kept(tiny_data: Path, tmp_path: Path, finished_run: Run) -> None:
    (tmp_path / "file").write_text("")
    run = train(tiny_config(tiny_data, cache_dir=str(tmp_path / "file" / "photos")))
    assert list(run.events()) == list(finished_run.events())
    assert sum("decoded photos" in warning for warning in run.status().warnings) == 1


def test_a_full_disk_ends_no_run(data: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "RESERVE_BYTES", 10**18)
    cache = cache_of(root, data)
    report = check_folder(folder_of(data), cache=cache)
    assert any("GB are full" in warning or "no more decoded" in warning for warning in report.warnings)
    require_right(cache, samples_of(data), 0)


@pytest.mark.parametrize("settings", [{"cache_dir": "off"}, {"cache_gb": 0}])
def test_it_can_be_turned_off(settings: dict[str, Any], data: Path) -> None:
    assert open_cache(TrainConfig(**settings), data) is None


def test_it_lies_in_the_users_cache_folder_that_others_cannot_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    cache = open_cache(TrainConfig(), data)
    assert cache
    fill(cache, data)
    photos = tmp_path / "mine" / "multitask-skin" / "photos"
    assert list(photos.glob("224px-*/*.rows"))
    assert photos.stat().st_mode & 0o077 == 0


def test_the_index_takes_few_bytes_a_photo() -> None:
    assert cache_module.RECORD.itemsize + 2 * cache_module.NOTE.itemsize < 256


def test_stores_are_compared_by_where_they_lie(tmp_path: Path) -> None:
    assert _Store(tmp_path / "a") == _Store(tmp_path / "a") != _Store(tmp_path / "b")


# ---- the loader


def batches(dataset: PhotoDataset, **given: Any) -> list[Any]:
    return list(make_loader(dataset, 3, seed=1, **given))


def equal(ours: list[Any], theirs: list[Any]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_prefetched_batches_are_the_same_in_the_same_order(data: Path, root: Path) -> None:
    config, train_side = ModelConfig(image_size=SIZE), folder_of(data).train
    plain = PhotoDataset(train_side, config)
    loader = make_loader(plain, 3, seed=1)
    one_by_one = [plain[index] for index in loader.sampler]
    assert equal(list(loader), one_by_one)
    assert equal(batches(PhotoDataset(train_side, config, cache=fill(cache_of(root, data), data))), one_by_one)


def test_rows_held_on_the_device_give_the_same_batches(data: Path, root: Path) -> None:
    config, folder, cache = ModelConfig(image_size=SIZE), folder_of(data), fill(cache_of(root, data), data)
    datasets = [PhotoDataset(side, config, cache=cache) for side in (folder.train, folder.val)]
    plain = [batches(dataset) for dataset in datasets]
    hold_where_they_fit(datasets, CPU, free_bytes=12 * ROW_BYTES * 2)  # above 0.4 of it
    assert [dataset._on_device for dataset in datasets] == [None, None]
    hold_where_they_fit(datasets, CPU, free_bytes=12 * ROW_BYTES * 3)
    assert all(dataset._on_device is not None for dataset in datasets)
    assert all(equal(batches(dataset), of) for dataset, of in zip(datasets, plain, strict=True))
    half = PhotoDataset(folder.train, config)
    hold_where_they_fit([half], CPU, free_bytes=LARGE)
    assert half._on_device is None


def prefetching() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("photos")]


def test_at_most_two_batches_are_made_ahead_and_a_stop_leaves_no_thread(data: Path) -> None:
    dataset = PhotoDataset(folder_of(data).train, ModelConfig(image_size=SIZE))
    made: list[int] = []
    loader = make_loader(dataset, 1, seed=None)
    loader._batch_of = lambda index: made.append(index[0]) or dataset[index]  # type: ignore[attr-defined]
    iterator = iter(loader)
    next(iterator)
    time.sleep(0.2)
    assert made == [0, 1, 2]
    assert len(prefetching()) == 1
    iterator.close()  # type: ignore[attr-defined]
    assert prefetching() == []


def test_what_goes_wrong_in_the_thread_is_raised_in_the_loop(data: Path) -> None:
    samples = folder_of(data).train
    dataset = PhotoDataset(samples, ModelConfig(image_size=SIZE))
    for sample in samples[:2]:
        sample.photo.unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        batches(dataset)
    assert prefetching() == []


def test_a_stopped_run_leaves_no_thread(tiny_data: Path) -> None:
    from mtl.training.fit import open_job, run_job

    job = open_job(tiny_config(tiny_data, epochs=50))

    class Stopping(Run):
        def append_event(self, event: dict[str, Any]) -> None:
            super().append_event(event)
            self.request_stop()

    run_job(replace(job, run=Stopping(job.run.path)))
    assert Run(job.run.path).status().state == "stopped"
    assert prefetching() == []
