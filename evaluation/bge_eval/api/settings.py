"""How to run a model: the keywords of the API, and the records that they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from bge_eval.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from bge_eval.encode.settings import Overrides
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.remote.client import Limits
    from bge_eval.rerank.reranker import RerankerOptions
    from bge_eval.search.index import IndexOptions

_Choice = TypeVar("_Choice", bound=StrEnum)

_MODEL_OPTIONS = (
    *("revision", "device", "batch_tokens", "backend", "store", "trust_remote_code"),
    *("api", "api_model", "m3_mode", "m3_weights", "examples", "adapter", "loader"),
)
"""Settings that are fields of `ModelOptions` under the same name."""
_PATHS = ("adapter", "calibration", "examples", "store")
"""Settings that are paths; a ``~`` in a text is the user's folder."""


class ModelSettings(TypedDict, total=False):
    """How to run a model. A setting that is left out keeps the model's own value.

    The names are those of ``bge-eval run``.
    """

    revision: str | None
    """Branch, tag or commit of a hub model; the version of a served model."""
    pooling: Literal["cls", "mean", "last", "max", "mean_sqrt_len_tokens", "weightedmean"] | None
    """Which token vectors become the text's vector."""
    normalize: bool | None
    """Scale vectors to unit length."""
    similarity: Literal["cosine", "dot"] | None
    """How a query vector is compared with a document vector."""
    max_length: int | None
    """Longest input in tokens; longer texts are cut."""
    truncate_dim: int | None
    """Keep this many leading dimensions (Matryoshka models)."""
    dtype: Literal["float32", "float16", "bfloat16", "int8", "int8-dynamic"]
    """Precision of the forward pass. float32 reproduces published scores."""
    calibration: str | Path | None
    """JSON lines of ``{query, text}`` that int8 is calibrated with. Default: the package's own."""
    query_prompt: str | None
    """Text put before every query; "" for none."""
    document_prompt: str | None
    """Text put before every document; "" for none."""
    prompts: Mapping[str, str] | str | Path | None
    """Prompts by task, task type or role, or a TOML file of them."""
    protocol: Literal["leaderboard", "model-card", "model-files"]
    """Whose rules decide which prompts texts get."""
    known_as: str | None
    """The hub's model that a local folder is a copy of; "none" if it is a copy of no model."""
    instruction_format: str | None
    """Template of a task instruction, e.g. ``"Instruct: {instruction}\\nQuery: "``."""
    examples: str | Path | None
    """JSON file of in-context examples."""
    adapter: str | Path | None
    """Folder of a PEFT adapter that is merged into the weights."""
    m3_mode: str | None
    """BGE-M3's kinds of vectors, e.g. ``"dense,sparse,colbert"``."""
    m3_weights: str | None
    """Their weights, e.g. ``"1,0.3,1"``."""
    loader: Literal["mteb"] | None
    """"mteb" lets mteb load and run the model."""
    api: Literal["openai", "infinity", "tei", "cohere"] | None
    """Interface of the server, for a model that is an address."""
    api_model: str | None
    """The model's name on the server. Default: the only one."""
    api_concurrency: int
    """Requests sent at once. Default: 8."""
    api_timeout: float
    """Seconds to wait for an answer. Default: 600."""
    index: str
    """``"flat"`` (exact), or a factory string of faiss, e.g. ``"HNSW32"``."""
    index_params: Mapping[str, float]
    """Parameters of the index, e.g. ``{"efSearch": 64}``."""
    vectors: Literal["float32", "float16", "int8", "binary"]
    """The representation of the vectors that the index searches; stored embeddings are float32."""
    rescore_top: int | None
    """How many of each query's first documents are scored again with the full vectors."""
    index_depth: int | None
    """How many documents faiss's index is asked for. Default: 1000, mteb's deepest cutoff."""
    device: str | None
    """``"cpu"``, ``"cuda:0"``, ``"cuda:0,cuda:1"``, ``"mps"``. Default: every GPU."""
    backend: Literal["auto", "torch", "openvino", "onnx"]
    """Library of the forward pass."""
    batch_tokens: int | None
    """Most tokens in a batch, padding included."""
    store: bool | str | Path
    """Folder of stored embeddings. True is the user's cache folder, False stores none."""
    trust_remote_code: bool
    """Run Python code that comes with the model."""


def model_options(settings: ModelSettings, *, offline: bool) -> ModelOptions:
    """Return the record that opens a model.

    Raises:
        UsageError: a setting does not exist or has a value that it cannot have.
        MissingError: the file of the prompts is missing.
    """
    from bge_eval.models.kinds import ModelOptions

    _refuse_unknown(settings)
    values: dict[str, Any] = dict(settings)
    for name in _PATHS:
        if isinstance(path := values.get(name), str):
            values[name] = Path(path).expanduser()
    limits, index = _take_limits(values), _take_index(values)
    options = {name: values.pop(name) for name in _MODEL_OPTIONS if name in values}
    return ModelOptions(
        overrides=_overrides(values), offline=offline, limits=limits, index=index, **options
    )


def reranker_options(settings: ModelSettings) -> RerankerOptions:
    """Return those settings of the model that hold for its reranker, too."""
    from bge_eval.encode.protocol import ProtocolName
    from bge_eval.rerank.reranker import RerankerOptions

    texts = settings.get("calibration")
    return RerankerOptions(
        dtype=settings.get("dtype", "float32"),
        calibration=None if texts is None else Path(texts).expanduser(),
        device=settings.get("device"),
        batch_tokens=settings.get("batch_tokens"),
        trust_remote_code=settings.get("trust_remote_code", False),
        backend=settings.get("backend", "auto"),
        protocol=_choice("protocol", settings.get("protocol", "leaderboard"), ProtocolName),
    )


def _refuse_unknown(names: Iterable[str]) -> None:
    known = ModelSettings.__annotations__
    for name in names:
        if name not in known:
            raise UsageError(
                f"There is no setting '{name}'.{did_you_mean(name, known)} Settings: "
                f"{', '.join(known)}."
            )


def _take_limits(values: dict[str, Any]) -> Limits:
    """Take the settings of requests to servers out of the others."""
    from bge_eval.remote.client import Limits

    usual = Limits()
    return Limits(
        concurrency=values.pop("api_concurrency", usual.concurrency),
        timeout=values.pop("api_timeout", usual.timeout),
    )


def _take_index(values: dict[str, Any]) -> IndexOptions:
    """Take the settings of the search out of the others."""
    from bge_eval.search.index import IndexOptions, Precision

    return IndexOptions.checked(
        values.pop("index", "flat"),
        values.pop("index_params", {}),
        _choice("vectors", values.pop("vectors", "float32"), Precision),
        values.pop("rescore_top", None),
        values.pop("index_depth", None),
    )


def _overrides(values: dict[str, Any]) -> Overrides:
    """Return what replaces the model's own settings, with the prompts of a file read."""
    from bge_eval.encode.prompts import read_prompts
    from bge_eval.encode.settings import overrides_from

    if isinstance(file := values.get("prompts"), str | Path):
        values["prompts"] = read_prompts(Path(file))
    return overrides_from(values)


def _choice(name: str, value: str, kind: type[_Choice]) -> _Choice:
    """Return the member of an enumeration that a setting names."""
    if value not in list(kind):
        raise UsageError(f"{name} is '{value}'; it can be {', '.join(kind)}.")
    return kind(value)
