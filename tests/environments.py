"""Environments for libraries whose pins cannot stand beside ours, made where they are missing.

python tests/environments.py flagembedding
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class EnvironmentError(Exception):
    """An environment cannot be made here; the message says how to have one."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment beside the checkout's own."""

    name: str
    """Names its folder, ``.venv-<name>``, and the variable ``BGE_EVAL_<NAME>`` of another."""
    constraints: Path
    """The versions, as pip reads them."""
    installs: tuple[tuple[str, ...], ...]
    """What pip installs, one call after the other."""

    @property
    def variable(self) -> str:
        """The variable that names a folder with such an environment."""
        return f"BGE_EVAL_{self.name.upper()}"

    @property
    def digest(self) -> str:
        """Changes with the versions."""
        content = [repr(self.installs), self.constraints.read_text(encoding="utf-8")]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()

    def program(self, name: str) -> Path:
        """Return the path of a program, such as "python", in the environment, made if need be.

        Raises:
            EnvironmentError: pip cannot install it.
        """
        if chosen := os.environ.get(self.variable):
            return Path(chosen) / "bin" / name
        folder = ROOT / f".venv-{self.name}"
        try:
            self._make(folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvironmentError(
                f"{self.name} could not be installed into {folder} ({error}). Run this where pip"
                f" can install packages, or set {self.variable} to the folder of an environment"
                f" with {self.installs[-1][-1]}."
            ) from error
        return folder / "bin" / name

    def _make(self, folder: Path) -> None:
        import fcntl

        done = folder / ".installed"
        # Several processes of pytest may need it at the same time.
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if done.is_file() and done.read_text(encoding="utf-8") == self.digest:
                return
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            for wanted in self.installs:
                command = [*pip, "--constraint", str(self.constraints), *wanted]
                subprocess.run(command, check=True, timeout=1200)
            done.write_text(self.digest, encoding="utf-8")


INFINITY = Environment(
    "infinity",
    ROOT / "constraints-cpu.txt",
    (("torch",), ("infinity-emb[server,torch]==0.0.78",)),
)
"""A server of embeddings; it needs sentence-transformers 3 and numpy 1."""

FLAGEMBEDDING = Environment(
    "flagembedding",
    ROOT / "tests" / "parity" / "flagembedding.txt",
    (
        ("torch",),
        ("accelerate", "datasets", "numpy", "peft", "protobuf", "sentencepiece", "transformers"),
        # Its other requirements serve its own evaluation.
        ("--no-deps", "FlagEmbedding"),
    ),
)
"""The reference of BGE's models; its code for them needs transformers 4."""

TRACKERS = Environment(
    "trackers",
    ROOT / "constraints-cpu.txt",
    (
        # What `bge-eval track` itself imports.
        ("--no-compile", "filelock", "numpy", "rich", "scipy", "typer"),
        ("--no-compile", "mlflow==3.17.2", "trackio==0.43.0", "wandb==0.31.0"),
    ),
)
"""The clients of trackers, which bring two hundred megabytes with them, and no torch."""


if __name__ == "__main__":
    for environment in (INFINITY, FLAGEMBEDDING, TRACKERS):
        if environment.name in sys.argv[1:]:
            try:
                print(environment.program("python"))
            except EnvironmentError as error:
                sys.exit(str(error))
