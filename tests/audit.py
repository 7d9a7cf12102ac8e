"""``make audit``: secrets in the files, and known vulnerabilities of the locked dependencies.

``python tests/audit.py BIN`` runs detect-secrets and pip-audit of that folder. Exit 0: both have
looked and found nothing; 1: a secret or a vulnerability; 3: the advisories could not be read, so
nothing is known about vulnerabilities, which is not the same as none.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def secrets(programs: Path) -> bool:
    """Return whether a file of the repository holds a secret that the baseline does not know."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    files = listed.stdout.decode().split("\0")[:-1]
    command = [str(programs / "detect-secrets-hook"), "--baseline", ".secrets.baseline", *files]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode not in (0, 1, 3):  # 3: it has renewed the baseline's line numbers
        raise RuntimeError(f"detect-secrets ended with {done.returncode}")
    return done.returncode == 1


def verdict(code: int, output: str) -> tuple[int, str]:
    """Return the exit code, and what pip-audit's end means.

    Args:
        code: its exit code, 1 for a vulnerability as for an advisory that it cannot read.
        output: what it printed on both streams.
    """
    if code == 0:
        return 0, "No dependency has a known vulnerability."
    if found := re.search(r"Found (\d+) known vulnerabilit\w+ in \d+ package", output):
        return 1, f"{found[0]}(s); see above."
    reason = next((line for line in reversed(output.splitlines()) if line.strip()), "no reason")
    return 3, (
        "The advisories could not be read, so NOTHING is known about vulnerabilities of the"
        f" dependencies ({reason.strip()[:200]}). Run it again where the advisories can be read."
    )


def main() -> int:
    """Look for both; the more serious end wins."""
    programs = Path(sys.argv[1])
    if secrets(programs):
        print("make audit: a file holds a secret (see above).", file=sys.stderr)
        return 1
    print("make audit: no secret in the files.")
    command = [str(programs / "pip-audit"), "--requirement", "requirements.lock", "--no-deps"]
    command += ["--disable-pip", "--strict", "--progress-spinner", "off"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    print(done.stdout + done.stderr)
    code, sentence = verdict(done.returncode, done.stdout + done.stderr)
    print(f"make audit: {sentence}", file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
