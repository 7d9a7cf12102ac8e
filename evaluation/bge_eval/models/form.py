"""What a model puts around a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """The text around every input of one role in one task."""

    prompt: str = ""
    """Text directly before the input."""
    examples: str = ""
    """In-context examples before the prompt."""
    closing: str = ""
    """Text after the input, which is never cut."""
    max_length: int | None = None
    """Longest input with its examples, in tokens; None takes the model's own length."""
