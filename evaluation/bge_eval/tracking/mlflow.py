"""MLflow: a run of an experiment, in a database in a folder or on a tracking server.

A folder's database is ``<place>/mlflow.db``, which ``mlflow ui --backend-store-uri
sqlite:///<place>/mlflow.db`` shows. Without a place, MLFLOW_TRACKING_URI counts, else the folder
``mlruns``. A server's token or password is MLflow's own: MLFLOW_TRACKING_TOKEN,
MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_eval.tracking.runs import Point, TrackedRun
from bge_eval.tracking.tracker import Kind, Sent, Target

_IDENTITY = "bge_eval.identity"
"""The tag by which a run is found again."""
_FOLDER = "mlruns"
_URI = "MLFLOW_TRACKING_URI"
_LONGEST_VALUE = 500
"""Characters that every version's store takes in a parameter; longer values end in "…"."""
_BATCH = 100
"""Parameters that MLflow takes in one request."""
_DEFAULTS = {
    # MLflow's own try an absent server for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Variables of MLflow's that hold unless the user has set them."""


@dataclass(frozen=True, slots=True)
class MLflow:
    """A client of one store."""

    client: Any
    """``mlflow.MlflowClient``."""
    experiment: str
    """The experiment's id."""

    @property
    def reads_at_once(self) -> bool:
        """Return True."""
        return True

    def sent(self, run: TrackedRun) -> Sent:
        """Return the run's metrics with their history."""
        found = self._find(run)
        if found is None:
            return {}
        points: dict[int, dict[str, float]] = {}
        for name in found.data.metrics:
            for metric in self.client.get_metric_history(found.info.run_id, name):
                points.setdefault(metric.step, {})[name] = metric.value
        return points

    def add(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Log metrics; settings that the run lacks become its parameters."""
        from mlflow.entities import Metric, Param

        found = self._find(run) or self.client.create_run(
            self.experiment,
            run_name=run.name,
            start_time=min(point.seconds for point in points) * 1000,
            tags={_IDENTITY: run.identity, "mlflow.source.name": "bge-eval"},
        )
        number = found.info.run_id
        params = [
            Param(name, _short(value))
            for name, value in run.settings.items()
            if name not in found.data.params
        ]
        metrics = [
            Metric(name, value, point.seconds * 1000, point.step)
            for point in points
            for name, value in point.metrics.items()
        ]
        for start in range(0, len(params), _BATCH):
            self.client.log_batch(number, params=params[start : start + _BATCH])
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(number, metrics=metrics[start : start + _BATCH])
        self.client.set_terminated(number, end_time=max(p.seconds for p in points) * 1000)

    def _find(self, run: TrackedRun) -> Any:
        text = f"tags.`{_IDENTITY}` = '{run.identity}'"
        runs = self.client.search_runs([self.experiment], text, max_results=1)
        return runs[0] if runs else None


def _short(value: str) -> str:
    if len(value) <= _LONGEST_VALUE:
        return value
    return value[: _LONGEST_VALUE - 1] + "…"


def _uri(target: Target) -> str:
    """Return the address of the store, as MLflow writes it."""
    own = "" if target.place else os.environ.get(_URI, "")
    if target.is_address or "://" in target.place or own:
        return target.place or own
    return f"sqlite:///{(target.folder or Path(_FOLDER)).absolute() / 'mlflow.db'}"


def _check(target: Target) -> None:
    uri = _uri(target)
    remote = uri if not uri.startswith(("sqlite:", "file:")) else ""
    target.refuse_connection(remote, "Name a folder: --track mlflow=./mlruns")


def _open(target: Target) -> MLflow:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    uri = _uri(target)
    local = Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else None
    if local is not None:
        local.mkdir(parents=True, exist_ok=True)
    client: Any = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(target.project)
    if found is not None:
        return MLflow(client, found.experiment_id)
    # A database keeps no files; they would go to the current folder.
    artifacts = (local / "artifacts").absolute().as_uri() if local is not None else None
    return MLflow(client, client.create_experiment(target.project, artifact_location=artifacts))


MLFLOW = Kind("MLflow", "mlflow", _check, _open)
