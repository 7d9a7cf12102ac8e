"""Connections to Ray: an existing cluster, or one of this machine alone that nobody else reaches.

Whoever reaches the ports of a Ray cluster runs code on it. So a local cluster listens on the
loopback address only, and asks for a token too.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bge_eval.errors import MissingError, NotReadyError, UsageError, one_line

_LEAST = (2, 60)
_AUTO = "auto"
_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
_STORE_BYTES = 512 * 2**20
"""Shared memory of a local cluster: it holds the windows in flight, and nothing else."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which cluster, and how many workers."""

    address: str | None = None
    """``host:port`` of an existing cluster, or "auto" for one on this machine; None opens one."""
    workers: int | None = None
    """Number of workers; None takes one for each GPU, or for each node without any."""
    gpus_per_worker: float | None = None
    """GPUs of each worker; None takes one where the cluster has GPUs, none elsewhere."""
    cpus: int | None = None
    """Processor cores that a cluster opened here counts; None counts those of the machine."""

    def on(self, device: str | None) -> ClusterOptions:
        """Return the options of workers that compute on a device.

        Args:
            device: ``--device``: None, "cpu" or "cuda".

        Raises:
            UsageError: the device is one of this machine, or contradicts the workers' GPUs.
        """
        if device not in (None, "cpu", "cuda"):
            raise UsageError(
                f"--device {device} is a device of this machine, and --engine gives each worker"
                " its own: leave it out, or give cpu or cuda."
            )
        if device != "cpu":
            return self
        if self.gpus_per_worker:
            raise UsageError("--device cpu and --gpus-per-worker contradict each other.")
        return replace(self, gpus_per_worker=0.0)


def named_cluster(engine: str | ClusterOptions) -> ClusterOptions:
    """Return the cluster of an engine's name, or the cluster itself.

    Raises:
        UsageError: there is no such engine.
    """
    if not isinstance(engine, str):
        return engine
    if engine != "ray":
        raise UsageError(f"engine is '{engine}'; it is \"ray\" or a ClusterOptions.")
    return ClusterOptions()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many workers a cluster has room for, and what each gets."""

    workers: int
    """Their number."""
    cpus: int
    """Processor cores of each; its threads."""
    gpus: float
    """GPUs of each."""

    def __str__(self) -> str:
        """Return it in words."""
        each = f"{self.gpus:g} GPU" if self.gpus else f"{self.cpus} CPU"
        return f"{self.workers} worker{'s' if self.workers != 1 else ''}, {each} each"


def _import_ray() -> Any:
    """Return the module ``ray``.

    Raises:
        MissingError: it is too old.
    """
    import ray

    number = tuple(int(part) for part in ray.__version__.split(".")[:2] if part.isdigit())
    if number < _LEAST:
        raise MissingError(
            f"--engine ray needs Ray {'.'.join(map(str, _LEAST))} or newer, and {ray.__version__}"
            " is installed: pip install --upgrade 'bge-eval[ray]'."
        )
    return ray


@contextmanager
def connected(options: ClusterOptions, note: Callable[[str], None]) -> Iterator[Any]:
    """Connect to a cluster, and yield the module ``ray``.

    Args:
        options: the cluster.
        note: receives a message about a cluster without a token.

    Raises:
        UsageError: the address is none that can be used.
        MissingError: Ray is too old.
        NotReadyError: there is no such cluster, or it refuses the token.
    """
    if options.address is None:
        with _local(options.cpus):
            yield _import_ray()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _import_ray()
    if options.address != _AUTO:
        refuse_loopback(options.address, ray.util.get_node_ip_address())
    try:
        ray.init(
            address=options.address, log_to_driver=False, logging_level="ERROR", namespace=None
        )
    except Exception as error:
        raise _refusal(options.address, error) from error
    try:
        if not _asks_for_token():
            note(
                f"The cluster at {options.address} asks for no token: whoever reaches its ports can"
                " run code on it. Start it with RAY_AUTH_MODE=token, and give this command the same"
                " RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
            )
        yield ray
    finally:
        ray.shutdown()


def refuse_loopback(address: str, own: str) -> None:
    """Refuse a cluster of this machine that the address does not lead to.

    Ray replaces 127.0.0.1 by the machine's own address and tries it for a minute, though a cluster
    that listens on the loopback address alone never answers there.

    Args:
        address: ``host:port``.
        own: the address of this machine, as Ray knows it.

    Raises:
        NotReadyError: the cluster answers on the loopback address, and not on the machine's own.
    """
    host, _, port = address.rpartition(":")
    if host not in ("localhost", "127.0.0.1") or host == own or not _answers(host, port):
        return
    if not _answers(own, port):
        raise NotReadyError(
            f"The Ray cluster at {address} listens on the loopback address alone, and Ray connects"
            f" to {own}:{port} instead. Start it with `ray start --head --node-ip-address {own}`,"
            " or leave out --ray-address to open a cluster for this command."
        )


def _answers(host: str, port: str) -> bool:
    """Return whether something listens at an address; True if no answer comes in time."""
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def sizes(ray: Any, options: ClusterOptions) -> Sizes:
    """Return the number of workers and what each gets.

    Raises:
        UsageError: the cluster has no room for them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [float(node.get("GPU", 0)) for node in nodes]
    each = options.gpus_per_worker
    if each is None:
        each = 1.0 if sum(gpus) >= 1 else 0.0
    if each:
        room = sum(int(count // each) for count in gpus)
        wanted = options.workers or room
        if not room or wanted > room:
            raise UsageError(
                f"The cluster has {sum(gpus):g} GPUs on {len(nodes)} nodes: room for {room} workers"
                f" with {each:g} GPU each, not for {options.workers or 1}. Lower --workers or"
                " --gpus-per-worker (0 computes on the CPUs)."
            )
        return Sizes(wanted, max(min(filter(None, cpus), default=1) // max(wanted, 1), 1), each)
    wanted = options.workers or sum(count > 0 for count in cpus)
    for cores in range(max(cpus, default=0), 0, -1):
        if sum(count // cores for count in cpus) >= wanted > 0:
            return Sizes(wanted, cores, 0.0)
    raise UsageError(
        f"The cluster has {sum(cpus)} CPUs on {len(nodes)} nodes: room for {sum(cpus)} workers with"
        f" one CPU each, not for {options.workers or 1}. Lower --workers."
    )


@contextmanager
def _local(cpus: int | None) -> Iterator[None]:
    """Open a cluster of this machine, on the loopback address and with a token.

    Args:
        cpus: the cores that it counts; None counts those of the machine.

    Raises:
        UsageError: the environment turns the token off.
        NotReadyError: the cluster does not start, or Ray was imported without a token.
    """
    mode = os.environ.get(_MODE)
    if mode is None and "ray" in sys.modules and not _own_token.cache_info().currsize:
        raise NotReadyError(
            "Ray is imported already, without a token: it reads that setting once, and bge-eval"
            f" opens no cluster without one. Set {_MODE}=token before ray is imported, run in"
            " another process, or name a cluster with --ray-address."
        )
    if mode is not None and mode.lower() != "token":
        raise UsageError(
            f"{_MODE} is '{mode}', and bge-eval opens no cluster without a token. Unset it, or"
            " start the cluster yourself and name it with --ray-address."
        )
    changed = {
        _MODE: "token",
        "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),
        # Ray's switch for clusters of several machines: without them it binds to 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    if _TOKEN not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        changed[_TOKEN] = _own_token()
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    ray = _import_ray()
    try:
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=_STORE_BYTES,
            )
        except Exception as error:
            raise NotReadyError(
                f"Ray does not start on this machine ({type(error).__name__}: {one_line(error)})."
                " Run without --engine, or name a cluster with --ray-address."
            ) from error
        _refuse_public([node["NodeManagerAddress"] for node in ray.nodes()])
        yield
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@cache
def _own_token() -> str:
    """Return the token of all clusters that this process opens: Ray reads it once."""
    return secrets.token_hex(32)


def _refuse_public(addresses: list[str]) -> None:
    """Refuse a local cluster that other machines could reach.

    Raises:
        NotReadyError: Ray listens on another address; it was imported before with other settings.
    """
    for address in addresses:
        if not ipaddress.ip_address(address).is_loopback:
            raise NotReadyError(
                f"Ray would listen on {address}, which other machines may reach. bge-eval opens a"
                " cluster on 127.0.0.1 only: run it in a process that has not imported ray before,"
                " or name your own cluster with --ray-address."
            )


def check(options: ClusterOptions) -> None:
    """Refuse what cannot be connected to, before anything is loaded.

    Raises:
        UsageError: a number is wrong, or the address is none, or a public one without a token.
        MissingError: Ray is not installed.
    """
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers is {options.workers}; it is 1 or more.")
    if options.gpus_per_worker is not None and options.gpus_per_worker < 0:
        raise UsageError(f"--gpus-per-worker is {options.gpus_per_worker:g}; it is 0 or more.")
    if find_spec("ray") is None:
        raise MissingError(
            "--engine ray needs Ray, which is not installed: pip install 'bge-eval[ray]'."
        )
    address = options.address
    if address is None or address == _AUTO:
        return
    host, _, port = address.rpartition(":")
    if "//" in address or not host or not port.isdigit():
        raise UsageError(
            f"--ray-address is '{address}'; it is host:port of a cluster's head, as `ray start"
            f" --head` prints it, or {_AUTO} for the cluster that runs on this machine."
            + (" Ray's client (ray://) is not supported." if address.startswith("ray:") else "")
        )
    if not _has_token() and _is_public(host):
        raise UsageError(
            f"--ray-address {address} is a public address, and no token is set. Set"
            f" {_MODE}=token and {_TOKEN} for the cluster and for this command."
        )


def _is_public(host: str) -> bool:
    with suppress(OSError, ValueError):
        addresses = socket.getaddrinfo(host.strip("[]"), None)
        return any(ipaddress.ip_address(str(entry[4][0])).is_global for entry in addresses)
    return False


def _asks_for_token() -> bool:
    return os.environ.get(_MODE, "").lower() == "token"


def _has_token() -> bool:
    """Return whether Ray will show a token; it does so by itself where there is one."""
    mode = os.environ.get(_MODE)
    if mode is not None:
        return mode.lower() == "token"
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return _TOKEN in os.environ or kept.is_file()


def _refusal(address: str, error: Exception) -> NotReadyError:
    """Return why a cluster could not be connected to, in our words."""
    reason = f"{type(error).__name__}: {one_line(error, 200)}"
    if _asks_for_token():
        return NotReadyError(
            f"The Ray cluster at {address} cannot be reached ({reason}): there is none, it asks for"
            f" another token than this command's {_TOKEN} or RAY_AUTH_TOKEN_PATH, or this machine"
            " is none of its nodes. Run the command on one of its nodes, with the cluster's token."
        )
    return NotReadyError(
        f"The Ray cluster at {address} cannot be reached ({reason}): there is none, it asks for a"
        f" token ({_MODE}=token and {_TOKEN} set it), or this machine is none of its nodes. Start"
        " one with `ray start --head`, and run this command on one of its nodes."
    )
