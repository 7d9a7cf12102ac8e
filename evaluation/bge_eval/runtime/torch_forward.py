"""The forward pass in torch: any Hugging Face encoder on a CPU, a GPU, or several GPUs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Dtype, Pooling, Settings
from bge_eval.errors import UsageError
from bge_eval.progress import quiet_transformers
from bge_eval.records import Vectors
from bge_eval.runtime.batches import Tokens, default_batch_tokens
from bge_eval.runtime.devices import first_device, pick_devices
from bge_eval.runtime.fitting import Fitting
from bge_eval.runtime.loading import load_transformer
from bge_eval.runtime.pooling import head_of
from bge_eval.runtime.text_encoder import Batch
from bge_eval.runtime.transfer import sent
from bge_eval.runtime.unpadded import keep_no_cache, skips_padding, unpadded


class TorchForward:
    """A transformer and its pooling on one device."""

    backend = "torch"

    def __init__(
        self,
        files: ModelFiles,
        settings: Settings,
        *,
        device: str | None = None,
        trust_remote_code: bool = False,
        skip_padding: bool | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Load the weights.

        Args:
            files: the model's files.
            settings: pooling, modules, precision.
            device: "cpu", "cuda", "cuda:1", "mps"; None uses a GPU if available.
            trust_remote_code: run Python code from the model's repository.
            skip_padding: compute no padding, where the model has a way that gives the same; None
                does so on CUDA.
            note: receives why a model is computed with padding or in parts on CUDA.

        Raises:
            MissingError: the folder has no weights, or they need remote code.
            DamagedError: the weights or modules do not fit the configuration.
            UsageError: the device does not exist.
        """
        self._device = torch.device(first_device(device))
        self.device = str(self._device)
        self.batch_tokens = default_batch_tokens(self._device.type)
        self._pooling = settings.pooling
        with quiet_transformers():
            self.model = load_transformer(files, settings, self._device, trust_remote_code)
        self.model.to(self._device).eval()
        self.parameters = sum(weights.numel() for weights in self.model.parameters())
        width = _dimension(self.model)
        self._head = head_of(files, settings, width, self.device)
        self.dimension = width if self._head is None else self._head.dimension
        if settings.dtype is Dtype.INT8_DYNAMIC:
            self.model = _quantized(self.model, self._device)
        keep_no_cache(self.model)
        self.fitting = Fitting(files.name, note)
        """Divides the batches that do not fit into the GPU's memory."""
        skips = skips_padding(self._device) if skip_padding is None else skip_padding
        self._unpadded = unpadded(self.model, note) if skips else None

    @torch.inference_mode()
    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """Yield pooled vectors; see `bge_eval.runtime.text_encoder.Forward`."""
        if self._device.type != "cuda":
            for batch in batches:
                yield batch, self._pooled(batch).cpu().numpy()
            return
        # While the GPU computes one batch, the next one is padded and copied to it: results are
        # read two batches later, and nothing in between waits for the GPU.
        started: deque[tuple[Batch, torch.Tensor, torch.cuda.Event]] = deque()
        for batch in batches:
            started.append(self._start(batch))
            if len(started) > 2:
                yield _fetched(*started.popleft())
        while started:
            yield _fetched(*started.popleft())

    def hidden(self, features: Mapping[str, Tokens]) -> torch.Tensor:
        """Return the last layer's token vectors: ``(batch, tokens, dim)`` on the device."""
        if self._unpadded is not None:
            computed = self._unpadded.hidden(self.model, features)
            if computed is not None:
                return computed
        inputs = {name: sent(values, self._device) for name, values in features.items()}
        hidden: torch.Tensor = self.model(**inputs, return_dict=True).last_hidden_state
        return hidden

    def _pooled(self, batch: Batch) -> torch.Tensor:
        parts = self.fitting.run(len(batch.rows), lambda part: self._pooled_part(batch, part))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pooled_part(self, batch: Batch, part: slice) -> torch.Tensor:
        features = {name: values[part] for name, values in batch.features.items()}
        hidden = self.hidden(features).float()
        if self._head is None:
            return pool(hidden, sent(batch.pooled[part], self._device), self._pooling)
        mask = sent(features["attention_mask"], self._device)
        return self._head(hidden, mask, batch.prompt_tokens)

    def _start(self, batch: Batch) -> tuple[Batch, torch.Tensor, torch.cuda.Event]:
        with torch.cuda.device(self._device):
            pooled = self._pooled(batch)
            vectors = torch.empty(pooled.shape, dtype=pooled.dtype, pin_memory=True)
            vectors.copy_(pooled, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        return batch, vectors, done


class Replicas:
    """Copies of a model on several devices; each free device takes the next batch."""

    backend = "torch"

    def __init__(self, forwards: list[TorchForward]) -> None:
        """Combine loaded copies of a model.

        Args:
            forwards: one copy per device.
        """
        self._forwards = forwards
        self.device = ",".join(forward.device for forward in forwards)
        self.dimension = forwards[0].dimension
        self.parameters = forwards[0].parameters
        self.batch_tokens = forwards[0].batch_tokens

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """Yield pooled vectors; see `bge_eval.runtime.text_encoder.Forward`."""
        waiting = iter(batches)
        free = list(self._forwards)
        running: dict[Future[list[tuple[Batch, Vectors]]], TorchForward] = {}
        with ThreadPoolExecutor(len(self._forwards), thread_name_prefix="device") as threads:
            while True:
                while free and (batch := next(waiting, None)) is not None:
                    forward = free.pop()
                    running[threads.submit(_all, forward, [batch])] = forward
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    free.append(running.pop(future))
                    yield from future.result()


def load_torch(
    files: ModelFiles,
    settings: Settings,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> TorchForward | Replicas:
    """Load a model on one device or on several.

    ``device`` lists devices with commas; "cuda" uses every GPU of the machine. ``note`` receives
    remarks, each once.
    """
    remarks: dict[str, None] = {}
    loaded = [
        TorchForward(
            files,
            settings,
            device=name,
            trust_remote_code=trust_remote_code,
            note=remarks.setdefault,
        )
        for name in pick_devices(device)
    ]
    for remark in remarks:
        note(remark)
    return loaded[0] if len(loaded) == 1 else Replicas(loaded)


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Reduce token vectors to one vector per text.

    Args:
        hidden: ``(batch, tokens, dim)`` float.
        mask: ``(batch, tokens)``, 1 for the tokens to pool; padding may be on either side.
        pooling: first token, mean or last token.

    Returns:
        ``(batch, dim)`` float.
    """
    if pooling == Pooling.MEAN:
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
    if pooling == Pooling.CLS:
        position = mask.to(torch.int32).argmax(dim=1)
    else:
        last = mask.shape[1] - 1 - mask.flip(1).to(torch.int32).argmax(dim=1)
        # The last place of a text without tokens would depend on its batch.
        position = last * mask.any(dim=1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), position]


def _all(forward: TorchForward, batches: list[Batch]) -> list[tuple[Batch, Vectors]]:
    return list(forward.run(batches))


def _fetched(batch: Batch, vectors: torch.Tensor, done: torch.cuda.Event) -> tuple[Batch, Vectors]:
    done.synchronize()
    return batch, vectors.numpy()


def _quantized(model: Any, device: torch.device) -> Any:
    """Quantise the linear layers to int8 weights, with inputs quantised at run time."""
    import warnings

    if device.type != "cpu":
        raise UsageError(
            "--dtype int8-dynamic runs on the CPU only: add --device cpu, or use --dtype bfloat16."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends a package that it does not include
        # One scale per row of weights: one scale per layer gives inaccurate vectors.
        linear = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
        return torch.ao.quantization.quantize_dynamic(model, linear)  # type: ignore[no-untyped-call]


def _dimension(model: Any) -> int:
    size = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", None)
    return int(size if size is not None else model.get_input_embeddings().embedding_dim)
