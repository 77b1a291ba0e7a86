"""`app.py`: what it starts with, what it refuses, and what a Space is told about it."""

import logging
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback_hub import LoopbackHub
from packaging.requirements import Requirement

from mtl.checkpoint import read_checkpoint, write_folder
from mtl.errors import AddressError, CheckpointError, ConfigError, MtlError
from mtl.hub.tokens import without_secrets
from mtl.place import Place
from mtl.ui.options import choose_checkpoint, read_options, read_port

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "checkpoints" / "default"
README = (ROOT / "README.md").read_text(encoding="utf-8")


# ---- options and variables


def test_unset_means_this_computer_only_and_the_shipped_model(tmp_path: Path) -> None:
    options = read_options([], {}, tmp_path)
    assert (options.host, options.port, options.place, options.auth) == ("127.0.0.1", 7860, Place(), None)
    assert (options.allow_anyone, options.allowed_hosts, options.open_browser) == (False, (), False)
    assert (options.data_root, options.runs_dir) == (tmp_path / "data", tmp_path / "runs")
    assert options.checkpoint == tmp_path / "checkpoints" / "default"
    assert options.temporary is None


def test_options_win_over_variables(tmp_path: Path) -> None:
    names = {"--runs-dir": "MTL_RUNS_DIR", "--data-root": "MTL_DATA_ROOT", "--checkpoints-dir": "MTL_CHECKPOINTS_DIR"}
    environ = {variable: str(tmp_path / "variable" / option) for option, variable in names.items()}
    environ |= {"GRADIO_SERVER_NAME": "127.0.0.2", "GRADIO_SERVER_PORT": "7000", "GRADIO_TEMP_DIR": str(tmp_path)}
    given = read_options([], dict(environ), tmp_path)
    assert (given.host, given.port, given.temporary) == ("127.0.0.2", 7000, tmp_path)
    assert given.runs_dir == tmp_path / "variable" / "--runs-dir"
    assert given.data_root == tmp_path / "variable" / "--data-root"
    assert given.checkpoints_dir == tmp_path / "variable" / "--checkpoints-dir"
    line = ["--host", "::1", "--port", "0", "--runs-dir", str(tmp_path / "mine"), "--allowed-host", "a.example"]
    won = read_options([*line, "--allowed-host", "b.example", "--allow-anyone"], dict(environ), tmp_path)
    assert (won.host, won.port, won.runs_dir) == ("::1", 0, tmp_path / "mine")
    assert (won.allow_anyone, won.allowed_hosts) == (True, ("a.example", "b.example"))


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    environ = dict.fromkeys(["MTL_RUNS_DIR", "MTL_DATA_ROOT", "MTL_MODEL", "MTL_AUTH", "GRADIO_SERVER_NAME"], "")
    assert read_options([], environ, tmp_path) == read_options([], {}, tmp_path)


def test_on_a_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    environ = {"SPACE_ID": "mara/skin", "SPACE_HOST": "mara-skin.hf.space", "GRADIO_SERVER_NAME": "0.0.0.0"}
    options = read_options([], environ, tmp_path)
    assert (options.place.owner, options.host, options.port) == ("mara", "0.0.0.0", 7860)
    assert any("runs are lost" in message for message in caplog.messages)


def test_the_password_leaves_the_environment_and_the_logs(tmp_path: Path) -> None:
    environ = {"MTL_AUTH": "ada:correct horse: battery"}
    assert read_options([], environ, tmp_path).auth == ("ada", "correct horse: battery")
    assert environ == {}
    assert "horse" not in without_secrets("tried correct horse: battery")


@pytest.mark.parametrize("wrong", ["ada", ":secret-word", "ada:", " :secret-word"])
def test_a_wrong_password_is_never_quoted(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="user:password") as caught:
        read_options([], {"MTL_AUTH": wrong}, tmp_path)
    assert "secret-word" not in str(caught.value)


def test_photos_and_models_may_lie_where_nothing_can_be_written(tmp_path: Path) -> None:
    given = ["--data-root", "/proc/photos", "--checkpoints-dir", "/proc/models"]
    for environ in ({}, {"SPACE_ID": "mara/skin"}):
        options = read_options(given, environ, tmp_path)
        assert (options.data_root, options.checkpoints_dir) == (Path("/proc/photos"), Path("/proc/models"))


def test_what_gradio_would_stumble_over_leaves_the_environment(tmp_path: Path) -> None:
    environ = {"GRADIO_SERVER_PORT": "abc"}
    assert read_options(["--port", "0"], environ, tmp_path).port == 0
    assert environ == {}


@pytest.mark.parametrize("port", ["-1", "65536", "abc", "", "1.5", "٣"])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(ConfigError, match="needed 0"):
        read_port(port)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--port"], ["stray"]])
def test_a_wrong_option_is_told_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"app\.py --help") as caught:
        read_options(arguments, {}, tmp_path)
    assert "\n" not in str(caught.value)


# ---- the model to start with


def test_a_model_by_path_or_by_name(tmp_path: Path) -> None:
    mine = tmp_path / "checkpoints" / "mine"
    shutil.copytree(SHIPPED, mine)
    assert choose_checkpoint("mine", None, tmp_path / "checkpoints", SHIPPED) == mine
    assert choose_checkpoint(None, str(mine), tmp_path, SHIPPED) == mine
    assert choose_checkpoint(str(SHIPPED), "mine", tmp_path, mine) == SHIPPED


def test_the_shipped_model_need_not_be_there(tmp_path: Path) -> None:
    assert choose_checkpoint(None, None, tmp_path, tmp_path / "none") == tmp_path / "none"


@pytest.mark.parametrize("named", ["none", "../default", "/etc/passwd", "hf://nobody", "hf://a/b@../c"])
def test_a_model_that_cannot_be_read(named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MtlError) as caught:
        choose_checkpoint(named, None, tmp_path, SHIPPED)
    assert "\n" not in str(caught.value)
    # Named on a server that starts by itself: the page is there all the same, with the shipped one.
    assert choose_checkpoint(None, named, tmp_path, SHIPPED) == SHIPPED
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "The page starts with the shipped model" in warning.getMessage()
    with pytest.raises(MtlError):
        choose_checkpoint(None, named, tmp_path, tmp_path / "no shipped model")


def test_weights_of_another_network_are_no_model(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(SHIPPED)
    checkpoint.state_dict.popitem()
    write_folder(tmp_path / "other", checkpoint)
    with pytest.raises(CheckpointError, match="is missing"):
        choose_checkpoint("other", None, tmp_path, SHIPPED)
    assert choose_checkpoint(None, "other", tmp_path, SHIPPED) == SHIPPED


def test_a_model_from_the_hub_comes_at_the_start_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with LoopbackHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        # A server that has a token of its own in the environment.
        monkeypatch.setenv("HF_TOKEN", hub.add_user("mara"))
        files = {name: (SHIPPED / name).read_bytes() for name in ("model.safetensors", "config.json")}
        hub.put("mara/skin", files, private=True)
        pulled = choose_checkpoint(None, "hf://mara/skin", tmp_path, tmp_path / "none")
    assert pulled == tmp_path / "mara--skin@main"
    assert (pulled / "model.safetensors").read_bytes() == files["model.safetensors"]
    # The Hub is gone: what was pulled serves, and the log says so.
    assert choose_checkpoint(None, "hf://mara/skin", tmp_path, tmp_path / "none") == pulled
    assert any("as it was pulled" in message for message in caplog.messages)
    # By its name, nobody is asked.
    assert choose_checkpoint("mara--skin@main", None, tmp_path, SHIPPED) == pulled


# ---- the process


@pytest.mark.parametrize(
    ("options", "variables", "told"),
    [
        (["--runs-dir", "{file}/runs"], {}, "--runs-dir: "),
        ([], {"MTL_RUNS_DIR": "{file}/runs"}, "--runs-dir: "),
        (["--nonsense"], {}, "unrecognized arguments: --nonsense"),
        ([], {"MTL_AUTH": "ada"}, "MTL_AUTH: "),
        (["--host", "0.0.0.0"], {}, "--host 0.0.0.0: other computers could use the page"),
    ],
    ids=["runs", "variable", "option", "password", "strangers"],
)
def test_what_it_cannot_start_with_is_told_in_one_line(
    options: list[str], variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    here = {"file": tmp_path / "file"}
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", *(option.format(**here) for option in options)]
    environ = os.environ | {name: value.format(**here) for name, value in variables.items()}
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("app.py: ")
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


# ---- README: what a Space reads, and what its owner does

# huggingface.co/docs/hub/spaces-config-reference
KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "license",
    "short_description", "tags", "models", "datasets", "hf_oauth", "hf_oauth_scopes", "hf_oauth_expiration_minutes",
    "suggested_hardware", "suggested_storage", "preload_from_hub", "pinned", "header", "fullWidth", "thumbnail",
    "startup_duration_timeout", "disable_embedding", "custom_headers",
}  # fmt: skip
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# huggingface.co/docs/hub/oauth: all but the first three, which every sign-in has, give more than is needed.
SCOPES = {"openid", "profile", "email", "contribute-repos"}


@pytest.fixture(scope="module")
def front() -> dict[str, Any]:
    _, text, _ = README.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_the_front_matter_is_what_spaces_know(front: dict[str, Any]) -> None:
    assert set(front) <= KEYS
    assert {front["colorFrom"], front["colorTo"]} <= COLORS
    assert len(front["emoji"]) == 1
    assert not front["emoji"].isascii()
    assert len(front["short_description"]) <= 60
    assert front["sdk"] == "gradio"
    assert (ROOT / front["app_file"]).is_file()
    assert front["suggested_hardware"] in {"cpu-basic", "cpu-upgrade", "zero-a10g", "t4-small", "l4x1"}
    assert "preload_from_hub" not in front  # nothing is downloaded but what the owner names


def test_a_visitor_gives_no_more_than_a_push_needs(front: dict[str, Any]) -> None:
    assert front["hf_oauth"] is True
    assert set(front["hf_oauth_scopes"]) <= SCOPES


def test_the_space_gets_the_gradio_that_is_tested(front: dict[str, Any]) -> None:
    requirements = [
        Requirement(line)
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith(("#", "-"))
    ]
    [gradio] = [requirement for requirement in requirements if requirement.name == "gradio"]
    assert front["sdk_version"] in gradio.specifier
    # A newer one may be installed; whoever develops with it moves the pin.
    assert version("gradio").split(".")[0] == front["sdk_version"].split(".")[0]
    # Its own build step installs the oldest Python that is promised, or a newer one.
    assert front["python_version"] in {"3.11", "3.12", "3.13"}


def test_every_variable_is_told() -> None:
    section = README.partition("## Put it on a Space")[2].partition("\n## ")[0]
    sources = [ROOT / "app.py", *(ROOT / "mtl").rglob("*.py")]
    read = {name for path in sources for name in re.findall(r'"(MTL_[A-Z_]+)"', path.read_text(encoding="utf-8"))}
    assert read >= {"MTL_MODEL", "MTL_AUTH", "MTL_ALLOW_TRAINING"}
    assert {name for name in read if f"`{name}`" not in section} == set()
