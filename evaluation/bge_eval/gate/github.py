"""A check's outcome in a GitHub workflow: annotations and the step summary.

The formats follow "Workflow commands for GitHub Actions" in GitHub's documentation.
"""

from __future__ import annotations

import os
from pathlib import Path

from bge_eval.gate.outcome import Outcome, Status

_MOST = 10
"""Number of annotations of a kind that GitHub shows for one step; it drops the others."""
_KINDS = {
    Status.REGRESSED: "error",
    Status.MISSING: "error",
    Status.DROPPED: "warning",
    Status.NOT_JUDGED: "warning",
    Status.IMPROVED: "notice",
}


def in_actions() -> bool:
    """Tell whether this runs in a GitHub workflow."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def workflow_commands(outcome: Outcome) -> list[str]:
    """Return one workflow command for every finding that did not pass, and for every note.

    They are attached to the baseline's file, where a reviewer sees them.
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
        text: its text; line breaks are kept.
        file: the file in the repository that it is attached to; "" for none.
    """
    place = f"file={_property(file)}," if file else ""
    return f"::{kind} {place}title={_property(title)}::{_data(text)}"


def write_summary(markdown: str) -> bool:
    """Append to the step summary; return False if there is none or it cannot be written."""
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
