"""Groups of queries: how many of each fail, the mean of each, and their intervals.

Intervals of means are `bge_eval.statistics.intervals`', those of shares
`bge_eval.statistics.proportions`'. They are 95% intervals of every group by itself, not corrected
for the number of groups.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bge_eval.data.words import words
from bge_eval.mistakes.queries import ABOVE, JudgedQuery, Kind
from bge_eval.statistics.intervals import Interval, bootstrap_interval
from bge_eval.statistics.proportions import share_interval

MOST_VALUES = 12
"""Largest number of groups of one subject; rarer values form one group."""
OTHERS = "others"
"""The group of rarer values."""
ABSENT = "(no value)"
"""The group of queries without a value."""

_RELEVANT = ((1, 1), (2, 3), (4, 9), (10, None))
"""Groups of numbers of relevant documents."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many queries of a group have a property."""

    count: int
    """The queries that have it."""
    total: int
    """The group's queries."""

    @property
    def value(self) -> float:
        """Return the share, 0 to 1."""
        return self.count / self.total

    @property
    def interval(self) -> Interval:
        """Return its 95% interval."""
        return share_interval(self.count, self.total)


@dataclass(frozen=True, slots=True)
class Group:
    """Queries that have something in common."""

    subject: str
    """What they are grouped by, e.g. "words in the query"."""
    name: str
    """What they have in common, e.g. "8–12"."""
    queries: int
    """Number of queries."""
    mean: float
    """Mean of the measure, 0 to 1."""
    interval: Interval | None
    """95% interval of the mean; None for a single query."""
    missed: Share
    """The queries with nothing relevant in the top documents."""
    above: Share
    """The queries with a false positive above the first relevant document."""
    lost: float
    """What the mean over all queries would gain if each of these scored 1, 0 to 1."""


@dataclass(frozen=True, slots=True)
class KindShare:
    """The queries of one kind of mistake."""

    kind: Kind
    """The kind."""
    share: Share
    """How many queries are of this kind."""
    mean: float | None
    """Mean of the measure over them; None if there are none."""
    lost: float
    """What the mean over all queries would gain if each of them scored 1, 0 to 1."""


def kinds(queries: Sequence[JudgedQuery]) -> list[KindShare]:
    """Return the share of every kind of mistake, in the order of `Kind`."""
    shares = []
    for kind in Kind:
        values = [query.value for query in queries if query.kind is kind]
        mean = sum(values) / len(values) if values else None
        lost = sum(1 - value for value in values) / len(queries)
        shares.append(KindShare(kind, Share(len(values), len(queries)), mean, lost))
    return shares


def grouped_by(
    subject: str, queries: Sequence[JudgedQuery], names: Sequence[Sequence[str]]
) -> list[Group]:
    """Return the groups of a subject, in the order in which their names first appear.

    Args:
        subject: what the queries are grouped by.
        queries: the queries.
        names: for each query, the names of its groups; a query may be in several.
    """
    members: dict[str, list[JudgedQuery]] = {}
    for query, own in zip(queries, names, strict=True):
        for name in dict.fromkeys(own):
            members.setdefault(name, []).append(query)
    return [_group(subject, name, inside, len(queries)) for name, inside in members.items()]


def by_relevant(queries: Sequence[JudgedQuery]) -> list[Group]:
    """Group queries by their number of relevant documents."""
    labels = [(_range(low, high), low, high) for low, high in _RELEVANT]
    names = [
        [label for label, low, high in labels if low <= q.relevant <= (high or q.relevant)]
        for q in queries
    ]
    order = [label for label, _, _ in labels]
    return _sorted(grouped_by("relevant documents", queries, names), order)


def by_length(queries: Sequence[JudgedQuery], texts: Mapping[tuple[str, str], str]) -> list[Group]:
    """Group queries by their number of words, in quarters.

    Args:
        queries: the queries.
        texts: (part, query id) → text; queries without one are left out.
    """
    known = [query for query in queries if (query.part, query.id) in texts]
    lengths = [len(words(texts[query.part, query.id])) for query in known]
    names, order = quarters(lengths)
    return _sorted(grouped_by("words in the query", known, [[name] for name in names]), order)


def by_script(queries: Sequence[JudgedQuery], texts: Mapping[tuple[str, str], str]) -> list[Group]:
    """Group queries by the script of most of their letters, e.g. "Latin" and "Cjk".

    It stands for the language where a collection mixes languages without naming them.

    Returns:
        The groups, largest first; none where all queries are in one script.
    """
    known = [query for query in queries if (query.part, query.id) in texts]
    scripts = [_script(texts[query.part, query.id]) for query in known]
    if len(set(scripts)) < 2:
        return []
    groups = grouped_by("script of the query", known, [[script] for script in scripts])
    return sorted(groups, key=lambda group: (-group.queries, group.name))


def by_values(
    subject: str, queries: Sequence[JudgedQuery], values: Sequence[Sequence[str | float]]
) -> list[Group]:
    """Group queries by values of a field: numbers in quarters, words by value.

    Args:
        subject: the field's name.
        queries: the queries.
        values: for each query, its values; none if the field is absent.
    """
    every = [value for own in values for value in own]
    numbers = [float(value) for value in every if not isinstance(value, str)]
    if numbers and len(numbers) == len(every) and len(set(numbers)) > MOST_VALUES:
        labels, order = quarters(numbers)
        label_of = dict(zip(numbers, labels, strict=True))
        names = [[label_of[float(v)] for v in own] or [ABSENT] for own in values]
        return _sorted(grouped_by(subject, queries, names), [*order, ABSENT])
    counted = Counter(_text(value) for own in values for value in dict.fromkeys(own))
    common = [name for name, _ in counted.most_common(MOST_VALUES)]
    if len(counted) > MOST_VALUES:
        common = common[: MOST_VALUES - 1]
    names = [
        [name if name in common else OTHERS for name in map(_text, own)] or [ABSENT]
        for own in values
    ]
    return _sorted(grouped_by(subject, queries, names), [*common, OTHERS, ABSENT])


def quarters(numbers: Sequence[float]) -> tuple[list[str], list[str]]:
    """Divide numbers at their quartiles.

    Returns:
        The label of each number, such as "8–12", and the labels in ascending order. A label names
        the smallest and the largest number of its quarter.
    """
    if not numbers:
        return [], []
    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75], method="inverted_cdf"))
    places = np.searchsorted(edges, numbers, side="left")
    ends: dict[int, tuple[float, float]] = {}
    for place, number in zip(places.tolist(), numbers, strict=True):
        low, high = ends.get(place, (number, number))
        ends[place] = (min(low, number), max(high, number))
    labels = {place: _range(low, high) for place, (low, high) in ends.items()}
    return [labels[place] for place in places.tolist()], [labels[place] for place in sorted(labels)]


def _group(subject: str, name: str, inside: Sequence[JudgedQuery], total: int) -> Group:
    values = [query.value for query in inside]

    def share(holds: Callable[[JudgedQuery], bool]) -> Share:
        return Share(sum(map(holds, inside)), len(inside))

    return Group(
        subject,
        name,
        len(inside),
        sum(values) / len(values),
        bootstrap_interval([values]),
        share(lambda query: query.kind is Kind.MISSED),
        share(lambda query: query.kind in ABOVE),
        sum(1 - value for value in values) / total,
    )


def _script(text: str) -> str:
    """Return the first word of the Unicode names of most letters; "(no letters)" without any."""
    names = Counter(
        unicodedata.name(letter, "?").partition(" ")[0] for letter in text if letter.isalpha()
    )
    return names.most_common(1)[0][0].capitalize() if names else "(no letters)"


def _sorted(groups: Iterable[Group], order: Sequence[str]) -> list[Group]:
    return sorted(groups, key=lambda group: order.index(group.name))


def _range(low: float, high: float | None) -> str:
    if high is None:
        return f"{_text(low)} or more"
    return _text(low) if low == high else f"{_text(low)}–{_text(high)}"


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
