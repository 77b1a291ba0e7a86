"""The README's examples for programs, run against the whole application."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import draw_photo, save
from serving import serving
from tiny import ONE_THREAD, random_network

from mtl.checkpoint import Checkpoint, write_folder
from mtl.config import ModelConfig
from mtl.ui.app import AppSettings, build_app, make_shelf

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Use it from programs\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a program runs, with its photos."""
    folder = tmp_path_factory.mktemp("program")
    for number, name in enumerate(("photo.jpg", "left.jpg", "right.jpg")):
        save(draw_photo(number, 96, np.random.default_rng(number))[0], folder / name)
    return folder


@pytest.fixture(scope="module")
def url(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, config = tmp_path_factory.mktemp("app"), ModelConfig(image_size=64)
    write_folder(root / "tiny", Checkpoint("tiny", random_network(config).state_dict(), config))
    settings = AppSettings(
        root / "data", root / "runs", root / "tiny", root / "examples", root / "temporary", checkpoints_dir=root
    )
    shelf = make_shelf(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(root))  # the application sets it; afterwards it is as it was
        with serving(shelf, page=lambda: build_app(settings, shelf)) as url:
            yield url


def test_there_is_one_of_each() -> None:
    assert [language for language, _ in EXAMPLES] == ["bash", "python", "python"]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_it_runs(number: int, url: str, folder: Path) -> None:
    language, code = EXAMPLES[number]
    assert ADDRESS in code
    shell = ["bash", "-e", "-c"] if language == "bash" else [sys.executable, "-c"]
    code = code.replace(ADDRESS, url).replace("curl ", "curl --silent --show-error --fail ")
    run = subprocess.run([*shell, code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "error" not in run.stdout
    shown = {"bash": ("lesion_mask", "results", "status"), "python": ()}[language]
    assert run.stdout.strip()
    assert all(word in run.stdout for word in shown)
