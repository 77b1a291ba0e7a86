"""A seeded split into training and validation photos that keeps groups together and shares of strata alike."""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

from mtl.errors import DataError


def stratified_group_split(
    strata: Mapping[str, Hashable], groups: Sequence[Sequence[str]], val_fraction: float, seed: int
) -> tuple[list[str], list[str]]:
    """(train names, val names): disjoint, complete, each group whole on one side, both sides non-empty.

    strata: name -> what should be equally frequent on both sides (here the label and whether there is a mask);
    groups: lists of names that must stay together. Raises DataError where there is only one group.
    """
    if len(groups) < 2:
        raise DataError("all photos belong to one group, which cannot be split; add photos or correct groups.csv")
    # A group counts as what most of its photos are; names sorted, so that the listing's order changes nothing.
    by_stratum: dict[Hashable, list[list[str]]] = defaultdict(list)
    for group in sorted(sorted(members) for members in groups):
        by_stratum[Counter(strata[name] for name in group).most_common(1)[0][0]].append(group)

    draw = random.Random(seed)
    val: list[str] = []
    # Rounding errors are carried on, so that many small strata still give the fraction over all.
    owed = 0.0
    for stratum in sorted(by_stratum, key=repr):
        members = by_stratum[stratum]
        draw.shuffle(members)
        owed += val_fraction * sum(map(len, members))
        for group in members:
            if len(group) > owed + 0.5 * len(group):
                continue
            val += group
            owed -= len(group)
    everything = {name for group in groups for name in group}
    val = _neither_side_empty(val, groups)
    return sorted(everything - set(val)), sorted(val)


def _neither_side_empty(val: list[str], groups: Sequence[Sequence[str]]) -> list[str]:
    smallest = min((sorted(group) for group in groups), key=lambda group: (len(group), group))
    if not val:
        return smallest
    if len(val) == sum(map(len, groups)):
        return [name for name in val if name not in smallest]
    return val
