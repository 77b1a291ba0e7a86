"""Options that come from settings, and those that several verbs share."""

import argparse
import typing
from collections.abc import Callable
from typing import Any

from pydantic.fields import FieldInfo

from mtl.command import option_name
from mtl.config import TrainConfig, section_of, type_of

# (name, what it runs, help) -> its parser
AddVerb = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]
# What decides which photos are the validation ones: measured on others, a checkpoint would meet its training photos.
CHOOSING = ("seed", "val_fraction", "include", "labels", "classes")
DATA_SETTINGS = {name: field for name, field in TrainConfig.model_fields.items() if section_of(field) == "data"}


def add_settings(parser: argparse.ArgumentParser, fields: dict[str, FieldInfo]) -> None:
    """One option a setting; only those given on the line override, so a default stands in one place."""
    for name, field in fields.items():
        option = option_name(name)
        help_text = f"{field.description} (default: {field.default})".replace("%", "%%")
        common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help_text}
        kind = type_of(field)
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, **common)
        elif typing.get_origin(kind) is typing.Literal:
            parser.add_argument(option, choices=typing.get_args(kind), **common)
        else:
            parser.add_argument(option, type=kind, metavar=name.rpartition("_")[2].upper(), **common)


def help_of(setting: str) -> str:
    return str(TrainConfig.model_fields[setting].description)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given on the line."""
    return {name: value for name, value in vars(args).items() if name in TrainConfig.model_fields}


def same_photos(training: dict[str, Any], args: argparse.Namespace) -> TrainConfig:
    """The settings of the line, and for those that choose the photos where it is silent those of a training."""
    return TrainConfig(**{**{k: v for k, v in training.items() if k in CHOOSING}, **settings_of(args)})


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="a .pth file, a folder, or hf://owner/name[@revision]; unset: the shipped model",
    )


def add_tta(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--tta",
        choices=("off", "flips", "turns"),
        default="off",
        help="the mean over views of each photo: flips: 4, mirrored; turns: 8, turned by 90 degrees too; as many "
        "times the time (default: off)",
    )
