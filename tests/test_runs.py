"""Runs as folders: damaged ones, a full disk, stopping, comparing, taking along and deleting."""

import io
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import ONE_THREAD, tiny_config

from mtl.cli import main
from mtl.config import TrainConfig
from mtl.errors import RunError
from mtl.training.locks import DeviceLock
from mtl.training.run import Run, RunStatus, differing_settings, list_runs

pytestmark = pytest.mark.usefixtures(ONE_THREAD)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(runs_dir: Path) -> Run:
    return made(runs_dir)


def made(runs_dir: Path, name: str = "skin", **settings: Any) -> Run:
    """A run that was opened, and never trained."""
    config = TrainConfig(name=name, output_dir=str(runs_dir), **settings)
    run = Run.create(config)
    run.write_config({"train": config.model_dump(mode="json")})
    return run


def going(run: Run, state: str = "training") -> Run:
    run.claim(epochs=3)
    run.update(state=state)
    return run


# ---- run.json


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"state": "flying"}',
        b'{"state": "training", "epoch": "many"}',
        b'{"best": {"a": {}}}',
    ],
)
def test_a_damaged_status_reads_as_one_and_can_be_updated(content: bytes, run: Run, runs_dir: Path) -> None:
    other = made(runs_dir, "other")
    run.status_file.write_bytes(content)
    assert {listed.name for listed in list_runs(runs_dir)} == {run.name, other.name}
    assert (run.status().state, run.status().live) == ("failed", False)
    assert "damaged" in run.status().message
    run.update(state="training", epoch=2)
    assert (run.status().state, run.status().epoch) == ("training", 2)


def test_a_status_of_another_version_is_read(run: Run) -> None:
    run.status_file.write_text('{"state": "finished", "epoch": 4, "a later field": [1]}')
    assert run.status() == RunStatus(state="finished", epoch=4)


def test_a_status_survives_its_file(run: Run) -> None:
    going(run)
    run.update(best={"val_loss": 0.25, "val_dice": float("nan")}, notices=["take a lower lr"], device="cpu", epoch=1)
    status = run.status()
    assert (status.best["val_loss"], status.notices, status.device, status.epoch) == (
        0.25,
        ["take a lower lr"],
        "cpu",
        1,
    )


FULL_DISK = """
from pathlib import Path
from mtl.config import TrainConfig
from mtl.training.run import Run
run = Run.create(TrainConfig(name="full", output_dir="{disk}"))
run.claim(epochs=3)
run.update(state="training")
try:
    with open("{disk}/ballast", "wb") as ballast:
        while True:
            ballast.write(bytes(4096))
            ballast.flush()
except OSError as error:
    assert error.errno == 28
run.update(state="failed", message="no space left")
print(run.status().state, run.status().message, [path.name for path in run.path.iterdir()])
"""


def test_how_a_run_ended_is_told_on_a_full_disk(tmp_path: Path) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    script, disk = tmp_path / "full.py", tmp_path / "disk"
    disk.mkdir()
    script.write_text(FULL_DISK.format(disk=disk))
    mounted = f'mount -t tmpfs -o size=128k none "{disk}" && "{sys.executable}" "{script}"'
    command = ["unshare", "-rm", "sh", "-c", mounted]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("failed no space left"), done.stderr
    assert ".run.json" not in done.stdout


def test_the_duration_leaves_out_the_time_between_end_and_resume(run: Run) -> None:
    assert run.duration == 0
    going(run)
    run.update(began=time.time() - 100)
    assert run.duration == pytest.approx(100, abs=1)
    run.update(state="stopped")
    assert run.duration == pytest.approx(100, abs=1)
    content = json.loads(run.status_file.read_text())
    run.status_file.write_text(json.dumps(content | {"began": content["began"] - 5000}))
    assert run.duration == pytest.approx(100, abs=1)
    run.claim(epochs=3)
    assert run.duration == pytest.approx(100, abs=1)


# ---- stop


def test_a_stop_is_asked_of_a_live_run_only(run: Run) -> None:
    run.request_stop()
    assert not run.stop_file.exists()
    going(run).request_stop()
    assert run.status().state == "stopping"


def test_a_stop_that_cannot_be_asked_for_says_so(run: Run, tmp_path: Path) -> None:
    going(run).stop_file.symlink_to(tmp_path / "nowhere" / "stop")
    with pytest.raises(
        RunError, match=f"{run.name}: it cannot be asked to stop, .* end process {run.status().pid} inst"
    ):
        run.request_stop()
    assert run.status().state == "training"


# ---- several runs


def test_500_runs_are_listed_quickly(run: Run, runs_dir: Path) -> None:
    for number in range(500):
        shutil.copytree(run.path, runs_dir / f"20200101-000000-copy-{number}")
    (runs_dir / "no run").mkdir()
    begin = time.perf_counter()
    statuses = [listed.status() for listed in list_runs(runs_dir)]
    assert time.perf_counter() - begin < 2
    assert len(statuses) == 501


def test_the_settings_that_differ(runs_dir: Path) -> None:
    one, two = made(runs_dir, "one", lr=0.01), made(runs_dir, "two", lr=0.02, epochs=3)
    settings = two.settings
    # As a version wrote it that did not know this setting.
    del settings["train"]["accumulate"]
    two.write_config(settings)
    assert two.config.accumulate == 1
    assert differing_settings([one, two]) == {
        "lr": {one.name: 0.01, two.name: 0.02},
        "epochs": {one.name: TrainConfig().epochs, two.name: 3},
    }
    assert differing_settings([one]) == differing_settings([]) == {}


def test_settings_that_cannot_be_read_are_one_line_and_left_out(runs_dir: Path) -> None:
    one, two, later = (made(runs_dir, name, seed=seed) for seed, name in enumerate(("one", "two", "later")))
    later.write_config({"train": {"quantum_momentum": 1}})
    with pytest.raises(RunError, match="another version: quantum_momentum: there is no such setting"):
        _ = later.config
    later.config_file.write_text("[1]")
    with pytest.raises(RunError, match=r"its config.json cannot be read"):
        _ = later.config
    empty = made(runs_dir, "empty")
    empty.write_config({"train": None})
    with pytest.raises(RunError, match="holds no settings"):
        _ = empty.config
    assert differing_settings([one, two, later, empty]) == {"seed": {one.name: 0, two.name: 1}}


# ---- log and archive


def test_the_tail_of_a_long_log(run: Run) -> None:
    assert run.log_tail() == ""
    lines = [f"{number} läuft" for number in range(20_000)]
    run.log_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert run.log_tail(3).splitlines() == lines[-3:]
    assert len(run.log_tail().splitlines()) == 40
    assert set(run.log_tail(10**6).splitlines()) < set(lines)
    run.log_file.write_text("one\ntwo")
    assert run.log_tail() == "one\ntwo"


def test_an_archive_holds_what_one_takes_along(finished_run: Run, tmp_path: Path) -> None:
    finished_run.write_archive(tmp_path / "run.zip")
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        assert archive.testzip() is None
        assert {name.removeprefix(f"{finished_run.name}/") for name in archive.namelist()} == {
            "multitask_best.pth", "config.json", "multitask_history.json", "metrics.jsonl", "log.txt", "run.json",
            "samples/epoch_0002.png",
        }  # fmt: skip
        assert archive.read(f"{finished_run.name}/multitask_best.pth") == finished_run.best_file.read_bytes()
        assert Image.open(io.BytesIO(archive.read(f"{finished_run.name}/samples/epoch_0002.png"))).width > 0


def test_an_archive_of_a_run_that_has_nothing_yet(run: Run, tmp_path: Path) -> None:
    run.write_archive(tmp_path / "run.zip")
    assert zipfile.ZipFile(tmp_path / "run.zip").namelist() == [f"{run.name}/config.json", f"{run.name}/run.json"]
    with pytest.raises(RunError, match="cannot be packed there"):
        run.write_archive(tmp_path / "nowhere" / "run.zip")


# ---- delete


def test_a_deleted_run_is_gone_and_what_it_links_to_is_not(run: Run, runs_dir: Path, tmp_path: Path) -> None:
    other = made(runs_dir, "other")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.jpg").write_text("mine")
    (run.path / "link").symlink_to(tmp_path / "data")
    (run.path / "samples" / "photo.jpg").symlink_to(tmp_path / "data" / "photo.jpg")
    assert run.size_bytes < 20_000
    run.delete()
    assert [path.name for path in runs_dir.iterdir()] == [other.name]
    assert (tmp_path / "data" / "photo.jpg").read_text() == "mine"


def test_a_run_that_is_a_link_itself(run: Run, runs_dir: Path, tmp_path: Path) -> None:
    moved = run.path.rename(tmp_path / "elsewhere")
    run.path.symlink_to(moved)
    run.delete()
    assert list_runs(runs_dir) == []
    assert (moved / "run.json").is_file()


def test_a_live_run_is_not_deleted(run: Run) -> None:
    going(run)
    with pytest.raises(RunError, match=f"{run.name}: it is being trained; stop it before you delete it"):
        run.delete()
    # Its process is of another machine, as far as this one can tell.
    run.update(pid=0)
    lock = DeviceLock("cpu")
    lock.acquire()
    lock.hold(run.path)
    with pytest.raises(RunError, match=f"{run.name}: another process trains it"):
        run.delete()
    lock.release()
    run.delete()
    assert not run.path.exists()
    with pytest.raises(RunError, match=f"{run.name}: it has been deleted already"):
        run.delete()
    assert not run.path.exists()


def test_half_of_a_deleted_run_is_no_run_and_goes_with_the_next(run: Run, runs_dir: Path) -> None:
    run.path.rename(runs_dir / ".deleted-0123")
    assert list_runs(runs_dir) == []
    made(runs_dir).delete()
    assert list(runs_dir.iterdir()) == []


# ---- the command line


def command(*options: object) -> int:
    return main(["runs", *map(str, options)])


def test_the_list_has_duration_and_best_figures(finished_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--output-dir", finished_run.path.parent) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith(finished_run.name)]
    assert "finished  epoch 2 of 2  " in line
    assert " s  best epoch " in line
    assert "jaccard 0." in line
    assert command("--output-dir", finished_run.path.parent, "--json") == 0
    [entry] = [e for e in json.loads(capsys.readouterr().out)["runs"] if e["name"] == finished_run.name]
    assert entry["size_bytes"] == finished_run.size_bytes > 100_000
    assert 0 < entry["duration_seconds"] < 600
    assert entry["best"]["val_loss"] == finished_run.status().best["val_loss"]


def test_stop_by_name(run: Run, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--output-dir", runs_dir, "--stop", run.name) == 1
    assert "is not being trained (interrupted), so there is nothing to stop" in capsys.readouterr().err
    going(run)
    assert command("--output-dir", runs_dir, "--stop", run.name, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(run.path), "state": "stopping"}
    assert run.stop_file.exists()


def test_delete_by_name(run: Run, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Nobody can be asked: there is no terminal.
    assert command("--output-dir", runs_dir, "--delete", run.name) == 1
    assert f"{run.name}: kept; answer y, or add --yes" in capsys.readouterr().err
    assert command("--output-dir", runs_dir, "--delete", "another", "--yes") == 1
    assert f"another: no such run in {runs_dir}; the newest there: {run.name}" in capsys.readouterr().err
    assert command("--output-dir", runs_dir, "--delete", run.name, "--yes") == 0
    assert capsys.readouterr().out.startswith(f"deleted {run.path} (0 MB)")
    assert list_runs(runs_dir) == []


def test_deleting_asks_once_on_a_terminal(
    run: Run, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert command("--output-dir", runs_dir, "--delete", run.name) == 1
    assert f"delete {run.path} (0 MB) for good? [y/N]" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert command("--output-dir", runs_dir, "--delete", run.name) == 0
    assert not run.path.exists()


def test_runs_of_the_same_settings_differ_in_nothing(tiny_data: Path, finished_run: Run, runs_dir: Path) -> None:
    same = Run.create(tiny_config(tiny_data, name="same"))
    same.write_config({"train": finished_run.config.replace(name="same").model_dump(mode="json")})
    assert differing_settings([finished_run, same]) == {}
