"""The modules after a transformer, run as sentence-transformers wrote them.

They read token vectors, of whichever backend, and return the vectors of texts. `head_of` in
`bge_eval.runtime.pooling` says when they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.modules import Module, modules_of, split_normalisation
from bge_eval.encode.settings import Pooling, Settings
from bge_eval.errors import DamagedError, one_line
from bge_eval.records import Vectors

if TYPE_CHECKING:
    from bge_eval.runtime.batches import Tokens
    from bge_eval.runtime.text_encoder import Batch


class Head:
    """The modules between a transformer and the last normalisation, in float32."""

    def __init__(
        self, files: ModelFiles, settings: Settings, width: int, device: torch.device
    ) -> None:
        """Load the modules.

        Args:
            files: the model's files.
            settings: the pooling, and whether it includes the prompt.
            width: length of the transformer's token vectors.
            device: where the token vectors are.

        Raises:
            DamagedError: a module's files are damaged, or the modules do not fit each other.
        """
        modules, _ = split_normalisation((modules_of(files.folder) or [])[1:])
        own = [module.kind for module in modules]
        if not settings.modules:
            modules = [module for module in modules if module.kind == "Pooling"]
        loaded = [_loaded(module, settings, width) for module in modules]
        if "Pooling" not in own:  # a bare encoder
            loaded = [_pooling(settings, width)]
        self._modules = torch.nn.ModuleList(loaded).float().to(device).eval()
        self._device = device
        try:
            with torch.inference_mode():
                probe = self(torch.zeros(1, 2, width, device=device), _ones(device), 0)
        except (RuntimeError, KeyError) as error:
            raise DamagedError(
                f"The modules of {files.name} do not fit each other or its transformer, whose"
                f" token vectors have {width} dimensions ({one_line(error)})."
            ) from error
        self.dimension = int(probe.shape[1])
        """Length of the text vectors."""

    def __call__(
        self, hidden: torch.Tensor, mask: torch.Tensor, prompt_tokens: int
    ) -> torch.Tensor:
        """Return the vectors of texts, ``(batch, dimension)`` float32.

        Args:
            hidden: ``(batch, tokens, width)`` float32.
            mask: ``(batch, tokens)``, 1 for real tokens; padding may be on either side.
            prompt_tokens: tokens of the prompt that the pooling leaves out.
        """
        features: dict[str, Any] = {"token_embeddings": hidden, "attention_mask": mask}
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens
        for module in self._modules:
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"]
        return vectors

    def of_arrays(self, hidden: Vectors, batch: Batch) -> Vectors:
        """Return the vectors of texts from token vectors of another library.

        Args:
            hidden: ``(batch, tokens, width)`` float32; fewer tokens than the batch has where only
                the first is computed.
            batch: the texts.
        """
        mask: Tokens = batch.features["attention_mask"][:, : hidden.shape[1]]
        with torch.inference_mode():
            vectors: Vectors = self(
                torch.from_numpy(np.ascontiguousarray(hidden, np.float32)),
                torch.from_numpy(np.ascontiguousarray(mask)),
                batch.prompt_tokens,
            ).numpy()
        return vectors


def _ones(device: torch.device) -> torch.Tensor:
    return torch.ones(1, 2, dtype=torch.int64, device=device)


def _loaded(module: Module, settings: Settings, width: int) -> Any:
    """Return one module with its weights."""
    from sentence_transformers.util import import_from_string

    if module.kind == "Pooling":
        stated = module.config.get("embedding_dimension")
        return _pooling(
            settings, int(stated or module.config.get("word_embedding_dimension") or width)
        )
    try:
        kind: Any = import_from_string(module.reference)
        return kind.load(str(module.folder))
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise DamagedError(
            f"The module {module.kind} in {module.folder} could not be loaded ({one_line(error)})."
        ) from error


def _pooling(settings: Settings, width: int) -> Any:
    """Return sentence-transformers' pooling by the settings."""
    from sentence_transformers.util import import_from_string

    names = {Pooling.LAST: "lasttoken"}
    modes = [names.get(Pooling(name), name) for name in settings.pooling.split("+")]
    return import_from_string("sentence_transformers.models.Pooling")(
        width,
        pooling_mode=modes[0] if len(modes) == 1 else tuple(modes),
        include_prompt=settings.pool_prompt,
    )
