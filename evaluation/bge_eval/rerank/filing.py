"""Where the results of a reranker are filed: mteb's experiment names its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bge_eval.encode.calibration import read_calibration
from bge_eval.encode.positions import OWN_POSITIONS

if TYPE_CHECKING:
    from mteb.models import ModelMeta


def own_experiment(identity: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of a reranker that differ from its defaults.

    Args:
        identity: the reranker's identity; a default is None or, for the dtype, "float32". What
            ``auto`` chose is no setting.
        prefix: put before every name.
    """
    own = {"name": identity["name"], "revision": identity["revision"], "dtype": "float32"}
    own |= {"calibration": read_calibration().digest, "runtime": identity.get("runtime")}
    # A permission and a fact of the processor name no folder, as with encoders.
    own |= {"remote_code": True, "saturates": True, **OWN_POSITIONS}
    return {
        f"{prefix}{name}": value
        for name, value in identity.items()
        if value is not None and value != own.get(name) and name != "kind"
    }


def reranked_meta(meta: ModelMeta, stage: Mapping[str, Any]) -> ModelMeta:
    """Return the retriever's record, with an experiment that names the reranker.

    Args:
        meta: the retriever's record.
        stage: the reranker's identity, and ``top_k``, the documents it re-orders.
    """
    experiment = dict(meta.experiment_kwargs or {})
    experiment["reranker"] = f"{stage['name']}@{stage['revision'][:8]}"
    experiment["rerank_top_k"] = stage["top_k"]
    own = {name: value for name, value in stage.items() if name != "top_k"}
    experiment |= own_experiment(own, "reranker_")
    return meta.model_copy(update={"experiment_kwargs": experiment})
