"""Agreement of two judges on the same documents: Cohen's kappa and the confusion table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_KAPPA = 0.4
"""From here on agreement is moderate (Landis and Koch, Biometrics 33, 1977)."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one judge's grades agree with the grades that exist."""

    grades: tuple[int, ...]
    """The grades that either judge gave, ascending."""
    table: tuple[tuple[int, ...], ...]
    """Number of documents by existing grade (rows) and the judge's grade (columns)."""
    kappa: float | None
    """Cohen's kappa ("A Coefficient of Agreement for Nominal Scales", 1960), of grades above 0
    against 0; None where both judges gave one and the same answer to everything."""

    @property
    def documents(self) -> int:
        """Return the number of documents that both judged."""
        return sum(map(sum, self.table))

    @property
    def share(self) -> float:
        """Return the share of documents on whose relevance both agree, 0 to 1."""
        return _observed(_binary(self.grades, self.table)) / self.documents


def agreement(existing: Sequence[int], judged: Sequence[int]) -> Agreement:
    """Return the agreement of two judges.

    Args:
        existing: the grades that exist.
        judged: the judge's grades of the same documents.

    Raises:
        ValueError: there are none, or their numbers differ.
    """
    if not existing or len(existing) != len(judged):
        raise ValueError("agreement needs one grade of each judge for every document")
    grades = tuple(sorted({*existing, *judged}))
    place = {grade: index for index, grade in enumerate(grades)}
    table = [[0] * len(grades) for _ in grades]
    for one, two in zip(existing, judged, strict=True):
        table[place[one]][place[two]] += 1
    frozen = tuple(map(tuple, table))
    return Agreement(grades, frozen, _kappa(_binary(grades, frozen)))


def _binary(
    grades: Sequence[int], table: Sequence[Sequence[int]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Join the grades above 0."""
    joined = [[0, 0], [0, 0]]
    for row, one in enumerate(grades):
        for column, two in enumerate(grades):
            joined[one > 0][two > 0] += table[row][column]
    return (joined[0][0], joined[0][1]), (joined[1][0], joined[1][1])


def _observed(binary: Sequence[Sequence[int]]) -> int:
    return binary[0][0] + binary[1][1]


def _kappa(binary: Sequence[Sequence[int]]) -> float | None:
    total = sum(map(sum, binary))
    chance = sum(sum(binary[g]) * (binary[0][g] + binary[1][g]) for g in (0, 1)) / total**2
    return None if chance == 1 else (_observed(binary) / total - chance) / (1 - chance)
