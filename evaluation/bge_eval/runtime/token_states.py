"""Token vectors of a transformer, and late interaction between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from bge_eval.runtime.batches import WINDOW, Tokens, batches_by_length, padded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from bge_eval.runtime.fitting import Fitting

_T = TypeVar("_T")
_GROUP_BYTES = 2**30
"""Memory for token vectors; a BGE-M3 document of 8,192 tokens has 32 MiB of them."""


@dataclass(frozen=True, slots=True)
class TokenStates:
    """The last hidden states of a batch of texts."""

    rows: npt.NDArray[np.int64]
    """The texts' indices among all texts."""
    ids: list[list[int]]
    """The texts' token ids, special tokens included, without padding."""
    hidden: torch.Tensor
    """``(batch, tokens, dim)`` float32, padded on the right."""
    mask: torch.Tensor
    """``(batch, tokens)``, 1 for real tokens."""

    @property
    def tokens(self) -> int:
        """Return the number of tokens without padding."""
        return sum(map(len, self.ids))


@dataclass(frozen=True, slots=True)
class ReadTexts(Generic[_T]):
    """What was read of the hidden states of some texts, which are no longer in memory."""

    rows: npt.NDArray[np.int64]
    """The texts' indices among all texts."""
    tokens: int
    """The number of their tokens without padding."""
    result: _T
    """What ``read`` returned."""


def read_states(
    tokenizer: PreTrainedTokenizerBase,
    hidden_of: Callable[[Mapping[str, Tokens]], torch.Tensor],
    texts: Sequence[str],
    read: Callable[[TokenStates], _T],
    fitting: Fitting,
    *,
    max_length: int,
    batch_tokens: int,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> Iterator[ReadTexts[_T]]:
    """Run a transformer over texts, longest first, in batches of similar length.

    Args:
        tokenizer: the model's tokenizer.
        hidden_of: from padded ``input_ids`` and ``attention_mask`` to the last hidden states,
            ``(batch, tokens, dim)`` on the device of the model.
        texts: the inputs.
        read: reduces the hidden states of a batch, or of a part of one, on the device.
        fitting: divides the batches that do not fit into a GPU's memory.
        max_length: longest input in tokens.
        batch_tokens: tokens per batch, padding included.
        wanted: ``(n_texts,)``: batches without one of these texts are left out; None runs all.
            The others are whole, since rounding depends on the batch of a text.

    Yields:
        The texts of a batch, or of a part of it, with what was read of them.

    Raises:
        NotReadyError: the memory does not hold a single text.
    """
    import torch

    for start in range(0, len(texts), WINDOW):
        if wanted is not None and not wanted[start : start + WINDOW].any():
            continue
        window = list(texts[start : start + WINDOW])
        ids: list[list[int]] = tokenizer(window, truncation=True, max_length=max_length)[
            "input_ids"
        ]
        lengths = np.array([len(row) for row in ids], np.int64)
        for rows in batches_by_length(lengths, batch_tokens):
            if wanted is not None and not wanted[start + rows].any():
                continue
            longest = max(int(lengths[rows[0]]), 1)
            batch = [ids[row] for row in rows]
            inputs = padded(batch, longest, tokenizer.pad_token_id or 0, left=False)
            real = (np.arange(longest) < lengths[rows][:, None]).astype(np.int64)

            def of_part(
                part: slice,
                rows: Tokens = start + rows,
                batch: list[list[int]] = batch,
                inputs: Tokens = inputs,
                real: Tokens = real,
            ) -> ReadTexts[_T]:
                with torch.inference_mode():
                    features = {"input_ids": inputs[part], "attention_mask": real[part]}
                    hidden = hidden_of(features).float()
                    mask = torch.from_numpy(real[part]).to(hidden.device)
                    states = TokenStates(rows[part], batch[part], hidden, mask)
                    return ReadTexts(states.rows, states.tokens, read(states))

            yield from fitting.run(len(rows), of_part)


def hidden_states(model: Any) -> Callable[[Mapping[str, Tokens]], torch.Tensor]:
    """Return the function from padded arrays to a transformer's last hidden states."""
    import torch

    def hidden_of(features: Mapping[str, Tokens]) -> torch.Tensor:
        inputs = {name: torch.from_numpy(item).to(model.device) for name, item in features.items()}
        hidden: torch.Tensor = model(**inputs).last_hidden_state
        return hidden

    return hidden_of


def token_vectors(
    states: TokenStates, head: torch.nn.Module | None
) -> list[npt.NDArray[np.float32]]:
    """Return the unit vectors of all tokens but the first, ``(tokens - 1, dim)`` per text.

    Args:
        states: the last hidden states.
        head: linear layer over the hidden states (BGE-M3's ``colbert_linear``), or None.
    """
    import torch

    with torch.inference_mode():
        vectors = states.hidden[:, 1:]
        if head is not None:
            vectors = head(vectors)
        vectors = torch.nn.functional.normalize(vectors, dim=-1).cpu()
    return [
        vectors[index, : max(len(ids) - 1, 0)].numpy().astype(np.float32, copy=False)
        for index, ids in enumerate(states.ids)
    ]


def documents_per_group(tokens: int, dimension: int, most: int) -> int:
    """Return how many documents' token vectors to compute at a time: about 1 GiB of them.

    Args:
        tokens: length of the longest document.
        dimension: length of a token vector.
        most: upper limit.
    """
    return max(16, min(most, _GROUP_BYTES // (tokens * dimension * 4)))


def late_interaction(query: npt.NDArray[np.float32], document: npt.NDArray[np.float32]) -> float:
    """Return BGE-M3's late-interaction score of a query and a document.

    The score is the mean over the query tokens of the largest inner product with a document token.

    Args:
        query: ``(tokens, dim)`` token vectors.
        document: ``(tokens, dim)`` token vectors.
    """
    if not len(query) or not len(document):
        return 0.0
    return float((query @ document.T).max(axis=1).sum() / len(query))


def linear_head(path: Any, device: torch.device) -> torch.nn.Linear:
    """Load a linear layer from a ``.pt`` file of weight and bias (``sparse_linear.pt``)."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    outputs, inputs = state["weight"].shape
    head = torch.nn.Linear(inputs, outputs, bias="bias" in state)
    head.load_state_dict(state)
    return head.float().to(device).eval()
