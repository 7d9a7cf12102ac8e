"""Weights & Biases: a run whose id is the identity, offline in a folder or on a server.

With a folder the client is offline; ``wandb sync <place>/wandb/offline-run-*`` sends the files
later. Without a place, its own settings count (``wandb login``, WANDB_MODE, WANDB_BASE_URL). The
checkpoint's step is the metric ``step``, the axis of all others.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bge_eval.errors import MissingError
from bge_eval.tracking.runs import Point, TrackedRun
from bge_eval.tracking.tracker import Kind, Sent, Target

_STEP = "step"
_SERVER = "https://api.wandb.ai"
_HEADER = 7
"""Bytes before the first record of a run's file, and before each of its pieces."""
_BLOCK = 32768
"""Bytes of a block of a run's file: the log format of LevelDB."""
_PATIENCE = 30.0
"""Seconds until a run's file must be complete."""
_ENDS = (1, 4)
"""The kinds of pieces that end a record: the whole of it, and the last of several."""


@dataclass(frozen=True, slots=True)
class WandB:
    """The client for one project."""

    target: Target
    """The project and its place."""
    folder: Path | None
    """The folder of offline runs; None with a server."""

    @property
    def reads_at_once(self) -> bool:
        """Return whether it writes files: a server takes its time."""
        return self.folder is not None

    def sent(self, run: TrackedRun) -> Sent:
        """Return the run's history, from its files or from the server."""
        rows = self._on_server(run) if self.folder is None else _offline(self.folder, run)
        points: dict[int, dict[str, float]] = {}
        for row in rows:
            if row.get(_STEP) is not None:
                numbers = {k: float(v) for k, v in row.items() if isinstance(v, int | float)}
                points.setdefault(int(row[_STEP]), {}).update(numbers)
        return points

    def add(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Log metrics; an existing run is resumed."""
        import wandb

        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        settings: Any = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        if self.target.is_address:
            settings.base_url = self.target.place
        entered: Any = wandb.init(
            project=self.target.project,
            id=run.identity,
            name=run.name,
            config=dict(run.settings),
            resume="allow",
            reinit="create_new",  # a training that is logged in this process goes on
            dir=self.folder,
            mode="online" if self.folder is None else "offline",
            settings=settings,
        )
        entered.define_metric(_STEP, hidden=True)
        entered.define_metric("*", step_metric=_STEP)
        for point in points:
            entered.log({**point.metrics, _STEP: point.step})
        entered.finish()
        if self.folder is not None:
            _wait(Path(entered.dir).parent / f"run-{run.identity}.wandb")

    def _on_server(self, run: TrackedRun) -> Iterator[dict[str, Any]]:
        import wandb

        address = {"base_url": self.target.place} if self.target.is_address else {}
        client: Any = wandb.Api(overrides=address)
        path = f"{client.default_entity}/{self.target.project}/{run.identity}"
        try:
            found = client.run(path)
        except ValueError:  # there is no such run, or no such project
            return
        yield from found.scan_history()


def _offline(folder: Path, run: TrackedRun) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run's history in the files of an offline folder."""
    for path in sorted(folder.glob(f"wandb/*/run-{run.identity}.wandb")):
        for record in _records(path):
            if record.WhichOneof("record_type") == "history":
                yield {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }


def _wait(path: Path) -> None:
    """Wait until a run's file is complete: the client's own process writes it."""
    last = time.monotonic() + _PATIENCE
    while time.monotonic() < last:
        if path.is_file() and any(r.WhichOneof("record_type") == "exit" for r in _records(path)):
            return
        time.sleep(0.05)


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of a run's file; one that is cut off at the end is left out."""
    from wandb.proto import wandb_internal_pb2 as messages

    data = path.read_bytes()
    place, pieces = _HEADER, b""
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += _HEADER
        pieces += data[place : place + length]
        place += length
        if kind in _ENDS and place <= len(data):
            record: Any = messages.Record()
            record.ParseFromString(pieces)
            yield record
            pieces = b""


def _folder(target: Target) -> Path | None:
    """Return the folder of offline runs; None for a server."""
    if target.folder is not None:
        return target.folder
    is_offline = target.offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun")
    own = Path(os.environ.get("WANDB_DIR", "."))
    return own if is_offline and not target.is_address else None


def _check(target: Target) -> None:
    target.refuse_connection(
        target.place if target.is_address else "",
        "Name a folder, --track wandb=./wandb-runs, and send it later with wandb sync.",
    )
    if _folder(target) is None and not _has_key(target):
        raise MissingError(
            "Weights & Biases has no key here: run `wandb login` first, or set WANDB_API_KEY. Or"
            " name a folder, --track wandb=./wandb-runs, and send it later with wandb sync."
        )


def _has_key(target: Target) -> bool:
    """Return whether the client would find a key, so that it asks for none after a long run."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import netrc

    address = target.place or os.environ.get("WANDB_BASE_URL", _SERVER)
    host = urlsplit(address).hostname or ""
    places = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for place in places:
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(Path(place).expanduser()).authenticators(host):
                return True
    return False


WANDB = Kind("Weights & Biases", "wandb", _check, lambda target: WandB(target, _folder(target)))
