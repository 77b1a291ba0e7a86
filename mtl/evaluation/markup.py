"""What the page of an evaluation is built of: figures as text, tables, the reliability diagram.

Texts come in plain and are escaped here; what is called HTML is HTML already.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mtl.evaluation.pictures import Picture

MISSING = "–"
UNIT = "\u00a0%"  # not to be parted from its number at a line's end
Write = Callable[[float], str]  # a figure as text
MIN_PERCENT = 0.01  # less is told as less than that

# ---- figures


def digits(value: float) -> str:
    """0.81234 -> "0.812"."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """0.0421 -> "4.2 %", 0.0003 -> "0.03 %", 0.00001 -> "< 0.01 %", 1 -> "100 %"."""
    size = 100 * value
    if 0 < size < MIN_PERCENT:
        return f"<\u00a0{MIN_PERCENT}{UNIT}"
    return f"{size:.{0 if size in (0, 100) else 2 if size < 1 else 1}f}{UNIT}"


def signed_percent(value: float) -> str:
    """-0.0421 -> "−4.2 %", 0.07 -> "+7.0 %"."""
    return f"{100 * value:+.1f}{UNIT}".replace("-", "−")


def figure(value: float | None, write: Write) -> str:
    return MISSING if value is None else write(value)


def between(bounds: Mapping[str, float] | None, write: Write) -> str:
    """{"low": 0.79, "high": 0.83} -> "0.790 to 0.830"; the unit stands once."""
    if not bounds:
        return MISSING
    low, high = write(bounds["low"]), write(bounds["high"])
    return f"{low.removesuffix(UNIT)} to {high}"


def measured(value: float | None, bounds: Mapping[str, float] | None, write: Write) -> str:
    """HTML: the figure, and behind it, smaller, its interval where it has one."""
    told = escape(figure(value, write))
    return f'{told} <span class="range">({escape(between(bounds, write))})</span>' if bounds else told


# ---- parts of the page


def section(heading: str, *content: str) -> str:
    """content: HTML."""
    return f"<section><h2>{escape(heading)}</h2>{''.join(content)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """kind: a class of the style sheet."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """header: texts; rows: HTML, the first cell of each naming it. On a narrow page each row becomes a block."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(_cells(header, row))}</tr>" for row in rows)
    return f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cells(header: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    first, *others = row
    yield f'<th scope="row">{first}</th>'
    for name, cell in zip(header[1:], others, strict=True):
        yield f'<td data-label="{escape(name)}"><span>{cell}</span></td>'


def with_note(text: str, note: str) -> str:
    """HTML: a name, and below it in small print what it means."""
    return f"{escape(text)}<small>{escape(note)}</small>" if note else escape(text)


def confusion_table(caption: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """HTML: counts of labels, truth by row, each cell as dark as its share of the row."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_shaded(count, sum(row)) for count in row)}</tr>'
        for name, row in zip(classes, counts, strict=True)
    )
    return (
        f'<div class="scroll"><table class="confusion"><caption>{escape(caption)}</caption>'
        f"<thead><tr><td>label ↓ answer →</td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _shaded(count: int, total: int) -> str:
    share = count / total if total else 0.0
    return f'<td style="--share:{share:.3f}" title="{share:.0%} of the row">{count}</td>'


def picture_grid(pictures: Sequence[Picture]) -> str:
    return f'<div class="pictures">{"".join(_picture(picture) for picture in pictures)}</div>'


def _picture(picture: Picture) -> str:
    source = f"data:image/jpeg;base64,{b64encode(picture.jpeg).decode()}"
    return (
        f'<figure><img src="{source}" alt="{escape(picture.alt)}">'
        f"<figcaption><b>{escape(picture.caption)}</b><span>{escape(picture.name)}</span></figcaption></figure>"
    )


# ---- the reliability diagram

SIDE, LEFT, TOP = 300, 46, 12  # of the square that the bars stand in, in units of the drawing
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
COUNTS = 44  # the height of what stands below the square: the numbers of photos, and the names of the axes


def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> str:
    """An inline SVG: for each tenth of probability the share that was right, the diagonal, and how many photos."""
    ticks = "".join(_tick(value) for value in TICKS)
    bars = "".join(_bar(each) for each in bins)
    diagonal = f'<path class="even" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>'
    points = "".join(f'<circle cx="{_x(each["confidence"])}" cy="{_y(each["accuracy"])}" r="3.5"/>' for each in bins)
    names = (
        f'<text x="{_x(0.5)}" y="{TOP + SIDE + COUNTS + 8}">probability of the answer</text>'
        f'<text transform="translate(12 {_y(0.5)}) rotate(-90)">share that is right</text>'
    )
    return (
        f'<svg class="reliability" role="img" aria-label="Reliability diagram; the table below it has its numbers" '
        f'viewBox="0 0 {LEFT + SIDE + 16} {TOP + SIDE + COUNTS + 16}">{ticks}{bars}{diagonal}{points}{names}</svg>'
    )


def _x(probability: float) -> str:
    return f"{LEFT + SIDE * probability:.1f}"


def _y(share: float) -> str:
    return f"{TOP + SIDE * (1 - share):.1f}"


def _tick(value: float) -> str:
    return (
        f'<path class="grid" d="M{_x(0)} {_y(value)}H{_x(1)}"/>'
        f'<text class="end" x="{LEFT - 6}" y="{_y(value)}" dy="0.35em">{value:g}</text>'
        f'<text x="{_x(value)}" y="{TOP + SIDE + 14}">{value:g}</text>'
    )


def _bar(each: Mapping[str, Any]) -> str:
    width, height = SIDE * (each["to"] - each["from"]) - 2, SIDE * each["accuracy"]
    middle = (each["from"] + each["to"]) / 2
    return (
        f'<rect x="{LEFT + SIDE * each["from"] + 1:.1f}" y="{_y(each["accuracy"])}" width="{width:.1f}"'
        f' height="{height:.1f}"/><text class="count" x="{_x(middle)}" y="{TOP + SIDE + 32}">{each["images"]}</text>'
    )
