"""Which names are checkpoints: the training's name, and the numbers that tell its steps apart.

``table --trend``, ``compare`` and the trackers read names by this one rule: ``checkpoint-500``,
``step_500``, ``epoch=2-step=600``, ``global_step40``, ``iter-3``, ``my-model-ckpt-7``, or a label
such as ``step 3000``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = r"(?:checkpoint|ckpt|global_step|steps?|epochs?|iter(?:ation)?s?)"
_LONG = r"(?:checkpoint|global_?step|step|epoch)"
"""Words that are steps within another one too, as in ``mycheckpoint-5``; ``iter`` is in arbiter."""
_STEPS = re.compile(
    rf"(?:(?:^|(?<=[/_.\s-])){_WORD}|{_LONG})[-_= ]?\d+(?:[-_,. ]+{_WORD}[-_= ]?\d+)*$", re.I
)
_NUMBER = re.compile(r"\d+")
_NUMBERED = re.compile(r"[^/]*?(\d+)$")


@dataclass(frozen=True, slots=True)
class StepName:
    """The name of a checkpoint, in its parts."""

    base: str
    """What comes before the step, such as ``out`` of ``out/checkpoint-500``; "" without."""
    text: str
    """What tells the step, such as ``epoch_2-step_300``."""
    numbers: tuple[int, ...]
    """The numbers in it."""

    @property
    def form(self) -> str:
        """Return the text with ``#`` for each number: equal within a series."""
        return _NUMBER.sub("#", self.text)

    @property
    def step(self) -> int:
        """Return the last number."""
        return self.numbers[-1]


def step_name(name: str, *, numbered: bool = False) -> StepName | None:
    """Return a name in its parts; None if it is no checkpoint's.

    Args:
        name: a model's name or a row's label.
        numbered: it is a checkpoint's, whatever word stands before its last number.
    """
    match = _STEPS.search(name)
    if match is None and numbered:
        match = _NUMBERED.search(name)
    if match is None:
        return None
    base = name[: match.start()].rstrip("/_.- ")
    return StepName(base, match[0], tuple(map(int, _NUMBER.findall(match[0]))))
