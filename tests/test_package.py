"""What is pushed of a model: the same bytes each time, nothing private, and a card on which every figure is right."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders import law
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import ONE_THREAD, random_network

from mtl.checkpoint import CONFIG_FILE, PRIVATE_SETTINGS, Checkpoint, read_checkpoint, write_folder, write_pth
from mtl.config import Classes, ModelConfig
from mtl.errors import CheckpointError, ConfigError, HubError
from mtl.hub.card import write_card
from mtl.hub.card_body import UNNAMED_DATA, CardFacts
from mtl.hub.package import CARD_FILE, EVALUATION_FILE, PACKAGE_FILES, build_package
from mtl.training.run import Run

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

SHIPPED = Path(__file__).parent.parent / "checkpoints" / "default"


def report_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """An evaluation report as `evaluate --save` writes it."""
    figures = {"images": 7, "accuracy": 0.5, "balanced_accuracy": 0.4321, "macro_auroc": None, "ece": 0.0875}
    classes = checkpoint.model_config.classes
    one = {"images": 3, "trained": True, "recall": 0.25, "precision": None, "auroc": 0.75}
    return {
        "checkpoint": "/home/ada/secret/multitask_best.pth",
        "weights": checkpoint.revision,
        "data": "hospital",
        "split": "val",
        "photos": 9,
        "segmentation": {"images": 5, "dice": 0.8123, "jaccard": 0.7, "threshold_jaccard": 0.65},
        "classification": {
            **figures,
            "per_class": dict.fromkeys(classes.names, one),
            "groups": dict.fromkeys(classes.groups, figures),
        },
        "lesion_free": {"images": 4, "false_positive_area": 0.0123},
    }


@pytest.fixture(scope="module")
def run_folder(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a finished run that a package reads, and a report."""
    folder = tmp_path_factory.mktemp("package") / "run"
    folder.mkdir()
    for name in ("multitask_best.pth", "config.json", "run.json", "multitask_history.json"):
        shutil.copy(finished_run.path / name, folder)
    (folder / EVALUATION_FILE).write_text(json.dumps(report_of(read_checkpoint(folder))))
    return folder


@pytest.fixture(scope="module")
def built(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(run_folder, tmp_path_factory.mktemp("built"), repo_id="ada/skin").path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_gives_every_file_and_the_same_bytes_again(run_folder: Path, built: Path, tmp_path: Path) -> None:
    build_package(run_folder, tmp_path, repo_id="ada/skin")
    assert contents(built) == contents(tmp_path)
    # Six photos are too few to tell what the training photos look like.
    assert set(contents(built)) == set(PACKAGE_FILES) - {"training_features.safetensors"}
    assert read_checkpoint(built).revision == read_checkpoint(run_folder).revision


def test_what_was_packed_is_packed_to_the_same(built: Path, tmp_path: Path) -> None:
    """Pulled and pushed again, a model is no change."""
    assert contents(build_package(built, tmp_path, repo_id="ada/skin").path) == contents(built)


def test_what_ships_keeps_its_bytes_and_its_card(tmp_path: Path) -> None:
    package = build_package(SHIPPED, tmp_path, repo_id="ada/skin")
    for name in ("model.safetensors", "config.json", "training_features.safetensors"):
        if name != CONFIG_FILE:
            assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    given, shown = (json.loads((folder / CONFIG_FILE).read_text()) for folder in (SHIPPED, tmp_path))
    given["training"] = {key: value for key, value in given["training"].items() if key not in PRIVATE_SETTINGS}
    assert shown == given
    own, card = ModelCard((SHIPPED / CARD_FILE).read_text()), ModelCard((tmp_path / CARD_FILE).read_text())
    assert card.text == own.text
    assert (card.data.license, card.data.license_name) == ("other", "research-only")
    assert package.evaluation is not None
    assert package.evaluation["classification"]["groups"]["hair type"]["images"] == 167
    assert "worst" not in (tmp_path / "evaluation.json").read_text()


def test_nothing_tells_where_anything_lay(run_folder: Path, built: Path) -> None:
    run = json.loads((run_folder / "config.json").read_text())["train"]
    private = [run["data_dir"], run["output_dir"], "/home/ada", "secret", "hospital"]
    for name, content in contents(built).items():
        assert not [text for text in private if text.encode() in content], name


def test_the_model_index_has_the_figures_of_the_report(built: Path) -> None:
    results = ModelCard((built / CARD_FILE).read_text()).data.eval_results
    figures = {(r.task_type, r.metric_name): r.metric_value for r in results}
    assert figures[("image-segmentation", "Dice")] == 0.8123
    assert figures[("image-classification", "balanced accuracy, hair type")] == 0.4321
    assert figures[("image-classification", "expected calibration error, skin type")] == 0.0875
    assert not [name for _, name in figures if "AUROC" in name]  # not measured
    assert {(r.dataset_name, r.dataset_split) for r in results} == {(UNNAMED_DATA, "val")}


def test_the_body_says_what_is_known_and_what_is_not(built: Path) -> None:
    text = (built / CARD_FILE).read_text()
    revision = read_checkpoint(built).revision
    for said in (
        'from_pretrained("ada/skin")',
        "hf://ada/skin",
        f"revision `{revision}`",
        "stored as float32",
        "Not a medical device",
        "| skin type | dry | 2 | 3 | 0.250 | – | 0.750 |",
        "| training photos | 12 |",
        "| Dice | 0.812 |",
        "| classes, within their group | skin type | hair type |",
        "| labels | 7 | 7 |",
        "| balanced accuracy | 0.432 | 0.432 |",
        "| AUROC (macro) | – | – |",
        "| expected calibration error | 0.087 | 0.087 |",
        "| balanced accuracy by chance | 0.200 | 0.200 |",
        "1.23% of the photo",
        "none was fitted",
        "Starting weights: random",
        "| `batch_size` | 4 |",
        "whom they show and who labelled them: not known",
        "![Losses and scores over the epochs](curves.png)",
    ):
        assert said in text, said


def full_report_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """As `evaluate` makes it now: with intervals, calibration, and what is the owner's business."""
    report = report_of(checkpoint)
    report["segmentation"]["hd95"] = 0.0477
    report["lesion_free"]["over_1_percent"] = 0.25
    for group in report["classification"]["groups"]:
        report["classification"]["groups"][group] = {"images": 7, "accuracy": 0.5, "ece_debiased": 0.0321, "nll": 1.25}
    report["classification"]["none"] = {"images": 8, "named": 0.125}
    bounds = {"low": 0.25, "high": 0.75}
    secret = {"mrs smith.jpg": {"photos": 5}}
    return report | {
        "intervals": {
            "segmentation": {"dice": bounds, "jaccard": None},
            "lesion_free": {"over_1_percent": bounds},
            "classification": {
                "groups": {"hair type": {"accuracy": bounds}},
                "per_class": {"dry": {"recall": bounds}},
                "none": {"named": bounds},
            },
        },
        "calibration": {"temperature": 1.0, "cross_fitted": {"ece": 0.0456, "nll": 0.969}},
        "worst": {"segmentation": [{"name": "mrs smith.jpg", "jaccard": 0.1}]},
        "breakdown": {"clinic of mrs smith": secret},
        "confusion": {"skin type": {"classes": ["dry"], "counts": [[5]]}},
        "reliability": [{"from": 0.1, "to": 0.2, "images": 1}],
    }


def test_intervals_and_calibration_go_along_and_nothing_of_single_photos(built: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(built, tmp_path / "mine")
    report = full_report_of(read_checkpoint(mine))
    (mine / EVALUATION_FILE).write_text(json.dumps(report))
    package = build_package(mine, tmp_path / "out", repo_id="ada/skin")
    assert package.evaluation is not None
    assert package.evaluation["intervals"] == report["intervals"]
    assert package.evaluation["calibration"] == report["calibration"]
    assert not package.evaluation.keys() & {"worst", "breakdown", "confusion", "reliability", "data", "checkpoint"}
    assert not [name for name, content in contents(package.path).items() if b"smith" in content]


def test_the_card_tells_intervals_and_calibration(built: Path) -> None:
    checkpoint = read_checkpoint(built)
    text = write_card(CardFacts(checkpoint, "ada/skin", full_report_of(checkpoint)))
    for said in (
        "| Dice | 0.812 (0.250 to 0.750) |",
        "| Jaccard | 0.700 |",
        "| 95 % Hausdorff distance, share of the diagonal | 0.048 |",
        "| of these, those with over 1 % marked | 25.00% (25.00% to 75.00%) |",
        "| accuracy | 0.500 | 0.500 (0.250 to 0.750) |",
        "| debiased calibration error | 0.032 | 0.032 |",
        "| negative log-likelihood | 1.250 | 1.250 |",
        "| 0.250 (0.250 to 0.750) | – | 0.750 |",
        "Of 8 photos that show none of the classes, 12.50% (25.00% to 75.00%) were given one.",
        "In brackets: 95 % bootstrap intervals",
        "expected calibration error 0.046, negative log-likelihood 0.969",
    ):
        assert said in text, said
    assert "In brackets" not in write_card(CardFacts(checkpoint, "ada/skin", report_of(checkpoint)))


def test_the_card_tells_how_answers_are_read() -> None:
    config = ModelConfig(temperature=1.4342, mask_threshold=0.45, unnamed_groups=("skin type",))
    text = write_card(CardFacts(Checkpoint("x", {}, config), "ada/skin"))
    assert "1.434, fitted; it divides all class logits" in text
    assert "from a probability of 0.45 on. Classes of skin type are never named" in text
    assert "never named" not in write_card(CardFacts(Checkpoint("x", {}, ModelConfig()), "ada/skin"))


def test_without_a_report_the_runs_own_figures_stand_there(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / EVALUATION_FILE).unlink()
    text = (build_package(tmp_path / "run", tmp_path / "out").path / CARD_FILE).read_text()
    dice = read_checkpoint(run_folder).metrics["val_dice"]
    assert "No evaluation report came with these weights" in text
    assert f"| dice | {dice:.3f} |" in text
    assert "model-index" not in text


def test_a_report_of_other_weights_is_left_out(
    run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    report = json.loads((run_folder / EVALUATION_FILE).read_text()) | {"weights": "0" * 12}
    (tmp_path / "run" / EVALUATION_FILE).write_text(json.dumps(report))
    package = build_package(tmp_path / "run", tmp_path / "out", repo_id="ada/skin")
    assert package.evaluation is None
    assert EVALUATION_FILE not in contents(tmp_path / "out")
    assert "belongs to other weights" in caplog.text


def test_a_lone_pth_takes_no_readme_from_beside_it(tmp_path: Path) -> None:
    config = ModelConfig(image_size=64, class_counts=(0, *[5] * 9), mask_count=0)
    write_pth(tmp_path / "x.pth", Checkpoint("x", random_network(config).state_dict(), config))
    (tmp_path / CARD_FILE).write_text("# Somebody's project")
    text = (build_package(tmp_path / "x.pth", tmp_path / "out").path / CARD_FILE).read_text()
    assert "Somebody" not in text
    assert "**0: not trained, never answered**" in text
    assert "It never answers normal" in text
    assert "Lesion mask: not trained" in text
    assert "How good they are is not known" in text
    assert "Settings: not known" in text


def test_a_lone_pth_takes_no_history_of_a_run_from_beside_it(run_folder: Path, tmp_path: Path) -> None:
    """Two files in one folder cannot both be what its history is about."""
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "multitask_best.pth").rename(tmp_path / "run" / "other.pth")
    assert "multitask_history.json" not in contents(build_package(tmp_path / "run" / "other.pth", tmp_path / "x").path)


# ---- what belongs to these weights


def change_weights(folder: Path) -> Checkpoint:
    """As after a fine-tuning, with all else left as it lies there."""
    checkpoint = read_checkpoint(folder)
    checkpoint.state_dict["classification_head.8.bias"] += 1
    write_folder(folder, Checkpoint(folder.name, checkpoint.state_dict, checkpoint.model_config))
    return read_checkpoint(folder)


def test_changed_weights_take_nothing_of_the_old_ones_along(built: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(built, tmp_path / "mine")
    card = (mine / CARD_FILE).read_text().replace("license: other", "license: mit").replace("- unet", "- unet\n- ours")
    (mine / CARD_FILE).write_text(card)
    old, new = read_checkpoint(built).revision, change_weights(mine).revision
    package = build_package(mine, tmp_path / "out", repo_id="bob/tuned")
    assert set(contents(package.path)) == {CARD_FILE, CONFIG_FILE, "model.safetensors"}
    text = (package.path / CARD_FILE).read_text()
    assert new in text
    assert not [stale for stale in (old, "0.812", "model-index", "ada/skin", "curves.png") if stale in text]
    assert ModelCard(text).data.license == "mit"
    assert "ours" in ModelCard(text).data.tags


def test_a_new_evaluation_of_the_same_weights_is_in_the_body_too(built: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(built, tmp_path / "mine")
    report = report_of(read_checkpoint(mine)) | {"segmentation": {"images": 5, "dice": 0.9}}
    (mine / EVALUATION_FILE).write_text(json.dumps(report))
    text = (build_package(mine, tmp_path / "out", repo_id="ada/skin").path / CARD_FILE).read_text()
    assert "| Dice | 0.900 |" in text
    assert "0.812" not in text
    assert "![Losses" in text  # the history is still theirs


def test_a_persons_words_stay_with_the_weights_that_they_are_about(
    built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = shutil.copytree(built, tmp_path / "mine")
    words = "Photographed in Graz."
    (mine / CARD_FILE).write_text((mine / CARD_FILE).read_text().replace("## Limits", f"{words}\n\n## Limits"))
    assert words in (build_package(mine, tmp_path / "same").path / CARD_FILE).read_text()
    change_weights(mine)
    assert words not in (build_package(mine, tmp_path / "changed").path / CARD_FILE).read_text()
    assert "README.md is written anew" in caplog.text


def test_figures_of_a_persons_card_are_ours_or_none(built: Path) -> None:
    checkpoint = read_checkpoint(built)
    own = "---\nlanguage: de\nmodel-index:\n- name: theirs\n  results: []\n---\n# Mine\n"
    without = write_card(CardFacts(checkpoint, "ada/skin"), own=own)
    assert "model-index" not in without
    assert without.endswith("---\n# Mine\n")
    assert "language: de" in without
    measured = write_card(CardFacts(checkpoint, "ada/skin", report_of(checkpoint)), own=own)
    assert "0.8123" in measured
    assert "theirs" not in measured


def test_weights_that_were_replaced_meanwhile_are_not_packed(built: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="replaced since they were loaded; load it again"):
        build_package(built, tmp_path, revision="0" * 12)


def test_figures_of_any_size_do_no_harm(built: Path, tmp_path: Path) -> None:
    """What others publish can hold any number, and any nesting."""
    mine = shutil.copytree(built, tmp_path / "mine")
    huge, checkpoint = 10**401, read_checkpoint(mine)
    mask = {"dice": huge, "jaccard": 0.5, "who": "mrs smith"}
    report = report_of(checkpoint) | {"photos": huge, "segmentation": mask}
    report["classification"] |= {"ece": 1e308, "deep": {"a": {"b": {"c": {"d": {"e": 1}}}}}}
    (mine / EVALUATION_FILE).write_text(json.dumps(report))
    history = json.loads((mine / "multitask_history.json").read_text())
    curve = ",".join(["1e400", str(huge), "-1e308"][: history["epochs"]])
    lists = json.dumps({key: value for key, value in history.items() if key != "val_loss"})
    (mine / "multitask_history.json").write_text(f'{{"val_loss": [{curve}], {lists[1:]}')
    config = json.loads((mine / CONFIG_FILE).read_text())
    config["checkpoint"]["metrics"] = {"val_dice": huge, "val_jaccard": 0.5}
    (mine / CONFIG_FILE).write_text(json.dumps(config))
    package = build_package(mine, tmp_path / "out")
    assert package.evaluation is not None
    assert package.evaluation["segmentation"] == {"dice": None, "jaccard": 0.5, "who": None}
    published = json.loads((package.path / "multitask_history.json").read_text())
    assert published["val_loss"] == [None] * published["epochs"]
    assert not [name for name, content in contents(package.path).items() if b"0" * 300 in content]


def test_tags_of_an_own_card_cannot_swell(built: Path) -> None:
    """Six lines of YAML that stand for a million of lists."""
    bombs = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdef", "bcdefg", strict=True):
        bombs.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    front = "\n".join([*bombs, "license: *g", "tags: [*g, fine, 3, " + ", ".join(["y" * 61] * 100) + "]"])
    card = write_card(CardFacts(read_checkpoint(built), "ada/skin"), own=f"---\n{front}\n---\nmine\n")
    assert len(card) < 3000
    data = ModelCard(card).data
    assert data.tags[:2] == ["fine", "image-classification"]
    assert data.license == "other"


def test_curves_are_a_picture_without_origin(built: Path) -> None:
    with Image.open(built / "curves.png") as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (1000, 400))
        assert set(picture.info) <= {"dpi"}


def test_the_licence_is_the_given_the_own_or_research_only() -> None:
    facts = CardFacts(Checkpoint("x", {}, ModelConfig()), "ada/skin")

    def licence(card: str) -> tuple[Any, Any]:
        data = ModelCard(card).data.to_dict()
        return data["license"], data.get("license_name")

    own = "---\nlicense: mit\n---\nbody\n"
    assert licence(write_card(facts)) == ("other", "research-only")
    assert licence(write_card(facts, own=own)) == ("mit", None)
    assert licence(write_card(facts, "mit", own=own)) == ("mit", None)
    assert licence(write_card(facts, "apache-2.0")) == ("apache-2.0", None)
    ours = write_card(facts, "apache-2.0")
    assert "Licence of the weights: mit" in (again := write_card(facts, "mit", own=ours))
    assert "apache" not in again
    # A person's words may say otherwise further down.
    with pytest.raises(ConfigError, match=r"license: got apache-2\.0; the model's own README\.md says mit: change it"):
        write_card(facts, "apache-2.0", own=own)
    with pytest.raises(ConfigError, match="license: got"):
        write_card(facts, "MIT\nlicence")


@pytest.mark.parametrize("front", ["- a\n- list", "a: [", "1: 2", "a: b: c"])
def test_a_damaged_own_card_is_one_line(front: str) -> None:
    facts = CardFacts(Checkpoint("x", {}, ModelConfig()), "ada/skin")
    with pytest.raises(HubError, match=r"README\.md: the front matter"):
        write_card(facts, own=f"---\n{front}\n---\nbody\n")


names = st.text(min_size=1, max_size=120).filter(lambda name: name.strip().lower() not in ("", "none"))


@law
@given(st.lists(names, min_size=2, max_size=4, unique_by=lambda name: name.strip().lower()), names)
def test_names_cannot_break_the_card(classes: list[str], group: str) -> None:
    """Whatever a class is called: one row each, no HTML, no link, and front matter that reads back."""
    config = ModelConfig(classes=Classes(groups={group: tuple(classes)}))
    checkpoint = Checkpoint("x", {}, config)
    card = write_card(CardFacts(checkpoint, "ada/skin", report_of(checkpoint)))
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["model-index"][0]["name"] == "skin"
    table = body.partition("## Classes")[2].partition("\n\nLesion mask")[0].strip().splitlines()
    assert len(table) == 2 + len(classes)
    for row in table:
        plain = re.sub(r"\\.", "", row)  # without what is escaped
        assert plain.count("|") == 8
        assert not set(plain) & set("<[`*_")


def test_weights_that_do_not_fit_are_never_packed(tmp_path: Path) -> None:
    config = ModelConfig(image_size=64)
    weights = random_network(config).state_dict() | {"classification_head.8.bias": torch.zeros(3)}
    write_folder(tmp_path / "wrong", Checkpoint("wrong", weights, config))
    with pytest.raises(CheckpointError, match="has the shape"):
        build_package(tmp_path / "wrong", tmp_path / "out")
