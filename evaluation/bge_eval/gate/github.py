"""The verdict in a GitHub workflow: annotations, and the summary of the step.

The formats are described in "Workflow commands for GitHub Actions" of GitHub's documentation.
"""

from __future__ import annotations

import os
from pathlib import Path

from bge_eval.errors import without_home
from bge_eval.gate.outcome import Outcome, Status

_MAX_ANNOTATIONS = 10
"""Number of annotations of a kind that GitHub shows for a step; it silently drops the rest."""
_KINDS = {
    Status.REGRESSED: "error",
    Status.MISSING: "error",
    Status.DROPPED: "warning",
    Status.NOT_JUDGED: "warning",
    Status.IMPROVED: "notice",
}


def in_actions() -> bool:
    """Return whether this process runs in a GitHub workflow."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def workflow_commands(outcome: Outcome) -> list[str]:
    """Return a workflow command for each finding that did not pass, and for each note.

    The annotations point at the baseline's file, where a reviewer of the change sees them.
    """
    annotations: dict[str, list[tuple[str, str]]] = {"error": [], "warning": [], "notice": []}
    for finding in outcome.findings:
        if finding.status in _KINDS:
            title = f"{finding.task} {finding.what} {finding.status}".replace("  ", " ")
            text = finding.reason
            if finding.before is not None and finding.after is not None:
                text = f"{finding.before:.5f} → {finding.after:.5f}. {text}"
            annotations[_KINDS[finding.status]].append((title, text))
    for note in outcome.notes:
        annotations["warning" if note.warning else "notice"].append(("bge-eval check", note.text))
    file = _in_workspace(outcome.baseline.path)
    lines = []
    for kind, items in annotations.items():
        if len(items) > _MAX_ANNOTATIONS:
            rest = items[_MAX_ANNOTATIONS - 1 :]
            more = "\n".join(f"{title}: {text}" for title, text in rest)
            items = [*items[: _MAX_ANNOTATIONS - 1], (f"{len(rest)} more", more)]
        lines += [workflow_command(kind, title, text, file) for title, text in items]
    return lines


def workflow_command(kind: str, title: str, text: str, file: str = "") -> str:
    """Return one annotation with its texts escaped.

    Args:
        kind: "error", "warning" or "notice".
        title: the heading.
        text: the message; line breaks are kept.
        file: path in the repository that the annotation points at, or "".
    """
    location = f"file={_property(file)}," if file else ""
    return f"::{kind} {location}title={_property(title)}::{_data(text)}"


def write_summary(markdown: str) -> bool:
    """Append to the step's summary; return whether that was possible."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(without_home(markdown).rstrip("\n") + "\n\n")
    except OSError:
        return False
    return True


def _in_workspace(path: Path) -> str:
    """Return a file's path within the repository, or "" if it lies outside."""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    resolved = path.resolve()
    if not resolved.is_file() or not resolved.is_relative_to(root):
        return ""
    return resolved.relative_to(root).as_posix()


def _data(text: str) -> str:
    return without_home(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
