"""What photos are told apart by, beside their classes: source, skin tone, the size of the lesion, and more."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mtl.analysis.skin_tone import CATEGORIES, MAX_SIDE_PX, estimate_skin_tone
from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.data.parallel import in_threads
from mtl.errors import DataError
from mtl.evaluation.figures import jaccards, read_labels
from mtl.evaluation.measure import Results
from mtl.metrics import threshold_jaccard
from mtl.photo import read_mask, read_photo

UNKNOWN_VALUE = ""
FEWEST, MOST_VALUES = 5, 12  # photos that a value needs to be told; values of an attribute
SIZES = ((0.05, "under 5 % of the photo"), (0.2, "5 to 20 %"), (1.0, "over 20 %"))
REPLICATES = 1000
ORDERS = {"lesion size": [name for _, name in SIZES], "skin tone": [name for _, name in CATEGORIES]}
KNOWN_FILES = ("diagnoses.csv",)  # of a data folder
Attributes = Mapping[str, Sequence[str]]  # attribute -> each photo's value; UNKNOWN_VALUE where it has none


def find_attributes(
    samples: Sequence[Sample],
    results: Results,
    folder: Path,
    files: Sequence[Path] = (),
    pulse: Callable[[], None] = lambda: None,
) -> dict[str, list[str]]:
    """Of the measured photos. files: CSV, photo names in the first column, an attribute in each other.

    pulse: called after each photo whose skin tone is looked at; may raise to break off.

    Raises DataError for a file that cannot be read so.
    """
    found = {"source": [_source(sample.name) for sample in samples], "lesion size": _lesion_sizes(results)}
    found["skin tone"] = []
    for tone in in_threads(_skin_tone, samples):
        found["skin tone"].append(tone)
        pulse()
    names = [sample.name for sample in samples]
    for file in [*(folder / name for name in KNOWN_FILES if (folder / name).is_file()), *files]:
        found |= {
            attribute: [by_name.get(n, UNKNOWN_VALUE) for n in names] for attribute, by_name in _read(file).items()
        }
    return {attribute: values for attribute, values in found.items() if _tells_apart(values)}


def _source(name: str) -> str:
    """What stands before the first underscore: folders that were put together name their photos so."""
    prefix, underscore, _ = name.partition("_")
    return prefix if underscore else UNKNOWN_VALUE


def _lesion_sizes(results: Results) -> list[str]:
    sizes = [UNKNOWN_VALUE] * len(results.names)
    masks = results.masks.take(results.masks.has_lesion)
    for photo, coverage in zip(masks.photos.tolist(), masks.coverage.tolist(), strict=True):
        sizes[photo] = next(name for most, name in SIZES if coverage <= most)
    return sizes


def _skin_tone(sample: Sample) -> str:
    """By the individual typology angle of the skin around the lesion."""
    photo = read_photo(sample.photo, min_side=MAX_SIDE_PX)
    tone = estimate_skin_tone(photo, read_mask(sample.mask) if sample.mask else None)
    return tone.category if tone else UNKNOWN_VALUE


def _read(file: Path) -> dict[str, dict[str, str]]:
    """Attribute -> photo name -> value; a column that is called label is called as the file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV ({error}); needed photo names in the first column") from None
    if not rows or len(rows[0]) < 2:
        raise DataError(f"{file}: got {len(rows[0]) if rows else 0} columns; needed photo names and at least one more")
    _, *columns = rows[0]
    titles = [file.stem if column.strip().lower() == "label" else column.strip() for column in columns]
    return {
        title: {row[0].strip(): row[place].strip() for row in rows[1:] if len(row) > place}
        for place, title in enumerate(titles, start=1)
    }


def _tells_apart(values: Sequence[str]) -> bool:
    return 2 <= len(set(values) - {UNKNOWN_VALUE}) <= MOST_VALUES


# ---- figures by attribute


def breakdown(results: Results, config: ModelConfig, attributes: Attributes) -> dict[str, dict[str, dict[str, object]]]:
    """Attribute -> value -> `photos` and each figure's {"images", "value", "low", "high"}; values of few photos go."""
    measured = _by_photo(results, config)
    found = {}
    for attribute, values in attributes.items():
        array = np.array(values)
        order = ORDERS.get(attribute) or sorted(set(values) - {UNKNOWN_VALUE})
        parts = {value: np.flatnonzero(array == value) for value in order}
        told = {value: _part_figures(measured, photos) for value, photos in parts.items() if len(photos) >= FEWEST}
        if told:
            found[attribute] = told
    return found


def _by_photo(results: Results, config: ModelConfig) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Figure -> (photos (n,), what it is the mean of (n,))."""
    lesions, free = (results.masks.take(rows) for rows in (results.masks.has_lesion, ~results.masks.has_lesion))
    jaccard = jaccards(lesions)
    measured = {
        "jaccard": (lesions.photos, jaccard),
        "threshold_jaccard": (lesions.photos, threshold_jaccard(jaccard)),
        "false_positive_area": (free.photos, free.predicted / free.pixels),
    }
    within = read_labels(results.answers, config, within_groups=True)
    for group, ids in config.classes.group_ids.items():
        labels = within.of_group(ids)
        measured[f"{group}, accuracy"] = (labels.photos, labels.correct.astype(float))
    return measured


def _part_figures(measured: Mapping[str, tuple[np.ndarray, np.ndarray]], photos: np.ndarray) -> dict[str, object]:
    parts = {figure: values[np.isin(rows, photos)] for figure, (rows, values) in measured.items()}
    told = {figure: _mean_with_interval(values) for figure, values in parts.items() if len(values) >= FEWEST}
    return {"photos": len(photos), **told}


def _mean_with_interval(values: np.ndarray) -> dict[str, float]:
    drawn = np.random.default_rng(0).integers(0, len(values), (REPLICATES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975]).tolist()
    return {"images": len(values), "value": float(values.mean()), "low": low, "high": high}
