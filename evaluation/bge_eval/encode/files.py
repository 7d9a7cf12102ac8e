"""The files of a model: name, revision and folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bge_eval.encode.config import transformer_folder


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
    base: ModelFiles | None = None
    """The model that the folder's PEFT adapter changes, None for a model with its own weights."""

    @property
    def weights(self) -> Path:
        """Return the folder of the transformer's ``config.json`` and weights.

        Raises:
            DamagedError: ``modules.json`` is damaged.
        """
        return transformer_folder(self.folder) if self.base is None else self.base.weights

    @property
    def tokenizer(self) -> Path:
        """Return the folder of the tokenizer's files; an adapter may leave them to its base.

        Raises:
            DamagedError: ``modules.json`` is damaged.
        """
        own = transformer_folder(self.folder)
        return own if self.base is None or any(own.glob("tokenizer*")) else self.weights
