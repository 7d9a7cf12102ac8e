"""Attention inside the segments of a flattened batch, for transformers' attention interface.

All texts of a batch lie one after another in a single row of tokens; a segment is one text. The
interface is https://huggingface.co/docs/transformers/attention_interface. Three kernels compute the
same: torch's ``varlen_attn``, FlashAttention's ``flash_attn_varlen_func``, and one
``scaled_dot_product_attention`` for each run of segments of equal length, which needs no padding
either and works on every device and in every precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from itertools import groupby
from math import isclose
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention

from bge_eval.runtime.transfer import sent

NAME = "bge_eval_segments"
"""Name of the attention in transformers' interface."""
_AMPERE = (8, 0)
"""Compute capability from which FlashAttention runs."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the texts of a flattened batch begin and end."""

    lengths: tuple[int, ...]
    """Tokens of each text, at least 1."""
    bounds: torch.Tensor
    """``(n_texts + 1,)`` int32 on the device: 0, then the sum of the lengths so far."""
    kernel: Kernel
    """Computes the attention."""

    @property
    def longest(self) -> int:
        """Return the length of the longest text."""
        return max(self.lengths)

    @classmethod
    def of(cls, lengths: npt.NDArray[np.int64], kernel: Kernel, device: torch.device) -> Segments:
        """Return the segments of texts with some lengths, ``(n_texts,)``."""
        bounds = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=bounds[1:])
        return cls(tuple(lengths.tolist()), sent(bounds, device), kernel)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which tokens of its text a token attends to, and how their products are scaled."""

    scale: float | None
    """Factor of the products of queries and keys; None for ``1 / sqrt(head size)``."""
    causal: bool
    """Whether a token attends to earlier ones and itself only."""
    window: int | None
    """Tokens at a smaller distance are attended to; None for all."""
    softcap: float | None = None
    """Gemma 2's: a product x becomes ``softcap * tanh(x / softcap)``; None leaves it."""

    @property
    def reach(self) -> tuple[int, int]:
        """Return how many tokens before and after are attended to; -1 for all."""
        side = -1 if self.window is None else self.window - 1
        return side, 0 if self.causal else side


Kernel: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, Segments, Pattern], torch.Tensor
]
"""From queries ``(tokens, heads, size)`` and keys and values ``(tokens, groups, size)``, of which
each serves ``heads / groups`` heads, to ``(tokens, heads, size)``."""


def kernels_for(device: torch.device, dtype: torch.dtype) -> tuple[Kernel, ...]:
    """Return the kernels that are installed for a device and a precision, the fastest first."""
    half = dtype in (torch.float16, torch.bfloat16)
    if device.type != "cuda" or not half or torch.cuda.get_device_capability(device) < _AMPERE:
        return (by_equal_lengths,)
    of_torch = (by_torch,) if find_spec("torch.nn.attention.varlen") else ()
    of_package = (by_flash_attention,) if find_spec("flash_attn") else ()
    return (*of_torch, *of_package, by_equal_lengths)


def by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    pattern: Pattern,
) -> torch.Tensor:
    """Attend by torch's FlashAttention; see `Kernel`.

    Raises:
        NotImplementedError: the products have a soft cap, or the installed torch is too old for
            the pattern: 2.10 has neither windows nor scales, and shares no keys among heads.
    """
    from torch.nn.attention.varlen import varlen_attn

    if pattern.softcap is not None:
        raise NotImplementedError("torch's varlen_attn has no soft cap")
    takes = signature(varlen_attn).parameters
    options: dict[str, Any] = {}
    if "window_size" in takes:
        options["window_size"] = pattern.reach
    elif pattern.window is None:
        options["is_causal"] = pattern.causal
    else:
        raise NotImplementedError("this torch's varlen_attn has no windows")
    size = query.shape[-1]
    if pattern.scale is not None and not isclose(pattern.scale, size**-0.5):
        if "scale" not in takes:
            raise NotImplementedError("this torch's varlen_attn has no scale")
        options["scale"] = pattern.scale
    serves = query.shape[1] // key.shape[1]
    if serves > 1 and "enable_gqa" in takes:
        options["enable_gqa"] = True
    elif serves > 1:
        key, value = (part.repeat_interleave(serves, dim=1) for part in (key, value))
    attended: Any = varlen_attn(*_flat(query, key, value, segments), **options)
    return torch.as_tensor(attended)


def by_flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    pattern: Pattern,
) -> torch.Tensor:
    """Attend by the package flash-attn; see `Kernel`."""
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

    attended: torch.Tensor = flash_attn_varlen_func(
        *_flat(query, key, value, segments),
        softmax_scale=pattern.scale,
        causal=pattern.causal,
        window_size=pattern.reach,
        softcap=pattern.softcap or 0.0,
    )
    return attended


def _flat(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
) -> tuple[Any, ...]:
    """Return the arguments that both FlashAttention kernels begin with, in their order."""
    tensors = (query.contiguous(), key.contiguous(), value.contiguous())
    bounds, longest = segments.bounds, segments.longest
    return (*tensors, bounds, bounds, longest, longest)


def by_equal_lengths(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    pattern: Pattern,
) -> torch.Tensor:
    """Attend by torch's kernel for rectangles, once for each run of equal lengths; see `Kernel`."""
    serves = query.shape[1] // key.shape[1]
    if serves > 1:
        key, value = (part.repeat_interleave(serves, dim=1) for part in (key, value))
    attended = torch.empty_like(query)
    start = 0
    for length, run in groupby(segments.lengths):
        stop = start + length * len(list(run))
        of_run, keys, values = (
            part[start:stop].view(-1, length, *part.shape[1:]).transpose(1, 2)
            for part in (query, key, value)
        )
        part = _in_rectangle(of_run, keys, values, pattern)
        attended[start:stop] = part.transpose(1, 2).flatten(0, 1)
        start = stop
    return attended


def _in_rectangle(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pattern: Pattern
) -> torch.Tensor:
    """Attend inside texts of one length, ``(texts, heads, length, size)`` each."""
    length = query.shape[2]
    cuts = pattern.window is not None and length > pattern.window
    if pattern.softcap is None:
        mask = _seen(length, pattern, query.device) if cuts else None
        causal = pattern.causal and mask is None
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, scale=pattern.scale
        )
    seen = _seen(length, pattern, query.device) if cuts or pattern.causal else None
    return _capped(query, key, value, seen, pattern)


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor | None,
    pattern: Pattern,
) -> torch.Tensor:
    """Attend with a soft cap as Gemma 2 does, which torch's kernels have not.

    Args:
        query: ``(texts, heads, length, size)``, as keys and values.
        key: the keys.
        value: the values.
        seen: which tokens see which, bool that broadcasts to ``(texts, heads, length, length)``;
            None for all.
        pattern: the scale and the soft cap.
    """
    assert pattern.softcap is not None
    scale = query.shape[-1] ** -0.5 if pattern.scale is None else pattern.scale
    products = query @ key.transpose(2, 3) * scale
    products = torch.tanh(products / pattern.softcap) * pattern.softcap
    if seen is not None:
        products = products.masked_fill(~seen, torch.finfo(products.dtype).min)
    return products.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


def _seen(length: int, pattern: Pattern, device: torch.device) -> torch.Tensor:
    """Return which tokens of a text see which, ``(length, length)`` bool."""
    place = torch.arange(length, device=device)
    back = place[:, None] - place[None, :]
    seen = back >= 0 if pattern.causal else torch.ones_like(back, dtype=torch.bool)
    return seen if pattern.window is None else seen & (back.abs() < pattern.window)


def register() -> None:
    """Add the attention to transformers' interface; rows that are padded get its own ``sdpa``."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    segments: Segments | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside segments, or, without any, as transformers' ``sdpa`` does.

    Raises:
        NotImplementedError: the layer asks for what the kernels have not, such as biases.
    """
    unknown = [
        name for name in ("position_bias", "s_aux", "head_mask") if others.get(name) is not None
    ]
    if segments is not None and unknown:
        raise NotImplementedError(f"its attention uses {', '.join(unknown)}")
    stated = others.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if stated is None else stated)
    # A decoder that was made bidirectional says so in its configuration alone.
    causal &= bool(getattr(getattr(module, "config", None), "is_causal", True))
    softcap = others.get("softcap")
    pattern = Pattern(scaling, causal, others.get("sliding_window"), softcap)
    if segments is not None:
        flat, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
        return segments.kernel(flat, keys, values, segments, pattern)[None], None
    if softcap is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    serves = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(serves, dim=1) for part in (key, value))
    if attention_mask is None:  # transformers leaves out a mask that only repeats the pattern
        return _in_rectangle(query, key, value, pattern).transpose(1, 2), None
    return _capped(query, key, value, attention_mask, pattern).transpose(1, 2), None
