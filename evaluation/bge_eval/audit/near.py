"""Near duplicates by MinHash.

Two texts are near duplicates if the Jaccard similarity of their sets of three-word shingles reaches
a threshold. MinHash signatures in bands (Broder, "On the resemblance and containment of documents",
1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3) find the candidates,
and every candidate is verified with its exact similarity, so no pair below the threshold is
reported. 25 bands of 5 rows miss a pair of similarity 0.8 with probability 5e-5, one of 0.7 with
0.01. Texts need 200 bytes each beside their own.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SIMILARITY = 0.8
"""Default Jaccard similarity of near duplicates."""
_SHINGLE = 3
"""Words in a shingle."""
_BANDS, _ROWS = 25, 5
_MOST_PARTNERS = 20
"""Texts of a bucket that each of its texts is compared with; larger buckets are formulaic."""
_REMEMBERED = 50_000
"""Texts whose shingles are kept while candidates are verified."""

Hashes = npt.NDArray[np.uint64]


@dataclass(slots=True)
class WordHashes:
    """Hashes of words; equal words have equal hashes in every process."""

    _hash_of: dict[str, int] = field(default_factory=dict)

    def of(self, words: Sequence[str]) -> Hashes:
        """Return a 64-bit hash of every word, ``(n_words,)``."""
        known = self._hash_of
        for word in words:
            if word not in known:
                digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
                known[word] = int.from_bytes(digest, "little")
        return np.fromiter((known[word] for word in words), np.uint64, len(words))


def shingles(words: Hashes) -> Hashes:
    """Return the distinct three-word shingles of a text, sorted; fewer words are one shingle."""
    return np.unique(rolled(words, min(_SHINGLE, len(words)))) if len(words) else words


def rolled(words: Hashes, length: int) -> Hashes:
    """Return a hash of every run of ``length`` words, ``(n_words - length + 1,)``."""
    count = len(words) - length + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    result = np.zeros(count, np.uint64)
    for place in range(length):
        result = result * np.uint64(0x9E3779B97F4A7C15) + words[place : place + count]
        result ^= result >> np.uint64(29)
    return result


class NearDuplicates:
    """Finds the near duplicates among texts that are added one by one."""

    def __init__(self, similarity: float = SIMILARITY) -> None:
        """Prepare the hash functions; they are the same in every process.

        Args:
            similarity: the least Jaccard similarity, above 0, at most 1.

        Raises:
            ValueError: it is outside that range.
        """
        if not 0 < similarity <= 1:
            raise ValueError(f"a similarity is above 0 and at most 1, not {similarity:g}")
        self.similarity = similarity
        generator = np.random.default_rng(20)
        most = np.iinfo(np.uint64).max
        self._factors = generator.integers(0, most, _BANDS * _ROWS, np.uint64) | np.uint64(1)
        self._terms = generator.integers(0, most, _BANDS * _ROWS, np.uint64)
        self._keys: list[str] = []
        self._bands: list[Hashes] = []

    def add(self, key: str, words: Hashes) -> None:
        """Add a text by the hashes of its words; one without words has no duplicates."""
        if len(words):
            self._keys.append(key)
            self._bands.append(self._signature(shingles(words)))

    def pairs(self, words_of: Callable[[str], Hashes]) -> list[tuple[str, str, float]]:
        """Return (key, key, similarity) of the near duplicates, in the order of addition.

        Args:
            words_of: returns the hashes of a text's words again.
        """
        candidates = self._candidates()
        known: dict[int, Hashes] = {}

        def of(place: int) -> Hashes:
            if place not in known:
                if len(known) > _REMEMBERED:
                    known.clear()
                known[place] = shingles(words_of(self._keys[place]))
            return known[place]

        pairs = []
        for one, two in sorted(candidates):
            similarity = jaccard(of(one), of(two))
            if similarity >= self.similarity:
                pairs.append((self._keys[one], self._keys[two], similarity))
        return pairs

    def _candidates(self) -> set[tuple[int, int]]:
        """Return the places of the texts that share a band."""
        if not self._bands:
            return set()
        bands = np.stack(self._bands)
        candidates: set[tuple[int, int]] = set()
        for column in range(_BANDS):
            order = np.argsort(bands[:, column], kind="stable")
            ordered = bands[order, column]
            starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
            for bucket in np.split(order, starts[1:]):
                if len(bucket) < 2:
                    continue
                members = bucket.tolist()
                for place, one in enumerate(members[:_MOST_PARTNERS]):
                    candidates.update((one, two) for two in members[place + 1 :])
        return candidates

    def _signature(self, own: Hashes) -> Hashes:
        """Return one hash for every band of a set of shingles, ``(25,)``."""
        hashed = own[:, None] * self._factors + self._terms
        hashed ^= hashed >> np.uint64(32)
        least = hashed.min(axis=0).reshape(_BANDS, _ROWS)
        band = np.zeros(_BANDS, np.uint64)
        for row in range(_ROWS):
            band = (band ^ least[:, row]) * np.uint64(0x9E3779B97F4A7C15)
            band ^= band >> np.uint64(29)
        return band


def jaccard(one: Hashes, two: Hashes) -> float:
    """Return the Jaccard similarity of two sorted sets of hashes, 0 to 1."""
    shared = len(np.intersect1d(one, two, assume_unique=True))
    whole = len(one) + len(two) - shared
    return shared / whole if whole else 0.0


def clusters(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of keys that pairs connect, each in the order of first appearance."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for one, two in pairs:
        first, second = root(one), root(two)
        parent[second] = first
    groups: dict[str, list[str]] = defaultdict(list)
    for key in list(parent):
        groups[root(key)].append(key)
    return list(groups.values())
