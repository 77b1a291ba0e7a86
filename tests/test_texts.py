"""The page's texts: every one that is used has its German one, which says as much; and the visitor's language."""

import ast
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from types import ModuleType

import pytest
from builders import law
from hypothesis import given
from hypothesis import strategies as st

from mtl import dicom, photo
from mtl.analysis import record
from mtl.config import DEFAULT_CLASSES
from mtl.errors import MtlError, PhotoError
from mtl.ui import desk
from mtl.ui.texts import FOLDER, LANGUAGES, Words, translations, words_for

ROOT = Path(__file__).parent.parent
UI = ROOT / "mtl" / "ui"
IN_HTML = re.compile(r'data-(?:t|label)="([^"{]+)"')
IN_SCRIPT = re.compile(r'\bt\("([^"]+)"\)')
CONTROLS = re.compile(r"CONTROLS = \[(.*?)\];", re.DOTALL)
RAISING, ERRORS = (photo, dicom, record, desk), ("PhotoError", "ConfigError")
LANGUAGE = st.sampled_from([Words(language) for language in LANGUAGES])


def called(path: Path, *names: str) -> Iterator[str]:
    """The texts that a Python file gives to functions of these names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in names and isinstance(node.args[0].value, str):
            yield node.args[0].value


def labels() -> set[str]:
    return {text for path in UI.rglob("*.py") for text in called(path, "label")}


def used() -> set[str]:
    """Every text that is looked up, and what passes through as a value: classes, groups and examples."""
    python = [*UI.rglob("*.py"), *(ROOT / "mtl" / "analysis").glob("*.py")]
    texts = labels() | {text for path in python for text in called(path, "t", "words")}
    for path in [*UI.rglob("*.py"), *UI.glob("*.html"), *UI.glob("*.js")]:
        content = path.read_text(encoding="utf-8")
        texts.update(IN_HTML.findall(content))
        texts.update(IN_SCRIPT.findall(content) if path.suffix == ".js" else [])
        texts.update(text for names in CONTROLS.findall(content) for text in re.findall(r'"(.+?)"', names))
    texts.update(reasons())
    texts.update(name for group, names in DEFAULT_CLASSES.items() for name in (group, *names))
    texts.update(path.stem.replace("-", " ") for path in (ROOT / "assets" / "examples").glob("*.jpg"))
    return texts


def reasons() -> set[str]:
    """The parts of what is said of a photo or a scale; what varies in a text is a value of it, or this fails."""
    texts = [eval(text, vars(module)) for module in RAISING for text in calls(module) if "OF_FILE" not in text]
    return {part for text in texts for part in text.split("; ")}


def calls(module: ModuleType) -> Iterator[str]:
    """The first argument, as source, wherever a module makes an error."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            yield ast.unparse(node.args[0])


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


GERMAN = translations("de")


def test_every_text_that_is_used_has_a_german_one_and_no_other_has() -> None:
    missing, unused = used() - set(GERMAN), set(GERMAN) - used()
    assert not missing, f"de.json lacks {sorted(missing)}"
    assert not unused, f"nothing uses {sorted(unused)}"


@pytest.mark.parametrize(("english", "german"), GERMAN.items())
def test_a_german_text_keeps_placeholders_and_how_the_english_one_begins_and_ends(english: str, german: str) -> None:
    assert placeholders(german) == placeholders(english)
    assert german.strip()
    # Texts are put together: a blank that leads, or a full stop that ends a sentence, belongs to the text.
    assert (german[0] == " ", german[-1] == ".") == (english[0] == " ", english[-1] == ".")


def test_labels_are_texts_that_gradio_can_look_up() -> None:
    assert not [text for text in labels() if set(text) & set(".{}")]


def test_about_has_the_same_parts_in_every_language() -> None:
    parts = [(FOLDER / f"about.{language}.md").read_text(encoding="utf-8").count("### ") for language in LANGUAGES]
    assert len(set(parts)) == 1


def test_a_text_without_translation_stays_and_its_values_are_filled_in() -> None:
    assert Words("de")("a class of somebody's own {n}", n=3) == "a class of somebody's own 3"
    assert Words("de")("{a}", a="{b}") == "{b}"
    assert Words("de")("Photo {n}", n=3) == "Foto 3"


def test_why_a_file_is_no_photo_is_told_in_the_visitors_language_without_the_files_name(tmp_path: Path) -> None:
    file = tmp_path / "{holiday}; needed.jxl"
    file.write_bytes(b"\xff\x0a" + bytes(200))
    with pytest.raises(PhotoError) as caught:
        photo.read_photo(file)
    assert str(caught.value) == "{holiday}; needed.jxl: JPEG XL is not read yet: save it as JPEG or PNG"
    assert Words("en").told(caught.value) == "JPEG XL is not read yet: save it as JPEG or PNG"
    assert Words("de").told(caught.value) == "JPEG XL wird noch nicht gelesen: bitte als JPEG oder PNG speichern"


def test_an_error_that_has_no_translation_is_told_as_it_is() -> None:
    assert Words("de").told(MtlError("{model}; got 3; needed 4")) == "{model}; got 3; needed 4"


def test_an_error_outlives_a_process_with_its_text_and_values() -> None:
    error = pickle.loads(pickle.dumps(PhotoError("{file}: got {n}", file="{n}", n=3)))
    assert (str(error), error.text, error.values) == ("{n}: got 3", "{file}: got {n}", {"file": "{n}", "n": 3})


@law
@given(LANGUAGE, st.floats(-1e9, 1e9), st.integers(0, 4))
def test_a_number_reads_back_as_the_number_it_was(t: Words, value: float, digits: int) -> None:
    thousands, point = (".", ",") if t.language == "de" else (",", ".")
    written = t.number(value, digits)
    assert float(written.replace(thousands, "").replace(point, ".")) == round(value, digits)
    assert t.percent(value / 100, digits).endswith(" %")


@pytest.mark.parametrize(
    ("accept_language", "language"),
    [
        ("de-CH,de;q=0.9,en", "de"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        ("fr-FR, de ; q=0.7, en;q=0.3", "de"),
        ("en;q=0.2,de;q=0.8", "de"),
        ("de;q=0,en;q=0.1", "en"),
        ("en;q=0.5,de;q=0.5", "en"),
        ("DE-at", "de"),
        ("den,dep;q=0.9", "en"),
        ("fr,*;q=0.1", "en"),
        ("de;q=nan,;;=,\x00", "en"),
        ("", "en"),
        (None, "en"),
    ],
)
def test_the_language_that_a_browser_wants_most_is_taken(accept_language: str | None, language: str) -> None:
    assert words_for(accept_language).language == language


@law
@given(st.text(alphabet="den-;q=0.19, *é\n"))
def test_any_header_gives_a_language_that_there_is(accept_language: str) -> None:
    assert words_for(accept_language).language in LANGUAGES
