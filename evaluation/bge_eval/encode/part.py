"""Parts of the encoding: which texts each of several machines encodes.

A corpus is encoded window by window and batch by batch (`bge_eval.runtime.text_encoder`), and
rounding depends on a text's batch. So whole windows are dealt to the parts in turn, and the last
few, which would not divide evenly, batch by batch. Every text is encoded in the batch
that one machine would have encoded it in, whatever the number of parts, and gets the same vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bge_eval.encode.shards import Keys
from bge_eval.errors import UsageError

SLURM = "slurm"
"""What ``--shard`` takes for the part that Slurm's job array names."""
_MANY_ROUNDS = 8
_ID, _COUNT = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"
_FIRST, _STEP = "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts of the work."""

    number: int
    """Its number, from 1."""
    count: int
    """The number of parts."""

    def __str__(self) -> str:
        """Return it as ``--shard`` takes it: "2/3"."""
        return f"{self.number}/{self.count}"

    def takes(self, unit: int) -> bool:
        """Return whether a unit, numbered from 0, is dealt to this part."""
        return unit % self.count == self.number - 1


def parse_part(text: str, environment: Mapping[str, str]) -> Part:
    """Read ``--shard``: "2/3", or "slurm" for the task of a job array.

    Args:
        text: the option.
        environment: the variables of the process.

    Raises:
        UsageError: the text has another form, the number is not between 1 and the count, or
            Slurm's variables are not set.
    """
    if text.strip().casefold() == SLURM:
        return _of_slurm(environment)
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None:
        raise UsageError(
            f"--shard is '{text}'; it is a part of a number of parts, such as 1/3, or {SLURM}"
            " within a job array."
        )
    return _checked(int(match[1]), int(match[2]), f"--shard {text}")


def _of_slurm(environment: Mapping[str, str]) -> Part:
    values = {}
    for name, default in ((_ID, ""), (_COUNT, ""), (_FIRST, "1"), (_STEP, "1")):
        value = environment.get(name) or default
        if not value.isdecimal():
            raise UsageError(
                f"--shard {SLURM} needs {name}, which is {f'{value!r}' if value else 'not set'}:"
                " start the job as an array (sbatch --array=1-8), or give --shard 1/8."
            )
        values[name] = int(value)
    number = (values[_ID] - values[_FIRST]) // max(values[_STEP], 1) + 1
    return _checked(number, values[_COUNT], f"--shard {SLURM} ({_ID}={values[_ID]})")


def _checked(number: int, count: int, given: str) -> Part:
    if not 1 <= number <= count:
        raise UsageError(
            f"{given} names part {number} of {count}; parts are numbered from 1 to {count or 'n'}."
        )
    return Part(number, count)


@dataclass(frozen=True, slots=True)
class Share:
    """What one part encodes of a sequence of windows."""

    part: Part
    """The part."""
    windows: int
    """The number of windows of the sequence."""
    first: int = 0
    """The number of the window that begins the texts at hand."""
    together: int | None = None
    """Windows that are dealt together and whole; None deals them one by one, the last divided."""

    def beginning(self, window: int) -> Share:
        """Return the share of texts that begin with a later window."""
        return Share(self.part, self.windows, window, self.together)

    @property
    def takes_all(self) -> bool:
        """Return whether windows are dealt together, and these are the part's own."""
        return self.together is not None and self.part.takes(self.first // self.together)

    def takes(self, window: int, batch: int) -> bool:
        """Return whether the part encodes a batch.

        Args:
            window: the window, counted from 0 in the texts at hand.
            batch: the batch, counted from 0 in its window.
        """
        place = self.first + window
        if self.together is not None:
            return self.part.takes(place // self.together)
        return self.part.takes(place if place < self._whole else place + batch)

    def takes_some_of(self, window: int) -> bool:
        """Return whether the part may encode a batch of a window."""
        place = self.first + window
        return (self.together is None and place >= self._whole) or self.takes(window, 0)

    @property
    def _whole(self) -> int:
        """Return how many windows are dealt whole, each part the same number."""
        rounds = self.windows // self.part.count
        # The last window is seldom full: of few rounds, the last is divided too. A divided window
        # is tokenised by every part.
        return self.part.count * (rounds if rounds >= _MANY_ROUNDS else max(rounds - 1, 0))


class SeenKeys:
    """The texts that a run has met so far, 8 bytes for each.

    One machine encodes a text where it meets it first. A part must know the texts before its own,
    which it does not encode.
    """

    def __init__(self) -> None:
        """Start with no text."""
        self._sorted: list[npt.NDArray[np.uint64]] = []

    def has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Return which texts were added before: ``(n,)`` bool."""
        halves = keys[:, 0]
        there = np.zeros(len(halves), np.bool_)
        for known in self._sorted:
            place = np.searchsorted(known, halves)
            place[place == len(known)] = 0
            there |= known[place] == halves
        return there

    def add(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Add distinct texts and return which are new: ``(n,)`` bool.

        Args:
            keys: ``(n, 2)`` uint64. Half of each is compared: of a thousand million texts, two
                have the same half with a chance of 3 in 100.
        """
        halves = keys[:, 0]
        new = ~self.has(keys)
        self._sorted.append(np.sort(halves[new]))
        # Runs of doubling length: each text is merged a few times, each look-up visits few runs.
        while len(self._sorted) > 1 and len(self._sorted[-2]) <= 2 * len(self._sorted[-1]):
            last = self._sorted.pop()
            self._sorted[-1] = np.sort(np.concatenate([self._sorted[-1], last]), kind="stable")
        self._sorted = [run for run in self._sorted if len(run)]
        return new
