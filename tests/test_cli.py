"""The command line: every verb on tiny data, its JSON, and one line with status 1 for whatever is wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import lay_out, save, write_folder
from loopback_hub import LoopbackHub
from PIL import Image
from tiny import ONE_THREAD, random_network, tiny_config

from mtl.checkpoint import Checkpoint, read_checkpoint, write_pth
from mtl.cli import main
from mtl.cli.terminal import follow
from mtl.config import Classes, ModelConfig, TrainConfig
from mtl.data.folder import read_folder
from mtl.hub.transfer import Transfer
from mtl.training.run import HISTORY_LISTS, Run

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

VERBS = ["train", "predict", "evaluate", "check-data", "demo-data", "runs", "export", "average", "push", "pull"]
ROOT = Path(__file__).parent.parent


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a verb with --json: its one JSON object."""

    def run(verb: str, *options: object) -> dict[str, Any]:
        assert main([verb, "--json", *map(str, options)]) == 0
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail: its one line."""

    def run(*options: object) -> str:
        assert main([*map(str, options)]) == 1
        line, end, rest = capsys.readouterr().err.partition("\n")
        assert (end, rest) == ("\n", "")
        assert "Traceback" not in line
        return line

    return run


def tiny_options(data: Path) -> list[str]:
    """`tiny_config` as the command line says it."""
    settings = tiny_config(data, epochs=1).model_dump(exclude_defaults=True)
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


# ---- help, and the options


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: python -m mtl {verb}" in text
    assert "--json" in text


def test_help_names_every_verb_and_loads_neither_torch_nor_gradio() -> None:
    show = "import sys; from mtl.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True)
    *text, modules = run.stdout.splitlines()
    assert all(any(verb in line for line in text) for verb in VERBS)
    assert {"torch", "gradio", "pytorch_lightning", "numpy", "huggingface_hub"}.isdisjoint(modules.split())


@pytest.mark.parametrize("name", TrainConfig.model_fields)
def test_every_setting_is_an_option_with_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"--{name.replace('_', '-')}" in text
    # argparse may break a line at a hyphen.
    assert squeezed(str(TrainConfig.model_fields[name].description)) in squeezed(text)


def squeezed(text: str) -> str:
    return "".join(text.split())


# ---- the verbs


def test_train_and_resume(answer: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=4, val=2)
    result = answer("train", *tiny_options(data), "--no-freeze-backbone", "--classification-weight", "2")
    assert set(result) == {"run", "state", "checkpoint", "best"}
    assert (result["state"], result["best"]["epoch"]) == ("finished", 1)
    assert set(HISTORY_LISTS) <= set(result["best"])
    assert Path(result["checkpoint"]).is_file()
    run = Run(result["run"])
    assert run.config == tiny_config(data, epochs=1, classification_weight=2.0)

    resumed = answer("train", "--resume", run.path, "--epochs", 2)
    assert (resumed["run"], resumed["state"]) == (result["run"], "finished")
    assert run.status().epoch == 2

    listed = answer("runs", "--output-dir", tmp_path / "runs")["runs"]
    assert [(entry["run"], entry["state"], entry["epoch"]) for entry in listed] == [(str(run.path), "finished", 2)]


def test_runs_without_any(answer: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert answer("runs", "--output-dir", tmp_path / "none") == {"runs": []}


def test_predict(answer: Callable[..., dict[str, Any]], finished_run: Run, tiny_data: Path, tmp_path: Path) -> None:
    photos = [tiny_data / "images/val", tiny_data / "images/train/train_000.jpg"]
    results = answer("predict", *photos, "--checkpoint", finished_run.path, "--output-dir", tmp_path)["results"]
    assert [Path(result["photo"]).name for result in results] == [f"val_{n:03}.jpg" for n in range(6)] + [
        "train_000.jpg"
    ]
    result = results[0]
    assert set(result) == {"photo", "classification", "segmentation", "mask", "overlay"}
    assert sum(result["classification"]["probabilities"]) == pytest.approx(1)
    assert (result["segmentation"]["height"], result["segmentation"]["width"]) == (64, 64)
    with Image.open(result["mask"]) as mask, Image.open(result["overlay"]) as overlay:
        assert (mask.size, overlay.size, mask.mode, overlay.mode) == ((64, 64), (64, 64), "L", "RGB")
        assert set(np.unique(mask)) <= {0, 255}


def test_photos_of_one_name_get_results_of_their_own(
    answer: Callable[..., dict[str, Any]], finished_run: Run, tmp_path: Path
) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    names = ["one/x.png", "two/x.png", "two/X.bmp", "two/x-2.png", "two/._x.png"]
    for name in names:
        save(grey, tmp_path / name)
    results = answer(
        "predict", tmp_path / "one", tmp_path / "two", "--checkpoint", finished_run.path, "--output-dir", tmp_path / "o"
    )["results"]
    masks = [Path(result["mask"]).name for result in results]
    assert masks == ["x_mask.png", "X-2_mask.png", "x-2-2_mask.png", "x-3_mask.png"]
    assert len(list((tmp_path / "o").iterdir())) == 8


def test_results_never_overwrite_a_photo(refusal: Callable[..., str], finished_run: Run, tmp_path: Path) -> None:
    for name in ("x.png", "x_mask.png"):
        save(np.full((64, 64, 3), 128, np.uint8), tmp_path / name)
    line = refusal("predict", tmp_path, "--checkpoint", finished_run.path, "--output-dir", tmp_path)
    assert "x_mask.png there is one of the photos; take another folder" in line
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_not_trained_is_said(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig(image_size=64, class_counts=(0,) * 10, mask_count=0)
    path = tmp_path / "model.pth"
    write_pth(path, Checkpoint("model", random_network(config).state_dict(), config))
    assert main(["predict", str(tiny_data / "images/val/val_000.jpg"), "--checkpoint", str(path)]) == 0
    assert capsys.readouterr().out.endswith("val_000.jpg: classes not trained; mask not trained\n")


def test_a_group_that_is_never_named_is_told_so(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ModelConfig(image_size=64, temperature=0.2, unnamed_groups=("skin type", "hair type"))
    path = tmp_path / "model.pth"
    write_pth(path, Checkpoint("model", random_network(config).state_dict(), config))
    assert main(["predict", str(tiny_data / "images/val"), "--checkpoint", str(path)]) == 0
    said = capsys.readouterr().out
    assert "type uncertain (not named: wrong too often on test photos)" in said
    assert not any(name in said for name in config.classes.names)


def test_evaluate(answer: Callable[..., dict[str, Any]], finished_run: Run, tiny_data: Path) -> None:
    report = answer("evaluate", "--data-dir", tiny_data, "--checkpoint", finished_run.path, "--split", "val")
    assert {"images", "dice", "jaccard", "threshold_jaccard"} <= set(report["segmentation"])
    assert {"images", "accuracy", "balanced_accuracy", "macro_auroc", "ece", "per_class", "groups"} <= set(
        report["classification"]
    )
    assert set(report["classification"]["groups"]) == {"skin type", "hair type"}
    assert set(report["classification"]["per_class"]) == set(Classes().names)
    assert {"images", "false_positive_area"} <= set(report["lesion_free"])
    images = (report["segmentation"]["images"], report["lesion_free"]["images"], report["classification"]["images"])
    assert images == (5, 1, 6)
    assert 0 <= report["classification"]["accuracy"] <= 1


def test_evaluate_takes_the_checkpoints_own_split(
    answer: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lay_out(tmp_path / "loose", {"mine.json": '{"train_000.jpg": 1, "train_001.jpg": 2}'})
    for photo in (write_folder(tmp_path / "skin", train=10, val=1) / "images/train").iterdir():
        save(np.asarray(Image.open(photo)), data / "images" / photo.name)
    training = {"seed": 3, "val_fraction": 0.5, "include": "train_00[0-7]*", "labels": "mine.json"}
    config = ModelConfig(image_size=64)
    path = tmp_path / "model.pth"
    write_pth(path, Checkpoint("model", random_network(config).state_dict(), config, training))
    seen: list[list[str]] = []

    def evaluate(samples: Any, *_: Any, **options: Any) -> dict[str, Any]:
        seen.append([sample.name for sample in samples])
        return {}

    monkeypatch.setattr("mtl.evaluation.evaluate.evaluate", evaluate)
    answer("evaluate", "--data-dir", data, "--checkpoint", path)
    own = read_folder(TrainConfig(data_dir=str(data), **training))
    assert seen.pop() == [sample.name for sample in own.val]
    assert len(own.val) == 4
    answer("evaluate", "--data-dir", data, "--checkpoint", path, "--seed", 5, "--val-fraction", 0.25)
    other = read_folder(TrainConfig(data_dir=str(data), **{**training, "seed": 5, "val_fraction": 0.25}))
    assert seen.pop() == [sample.name for sample in other.val]


def test_check_data(answer: Callable[..., dict[str, Any]], tiny_data: Path) -> None:
    report = answer("check-data", "--data-dir", tiny_data)
    assert (report["splits"]["train"]["photos"], report["splits"]["val"]["photos"]) == (12, 6)
    assert report["unreadable"] == {}
    assert answer("check-data", "--data-dir", tiny_data, "--include", "*_001.*")["splits"]["train"]["photos"] == 1


def test_demo_data(answer: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = answer("demo-data", tmp_path / "made", "--photos", 8, "--size", 64)
    assert result == {"folder": str(tmp_path / "made"), "photos": 8}
    splits = answer("check-data", "--data-dir", tmp_path / "made")["splits"]
    assert splits["train"]["photos"] + splits["val"]["photos"] == 8


@pytest.mark.parametrize("verb", ["predict", "evaluate", "check-data", "runs"])
def test_without_json_it_prints_lines_for_people(
    verb: str, finished_run: Run, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        "predict": [tiny_data / "images/val/val_000.jpg", "--checkpoint", finished_run.path],
        "evaluate": ["--data-dir", tiny_data, "--checkpoint", finished_run.path],
        "check-data": ["--data-dir", tiny_data],
        "runs": ["--output-dir", finished_run.path.parent],
    }[verb]
    assert main([verb, *map(str, options)]) == 0
    wanted = {"predict": "val_000.jpg: ", "evaluate": "dice", "check-data": "photos: 12", "runs": "finished"}
    assert wanted[verb] in capsys.readouterr().out


def test_evaluate_calibrates_and_writes_a_page(
    answer: Callable[..., dict[str, Any]],
    finished_run: Run,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mtl.evaluation.calibration.MIN_LABELS", 2)
    weights, page = shutil.copy(finished_run.best_file, tmp_path), tmp_path / "report.html"
    asked = ("evaluate", "--data-dir", tiny_data, "--checkpoint", weights)
    report = answer(*asked, "--calibrate", "--report", page)
    temperature = read_checkpoint(Path(weights)).model_config.temperature
    assert report["calibration"]["temperature"] == temperature != 1
    assert "Jaccard" in page.read_text()
    assert answer(*asked, "--tta", "flips")["tta"] == "flips"
    for wrong in (("--save", "--tta", "turns"), ("--calibrate", "--split", "train")):
        assert main(["evaluate", *map(str, asked[1:]), *wrong]) == 1
    assert answer(*asked)["calibration"]["temperature"] == temperature


def test_evaluate_keeps_its_report_beside_the_weights(
    answer: Callable[..., dict[str, Any]], finished_run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    weights = shutil.copy(finished_run.best_file, tmp_path)
    report = answer("evaluate", "--data-dir", tiny_data, "--checkpoint", weights, "--save")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == report
    assert (report["weights"], report["data"], report["split"]) == (read_checkpoint(weights).revision, "skin", "val")
    answer("evaluate", "--data-dir", tiny_data, "--checkpoint", finished_run.path)
    assert not (finished_run.path / "evaluation.json").exists()


def test_export(answer: Callable[..., dict[str, Any]], finished_run: Run, tiny_data: Path, tmp_path: Path) -> None:
    options = ["--checkpoint", finished_run.path, "--photos", tiny_data / "images" / "val", "--dtype", "float16"]
    report = answer("export", "--format", "safetensors", "--output", tmp_path / "small", *options)
    assert (report["path"], report["format"], report["photos"]) == (str(tmp_path / "small"), "safetensors", 6)
    assert 0 < report["largest_difference"] < 1e-2
    assert read_checkpoint(tmp_path / "small").model_config == read_checkpoint(finished_run.path).model_config


# ---- to the Hub and back


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.add_user("ada"))
        yield hub


def test_push_and_pull(hub: LoopbackHub, finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = shutil.copy(finished_run.best_file, tmp_path)
    pushing = ["push", str(weights), "ada/skin", "--tag", "v1", "--public", "--license", "mit", "--message", "First"]
    assert main(pushing) == 0
    printed, head = capsys.readouterr(), hub.repos["ada/skin"].head
    assert printed.out == f"pushed: {hub.url}/ada/skin (public), commit {head.sha[:7]}, tag v1\n"
    assert printed.err.startswith("reading the weights and writing the card\n")
    assert (head.title, hub.repos["ada/skin"].private) == ("First", False)
    assert main([*pushing, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "repo_id": "ada/skin", "commit": head.sha, "url": f"{hub.url}/ada/skin", "changed": False, "tag": "v1",
        "private": False, "note": "",
    }  # fmt: skip
    assert main(["pull", "hf://ada/skin", "--revision", "v1", "--checkpoints-dir", str(tmp_path / "c"), "--json"]) == 0
    pulled = json.loads(capsys.readouterr().out)
    assert (pulled["path"], pulled["commit"]) == (str(tmp_path / "c" / "ada--skin@v1"), head.sha)
    assert read_checkpoint(pulled["path"]).revision == read_checkpoint(weights).revision


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_token_is_no_option(verb: str, refusal: Callable[..., str]) -> None:
    """It would stay in the shell's history, and in the list of processes."""
    assert "--token" in refusal(verb, "x", "ada/skin", "--token", "hf_0")


def test_ctrl_c_cancels_a_transfer_and_says_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    transfer = Transfer("push", "ada/skin", message="uploading 3 files")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt, match="ada/skin: the push was cancelled; nothing has changed"):
        follow(transfer, lambda: transfer.wait(30), quiet=False)
    assert capsys.readouterr().err == "uploading 3 files\n"


# ---- stopped


def test_ctrl_c_says_how_to_go_on(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mtl.training.fit.train", interrupted)
    assert main(["train", "--resume", str(finished_run.path)]) == 130
    assert capsys.readouterr().err == f"mtl train: stopped; go on with --resume {finished_run.path}\n"
    assert main(["train", "--output-dir", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "mtl train: stopped before there was a checkpoint to go on from\n"


def test_a_run_without_an_epoch_names_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.create(TrainConfig(output_dir=str(tmp_path)))
    run.update(state="stopped")
    monkeypatch.setattr("mtl.training.fit.train", lambda *_, **__: run)
    assert main(["train"]) == 0
    assert capsys.readouterr().out == f"stopped: {run.path}\nno epoch was finished, so there is no checkpoint yet\n"
    assert main(["train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("nothing left"), "mtl runs: nothing left ("),
        (OSError(), "mtl runs: OSError ("),
        (OSError(28, "No space left on device", "/x"), "mtl runs: /x: No space left on device ("),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, line: str, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("mtl.training.run.list_runs", fail)
    assert refusal("runs").startswith(line)


# ---- what is wrong


def spoil(data: Path, what: str) -> None:
    """Make one thing wrong in a sound data folder."""
    images, masks = data / "images", data / "masks"
    match what:
        case "no photos":
            shutil.rmtree(images)
            images.mkdir()
        case "no folder":
            shutil.rmtree(data)
        case "unknown class":
            lay_out(data, {"labels.json": '{"train_000.jpg": "purple"}'})
        case "label without photo":
            lay_out(data, {"labels.json": '{"gone.jpg": 1}'})
        case "labels cut short":
            lay_out(data, {"labels.json": '{"train_000.jpg": '})
        case "mask is text":
            lay_out(data, {"masks/train/train_001.png": "no mask"})
        case "photo is text":
            lay_out(data, {"images/val/val_001.jpg": "no photo"})
        case "mask of no photo":
            save(np.zeros((8, 8), np.uint8), masks / "train" / "somebody.png")
        case "empty split":
            shutil.rmtree(images / "val")
            (images / "val").mkdir()
            shutil.rmtree(masks / "val")
            (data / "labels.json").unlink()
        case "single class":
            lay_out(data, {"labels.json": json.dumps({f"train_{n:03}.jpg": "dry" for n in range(4)})})
        case "nothing to learn":
            shutil.rmtree(masks)
            (data / "labels.json").unlink()


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("no photos", "skin: no photos; needed images/*.jpg"),
        ("no folder", "there is no such folder"),
        ("unknown class", "labels.json: train_000.jpg: got 'purple'; needed an id from 0 to 9"),
        ("label without photo", "labels.json: there is no photo gone.jpg"),
        ("labels cut short", "labels.json"),
        ("mask is text", "train_001.png"),
        ("photo is text", "val_001.jpg"),
        ("mask of no photo", "somebody.png: there is no photo named somebody"),
        ("empty split", "no photo in the val split"),
        ("single class", "all labelled training photos show dry"),
        ("nothing to learn", "no training photo has a label or a mask"),
    ],
)
def test_bad_data_is_one_line(what: str, named: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=4, val=2)
    spoil(data, what)
    line = refusal("train", *tiny_options(data))
    assert line.startswith("mtl train: ")
    assert named in line
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


@pytest.mark.parametrize("what", ["no photos", "unknown class", "mask is text", "photo is text", "mask of no photo"])
def test_check_data_refuses_the_same(what: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=4, val=2)
    spoil(data, what)
    assert refusal("check-data", "--data-dir", data).startswith("mtl check-data: ")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--lr -1", "lr: got -1.0"),
        ("--lr 0", "lr: got 0.0"),
        ("--lr nan", "lr: got nan"),
        ("--lr fast", "--lr: invalid float value: 'fast'"),
        ("--epochs 0", "epochs: got 0"),
        ("--batch-size 5", "batch_size: got 5, but there are only 4 training photos"),
        ("--image-size 100", "image_size: got 100"),
        ("--device cuda:99", "device: cuda:99 is not there"),
        ("--device quantum", "device: got 'quantum'"),
        ("--schedule chaos", "--schedule: invalid choice: 'chaos'"),
        ("--classification-weight 0 --segmentation-weight 0", "at least one must be above 0"),
        ("--include nothing_*", "none of 6 photos fits --include nothing_*"),
        ("--labels gone.json", "gone.json"),
        ("--classes one", "one"),
        ("--init gone.pth", "gone.pth: there is no such checkpoint"),
        ("--resume gone", "gone: no run's folder"),
        ("--resume gone.pth", "gone.pth: there is no such checkpoint"),
        ("--surprise", "--surprise"),
    ],
)
def test_bad_settings_are_one_line(options: str, named: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    data = write_folder(tmp_path / "skin", train=4, val=2)
    line = refusal("train", *tiny_options(data), *options.split())
    assert named in line


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network with two classes."""
    config = ModelConfig(image_size=64, classes=Classes(groups={"class": ("a", "b")}))
    path = tmp_path_factory.mktemp("two") / "two.pth"
    write_pth(path, Checkpoint("two", random_network(config).state_dict(), config))
    return path


def test_a_checkpoint_of_another_shape(
    refusal: Callable[..., str], two_classes: Path, tiny_data: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.pth"
    torch.save(torch.load(two_classes, weights_only=True) | {"config": {}}, wrong)
    needed = "has the shape (2, 256); needed (10, 256)"
    assert needed in refusal("predict", tiny_data / "images/val", "--checkpoint", wrong)
    assert needed in refusal("evaluate", "--data-dir", tiny_data, "--checkpoint", wrong)
    run = [*tiny_options(tiny_data), "--output-dir", tmp_path / "runs"]
    assert needed in refusal("train", *run, "--init", wrong)
    assert needed in refusal("train", *run, "--resume", wrong)
    assert "knows the classes a, b, the data normal, dry" in refusal("train", *run, "--resume", two_classes)
    assert not (tmp_path / "runs").exists()


def test_evaluating_on_other_classes(refusal: Callable[..., str], two_classes: Path, tiny_data: Path) -> None:
    assert "the checkpoint knows a, b" in refusal("evaluate", "--data-dir", tiny_data, "--checkpoint", two_classes)


def test_bad_photos_are_named_and_the_others_analysed(
    finished_run: Run, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.jpg").write_text("Dear all")
    good = tiny_data / "images/val/val_000.jpg"
    words = ["predict", "--json", tmp_path / "letter.jpg", good, "--checkpoint", finished_run.path]
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert status == 1
    assert printed.err.count("\n") == 1
    assert "1 of 2 photos could not be analysed, the first: letter.jpg: " in printed.err
    bad, whole = json.loads(printed.out)["results"]
    assert "letter.jpg" in bad["error"]
    assert whole["classification"]["probabilities"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("predict gone.jpg", "gone.jpg: there is no such file"),
        ("predict {photo} --checkpoint gone", "gone: there is no such checkpoint"),
        ("predict {photo} --checkpoint=", "checkpoint: got an empty path"),
        ("evaluate --data-dir {data} --checkpoint=", "checkpoint: got an empty path"),
        ("predict {photo} --checkpoint {run} --conf-thresh 1.5", "conf_thresh: got 1.5"),
        ("predict {photo} --checkpoint {run} --device cuda:99", "device: cuda:99 is not there"),
        ("predict {photo} --checkpoint {photo}", "val_000.jpg: it is no checkpoint"),
        ("predict {empty} --checkpoint {run}", "there is no photo in this folder"),
        ("predict {photo} --output-jsonl {empty}/a.jsonl", "there is no such folder; --output-jsonl needs folders"),
        ("predict {empty} --output-jsonl {empty}/a.jsonl --batch-size 0", "--batch-size: got 0; needed 1 or more"),
        ("predict {data} {data}/../skin --output-jsonl {empty}/a.jsonl", "this folder is named twice"),
        (
            "predict {data} {data}/images --recursive --output-jsonl {empty}/a.jsonl",
            "it lies in another of the folders",
        ),
        ("predict {data} --output-dir {data} --output-jsonl {empty}/a.jsonl", "it lies among the photos of"),
        ("predict {photo} --recursive", "without --output-jsonl; name the file of answers, too"),
        ("evaluate --data-dir {empty} --checkpoint {run}", "no photos"),
        ("evaluate --data-dir {data} --checkpoint {empty}", "there is no such checkpoint"),
        ("evaluate --data-dir {data} --split test", "--split: invalid choice: 'test'"),
        ("demo-data {data}", "skin"),
        ("demo-data {empty}/x --photos 0", "photos"),
        ("demo-data {empty}/x --size 3", "too small; its sides need 32 px"),
        ("predict {photo} --checkpoint {run} --output-dir {photo}/x", "Not a directory"),
        ("evaluate --data-dir {data} --checkpoint hf://ada/skin --save", "needed one on this disk"),
        ("export --format onnx --checkpoint {empty}", "there is no such checkpoint"),
        (
            "export --format onnx --checkpoint {run} --dtype float16 --output {empty}/x --photos {photo}",
            "take safetensors",
        ),
        (
            "export --format safetensors --checkpoint {run} --output {data} --photos {photo}",
            "there is something already",
        ),
        ("export --checkpoint {run}", "--format"),
        ("average {run} --output {empty}/x --data-dir {data}", "got 1 checkpoint; needed two or more"),
        ("average {run} {empty} --output {empty}/x --data-dir {data}", "there is no such checkpoint"),
        ("average {run} {run} --output {empty} --data-dir {data}", "is there already; needed a new folder"),
        ("push {run} skin", "skin: it names no model on the Hub"),
        ("pull skin", "skin: it names no model on the Hub"),
        ("dance", "invalid choice: 'dance'"),
        ("", "VERB"),
    ],
)
def test_every_other_mistake_is_one_line(
    command: str, named: str, refusal: Callable[..., str], finished_run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    places = {"photo": tiny_data / "images/val/val_000.jpg", "data": tiny_data, "run": finished_run.path}
    assert named in refusal(*(word.format(**places, empty=tmp_path) for word in command.split()))
