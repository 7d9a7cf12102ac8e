"""Which device computes: the rule on machines with and without accelerators."""

from __future__ import annotations

import pytest
import torch

from bge_eval.errors import UsageError
from bge_eval.runtime import devices
from bge_eval.runtime.devices import first_device, pick_devices


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int, mps: bool) -> None:
    """Let torch report a number of CUDA devices, and whether it has MPS."""
    monkeypatch.setattr(devices, "may_have_accelerator", lambda: cuda > 0 or mps)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "expected"),
    [
        (0, False, None, ["cpu"]),
        (0, True, None, ["mps"]),
        (1, False, None, ["cuda"]),
        (1, True, None, ["cuda"]),
        (2, False, None, ["cuda:0", "cuda:1"]),
        (2, False, "cuda", ["cuda:0", "cuda:1"]),
        (2, False, "cuda:1", ["cuda:1"]),
        (2, False, "cuda:1, cpu", ["cuda:1", "cpu"]),
        (1, False, "cuda", ["cuda"]),
        (1, True, "mps", ["mps"]),
        (2, True, "cpu", ["cpu"]),
        (0, False, "cpu,cpu", ["cpu", "cpu"]),
    ],
)
def test_devices_by_machine(
    cuda: int,
    mps: bool,
    device: str | None,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert pick_devices(device) == expected
    assert first_device(device) == expected[0]


@pytest.mark.parametrize(
    ("cuda", "device", "message"),
    [
        (0, "cuda", "no device 'cuda' on this machine: torch finds no CUDA device"),
        (0, "cuda:1", "no device 'cuda:1' on this machine: torch finds no CUDA device"),
        (2, "cuda:2", "no device 'cuda:2' on this machine: torch finds 2 CUDA devices"),
        (2, "cuda:0,cuda:7", "no device 'cuda:7'"),
        (0, "mps", "no device 'mps' on this machine: torch finds no MPS device"),
        (0, "gpu", "no device 'gpu' on this machine: torch does not know the name"),
        (0, " , ", "names no device; expected cpu, cuda"),
    ],
)
def test_a_device_that_is_missing_is_an_error(
    cuda: int, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, cuda=cuda, mps=False)
    with pytest.raises(UsageError, match=message):
        pick_devices(device)
