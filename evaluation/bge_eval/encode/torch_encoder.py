"""The forward pass: texts in, float32 vectors out, over any Hugging Face encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from bge_eval.encode.settings import Pooling, Settings, transformer_folder
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.progress import quiet_transformers
from bge_eval.records import ModelFiles, Vectors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bge_eval.progress import Step

_WINDOW = 8192
"""Texts tokenised and sorted by length together: enough to batch equal lengths, little memory."""

_BATCH_TOKENS = {"cpu": 8192, "cuda": 65536, "mps": 16384}
"""Tokens of a batch, padding included, by kind of device, unless the user says otherwise."""


class TorchEncoder:
    """A transformer with its tokenizer, pooling and normalisation, on one device."""

    def __init__(
        self,
        files: ModelFiles,
        settings: Settings,
        *,
        device: str | None = None,
        batch_tokens: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Load tokenizer and weights.

        Args:
            files: where the model lies.
            settings: pooling, normalisation, length, precision.
            device: "cpu", "cuda", "cuda:1", "mps"; None takes a GPU when there is one.
            batch_tokens: tokens of a batch, padding included.
            trust_remote_code: run Python code that comes with the model.

        Raises:
            MissingError: weights or tokenizer are not in the folder, or need remote code.
            DamagedError: weights do not fit the configuration.
            UsageError: the device does not exist, or the length is beyond the model's positions.
        """
        self.device = pick_device(device)
        self.settings = settings
        self.batch_tokens = batch_tokens or _BATCH_TOKENS.get(self.device.type, 8192)
        if self.batch_tokens < 1:
            raise UsageError(f"--batch-tokens must be at least 1, not {batch_tokens}.")
        with quiet_transformers():
            self.tokenizer, self.model = _load(files, settings, trust_remote_code)
        self.model.to(self.device).eval()
        self.dimension = _dimension(self.model, settings)
        self.parameters = sum(weights.numel() for weights in self.model.parameters())

    def encode(self, texts: Sequence[str], prompt: str = "", step: Step | None = None) -> Vectors:
        """Encode texts in their order.

        Equal texts are encoded once and so have equal vectors. Texts are batched by length,
        longest first, up to a budget of tokens.

        Args:
            texts: the inputs; an empty string is a valid input.
            prompt: put before every text.
            step: told of every batch (texts, tokens).

        Returns:
            ``(n_texts, dim)`` float32; rows of unit L2 norm if the settings normalise.

        Raises:
            DamagedError: a vector is not finite (half precision can overflow).
        """
        first: dict[str, int] = {}
        position = np.fromiter(
            (first.setdefault(text, len(first)) for text in texts), np.int64, len(texts)
        )
        distinct = list(first)
        copies = np.bincount(position, minlength=len(distinct))
        vectors = np.empty((len(distinct), self.dimension), np.float32)
        for start in range(0, len(distinct), _WINDOW):
            window = distinct[start : start + _WINDOW]
            for rows, features, tokens in self._batches(window, prompt):
                vectors[start + rows] = self._forward(features, prompt)
                if step is not None:
                    step.advance(int(copies[start + rows].sum()), tokens)
        if not np.isfinite(vectors).all():
            raise DamagedError(
                f"The model gave vectors that are not finite in {self.settings.dtype}."
                " Use --dtype float32 or bfloat16."
            )
        return vectors if len(distinct) == len(texts) else vectors[position]

    def _batches(
        self, texts: list[str], prompt: str
    ) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, torch.Tensor], int]]:
        """Yield (row numbers, padded inputs, real tokens), longest texts first."""
        prepared = [prompt + text for text in texts]
        if self.settings.lower_case:
            prepared = [text.lower() for text in prepared]
        encoded = self.tokenizer(
            prepared, truncation=True, max_length=self.settings.max_length, padding=False
        )
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            longest = max(int(lengths[order[start]]), 1)
            rows = order[start : start + max(self.batch_tokens // longest, 1)]
            features = {
                name: _pad(
                    [column[row] for row in rows], longest, self._pad_value(name), self._left
                )
                for name, column in encoded.items()
            }
            yield rows, features, int(lengths[rows].sum())
            start += len(rows)

    @property
    def _left(self) -> bool:
        return bool(self.tokenizer.padding_side == "left")

    def _pad_value(self, name: str) -> int:
        if name == "input_ids":
            pad = self.tokenizer.pad_token_id
            return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)
        return int(self.tokenizer.pad_token_type_id) if name == "token_type_ids" else 0

    @torch.inference_mode()
    def _forward(self, features: dict[str, torch.Tensor], prompt: str) -> Vectors:
        inputs = {name: tensor.to(self.device) for name, tensor in features.items()}
        hidden = self.model(**inputs, return_dict=True).last_hidden_state
        mask = inputs["attention_mask"]
        if prompt and not self.settings.pool_prompt:
            mask = _without_prompt(mask, self._prompt_tokens(prompt))
        pooled = pool(hidden.float(), mask, self.settings.pooling)
        if self.settings.normalize:
            pooled = torch.nn.functional.normalize(pooled, p=2, dim=1)
        result: Vectors = pooled[:, : self.dimension].cpu().numpy()
        return result

    def _prompt_tokens(self, prompt: str) -> int:
        ids = self.tokenizer(prompt)["input_ids"]
        closing = {self.tokenizer.sep_token_id, self.tokenizer.eos_token_id} - {None}
        return len(ids) - (1 if ids and ids[-1] in closing else 0)


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Reduce token vectors to one vector a text.

    Args:
        hidden: ``(batch, tokens, dim)`` float.
        mask: ``(batch, tokens)``, 1 for real tokens, padded on either side.
        pooling: which token vectors count.

    Returns:
        ``(batch, dim)`` float.
    """
    if pooling is Pooling.MEAN:
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
    if pooling is Pooling.CLS:
        position = mask.to(torch.int32).argmax(dim=1)
    else:
        position = mask.shape[1] - 1 - mask.flip(1).to(torch.int32).argmax(dim=1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), position]


def pick_device(name: str | None) -> torch.device:
    """Return the device asked for, or the best one of this machine.

    Raises:
        UsageError: the device does not exist here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"There is no device '{name}' on this machine; use --device cpu,"
            " or leave the option out for the best there is."
        ) from error
    return device


def _load(
    files: ModelFiles, settings: Settings, trust_remote_code: bool
) -> tuple[PreTrainedTokenizerBase, Any]:
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

    folder = str(transformer_folder(files.folder))
    common: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(folder, **common)
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(positions, int) and 0 < positions < settings.max_length:
            raise UsageError(
                f"--max-length {settings.max_length} is more than {files.name} has positions for"
                f" ({positions})."
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, **settings.tokenizer, **common)
        # An encoder-decoder embeds with its encoder alone, as sentence-transformers does.
        auto = AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel
        model, info = auto.from_pretrained(
            folder, dtype=getattr(torch, settings.dtype), output_loading_info=True, **common
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise MissingError(_load_failure(files, error)) from error
    except RuntimeError as error:
        raise DamagedError(
            f"The weights of {files.name} do not fit its config.json ({_short(error)})."
        ) from error
    # A pooler head that the checkpoint lacks is not used here; anything else missing would be
    # random weights.
    missing = [name for name in info["missing_keys"] if "pooler" not in name]
    if missing or info.get("mismatched_keys"):
        raise DamagedError(
            f"The checkpoint of {files.name} lacks weights that its configuration needs, such as"
            f" {', '.join(sorted(missing)[:3]) or info['mismatched_keys']}; scores would be random."
        )
    return tokenizer, model


def _load_failure(files: ModelFiles, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{files.name} comes with Python code of its own, which bge-eval does not run unless"
            " told to. If you trust its authors, add --trust-remote-code."
        )
    return f"{files.name} could not be loaded from {files.folder}: {_short(error)}"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _dimension(model: Any, settings: Settings) -> int:
    size = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", None)
    if size is None:
        size = model.get_input_embeddings().embedding_dim
    if settings.truncate_dim is not None and settings.truncate_dim > size:
        raise UsageError(
            f"--truncate-dim {settings.truncate_dim} is more than the model's {size} dimensions."
        )
    return int(settings.truncate_dim or size)


def _pad(rows: list[list[int]], width: int, value: int, left: bool) -> torch.Tensor:
    padded = np.full((len(rows), width), value, np.int64)
    for index, row in enumerate(rows):
        if left:
            padded[index, width - len(row) :] = row
        else:
            padded[index, : len(row)] = row
    return torch.from_numpy(padded)


def _without_prompt(mask: torch.Tensor, tokens: int) -> torch.Tensor:
    start = mask.to(torch.int32).argmax(dim=1, keepdim=True)
    columns = torch.arange(mask.shape[1], device=mask.device).unsqueeze(0)
    return mask * (columns >= start + tokens)
