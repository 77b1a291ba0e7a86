"""Where it runs: what the environment says, folders that can be written, a GPU that is lent for a call."""

import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import draw_photo
from tiny import ONE_THREAD, random_network

from mtl.analysis.engine import EagerEngine, Outputs, Run, ZeroGpuEngine
from mtl.analysis.fast_engine import SwitchingEngine, make_engine
from mtl.errors import ConfigError, DeviceError
from mtl.place import Place, choose_folder, place_of, why_not_writable

SPACE = Place("Mara/skin", "mara-skin.hf.space")


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, Place()),
        ({"SPACE_ID": "", "SPACES_ZERO_GPU": "", "MTL_ALLOW_TRAINING": "0"}, Place()),
        ({"SPACE_ID": "Mara/skin", "SPACE_HOST": "mara-skin.hf.space"}, SPACE),
        ({"SPACE_ID": "Mara/skin", "SPACES_ZERO_GPU": "true"}, Place("Mara/skin", zero_gpu=True)),
        ({"SPACE_ID": "Mara/skin", "MTL_ALLOW_TRAINING": "1"}, Place("Mara/skin", training_allowed=True)),
    ],
)
def test_the_environment_tells_where_it_runs(environ: dict[str, str], place: Place) -> None:
    assert place_of(environ) == place
    assert place.on_space is bool(place.space_id)


@pytest.mark.parametrize(
    ("place", "user", "trains"),
    [
        (Place(), None, True),
        (SPACE, None, False),
        (SPACE, "somebody", False),
        (SPACE, "", False),
        (SPACE, "mara", True),  # names on the Hub know no case
        (replace(SPACE, training_allowed=True), None, True),
        (replace(SPACE, zero_gpu=True, training_allowed=True), "Mara", False),
        (Place(training_allowed=True, zero_gpu=True), None, False),
    ],
)
def test_who_trains_where(place: Place, user: str | None, trains: bool) -> None:
    reason = place.why_no_training(user)
    assert (reason == "") is trains
    assert "\n" not in reason


# ---- folders


def blocked(folder: Path) -> Path:
    """A place at which nobody can make a folder, root included: below a file."""
    (folder / "file").write_text("")
    return folder / "file" / "runs"


def test_a_folder_is_made_and_nothing_stays_in_it(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path / "a" / "b") == ""
    assert list((tmp_path / "a" / "b").iterdir()) == []
    assert why_not_writable(blocked(tmp_path)) == "Not a directory"
    assert why_not_writable(Path("/proc/none")) != ""
    assert "null" in why_not_writable(Path("\0"))


def test_an_own_machine_takes_the_folder_that_is_meant_or_none(tmp_path: Path) -> None:
    default = tmp_path / "runs"
    assert choose_folder("--runs-dir", None, default, Place(), tmp_path) == default
    assert choose_folder("--runs-dir", tmp_path / "mine", default, Place(), tmp_path) == tmp_path / "mine"
    with pytest.raises(ConfigError) as caught:
        choose_folder("--runs-dir", blocked(tmp_path), default, Place(), tmp_path)
    message = str(caught.value)
    assert message.startswith("--runs-dir: ")
    assert "cannot be written (Not a directory); name another folder" in message


def test_a_space_prefers_its_storage_and_starts_without_any(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    default, storage, none = tmp_path / "app" / "runs", tmp_path / "data", tmp_path / "none"
    storage.mkdir()

    def chosen(given: Path | None, default: Path, storage: Path) -> tuple[Path, list[str]]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "mtl.place"):
            folder = choose_folder("--runs-dir", given, default, SPACE, storage)
        return folder, caplog.messages

    assert chosen(None, default, storage) == (storage / "runs", [])
    assert chosen(tmp_path / "mine", default, storage) == (tmp_path / "mine", [])
    assert chosen(None, default, none) == (default, [])
    for given in (None, blocked(tmp_path)):
        folder, [warning] = chosen(given, blocked(tmp_path), none)
        assert why_not_writable(folder) == ""
        assert "lost at a restart" in warning
        folder.rmdir()


# ---- a GPU that is lent for a call


def fork_for_each_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Stands in for `spaces.GPU`: a process forked for each call, what goes in and comes out pickled."""
    context = multiprocessing.get_context("fork")

    def work(arguments: bytes, answers: Any) -> None:
        try:
            answers.send_bytes(pickle.dumps((function(*pickle.loads(arguments)), os.getpid())))
        finally:
            os._exit(0)  # as a worker that is ended: nothing of the test's is cleaned up twice

    def lent(*arguments: object) -> Any:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(pickle.dumps(arguments), theirs))
        worker.start()
        theirs.close()
        try:
            result, pid = pickle.loads(ours.recv_bytes())
        except EOFError:
            raise RuntimeError("GPU task aborted") from None
        finally:
            worker.join()
        assert pid != os.getpid()
        return result

    return lent


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures(ONE_THREAD)
class TestZeroGpu:
    squares = np.stack([draw_photo(1, 64, np.random.default_rng(seed))[0] for seed in range(2)])

    def test_it_answers_as_the_network_here(self) -> None:
        network = random_network()
        expected = EagerEngine(random_network(), torch.device("cpu"))(self.squares)
        engine = ZeroGpuEngine(network, torch.device("cpu"), fork_for_each_call)
        for _ in range(2):
            outputs = engine(self.squares)
            assert isinstance(outputs, Outputs)
            for part, wanted in zip(outputs, expected, strict=True):
                np.testing.assert_array_equal(part, wanted)

    def test_it_is_called_from_threads(self) -> None:
        engine = ZeroGpuEngine(random_network(), torch.device("cpu"), fork_for_each_call)
        answers: list[Outputs] = []
        threads = [threading.Thread(target=lambda: answers.append(engine(self.squares))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(answers[0].class_logits, answers[1].class_logits)

    def test_the_network_stays_on_the_cpu_and_goes_to_the_device_in_the_fork_only(self) -> None:
        network = random_network()
        # No memory is behind a meta tensor: the fork that moves the weights there has none left to answer with.
        engine = ZeroGpuEngine(network, torch.device("meta"), fork_for_each_call)
        with pytest.raises(DeviceError, match=r"ZeroGPU gave no answer .*aborted.*; try again in a minute"):
            engine(self.squares)
        assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}

    def test_what_the_lender_refuses_is_told_in_one_line(self) -> None:
        def used_up(function: Run) -> Run:
            def refuse(squares: np.ndarray) -> Outputs:
                raise RuntimeError("You have exceeded\nyour quota")

            return refuse

        with pytest.raises(DeviceError) as caught:
            ZeroGpuEngine(random_network(), torch.device("cpu"), used_up)(self.squares)
        assert "exceeded your quota" in str(caught.value)
        assert str(caught.value).count("\n") == 0

    def test_anywhere_else_the_network_runs_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
        monkeypatch.setenv("SPACE_ID", "Mara/skin")
        assert isinstance(make_engine(random_network(), torch.device("cpu")), SwitchingEngine)
