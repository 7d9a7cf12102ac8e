"""Write the table of docs/checkpoints.md from tasks/models/checkpoints.toml."""

from __future__ import annotations

from pathlib import Path

from bge_eval.encode.checkpoints import Checkpoint, Run, checkpoints

PAGE = Path(__file__).with_name("checkpoints.md")
HEAD = "| checkpoint | kind | how | source |\n| --- | --- | --- | --- |\n"


def how(entry: Checkpoint) -> str:
    """Return how a checkpoint is run, in a few words."""
    words = {
        Run.NAME: "by name",
        Run.OPTIONS: f"with `{entry.options}`",
        Run.NO: "not run by bge-eval",
    }[entry.run]
    return f"{words}; {entry.remark}" if entry.remark else words


def page() -> str:
    """Return the page with its table renewed."""
    rows = [
        f"| {name} | {entry.kind} | {how(entry)} | {entry.source} |\n"
        for entry in checkpoints()
        for name in entry.names
    ]
    return PAGE.read_text(encoding="utf-8").partition(HEAD)[0] + HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
