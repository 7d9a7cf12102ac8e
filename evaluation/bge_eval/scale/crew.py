"""The workers of a cluster, and the dealing of jobs to them.

A worker gets a new job when it has finished one, so few jobs are under way whatever the number of
all jobs (back-pressure), and slow workers get fewer. A worker that dies, or whose node dies, is
replaced, and only its unfinished jobs are done again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bge_eval.errors import NotReadyError, one_line
from bge_eval.models.spread import Encoded
from bge_eval.progress import Progress, WorkDone
from bge_eval.scale.cluster import Sizes
from bge_eval.scale.worker import Failure, Here, Worker

if TYPE_CHECKING:
    from bge_eval.progress import Step

_DEPTH = 2
"""Jobs of a worker under way: one computes, the next waits there, so that none waits for us."""
_TRIES = 3
"""Workers that one job may end before the run is given up."""
_STARTS = 3
"""Starts of one worker that may fail in a row."""
_PATIENCE = 300.0
"""Seconds to wait for a worker while none is left, such as for a new node."""
_TICK = 5.0
"""Seconds after which the workers are looked at again, whether or not a job is done."""


@dataclass(slots=True, eq=False)
class Job:
    """One call of a method of `Worker`."""

    method: str
    """The method's name."""
    arguments: tuple[Any, ...]
    """Its arguments; large ones are references to Ray's object store."""
    items: int
    """Texts or pairs in it, for the record."""
    unit: str = "texts"
    """What they are."""
    tag: Any = None
    """What the caller knows it by."""
    tries: int = field(default=0, init=False)
    """Workers that it was sent to and that died."""


@dataclass(slots=True, eq=False)
class _Place:
    """The place of one worker, which a new one takes when it dies."""

    number: int
    """Its number, from 1."""
    actor: Any = None
    """Ray's handle; None where it is given up."""
    here: Here | None = None
    """Where it runs; None until it has started."""
    name: str = ""
    """Its name in progress and records."""
    started: float = 0.0
    """When it last finished a job or began with none waiting."""
    failures: int = 0
    """Starts that failed since the last that did not."""
    reason: str = ""
    """Why the last start failed."""


class Crew:
    """The workers of one run."""

    def __init__(self, ray: Any, sizes: Sizes, progress: Progress, *, offline: bool) -> None:
        """Start the workers; they load their models with the first job that needs one.

        Args:
            ray: the module, connected to a cluster.
            sizes: the number of workers and what each gets.
            progress: shows a line for each worker, and records what each did.
            offline: workers open no connection.
        """
        self._ray = ray
        self._sizes = sizes
        self._progress = progress
        self._offline = offline
        self._flights: dict[Any, tuple[_Place, Job | None]] = {}
        self._places = [_Place(number) for number in range(1, sizes.workers + 1)]
        for place in self._places:
            self._start(place)

    @property
    def count(self) -> int:
        """Return the number of workers."""
        return self._sizes.workers

    def processes(self) -> list[int]:
        """Return the processes of the workers that have started, in the order of their numbers."""
        return [place.here.process for place in self._places if place.here is not None]

    def put(self, value: Any) -> Any:
        """Put a value into Ray's object store, for several jobs; return its reference."""
        return self._ray.put(value)

    def ask(self, job: Job) -> Any:
        """Return the result of one job."""
        [(_, result)] = list(self.run([job]))
        return result

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any]]:
        """Yield the results of jobs, in any order; few jobs are taken ahead of the results.

        Args:
            jobs: what is to be done.

        Raises:
            BgeEvalError: a worker's own error.
            NotReadyError: no worker is left and none starts, or one job ends every worker.
        """
        source, again = iter(jobs), deque[Job]()
        deadline = time.monotonic() + _PATIENCE
        with ExitStack() as shown:
            lines: dict[str, Step] = {}
            self._forget()
            while True:
                self._deal(source, again)
                waiting = [ref for ref, (_, job) in self._flights.items() if job is not None]
                if not waiting and not again and not self._may_deal(source, again):
                    return
                if self._alive():
                    deadline = time.monotonic() + _PATIENCE
                elif time.monotonic() > deadline or not self._starting():
                    raise NotReadyError(self._nobody())
                done, _ = self._ray.wait(list(self._flights), num_returns=1, timeout=_TICK)
                for ref in done:
                    place, finished = self._flights.pop(ref)
                    result = self._landed(ref, place, finished, again)
                    if finished is None or result is None:
                        continue
                    if isinstance(result[0], Encoded):
                        finished.items = len(result[0].rows)
                    self._record(place, finished, lines, shown)
                    if isinstance(result[0], Failure):
                        raise result[0].error()
                    yield finished, result[0]
                    del result

    def _may_deal(self, source: Iterator[Job], again: deque[Job]) -> bool:
        """Return whether jobs are left, by taking one."""
        job = next(source, None)
        if job is not None:
            again.append(job)
        return job is not None

    def _deal(self, source: Iterator[Job], again: deque[Job]) -> None:
        """Give every worker that has started as many jobs as it may have."""
        load = {place.number: 0 for place in self._places}
        for place, job in self._flights.values():
            load[place.number] += job is not None
        # The least loaded first: the last jobs go to workers that have none.
        for depth in range(1, _DEPTH + 1):
            for place in self._places:
                if place.here is None or load[place.number] >= depth:
                    continue
                job = again.popleft() if again else next(source, None)
                if job is None:
                    return
                if not load[place.number]:
                    place.started = time.monotonic()
                load[place.number] += 1
                ref = place.actor.call.remote(job.method, *job.arguments)
                self._flights[ref] = place, job

    def _landed(
        self, ref: Any, place: _Place, job: Job | None, again: deque[Job]
    ) -> tuple[Any] | None:
        """Return the result of a reference, or None where its worker died or began."""
        try:
            result = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._lost(place, job, again, error)
            return None
        if job is not None:
            return (result,)
        place.here, place.failures = result, 0
        place.name = f"worker {place.number} on {result.node}"
        return None

    def _lost(self, place: _Place, job: Job | None, again: deque[Job], error: Exception) -> None:
        """Replace a worker, and take back its jobs.

        Raises:
            NotReadyError: a job has ended several workers, or none can start.
        """
        lost = [] if job is None else [job]
        for ref, (other, waiting) in list(self._flights.items()):
            if other is place:
                del self._flights[ref]
                lost += [] if waiting is None else [waiting]
        reason = f"{type(error).__name__}: {one_line(error, 160)}"
        if place.here is None:
            place.failures, place.reason = place.failures + 1, reason
        else:
            retried = WorkDone(place.name, place.here.machine, retries=max(len(lost), 1))
            self._progress.profile.worked(retried)
            self._progress.note(
                f"{place.name} died ({reason}); it is replaced. Done again: {len(lost)}"
                f" shard{'s' if len(lost) != 1 else ''}."
            )
        if lost:
            # The first was computed when the worker died; those behind it had not begun.
            lost[0].tries += 1
            if lost[0].tries >= _TRIES:
                raise NotReadyError(
                    f"The same shard ({lost[0].items:,} {lost[0].unit}) ended {_TRIES} workers, the"
                    f" last on {place.here.node if place.here else 'a node'}: {reason}. Too little"
                    " memory is the usual cause: lower --batch-tokens or the number of workers on"
                    " a node."
                )
        again.extend(lost)
        self._ray.kill(place.actor)
        place.here = place.actor = None
        if place.failures < _STARTS:
            self._start(place)

    def _start(self, place: _Place) -> None:
        actor = self._ray.remote(Worker).options(
            num_cpus=self._sizes.cpus if not self._sizes.gpus else min(self._sizes.cpus, 1),
            num_gpus=self._sizes.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        place.actor = actor.remote(self._sizes.cpus, self._offline)
        self._flights[place.actor.here.remote()] = place, None

    def _forget(self) -> None:
        """Forget the jobs of a call that ended early; their results are dropped."""
        self._flights = {
            ref: (place, job) for ref, (place, job) in self._flights.items() if job is None
        }

    def _alive(self) -> bool:
        return any(place.here is not None for place in self._places)

    def _starting(self) -> bool:
        return any(place.actor is not None for place in self._places)

    def _nobody(self) -> str:
        reasons = [place.reason for place in self._places if place.reason]
        if reasons:
            return (
                f"No worker starts: {reasons[-1]}. Every node needs bge-eval in the same version"
                " and the same Python."
            )
        free = self._ray.available_resources()
        return (
            f"No worker started within {_PATIENCE:.0f} s: the cluster has {free.get('CPU', 0):g}"
            f" CPUs and {free.get('GPU', 0):g} GPUs free, and each needs"
            f" {self._sizes.cpus} CPUs and {self._sizes.gpus:g} GPUs. Wait for nodes, or lower"
            " --workers."
        )

    def _record(self, place: _Place, job: Job, lines: dict[str, Step], shown: ExitStack) -> None:
        """Record a finished job, and show it on the worker's line."""
        now = time.monotonic()
        seconds, place.started = now - place.started, now
        assert place.here is not None
        self._progress.profile.worked(
            WorkDone(place.name, place.here.machine, 1, job.items, seconds)
        )
        if place.name not in lines:
            line = self._progress.show(place.name, None, job.unit, _Uncounted())
            lines[place.name] = shown.enter_context(line)
        lines[place.name].advance(job.items)


class _Uncounted:
    """A step whose items the profile has elsewhere."""

    def advance(self, count: int, tokens: int = 0) -> None:
        """Count nothing."""
