"""The JSON files of a model's folder: what is read, and how damage is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from bge_eval.encode.config import read_config, read_modules, read_object, transformer_folder
from bge_eval.errors import DamagedError


def test_content_and_absence(tmp_path: Path) -> None:
    assert read_object(tmp_path / "config.json") == {}
    assert read_modules(tmp_path) is None
    assert transformer_folder(tmp_path) == tmp_path
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    assert read_config(tmp_path) == {"model_type": "bert"}
    modules = '[{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]'
    (tmp_path / "modules.json").write_text(modules, encoding="utf-8")
    assert transformer_folder(tmp_path) == tmp_path / "0_Transformer"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json is missing"),
        ("{", "config.json is not readable JSON"),
        ("[1]", "config.json holds a list; expected a JSON object"),
    ],
)
def test_damaged_config(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(DamagedError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[1]"])
def test_damaged_modules(content: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(content, encoding="utf-8")
    with pytest.raises(DamagedError, match=r"modules\.json is not a list of JSON objects"):
        read_modules(tmp_path)
