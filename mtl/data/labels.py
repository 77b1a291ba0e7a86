"""Class labels: from what a label file says to class targets."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from mtl.config import NO_CLASS, UNKNOWN, Classes
from mtl.errors import DataError

Target = tuple[int, ...]


def unknown_target(classes: Classes) -> Target:
    return (UNKNOWN,) * len(classes.groups)


def parse_label(label: Any, classes: Classes) -> Target:
    """The target of one label: an id, a name, "none", or {group: id or name}. Raises ValueError with the reason."""
    if isinstance(label, str) and label.strip().lower() == "none":
        return (NO_CLASS,) * len(classes.groups)
    if isinstance(label, dict):
        return _parse_group_labels(label, classes)
    class_id = _class_id(label, classes, or_else=', "none"')
    return tuple(class_id if class_id in ids else UNKNOWN for ids in classes.group_ids.values())


def _parse_group_labels(labels: dict[str, Any], classes: Classes) -> Target:
    if not labels:
        raise ValueError("the label is empty; give a class, or leave the photo out of the file")
    target = list(unknown_target(classes))
    for group, label in labels.items():
        if group not in classes.groups:
            raise ValueError(f"there is no group {group!r}; the groups are {', '.join(classes.groups)}")
        class_id = _class_id(label, classes)
        if class_id not in classes.group_ids[group]:
            raise ValueError(f"{label!r} is no {group}; use one of {', '.join(classes.groups[group])}")
        target[list(classes.groups).index(group)] = class_id
    return tuple(target)


def _class_id(label: Any, classes: Classes, or_else: str = "") -> int:
    number = len(classes.names)
    if isinstance(label, str):
        named = classes.id_of(label)
        if named is not None:
            return named
        if label.strip().isdecimal():
            label = int(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < number:
        return label
    raise ValueError(
        f"got {label!r}; needed an id from 0 to {number - 1}{or_else} or one of {', '.join(classes.names)}"
    )


def read_labels(path: Path, classes: Classes) -> dict[str, Target]:
    """Photo name -> target, from JSON {photo: label} or CSV with the columns image and label."""
    targets: dict[str, Target] = {}
    for name, label, place in _csv_rows(path) if path.suffix.lower() == ".csv" else _json_entries(path):
        if name in targets:
            raise DataError(f"{path.name}{place}: {name} has two labels; keep one")
        try:
            targets[name] = parse_label(label, classes)
        except ValueError as reason:
            raise DataError(f"{path.name}{place}: {name}: {reason}") from None
    return targets


def _json_entries(path: Path) -> Iterator[tuple[str, Any, str]]:
    entries = read_json(path)
    if not isinstance(entries, dict):
        raise DataError(f"{path.name}: got a JSON {type(entries).__name__}; needed an object {{photo name: label}}")
    return ((name, label, "") for name, label in entries.items())


def _csv_rows(path: Path) -> Iterator[tuple[str, Any, str]]:
    for line, row in read_csv(path, ("image", "label")):
        yield row["image"], row["label"], f" line {line}"


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """(line number, these columns' cells, stripped) for each row; comma or semicolon, byte order mark or none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        reason = type(error).__name__
        raise DataError(f"{path.name}: cannot be read as UTF-8 text ({reason}); save it as CSV UTF-8") from None
    first_line = next(iter(text.splitlines()), "").strip()
    delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
    rows = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        if missing := [column for column in columns if column not in rows.fieldnames]:
            raise DataError(
                f"{path.name}: the first line is {first_line[:80]!r}; needed the columns {', '.join(columns)} "
                f"({', '.join(missing)} missing)"
            )
        return [(rows.line_num, _cells(row, columns, f"{path.name} line {rows.line_num}")) for row in rows]
    except csv.Error as error:
        raise DataError(
            f"{path.name} line {rows.line_num}: cannot be read as CSV: {error}; look for a lone quote"
        ) from None


def _cells(row: dict[str, str | None], columns: tuple[str, ...], place: str) -> dict[str, str]:
    cells = {column: (row[column] or "").strip() for column in columns}
    if not all(cells.values()):
        raise DataError(f"{place}: {' or '.join(columns)} is empty; fill it in or delete the row")
    return cells


def read_json(path: Path) -> Any:
    """The content of a JSON file; a key that stands twice in an object is an error, not the last one's win."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_distinct_keys)
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path.name}: cannot be read as JSON: {error}") from None


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{next(name for name, count in counts.items() if count > 1)} stands twice; keep one")
    return entries
