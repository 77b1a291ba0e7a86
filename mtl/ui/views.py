"""How answers read: plain data in, HTML out. Everything a person typed is escaped."""

from html import escape

from mtl.analysis.lesion import MIN_AREA_RATIO
from mtl.analysis.predict import NAME_CONFIDENCE, Analysis, GroupAnswer
from mtl.ui.session import Entry


def message(kind: str, headline: str, text: str = "") -> str:
    """A banner; kind is error, good or quiet."""
    return f'<div class="mtl-message {kind}" role="status"><b>{escape(headline)}</b>{escape(text)}</div>'


def empty(headline: str, text: str) -> str:
    return f'<div class="mtl-empty"><b>{escape(headline)}</b>{escape(text)}</div>'


def quiet(text: str) -> str:
    return f'<div class="mtl-card"><p class="mtl-quiet">{escape(text)}</p></div>'


# ---- analysis


def answer_card(entry: Entry) -> str:
    """The answer for one photo: what it shows, the bars of each group, the lesions."""
    assert entry.analysis is not None
    parts = [f"<h2>{escape(_headline(entry))}</h2>", f'<p class="mtl-quiet">{escape(entry.name)}</p>']
    parts += [_group(group) for group in entry.analysis.groups]
    parts += ["<h3>Lesion</h3>", _lesions(entry)]
    return f'<div class="mtl-card">{"".join(parts)}</div>'


def _headline(entry: Entry) -> str:
    """What the classes say, or the lesions where no class is trained."""
    assert entry.analysis is not None
    words = class_words(entry.analysis) or lesion_words(entry)
    return words[0].upper() + words[1:]


def class_words(analysis: Analysis) -> str:
    """ "oily skin 81 %, curly hair 64 %", "skin type uncertain: ...", that nothing is seen; empty: nothing trained."""
    trained = [group for group in analysis.groups if any(group.trained)]
    seen = [_group_words(group) for group in trained if group.applies]
    nothing = " or ".join(group.group for group in trained)
    return ", ".join(seen) or (f"no {nothing} seen" if nothing else "")


def lesion_words(entry: Entry) -> str:
    """ "2 lesions, 4.2 % of the photo", or why there is none."""
    assert entry.analysis is not None
    area = f"{_area(entry.lesion_area_ratio)} of the photo"
    if not entry.analysis.mask_trained:
        return "mask not trained"
    if entry.lesions:
        return f"{len(entry.lesions)} lesion{'s' if len(entry.lesions) > 1 else ''}, {area}"
    if entry.lesion_area_ratio >= MIN_AREA_RATIO:
        return f"no lesion found, only specks, together {area}"
    return "no lesion found"


def _group_words(group: GroupAnswer) -> str:
    what = group.group.removesuffix(" type")
    if group.answer != "uncertain":
        return f"{group.predicted_class} {what} {_percent(group.confidence)}"
    leading = sorted(zip(group.probabilities, group.names, strict=True), reverse=True)[:2]
    return f"{what} type uncertain: {' or '.join(name for _, name in leading)}"


def _group(group: GroupAnswer) -> str:
    title = escape(group.group[0].upper() + group.group[1:])
    if not any(group.trained):
        return f'<h3>{title}</h3><p class="mtl-quiet">not trained, no photos</p>'
    if not group.applies:
        return f'<h3>{title}</h3><p class="mtl-quiet">not seen in this photo</p>'
    note = "" if group.confidence >= NAME_CONFIDENCE else f" · uncertain, below {_percent(NAME_CONFIDENCE)}"
    order = sorted(range(len(group.names)), key=lambda i: (not group.trained[i], -group.probabilities[i]))
    return f"<h3>{title}{note}</h3>" + "".join(_bar(group, i, best=i == order[0]) for i in order)


def _bar(group: GroupAnswer, index: int, *, best: bool) -> str:
    name, share = escape(group.names[index]), group.probabilities[index]
    if not group.trained[index]:
        return f'<div class="mtl-bar untrained"><span>{name}</span><span>not trained, no photos</span></div>'
    return (
        f'<div class="mtl-bar{" best" if best else ""}"><span>{name}</span>'
        f'<div class="track"><div class="fill" style="width:{100 * share:.1f}%"></div></div>'
        f'<span class="value">{_percent(share)}</span></div>'
    )


def _lesions(entry: Entry) -> str:
    if not entry.lesions:
        return f"<p>{lesion_words(entry)}</p>"
    rows = "".join(
        f"<tr><td>{lesion.number}</td><td>{_area(lesion.area_ratio)}</td><td>{lesion.area_px:,} px</td>"
        f"<td>{lesion.equivalent_diameter_px:,.0f} px</td></tr>"
        for lesion in entry.lesions[:8]
    )
    more = f'<p class="mtl-quiet">and {len(entry.lesions) - 8} smaller ones</p>' if len(entry.lesions) > 8 else ""
    header = "<tr><th>No.</th><th>of photo</th><th>area</th><th>diameter</th></tr>"
    table = f'<div class="mtl-scroll"><table class="mtl-table">{header}{rows}</table></div>'
    return f"<p><b>{lesion_words(entry)}</b></p>{table}{more}"


def alt_text(number: int, entry: Entry) -> str:
    """What a screen reader says of a photo with its overlay."""
    assert entry.analysis is not None
    words = [class_words(entry.analysis), lesion_words(entry)]
    return f"Photo {number}: {'; '.join(part for part in words if part)}"


def caption(number: int, entry: Entry) -> str:
    """Under a thumbnail: number and answer in a word or two."""
    if entry.analysis is None:
        return f"{number} unreadable"
    words = [group.answer for group in entry.analysis.groups if group.applies]
    lesion = f"lesion {_area(entry.lesion_area_ratio)}" if entry.lesions else "nothing seen"
    return f"{number} {', '.join(words) or lesion}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _area(share: float) -> str:
    return f"{100 * share:.1f} %"
