"""run.json: files of earlier versions are read; wrong fields are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bge_eval.errors import DamagedError
from bge_eval.results.record import RunRecord, read_record, record_path, write_record
from bge_eval.results.saved import SavedResult, find_results
from bge_eval.results.store import ResultStore
from conftest import CommandLine

SAVED = Path(__file__).parent / "saved_by_0_1_0"
"""A folder of results that version 0.1.0 wrote, before the record was typed; BM25 on the demo."""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    shutil.copytree(SAVED, tmp_path / "saved")
    return tmp_path / "saved"


def test_an_earlier_record_is_read_and_written_unchanged(saved: Path, tmp_path: Path) -> None:
    [path] = find_results([saved])
    record = read_record(path)
    assert record.identity is not None and record.identity.digest == record.identity_digest
    assert record.profile is not None and record.profile.counts["search"] == 68
    [run] = SavedResult(path).runs()
    assert run.name == "BgeEvalDemo/default/test" and run.weight == 1
    write_record(tmp_path, record)
    assert (tmp_path / "run.json").read_bytes() == record_path(path).read_bytes()


def test_an_earlier_result_counts_as_done(saved: Path) -> None:
    from mteb.models import ModelMeta

    [path] = find_results([saved])
    identity = read_record(path).identity
    assert identity is not None
    named = {"name": identity.model["name"], "revision": identity.model["revision"]}
    meta = ModelMeta.create_empty(overwrites=named)
    assert ResultStore(saved).find(meta, identity) == path
    assert ResultStore(saved).changed_since(meta, identity) == []


def test_commands_read_an_earlier_folder(bge_eval: CommandLine, saved: Path) -> None:
    table = bge_eval("table", saved, "--format", "csv")
    assert table.returncode == 0 and "0.3921" in table.stdout, table.stderr
    compared = bge_eval("compare", saved, saved, "--format", "csv")
    assert compared.returncode == 0 and "same" in compared.stdout, compared.stderr
    checked = bge_eval("check", saved, "--baseline", saved)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 2, r"run\.json: format is 2, and this bge-eval reads 1"),
        ("aggregate_of", "One", r"run\.json: aggregate_of is 'One', expected a list of texts"),
        ("files", [{"subset": 3}], r"run\.json: files\[0\]\.subset is 3, expected a text"),
        ("environment", [1], r"run\.json: environment is \[1\], expected an object"),
        ("seconds", {"load": "1 s"}, r"run\.json: seconds\.load is '1 s', expected a number"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    path = tmp_path / "Task.json"
    (tmp_path / "Task").mkdir()
    record_path(path).write_text(json.dumps({"format": 1, field: value}))
    with pytest.raises(DamagedError, match=message):
        read_record(path)


def test_a_result_without_a_record(tmp_path: Path) -> None:
    assert read_record(tmp_path / "Task.json") == RunRecord()
