"""What is loaded when: help at once, each verb only what it uses, and the page before what takes seconds to load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import write_folder

ROOT = Path(__file__).parent.parent
# Those that take long to load, or that a server without a page, or without training, need not have.
HEAVY = {
    "torch", "torchvision", "pytorch_lightning", "lightning_fabric", "torchmetrics", "torchjd", "tensorboard", "scipy",
    "skimage", "sklearn", "onnx", "onnxscript", "onnxruntime", "matplotlib", "fpdf", "pydicom", "pillow_heif",
}  # fmt: skip
PAGE = {"gradio", "fastapi", "pandas", "uvicorn"}
HUB = {"huggingface_hub", "httpx2"}
TRAINING = {"pytorch_lightning", "torchjd", "tensorboard", "sklearn", "matplotlib", "torchmetrics"}
VERBS = ["train", "predict", "evaluate", "check-data", "demo-data", "runs", "export", "push", "pull"]
SHOW = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"


def loaded_by(code: str, *arguments: object, folder: Path = ROOT) -> set[str]:
    """The packages that a fresh Python has loaded once it has run `code`."""
    command = [sys.executable, "-c", f"{code}\n{SHOW}", *map(str, arguments)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split())


def loaded_by_verb(*words: object, folder: Path) -> set[str]:
    return loaded_by("import sys; from mtl.cli import main; assert main(sys.argv[1:]) == 0", *words, folder=folder)


def test_the_package_loads_nothing() -> None:
    assert not loaded_by("import mtl") & {*HEAVY, *PAGE, *HUB, "numpy", "PIL", "pydantic"}


def test_help_loads_the_settings_alone() -> None:
    code = f"""
from mtl.cli import main
for words in [["--help"], *([verb, "--help"] for verb in {VERBS})]:
    try:
        main(words)
    except SystemExit as done:
        assert done.code == 0
"""
    assert not loaded_by(code) & {*HEAVY, *PAGE, *HUB, "numpy", "PIL"}


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["runs"], {*HEAVY, *PAGE, *HUB, "numpy", "PIL"}),
        (["demo-data", "made", "--photos", 2, "--size", 64], HEAVY | PAGE | HUB),
        (["check-data", "--data-dir", "skin"], HEAVY | PAGE | HUB),
        (["predict", "skin/images/val/val_000.jpg"], PAGE | TRAINING),
        (["predict", "skin/images/val", "--output-jsonl", "answers.jsonl"], PAGE | TRAINING),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_verb_loads_what_it_uses(words: list[object], unused: set[str], tmp_path: Path) -> None:
    write_folder(tmp_path / "skin", train=4, val=2)
    assert not loaded_by_verb(*words, folder=tmp_path) & unused


def test_the_page_is_shown_before_the_libraries_are_loaded(tmp_path: Path) -> None:
    code = """
import asyncio, sys, urllib.request
from pathlib import Path
from mtl.ui.app import AppSettings, build_app, make_shelf
from mtl.ui.launch import launch
settings = AppSettings(Path(), Path("runs"), Path(sys.argv[1]) / "checkpoints/default", Path(sys.argv[1]) / "assets")
shelf = make_shelf(settings)
demo = build_app(settings, shelf)
url = launch(demo, "127.0.0.1", 0, models=shelf, block=False)
assert "Skin analysis" in urllib.request.urlopen(url).read().decode()
assert urllib.request.urlopen(url + "openapi.json").status == 200
demo.close()
"""
    assert not loaded_by(code, ROOT, folder=tmp_path) & HEAVY


@pytest.mark.parametrize(
    ("what", "unused"),
    [
        ("from mtl.training.fit import train", PAGE | {"onnx", "onnxscript", "onnxruntime", "fpdf"}),
        ("from mtl.hub.push import push", HEAVY | PAGE),
        ("from mtl.hub.pull import pull", HEAVY | PAGE),
    ],
)
def test_the_work_of_other_verbs(what: str, unused: set[str]) -> None:
    assert not loaded_by(what) & unused
