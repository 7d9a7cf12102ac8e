"""Make the pictures of the README: a terminal (SVG) and the report (PNG).

    python docs/make_pictures.py

Runs the embedded model on the embedded collection, so it needs no network; the picture of the
report needs Chromium (``apt-get install -y chromium``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).parent / "pictures"
MODEL = "builtin:all-MiniLM-L6-v2"
RUN = f"run --model {MODEL} --tasks demo --offline --quiet"
COMMANDS = (RUN, f"{RUN} --truncate-dim 128", "table --best --costs")
"""What the terminal shows."""
WIDTH = 104
"""Columns of the terminal."""
LARGEST = 300_000
"""Bytes of the larger picture."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Write both pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        terminal(Path(folder))
        report(Path(folder))
    for picture in sorted(PICTURES.iterdir()):
        size = picture.stat().st_size
        print(f"{picture.name}: {size / 1000:.0f} kB")
        if size > LARGEST:
            raise SystemExit(f"{picture} is larger than {LARGEST / 1000:.0f} kB.")


def terminal(folder: Path) -> None:
    """Run the commands and draw what they print."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    for command in COMMANDS:
        console.print(Text(f"$ bge-eval {command}", style="bold"))
        console.print(Text.from_ansi(_output(command.split(), folder)))
    # The default form loads a font from another host.
    start, _, rest = CONSOLE_SVG_FORMAT.partition("@font-face")
    form = start + rest[rest.index(".{unique_id}-matrix") :]
    svg = console.export_svg(title="bge-eval", code_format=form, unique_id="bge-eval")
    (PICTURES / "terminal.svg").write_text(svg, encoding="utf-8")


def report(folder: Path) -> None:
    """Write the report of those runs and take its picture."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("There is no Chromium. Install it: apt-get install -y chromium")
    _output(["report", "--tasks", "demo", "--output", "report.html"], folder)
    picture = PICTURES / "report.png"
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=4000"]
    options += ["--window-size=1180,1000", f"--screenshot={picture}"]
    page = (folder / "report.html").as_uri()
    subprocess.run([browser, *options, page], check=True, capture_output=True)


def _output(arguments: list[str], folder: Path) -> str:
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, "-m", "bge_eval", *arguments],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    return done.stdout


if __name__ == "__main__":
    main()
