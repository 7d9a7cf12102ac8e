"""The files of a model: name, revision and folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model on this machine."""

    name: str
    """``org/model``; names the folder of the results."""
    revision: str
    """The hub's commit, or a hash of a local folder's content: 40 hexadecimal digits."""
    folder: Path
    """The folder of the files."""
    from_hub: bool
    """Whether name and revision are the hub's."""
