"""What a model card says, in Markdown; what is not known is said to be not known."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mtl.checkpoint import Checkpoint, is_figure, public_settings
from mtl.config import ModelConfig

NOT_KNOWN = "not known"
UNNAMED_DATA = "own photos, not named"
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
STARTS = {
    "imagenet": "torchvision's EfficientNet-B0, trained on ImageNet",
    "lite0": "EfficientNet-Lite0, trained on ImageNet",
    "none": "random",
}
# As `mtl.evaluation` calls a figure -> as people call it.
MASK_FIGURES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "threshold_jaccard": "threshold Jaccard (below 0.65 counts 0)",
    "hd95": "95 % Hausdorff distance, share of the diagonal",
}
CLASS_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "AUROC (macro)",
    "ece": "expected calibration error",
    "ece_debiased": "debiased calibration error",
    "nll": "negative log-likelihood",
}
MAX_NAME = 80  # characters of a class's name, which may hold anything


@dataclass(frozen=True)
class CardFacts:
    """What the card is made of."""

    checkpoint: Checkpoint
    repo_id: str | None  # None: saved in a folder, not pushed
    evaluation: dict[str, Any] | None = None  # what the package has of it, of these weights
    run: dict[str, Any] | None = None  # of the run that made these weights: "start", "photos", "generated_masks"
    dtype: str = "F32"  # of the stored weights, as safetensors calls it
    has_curves: bool = False


def write_body(facts: CardFacts, license: str) -> str:
    """The card below its front matter. license: its name or identifier."""
    sections = {
        "": _summary(facts),
        "How to load it": _loading(facts.repo_id),
        "Intended use": _use(license),
        "Classes": _classes(facts),
        "Photos": _photos(facts),
        "Figures": _figures(facts),
        "Calibration": _calibration(facts),
        "Limits": _limits(facts),
        "Training": _training(facts),
    }
    title = _plain(facts.repo_id.partition("/")[2]) if facts.repo_id else "Skin analysis"
    parts = [f"# {title}"]
    for heading, text in sections.items():
        parts += [f"## {heading}", text] if heading else [text]
    return "\n" + "\n\n".join(parts) + "\n"


def _summary(facts: CardFacts) -> str:
    checkpoint, config = facts.checkpoint, facts.checkpoint.model_config
    answers = ["which class it shows"] if any(config.trained) else []
    answers += ["which pixels are lesion"] if config.mask_trained else []
    size = config.image_size
    return (
        f"One photo in; out come {' and '.join(answers) or 'no answers yet: nothing was trained'}. EfficientNet-B0 "
        f"encoder, classification head, UNet decoder for the mask; input {size} x {size} pixels, mask "
        f"{size // 2} x {size // 2}.\n\n"
        "**For research. Not a medical device, not a diagnosis.**\n\n"
        f"Weights: revision `{checkpoint.revision}` (SHA-256 over names, shapes and values as float32), stored as "
        f"{DTYPES.get(facts.dtype, facts.dtype)}; epoch {checkpoint.epoch or NOT_KNOWN} of the training."
    )


def _loading(repo_id: str | None) -> str:
    if repo_id is None:
        return '```python\nfrom mtl import MultiTaskModel\n\nmodel = MultiTaskModel.load("FOLDER")  # this one\n```'
    return (
        "```python\n"
        "from mtl import MultiTaskModel\n\n"
        f'model = MultiTaskModel.from_pretrained("{repo_id}")  # or MultiTaskModel.load("hf://{repo_id}")\n'
        'result = model.predict("photo.jpg")\n'
        'result["classification"]["groups"], result["segmentation"]["mask"]\n'
        "```\n\n"
        f"On the command line: `python -m mtl pull {repo_id}`."
    )


def _use(license: str) -> str:
    return (
        "For research on photos of skin and hair, and as weights to start a training from. Not for diagnosis, triage "
        "or treatment, not for decisions about people, not for finding out who somebody is.\n\n"
        f"Licence of the weights: {_plain(license)}. The rights of the training photos: {NOT_KNOWN} to this card."
    )


def _classes(facts: CardFacts) -> str:
    config = facts.checkpoint.model_config
    counts = config.class_counts or (None,) * len(config.classes.names)
    rows = []
    for group, ids in config.classes.group_ids.items():
        for class_id in ids:
            name, count = config.classes.names[class_id], counts[class_id]
            rows.append([_plain(group), _plain(name), _count(count), *_class_cells(facts.evaluation, name)])
    header = ["group", "class", "training photos"]
    if facts.evaluation is not None:
        header += ["measured on", "recall", "precision", "AUROC"]
    among = " Recall, precision and AUROC are those among all classes." if facts.evaluation is not None else ""
    return f"{_table(header, [row[: len(header)] for row in rows])}\n\n{_mask_count(config)}{among}"


def _mask_count(config: ModelConfig) -> str:
    if config.mask_count is None:
        return f"Lesion mask: how many training photos have one is {NOT_KNOWN}."
    if not config.mask_trained:
        return "Lesion mask: not trained."
    return f"Lesion mask: {config.mask_count} training photos have one."


def _count(photos: int | None) -> str:
    if photos is None:
        return NOT_KNOWN
    return str(photos) if photos else "**0: not trained, never answered**"


def _class_cells(evaluation: Any, name: str) -> list[str]:
    images = figure_at(evaluation, "classification", "per_class", name, "images")
    figures = ("recall", "precision", "auroc")
    return [
        "–" if images is None else f"{images:.0f}",
        *(_told(evaluation, "classification", "per_class", name, figure) for figure in figures),
    ]


def _photos(facts: CardFacts) -> str:
    run, training = facts.run or {}, facts.checkpoint.training
    sides = [figure_at(run, "photos", side) for side in ("train", "val")]
    known = all(side is not None for side in sides)
    share = training.get("val_fraction")
    rows = [
        ["training photos", f"{sides[0]:.0f}" if known else NOT_KNOWN],
        ["validation photos", f"{sides[1]:.0f}" if known else NOT_KNOWN],
        ["share held out, where the data had no split of its own", _setting(share) if share is not None else NOT_KNOWN],
        ["seed of the split", _setting(training["seed"]) if "seed" in training else NOT_KNOWN],
    ]
    if generated := figure_at(run, "generated_masks"):
        rows.append(["training masks made by a program", f"{generated:.0f}"])
    table = _table(["what", "value"], rows)
    return f"{table}\n\nWhere the photos come from, whom they show and who labelled them: {NOT_KNOWN} to this card."


def _figures(facts: CardFacts) -> str:
    parts = [_measured(facts) if facts.evaluation is not None else _during_training(facts.checkpoint)]
    if facts.has_curves:
        parts.append("![Losses and scores over the epochs](curves.png)")
    return "\n\n".join(parts)


def _measured(facts: CardFacts) -> str:
    evaluation = facts.evaluation
    photos, split = figure_at(evaluation, "photos"), _plain(at(evaluation, "split") or NOT_KNOWN)
    on = f"{photos:.0f} photos" if photos is not None else "photos"
    intro = (
        f"Measured with `python -m mtl evaluate` on {on} ({UNNAMED_DATA}; split: {split}), masks at their own "
        "size. Where the same photos chose the best epoch, expect a little less on others."
    )
    if at(evaluation, "intervals"):
        intro += " In brackets: 95 % bootstrap intervals over photos; they tell what chance alone makes of a figure."
    parts = [intro, _mask_table(evaluation), _group_table(facts), _of_no_class(evaluation)]
    return "\n\n".join(part for part in parts if part)


def _mask_table(evaluation: Any) -> str:
    images, free = figure_at(evaluation, "segmentation", "images"), figure_at(evaluation, "lesion_free", "images")
    rows = [[name, _told(evaluation, "segmentation", figure)] for figure, name in MASK_FIGURES.items()]
    if free:
        area, often = (
            _told(evaluation, "lesion_free", figure, write=_percent)
            for figure in ("false_positive_area", "over_1_percent")
        )
        rows.append([f"area wrongly marked on {free:.0f} photos without a lesion", f"{area} of the photo"])
        rows.append(["of these, those with over 1 % marked", often])
    return _table([f"lesion mask ({images or 0:.0f} photos with a lesion)", "mean"], rows)


def _group_table(facts: CardFacts) -> str:
    config, path = facts.checkpoint.model_config, ("classification", "groups")
    groups = config.classes.group_ids
    images = [figure_at(facts.evaluation, *path, group, "images") or 0 for group in groups]
    trained = [sum(config.trained[class_id] for class_id in ids) for ids in groups.values()]
    rows = [
        ["labels", *(f"{count:.0f}" for count in images)],
        *(
            [name, *(_told(facts.evaluation, *path, group, figure) for group in groups)]
            for figure, name in CLASS_FIGURES.items()
        ),
        ["balanced accuracy by chance", *(_digits(1 / count if count else None) for count in trained)],
    ]
    return _table(["classes, within their group", *map(_plain, groups)], rows)


def _of_no_class(evaluation: Any) -> str:
    """Empty where no photo was said to show none."""
    images = figure_at(evaluation, "classification", "none", "images")
    named = _told(evaluation, "classification", "none", "named", write=_percent)
    return f"Of {images:.0f} photos that show none of the classes, {named} were given one." if images else ""


def _during_training(checkpoint: Checkpoint) -> str:
    """What the run itself measured, where nobody measured these weights since."""
    scores = {
        key.removeprefix("val_").replace("_", " "): figure_at(checkpoint.metrics, key)
        for key in sorted(checkpoint.metrics)
        if key.startswith("val_") and not key.endswith("loss")
    }
    intro = "No evaluation report came with these weights."
    if not scores:
        return f"{intro} How good they are is {NOT_KNOWN}."
    rows = [[_plain(name), _digits(value)] for name, value in scores.items()]
    return (
        f"{intro} During training, on the validation photos that also chose the best epoch, masks at the network's own "
        "size:\n\n"
        f"{_table(['figure', 'value'], rows)}"
    )


def _calibration(facts: CardFacts) -> str:
    config = facts.checkpoint.model_config
    # A fitted temperature is never exactly the one that training leaves behind.
    fitted = (
        "1: none was fitted, so the probabilities are as training left them"
        if config.temperature == 1.0
        else f"{config.temperature:.4g}, fitted; it divides all class logits"
    )
    error = figure_at(facts.evaluation, "classification", "ece")
    known = NOT_KNOWN if error is None else _told(facts.evaluation, "classification", "ece")
    parts = [
        f"Temperature of the class probabilities: {fitted}. Expected calibration error over all classes: {known}.",
        _cross_fitted(facts.evaluation),
        f"A pixel counts as lesion from a probability of {config.mask_threshold:g} on.",
    ]
    if config.unnamed_groups:
        parts.append(
            f"Classes of {' and '.join(map(_plain, config.unnamed_groups))} are never named, only their probabilities "
            "told: on validation photos the named class was too often wrong."
        )
    return " ".join(part for part in parts if part)


def _cross_fitted(evaluation: Any) -> str:
    """What a temperature does for photos that it was not fitted on; empty where that was not measured."""
    ece, nll = (figure_at(evaluation, "calibration", "cross_fitted", figure) for figure in ("ece", "nll"))
    if ece is None or nll is None:
        return ""
    return (
        "Cross-fitted, each photo at a temperature fitted on the others: expected calibration error "
        f"{_digits(ece)}, negative log-likelihood {_digits(nll)}."
    )


def _limits(facts: CardFacts) -> str:
    config = facts.checkpoint.model_config
    named = zip(config.classes.names, config.trained, strict=True)
    untrained = [_plain(name) for name, trained in named if not trained]
    lines = [
        "On cameras, lighting, parts of the body and skin tones that the training photos lack, expect worse answers; "
        "how much worse was not measured.",
        "It answers on any picture, also on one that shows neither skin nor hair.",
    ]
    if untrained:
        lines.append(f"It never answers {', '.join(untrained)}: no training photo shows them.")
    if not config.mask_trained:
        lines.append("It marks no lesions: no training photo has a mask.")
    if config.center_crop:
        lines.append("It sees the centre square of a photo only.")
    if smallest := _smallest_class(facts):
        lines.append(smallest)
    if facts.checkpoint.training_features is None:
        lines.append("It cannot tell that a photo is unlike those it was trained on.")
    return "\n".join(f"- {line}" for line in lines)


def _smallest_class(facts: CardFacts) -> str:
    """How few photos the figures of a class rest on; empty where nothing was measured."""
    names = facts.checkpoint.model_config.classes.names
    images = {name: figure_at(facts.evaluation, "classification", "per_class", name, "images") or 0 for name in names}
    measured = [name for name in names if images[name]]
    if not measured:
        return ""
    fewest = min(measured, key=lambda name: images[name])
    return f"The figures of the classes rest on as few as {images[fewest]:.0f} photos ({_plain(fewest)})."


def _training(facts: CardFacts) -> str:
    start = at(facts.run, "start")
    weights = STARTS.get(start, "another checkpoint") if isinstance(start, str) else NOT_KNOWN
    known = public_settings(facts.checkpoint.training)
    intro = f"Starting weights: {weights}."
    if not known:
        return f"{intro} Settings: {NOT_KNOWN}."
    table = _table(["setting", "value"], [[f"`{name}`", _setting(value)] for name, value in known.items()])
    return f"{intro} Settings of the run:\n\n{table}"


# ---- words and tables


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _told(evaluation: Any, *path: str, write: Callable[[float | None], str] = _digits) -> str:
    """A figure, with its interval where the report has one: "0.811 (0.790 to 0.831)"."""
    told = write(figure_at(evaluation, *path))
    low, high = (figure_at(evaluation, "intervals", *path, bound) for bound in ("low", "high"))
    return told if low is None or high is None else f"{told} ({write(low)} to {write(high)})"


def one_line(text: Any) -> str:
    """A name as one line of at most MAX_NAME characters."""
    line = "".join(character if character.isprintable() else " " for character in str(text))
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…"


def _plain(text: Any) -> str:
    """A text that shows in Markdown as it is: no character of it formats, links, or ends a table's cell."""
    return re.sub(r"([\\`*_{}\[\]()<>#!|~$&:@])", r"\\\1", one_line(text))


def _setting(value: Any) -> str:
    return "unset" if value is None or value == "" else _plain(value)


# ---- figures from a report


def group_names(evaluation: Any) -> list[str]:
    groups = at(evaluation, "classification", "groups")
    return list(groups) if isinstance(groups, dict) else []


def at(values: Any, *path: str) -> Any:
    """What stands at a place of nested dictionaries; None where there is no such place."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def figure_at(values: Any, *path: str) -> float | None:
    value = at(values, *path)
    return float(value) if is_figure(value) else None
