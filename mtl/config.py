"""Every setting once: its default, bounds and help. The command line, the page and the saved files derive from here.

An invalid configuration cannot exist: it is checked when made and frozen after.
"""

import re
import types
import typing
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from mtl.errors import ConfigError

DEFAULT_CLASSES: dict[str, tuple[str, ...]] = {
    "skin type": ("normal", "dry", "oily", "combination", "sensitive"),
    "hair type": ("straight", "wavy", "curly", "coily", "dreadlocks"),
}
CLASS_ALIASES = {"kinky": "coily", "dreadlock": "dreadlocks", "locs": "dreadlocks"}
# A photo's class target is one id a group: UNKNOWN where the group has no label, NO_CLASS throughout for "none".
UNKNOWN = -1
NO_CLASS = -2
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The groups of settings in the order and by the names that the page shows them.
SECTIONS = {
    "basic": "Settings",
    "loss": "Losses and their balance",
    "optimizer": "Optimizer and learning rate",
    "augmentation": "Augmentation",
    "data": "Data details",
    "input": "Image size and generated masks",
    "run": "The run",
}

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Settings(BaseModel):
    """A frozen set of settings. `ConfigError` names the first setting that is wrong, what it was and what it may be."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with `changes`, checked like a new one."""
        return type(self)(**{**self.model_dump(), **changes})


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    if not name:
        return reason
    given = repr(first["input"])
    given = given if len(given) <= 80 else f"{given[:79]}…"
    return f"{name}: got {given}; {reason[0].lower()}{reason[1:]}"


def setting(default: Any, help_text: str, *, section: str = "run", **bounds: Any) -> Any:
    """A field with its help; `section` (one of SECTIONS) is where the page shows it."""
    return Field(default, description=help_text, json_schema_extra={"section": section}, **bounds)


def section_of(field: FieldInfo) -> str:
    """Where the page shows a setting."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["section"])


def type_of(field: FieldInfo) -> Any:
    """A setting's type, without `| None`."""
    if isinstance(field.annotation, types.UnionType):
        return next(kind for kind in typing.get_args(field.annotation) if kind is not type(None))
    return field.annotation


class Classes(Settings):
    """The classes and their groups; a class id is its place, counted through the groups in order."""

    groups: dict[str, tuple[str, ...]] = Field(default=DEFAULT_CLASSES)

    @field_validator("groups")
    @classmethod
    def _distinct(cls, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        names = [name for members in groups.values() for name in members]
        if len(names) < 2:
            raise ValueError("at least two classes are needed")
        if len({name.strip().lower() for name in names}) < len(names):
            raise ValueError("two classes have the same name; give each its own")
        if any(not group.strip() for group in groups):
            raise ValueError("a group has no name; give it one")
        if any(not members for members in groups.values()):
            raise ValueError("a group has no class; give it one or leave it out")
        if reserved := {"", "none"} & {name.strip().lower() for name in names}:
            raise ValueError(f"{sorted(reserved)[0]!r} cannot be a class name; it means that no class is shown")
        return groups

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(name for members in self.groups.values() for name in members)

    @cached_property
    def group_ids(self) -> dict[str, range]:
        """The class ids of each group."""
        spans, start = {}, 0
        for group, members in self.groups.items():
            spans[group] = range(start, start + len(members))
            start += len(members)
        return spans

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {name.strip().lower(): index for index, name in enumerate(self.names)}
        return {alias: ids[name] for alias, name in CLASS_ALIASES.items() if name in ids} | ids

    def id_of(self, name: str) -> int | None:
        """The class id of a name or alias, in any case; None where there is none."""
        return self._ids.get(name.strip().lower())


class ModelConfig(Settings):
    """What the network is and how its answers are read; saved with the weights."""

    classes: Classes = Classes()
    class_counts: tuple[NonNegativeInt, ...] | None = Field(
        None, description="training photos of each class; a class with 0 is never predicted; unset: all are trained"
    )
    mask_count: int | None = Field(
        None, ge=0, description="training photos with a mask; with 0 no lesion is ever shown; unset: it is trained"
    )
    num_classes_segmentation: Literal[1] = Field(1, description="mask channels: one, the lesion")
    image_size: int = Field(224, ge=64, le=1024, multiple_of=32, description="side of the input square, pixels")
    center_crop: bool = Field(False, description="analyse the centre square instead of the whole photo")
    activation: Literal["silu", "relu6"] = Field("silu", description="of the encoder; relu6 for a frozen lite0 start")
    dropout: float = Field(0.3, ge=0.0, lt=1.0, description="of the classification head")
    mask_threshold: float = Field(0.5, gt=0.0, lt=1.0, description="a pixel is lesion at or above this probability")
    temperature: float = Field(1.0, ge=0.01, le=100.0, description="divides the class logits at prediction")
    unnamed_groups: tuple[str, ...] = Field(
        (),
        description="groups whose classes are never named, only their bars shown: "
        "on validation photos the named class was too often wrong",
    )

    @model_validator(mode="after")
    def _one_count_a_class(self) -> Self:
        if self.class_counts is not None and len(self.class_counts) != self.num_classes_classification:
            raise ValueError(
                f"class_counts: {len(self.class_counts)} counts for {self.num_classes_classification} classes"
            )
        return self

    @model_validator(mode="after")
    def _unnamed_groups_are_there(self) -> Self:
        if unknown := [group for group in self.unnamed_groups if group not in self.classes.groups]:
            raise ValueError(f"unnamed_groups: got {unknown[0]!r}; needed of {', '.join(self.classes.groups)}")
        return self

    @property
    def num_classes_classification(self) -> int:
        return len(self.classes.names)

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each class: did it have training photos?"""
        if self.class_counts is None:
            return (True,) * self.num_classes_classification
        return tuple(count > 0 for count in self.class_counts)

    @property
    def mask_trained(self) -> bool:
        return self.mask_count != 0


class TrainConfig(Settings):
    """A training run. Field names are the command line's options (`--batch-size`) and the page's labels."""

    data_dir: str = setting("data", "the data folder", section="data")
    include: str | None = setting(None, "use only photos whose name fits this pattern, e.g. isic18_*", section="data")
    labels: str | None = setting(None, "another label file (JSON or CSV), in the data folder or a path", section="data")
    classes: str | None = setting(
        None,
        "another class file (JSON), or names with commas; unset: classes.json, else the ten defaults",
        section="data",
    )
    val_fraction: float = setting(
        0.2, "share of the photos held out for validation, where the folder has no split", section="data", gt=0, lt=1
    )

    epochs: int = setting(50, "passes over the training photos", section="basic", ge=1, le=100_000)
    batch_size: int = setting(16, "photos a step", section="basic", ge=1, le=8192)
    lr: float = setting(0.001, "step size of Adam", section="basic", title="Learning rate", gt=0, le=10)
    device: str = setting(
        "auto",
        "auto (cuda, then mps, then cpu), cpu, cuda, cuda:1, mps",
        section="basic",
        examples=["auto", "cpu", "cuda", "mps"],
    )
    freeze_backbone: bool = setting(
        False, "train the two heads only; the encoder keeps its weights and BatchNorm statistics", section="basic"
    )

    classification_weight: float = setting(1.0, "weight of the class loss", section="loss", ge=0)
    segmentation_weight: float = setting(0.5, "weight of the mask loss", section="loss", ge=0)
    balancing: Literal["fixed", "uncertainty", "upgrad"] = setting(
        "fixed",
        "fixed: the two weights as given; uncertainty: learned from there on (Kendall et al. 2018); "
        "upgrad: no step against either loss (TorchJD's UPGrad, 1.4 times the time)",
        section="loss",
    )
    segmentation_loss: Literal["bce", "dice", "bce+dice"] = setting(
        "bce", "bce: every pixel counts the same; dice: the overlap counts; or their sum", section="loss"
    )
    class_weighting: Literal["none", "sqrt", "balanced"] = setting(
        "none",
        "of uneven classes: none; balanced: every class counts the same in all; sqrt: half-way between",
        section="loss",
    )
    label_smoothing: float = setting(
        0.0, "share of each class target that is spread over all classes (Szegedy et al. 2016)", section="loss",
        ge=0, lt=1,
    )  # fmt: skip
    generated_mask_weight: float = setting(
        0.5, "what a generated mask counts in the mask loss, against 1 of a given one", section="loss", gt=0, le=1
    )

    optimizer: Literal["adam", "adamw"] = setting(
        "adam", "adamw: weight decay apart from the gradient (Loshchilov & Hutter 2019)", section="optimizer"
    )
    schedule: Literal["plateau", "cosine", "one-cycle"] = setting(
        "plateau",
        "plateau: cut lr when the validation loss stalls; cosine: let it fall to 0 over all epochs; "
        "one-cycle: rise over the first 30 %, then fall (Smith 2018)",
        section="optimizer",
    )
    plateau_patience: int = setting(
        3, "epochs without improvement before the learning rate is cut", section="optimizer", ge=0
    )
    plateau_factor: float = setting(
        0.3, "what the learning rate is multiplied with then", section="optimizer", gt=0, lt=1
    )
    warmup_steps: int = setting(
        200,
        "steps over which the learning rate rises from 0 to lr; at most one epoch; one-cycle has its own",
        section="optimizer",
        ge=0,
    )
    backbone_lr_factor: float = setting(
        1.0, "the encoder's learning rate, as a multiple of lr", section="optimizer", gt=0, le=1
    )
    unfreeze_after_epochs: int = setting(
        0, "with freeze_backbone: train the encoder too after so many epochs; 0: never", section="optimizer", ge=0
    )
    weight_decay: float = setting(0.0, "L2 penalty of Adam, decay of AdamW", section="optimizer", ge=0, le=1)
    ema_decay: float = setting(
        0.0,
        "measure and keep a moving average of the weights, with this share of the old one a step; 0: off",
        section="optimizer",
        title="EMA decay",
        ge=0,
        lt=1,
    )
    gradient_clip: float = setting(5.0, "largest norm of the gradient; 0: unlimited", section="optimizer", ge=0)
    accumulate: int = setting(
        1, "batches whose gradients make one step: as a larger batch, in the memory of one", section="optimizer", ge=1
    )

    generated_masks: str = setting(
        "off",
        "masks for lesion photos that have none, kept in the run's folder: off; otsu (by their contrast); "
        "or a checkpoint's path",
        section="input",
        examples=["off", "otsu"],
    )
    lesion_photos: str | None = setting(
        None,
        "which photos masks are generated for: a pattern of names, e.g. isic18_*; unset: those labelled none",
        section="input",
    )
    image_size: int = setting(
        224, "side of the network's square input, pixels", section="input", ge=64, le=1024, multiple_of=32
    )
    start_image_size: int = setting(
        0,
        "train the first epochs on squares of this side, which grow to image_size over three quarters of the epochs: "
        "up to half the time on a CPU (progressive learning, Tan & Le 2021); 0: image_size throughout",
        section="input",
        ge=0,
        le=1024,
        multiple_of=32,
    )
    center_crop: bool = setting(
        False, "use the centre square of each photo instead of the whole photo", section="input"
    )

    init: str = setting(
        "auto",
        "weights to start from: auto (imagenet if cached, else lite0), imagenet, lite0, none, or a checkpoint's path",
        examples=["auto", "imagenet", "lite0", "none"],
    )
    early_stopping_patience: int = setting(10, "stop after so many epochs without improvement; 0: never", ge=0)
    best_metric: Literal["val_loss", "val_jaccard", "val_dice", "val_accuracy", "val_balanced_accuracy"] = setting(
        "val_loss", "what makes an epoch the best one"
    )
    calibrate: bool = setting(
        True, "at the end, fit the temperature of the classes and the mask's threshold on the validation photos"
    )
    dropout: float = setting(0.3, "of the classification head", ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "auto: bfloat16 where the device computes in it, else float32"
    )
    compile: Literal["auto", "on", "off"] = setting(
        "auto", "compile the network, which takes minutes at first: on; off; auto: for long runs on a GPU of CUDA"
    )
    threads: int = setting(
        0, "CPU threads; 0: PyTorch's choice. Results repeat exactly at an equal number", ge=0, le=512
    )
    seed: int = setting(0, "of the split, the order, the augmentation and the new weights", ge=0, lt=2**31)

    flip: Share = setting(0.5, "probability of a left-right flip", section="augmentation")
    vertical_flip: Share = setting(0.0, "probability of an upside-down flip", section="augmentation")
    rotation_degrees: float = setting(15.0, "largest rotation to either side", section="augmentation", ge=0, le=180)
    crop_min_area: float = setting(
        0.8, "smallest share of the photo that a random crop keeps; 1: no crop", section="augmentation", gt=0, le=1
    )
    scale: float = setting(0.0, "largest relative change of size to either side", section="augmentation", ge=0, le=0.9)
    brightness: Share = setting(0.2, "largest relative change of brightness", section="augmentation")
    contrast: Share = setting(0.2, "largest relative change of contrast", section="augmentation")
    saturation: Share = setting(0.0, "largest relative change of saturation", section="augmentation")

    cache_dir: str = setting(
        "auto",
        "where decoded photos are kept for later runs: auto (the user's cache folder), off, or a folder",
        title="Cache folder",
        examples=["auto", "off"],
    )
    cache_gb: float = setting(
        20.0,
        "most that decoded photos may take on the disk; those unused for longest go first; 0: none are kept",
        title="Cache size, GB",
        ge=0,
        le=1e6,
    )
    output_dir: str = setting("runs", "where run folders are made")
    name: str = setting("", "of the run, for its folder; unset: the data folder's name")

    @field_validator("device")
    @classmethod
    def _device_name(cls, name: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
            raise ValueError("needed auto, cpu, cuda, cuda:1 or mps")
        return name

    @field_validator("name")
    @classmethod
    def _folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]{0,60}", name):
            raise ValueError("needed at most 60 letters, digits, dots, hyphens and underscores")
        return name

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.classification_weight == 0 and self.segmentation_weight == 0:
            raise ValueError("classification_weight and segmentation_weight are both 0; at least one must be above 0")
        return self

    @model_validator(mode="after")
    def _squares_grow(self) -> Self:
        if self.start_image_size and not 64 <= self.start_image_size <= self.image_size:
            raise ValueError(
                f"start_image_size: got {self.start_image_size}; needed 0, or 64 to image_size ({self.image_size})"
            )
        return self

    @model_validator(mode="after")
    def _can_be_combined(self) -> Self:
        if self.unfreeze_after_epochs and not self.freeze_backbone:
            raise ValueError("unfreeze_after_epochs needs freeze_backbone; turn that on, or set it to 0")
        if self.balancing != "fixed" and 0 in (self.classification_weight, self.segmentation_weight):
            raise ValueError(
                f"balancing {self.balancing} cannot be combined with classification_weight or segmentation_weight 0: "
                "there is one loss only; take fixed"
            )
        if self.balancing == "upgrad":
            # Gradients that were aggregated part by part are not those of the whole batch; and without a trained
            # encoder there is nothing that both losses share.
            refused = {"accumulate": self.accumulate > 1, "freeze_backbone": self.freeze_backbone}
            if named := [name for name, is_set in refused.items() if is_set]:
                raise ValueError(
                    f"balancing upgrad cannot be combined with {' and '.join(named)}; take fixed or uncertainty"
                )
        return self
