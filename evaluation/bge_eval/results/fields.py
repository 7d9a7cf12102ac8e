"""Typed access to the fields of a JSON file; a field of a wrong type is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from bge_eval.errors import DamagedError


class Fields:
    """The fields of one JSON object; a missing or null field has its default."""

    def __init__(self, path: Path, values: Any, place: str = "") -> None:
        """Wrap an object.

        Args:
            path: the file, for messages.
            values: the object, as ``json.loads`` returns it.
            place: the object's own field in the file, e.g. "identity."; "" for the whole file.

        Raises:
            DamagedError: it is not an object.
        """
        self.path = path
        self._place = place
        if not isinstance(values, dict):
            self._refuse("", values, "an object")
        self.values: dict[str, Any] = values

    def text(self, name: str) -> str:
        """Return a text, "" by default."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self._refuse(name, value, "a text")
        return value

    def whole(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number, or the default."""
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(name, value, "a whole number")
        return value

    def number(self, name: str) -> float:
        """Return a number, 0 by default."""
        value = self.values.get(name)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(name, value, "a number")
        return float(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, () by default."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse(name, value, "a list of texts")
        return tuple(value)

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object as it is, {} by default."""
        return self.inner(name).values

    def versions(self, name: str) -> dict[str, str]:
        """Return an object of texts, {} by default."""
        inner = self.inner(name)
        return {key: inner.text(key) for key in inner.values}

    def numbers(self, name: str) -> dict[str, float]:
        """Return an object of numbers, {} by default."""
        values = self.mapping(name)
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                self._refuse(f"{name}.{key}", value, "a number")
        return values

    def counts(self, name: str) -> dict[str, int]:
        """Return an object of whole numbers, {} by default."""
        inner = self.inner(name)
        return {key: inner.whole(key) or 0 for key in inner.values}

    def inner(self, name: str) -> Fields:
        """Return the fields of an object, none by default."""
        return Fields(self.path, self.values.get(name) or {}, f"{self._place}{name}.")

    def inner_list(self, name: str) -> list[Fields]:
        """Return the fields of every object in a list, [] by default."""
        value = self.values.get(name) or []
        if not isinstance(value, list):
            self._refuse(name, value, "a list")
        return [
            Fields(self.path, item, f"{self._place}{name}[{number}].")
            for number, item in enumerate(value)
        ]

    def _refuse(self, name: str, value: object, expected: str) -> NoReturn:
        field = f"{self._place}{name}".rstrip(".") or "the content"
        shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}…"
        raise DamagedError(f"{self.path}: {field} is {shown}, expected {expected}.")
