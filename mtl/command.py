"""A run's settings as a command line and as a settings file: what another place needs to train the same run."""

import json
import shlex
from pathlib import Path
from typing import Any

from mtl.config import TrainConfig
from mtl.errors import ConfigError

MAX_SETTINGS_BYTES = 1_000_000


def option_name(setting: str) -> str:
    """A setting's option: batch_size -> --batch-size."""
    return f"--{setting.replace('_', '-')}"


def command_line(config: TrainConfig) -> str:
    """`python -m mtl train …` with the settings that differ from their defaults, quoted for a POSIX shell."""
    defaults = TrainConfig.model_fields
    changed = {name: value for name, value in config.model_dump().items() if value != defaults[name].default}
    return shlex.join(
        ["python", "-m", "mtl", "train", *(word for item in changed.items() for word in _option_words(*item))]
    )


def _option_words(name: str, value: bool | int | float | str) -> list[str]:
    option = option_name(name)
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    # A word of its own that begins with a hyphen would be read as another option.
    return [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]


def settings_text(config: TrainConfig, *, without: set[str]) -> str:
    """The content of a settings file: all settings but some, so that it means the same when a default changes."""
    return config.model_dump_json(indent=2, exclude=without) + "\n"


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a settings file, or a run's config.json, names. Raises ConfigError where one is wrong."""
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise ConfigError(f"{path.name}: larger than any settings file; choose one that was saved as settings")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path.name}: it cannot be read ({error.strerror}); check the name") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path.name}: no JSON that can be read; choose a file that was saved as settings") from None
    settings = content.get("train", content) if isinstance(content, dict) else None
    if not isinstance(settings, dict):
        raise ConfigError(f'{path.name}: needed a JSON object of settings, such as {{"epochs": 20}}')
    try:
        TrainConfig(**settings)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    return settings
