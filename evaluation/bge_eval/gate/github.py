"""What a GitHub workflow shows of the verdict: annotations and the summary of the step.

The forms are those of "Workflow commands for GitHub Actions" in GitHub's documentation.
"""

from __future__ import annotations

import os
from pathlib import Path

from bge_eval.gate.outcome import Outcome, Status

_MOST = 10
"""GitHub shows so many annotations of a kind for one step, and drops the others silently."""
_KINDS = {
    Status.REGRESSED: "error",
    Status.MISSING: "error",
    Status.DROPPED: "warning",
    Status.NOT_JUDGED: "warning",
    Status.IMPROVED: "notice",
}


def in_actions() -> bool:
    """Whether this runs in a GitHub workflow."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def workflow_commands(outcome: Outcome) -> list[str]:
    """Return one workflow command for everything that is not simply passed.

    They point at the baseline's file, where a reviewer of the change can see them.
    """
    said: dict[str, list[tuple[str, str]]] = {"error": [], "warning": [], "notice": []}
    for finding in outcome.findings:
        if finding.status in _KINDS:
            title = f"{finding.task} {finding.what} {finding.status}".replace("  ", " ")
            text = finding.said
            if finding.before is not None and finding.after is not None:
                text = f"{finding.before:.5f} → {finding.after:.5f}. {text}"
            said[_KINDS[finding.status]].append((title, text))
    for note in outcome.notes:
        said["warning" if note.warning else "notice"].append(("bge-eval check", note.text))
    file = _in_workspace(outcome.baseline.path)
    lines = []
    for kind, items in said.items():
        if len(items) > _MOST:
            rest = items[_MOST - 1 :]
            more = "\n".join(f"{title}: {text}" for title, text in rest)
            items = [*items[: _MOST - 1], (f"{len(rest)} more", more)]
        lines += [workflow_command(kind, title, text, file) for title, text in items]
    return lines


def workflow_command(kind: str, title: str, text: str, file: str = "") -> str:
    """Return one annotation, its texts escaped.

    Args:
        kind: "error", "warning" or "notice".
        title: its heading.
        text: what it says; lines are kept.
        file: the file in the repository that it points at, if any.
    """
    place = f"file={_property(file)}," if file else ""
    return f"::{kind} {place}title={_property(title)}::{_data(text)}"


def write_summary(markdown: str) -> bool:
    """Append to the step's summary; return whether there is one that can be written to."""
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if not place:
        return False
    try:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(markdown.rstrip("\n") + "\n\n")
    except OSError:
        return False
    return True


def _in_workspace(path: Path) -> str:
    """Return a file's path in the repository, or "" if it is not in it."""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    resolved = path.resolve()
    if not resolved.is_file() or not resolved.is_relative_to(root):
        return ""
    return resolved.relative_to(root).as_posix()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
