"""The options of a transformer in a sentence-transformers folder (``sentence_bert_config.json``).

sentence-transformers passes them to its ``Transformer`` module; a key that this module does not
know is refused, as it refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bge_eval.encode.config import read_object, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import token_positions
from bge_eval.errors import DamagedError, did_you_mean

_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""The file's names, in the order in which sentence-transformers looks for one with content."""
_OLDER = {
    "model_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "config_args": "config_kwargs",
}
_BY_LIBRARY = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
    "processing_kwargs": {},
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
}
"""Options with the value that a plain text encoder has; other values need the library."""
_KNOWN = (
    *("max_seq_length", "do_lower_case", "tokenizer_name_or_path", "unpad_inputs"),
    *_OLDER,
    *_OLDER.values(),
    *_BY_LIBRARY,
)
_LONGEST = 10**9
"""Lengths above stand for "no limit" in tokenizer files (10**30)."""


@dataclass(frozen=True, slots=True)
class Body:
    """A transformer's options beside those of its own files."""

    max_length: int | None = None
    """Longest input in tokens; None takes the tokenizer's."""
    lower_case: bool = False
    """Whether the tokenizer lower-cases texts first."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Options of transformers' ``AutoModel.from_pretrained``."""
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    """Options of transformers' ``AutoTokenizer.from_pretrained``."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Options of transformers' ``AutoConfig.from_pretrained``."""
    by_library: bool = False
    """Whether only sentence-transformers runs it: chat templates, lengths by role, other tasks."""


def read_body(folder: Path) -> Body:
    """Return the options in a transformer's folder.

    Raises:
        DamagedError: a file is damaged, has an unknown key, or a length that is none.
    """
    for name in _FILES:
        if content := read_object(folder / name):
            return _body(folder / name, content)
    return Body()


def tokenizer_options(folder: Path) -> Mapping[str, Any]:
    """Return what sentence-transformers loads a folder's tokenizer with; its keys are not checked.

    Raises:
        DamagedError: a file is damaged.
    """
    for name in _FILES:
        if content := read_object(folder / name):
            options = content.get("tokenizer_args", content.get("processor_kwargs"))
            return options if isinstance(options, dict) else {}
    return {}


def longest_input(
    files: ModelFiles, config: Mapping[str, Any], body: Body, registered: int | None = None
) -> int:
    """Return sentence-transformers' maximum length in tokens, at most the number of positions.

    Args:
        files: the model's files.
        config: the content of the transformer's ``config.json``.
        body: the transformer's options.
        registered: the length in mteb's registry, which overrides those of the files.

    Raises:
        DamagedError: the tokenizer's length is not a number.
    """
    positions = token_positions(config)
    limits = [] if positions is None else [positions]
    limit = body.max_length if registered is None else registered
    if limit is None:
        path = transformer_folder(files.folder) / "tokenizer_config.json"
        stated = read_object(path).get("model_max_length")
        limit = token_limit(stated, f"{path}: model_max_length")
    if limit is not None:
        limits.append(limit)
    return min(limits, default=512)


def token_limit(value: Any, source: str) -> int | None:
    """Return a maximum length in tokens, None where it states no limit.

    Raises:
        DamagedError: it is not a whole number of at least 1.
    """
    if value is None:
        return None
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or value < 1:
        raise DamagedError(f"{source} is {value!r}; expected a whole number of tokens, at least 1.")
    return int(value) if value < _LONGEST else None


def _body(path: Path, content: Mapping[str, Any]) -> Body:
    for key in content:
        if key not in _KNOWN:
            raise DamagedError(
                f"{path} has the key {key!r}, which sentence-transformers' Transformer does not"
                f" know.{did_you_mean(key, _KNOWN)}"
            )
    options: dict[str, dict[str, Any]] = {}
    for older, name in _OLDER.items():
        value = content.get(older, content.get(name)) or {}
        if not isinstance(value, dict):
            raise DamagedError(f"{path}: {name} is {value!r}; expected a JSON object.")
        options[name] = {key: item for key, item in value.items() if key != "trust_remote_code"}
    named = content.get("tokenizer_name_or_path")
    if named is not None:
        raise DamagedError(
            f"{path} takes the tokenizer from {named!r}, which is another model. Copy the tokenizer"
            " into this folder and leave the key out."
        )
    if not isinstance(content.get("do_lower_case") or False, bool):
        raise DamagedError(f"{path}: do_lower_case is {content['do_lower_case']!r}; expected true.")
    tokenizer = options["processor_kwargs"]
    length = token_limit(content.get("max_seq_length"), f"{path}: max_seq_length")
    # As in sentence-transformers, the tokenizer's own option comes first.
    own = token_limit(tokenizer.pop("model_max_length", None), f"{path}: model_max_length")
    return Body(
        max_length=own if own is not None else length,
        lower_case=bool(content.get("do_lower_case", False)),
        model=options["model_kwargs"],
        tokenizer=tokenizer,
        config=options["config_kwargs"],
        by_library=any(
            content.get(key, plain) not in (plain, None) for key, plain in _BY_LIBRARY.items()
        ),
    )
