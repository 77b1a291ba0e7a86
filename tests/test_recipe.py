"""The recipe of the shipped model: its settings are ones that can be trained with, and its script runs to the end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtl.checkpoint import read_checkpoint
from mtl.command import read_settings
from mtl.model_files import DEFAULT_CHECKPOINT
from mtl.training.run import list_runs

ROOT = Path(__file__).parent.parent
RECIPE = DEFAULT_CHECKPOINT / "recipe"
SMALLER = {"epochs": 1, "batch_size": 4, "image_size": 64, "init": "none", "threads": 1}


def test_the_script_trains_with_each_file_of_settings() -> None:
    script = (RECIPE / "rebuild.sh").read_text()
    files = sorted(RECIPE.glob("*.json"))
    assert files
    for file in files:
        read_settings(file)
        assert f'--config "$recipe/{file.name}"' in script


def test_a_folder_that_is_there_is_not_written_into(tmp_path: Path) -> None:
    done = rebuild(RECIPE, tmp_path, tmp_path)
    assert done.returncode == 1
    assert done.stderr == "usage: sh rebuild.sh DATA FOLDER [SEED]; FOLDER must not be there yet\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_command_makes_the_model(tiny_data: Path, tmp_path: Path) -> None:
    recipe = shutil.copytree(RECIPE, tmp_path / "recipe")
    for file in recipe.glob("*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | SMALLER))
    done = rebuild(recipe, tiny_data, tmp_path / "made", "7")
    assert done.returncode == 0, done.stderr
    made = read_checkpoint(tmp_path / "made" / "default")
    assert made.model_config.image_size == 64
    assert json.loads((tmp_path / "made" / "default" / "evaluation.json").read_text())["photos"] > 0
    assert sorted(run.config.seed for run in list_runs(tmp_path / "made")) == [7, 17, 27, 37]


def rebuild(recipe: Path, data: Path, folder: Path, *seed: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", str(recipe / "rebuild.sh"), str(data), str(folder), *seed]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
