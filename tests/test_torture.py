"""Runs that are killed at random moments, continued to their end, and compared with a whole one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from torture import TASK, Rack, make_data, make_models, torture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    make_data(tmp_path / TASK, 60, 5)
    return Rack(tmp_path, *make_models(tmp_path))


@pytest.mark.slow
def test_killed_runs_lose_nothing(rack: Rack) -> None:
    outcome = torture(rack, kills=3, seed=2, hardships=False)
    assert sum(outcome.kills.values()) >= 3
    assert outcome.runs >= 2
    assert not outcome.different


@pytest.mark.slow
def test_more_killed_runs_and_hardships_lose_nothing(rack: Rack) -> None:
    """Among them a clock that goes backwards, and half the processor."""
    outcome = torture(rack, kills=6, seed=3)
    assert sum(outcome.kills.values()) >= 6
    assert outcome.runs >= 2
    assert not outcome.different
