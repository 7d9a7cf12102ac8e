"""The gate in a test suite: pytest's fixture ``bge_eval``, which installing bge-eval registers.

::

    def test_the_model_got_no_worse(bge_eval):
        runs = bge_eval.run("./my-model", "SciFact", offline=True, data_dir="datasets")
        bge_eval.check("main", runs)

Loading this module costs a test suite nothing: the evaluation is imported when it is used.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bge_eval.gate.outcome import Outcome

Option = str | int | float | bool | PathLike[str]
"""A value of an option of ``bge-eval run``."""

_REMARKS = pytest.StashKey[list[str]]()


class Gate:
    """Evaluates models and checks them against baselines; a test fails if a score dropped."""

    def __init__(self, config: pytest.Config, folders: pytest.TempPathFactory) -> None:
        """Store pytest's configuration and its factory of temporary folders."""
        self._config = config
        self._folders = folders

    def run(
        self,
        model: str | PathLike[str],
        *tasks: str | PathLike[str],
        output: str | PathLike[str] | None = None,
        **options: Option | Iterable[Option] | None,
    ) -> Path:
        """Evaluate a model in a process of its own.

        Args:
            model: as ``--model``.
            tasks: suites, tasks and folders, as ``--tasks``.
            output: folder of the results, which are reused; a new temporary folder by default.
            options: options of ``bge-eval run``: ``offline=True`` is ``--offline``,
                ``max_length=256`` is ``--max-length 256``, a list repeats the option.

        Returns:
            The folder of results. The test fails if a task cannot be evaluated.
        """
        __tracebackhide__ = True
        folder = self._folders.mktemp("bge-eval") if output is None else Path(output)
        command = [sys.executable, "-m", "bge_eval", "run", "--model", fspath(model)]
        command += ["--output", fspath(folder), "--quiet"]
        for task in tasks:
            command += ["--tasks", fspath(task)]
        for name, value in options.items():
            command += _as_option(name, value)
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", check=False
        )
        if done.returncode:
            pytest.fail(f"bge-eval run: {done.stderr.strip() or done.stdout}", pytrace=False)
        return folder

    def check(
        self,
        baseline: str | PathLike[str],
        *runs: str | PathLike[str],
        rules: str | PathLike[str] | None = None,
        tasks: Iterable[str] = (),
        model: str = "",
        latest: bool = False,
        other_data: bool = False,
    ) -> Outcome:
        """Check runs against a baseline; the test fails as ``bge-eval check`` would.

        Args:
            baseline: a file, a name in ``results/baselines``, or a run.
            runs: folders of results or results; ``results/runs`` by default.
            rules: the rules file; by default the .toml beside the baseline, if there is one.
            tasks: only these suites and tasks.
            model: of several runs of a task, the one with this name.
            latest: of several runs of a task, the newest.
            other_data: compare runs on data other than the baseline's.

        Returns:
            The verdict.
        """
        __tracebackhide__ = True
        from bge_eval.cli.show_check import text
        from bge_eval.errors import BgeEvalError
        from bge_eval.gate import gate
        from bge_eval.gate.outcome import Status
        from bge_eval.gate.selection import Selection

        request = gate.Request(
            baseline=fspath(baseline),
            runs=tuple(map(Path, runs)) or (Path("results/runs"),),
            selection=Selection(model, latest),
            rules=None if rules is None else Path(rules),
            tasks=tuple(tasks),
            other_data=other_data,
        )
        try:
            outcome = gate.judge(request)
        except BgeEvalError as error:
            pytest.fail(f"bge-eval check: {error}", pytrace=False)
        if outcome.exit_code:
            pytest.fail(text(outcome), pytrace=False)
        remarks = self._config.stash.setdefault(_REMARKS, [])
        worth = outcome.of(Status.IMPROVED, Status.DROPPED, Status.NOT_JUDGED)
        remarks += [f"{finding.task} {finding.what}: {finding.reason}" for finding in worth]
        remarks += [note.text for note in outcome.notes if note.warning]
        return outcome


@pytest.fixture(scope="session")
def bge_eval(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gate]:
    """Evaluate embedding models and check them against baselines."""
    yield Gate(pytestconfig, tmp_path_factory)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what did not fail but matters: improvements, drops within chance, warnings."""
    lines = config.stash.get(_REMARKS, [])
    if lines:
        terminalreporter.section("bge-eval")
        for line in dict.fromkeys(lines):
            terminalreporter.line(line)


def _as_option(name: str, value: Option | Iterable[Option] | None) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value is None:
        return []
    if isinstance(value, bool):
        # Only these have a --no- form; any other option that is not wanted is left out.
        return [option] if value else [f"--no-{option[2:]}"] * (name in ("normalize", "store"))
    if isinstance(value, str | int | float | PathLike):
        return [option, str(value)]
    return [word for item in value for word in _as_option(name, item)]
