"""Load a transformer's weights with transformers, and refuse what is not the model's own.

transformers fills missing weights at random and ignores those that it has no place for; it only
logs both. Scores of such a model are numbers like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from bge_eval.encode.body import read_body
from bge_eval.encode.config import CONFIG, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Dtype, Settings
from bge_eval.encode.weights import check_weights
from bge_eval.errors import DamagedError, MissingError, one_line
from bge_eval.runtime.adapter import merged
from bge_eval.runtime.text_encoder import load_failure

_NOT_WEIGHTS = ("inv_freq", "position_ids", "masked_bias")
"""Ends of names in old checkpoints that are constants, which today's code computes."""


def load_transformer(
    files: ModelFiles, settings: Settings, device: torch.device, trust_remote_code: bool
) -> Any:
    """Return a model's transformer with its own weights, a PEFT adapter merged into them.

    Args:
        files: the model's files.
        settings: the precision.
        device: where it will run; flash attention depends on it.
        trust_remote_code: run Python code from the model's repository.

    Raises:
        MissingError: the folder has no weights, or they need remote code.
        DamagedError: the weights are damaged, do not fit the configuration, or are all zero.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    check_weights(files.weights)
    folder = str(files.weights)
    body = read_body(transformer_folder(files.folder))
    common: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    dtype = "float32" if settings.dtype in (Dtype.INT8, Dtype.INT8_DYNAMIC) else str(settings.dtype)
    options = {name: value for name, value in body.model.items() if "dtype" not in name}
    try:
        config = AutoConfig.from_pretrained(folder, **{**body.config, **common})
        # An encoder-decoder embeds with its encoder alone, as sentence-transformers does.
        encoder = config.is_encoder_decoder or _has_encoder(AutoModelForTextEncoding, config)
        auto = AutoModelForTextEncoding if encoder else AutoModel
        options |= {**_padding_free(auto, config, device, dtype), **common}
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise MissingError(load_failure(files, error)) from error
    except UnpicklingError as error:
        raise DamagedError(
            f"The weights of {files.name} ({folder}) are a pickle that holds more than weights:"
            " loading it could run code of its authors, so bge-eval does not. Ask for the weights"
            " as safetensors."
        ) from error
    except RuntimeError as error:
        raise DamagedError(
            f"The weights of {files.name} do not fit its config.json ({one_line(error)})."
        ) from error
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise DamagedError(
            f"{files.weights / CONFIG} cannot be used by transformers"
            f" ({type(error).__name__}: {one_line(error)})."
        ) from error
    refuse_other_weights(model, info, files.name)
    return model if files.base is None else merged(model, transformer_folder(files.folder))


def refuse_random_weights(root: torch.nn.Module, name: str) -> None:
    """Refuse a model of another library whose transformers lack weights; they would be random.

    sentence-transformers drops transformers' loading report, so the weights are loaded again for
    the report, without values if accelerate is installed.

    Args:
        root: the loaded model.
        name: its name, for the message.

    Raises:
        DamagedError: weights are missing, of another shape, of further layers, or all zero.
    """
    from transformers import PreTrainedModel

    values = {"device_map": "meta"} if find_spec("accelerate") else {}
    for model in outermost(root, PreTrainedModel):
        folder = model.config._name_or_path
        if (Path(folder) / CONFIG).is_file():
            _, info = type(model).from_pretrained(
                folder,
                config=model.config,
                output_loading_info=True,
                local_files_only=True,
                **values,
            )
            refuse_other_weights(model, info, name)


def outermost(module: torch.nn.Module, kind: type) -> Iterator[Any]:
    """Yield the modules of a kind that are in no other of that kind."""
    if isinstance(module, kind):
        yield module
        return
    for child in module.children():
        yield from outermost(child, kind)


def _has_encoder(auto: Any, config: Any) -> bool:
    """Return whether a type of model has a class for its encoder alone, such as T5's.

    sentence-transformers saves an encoder's configuration with ``is_encoder_decoder: false``.
    """
    kind = auto._model_mapping.get(type(config), None)
    return getattr(kind, "__name__", "").endswith("EncoderModel")


def _padding_free(auto: Any, config: Any, device: torch.device, dtype: str) -> dict[str, str]:
    """Select flash attention, which skips padding, if device, dtype and model support it."""
    if device.type != "cuda" or dtype == "float32" or find_spec("flash_attn") is None:
        return {}
    mapped = auto._model_mapping.get(type(config), None)
    classes = mapped if isinstance(mapped, list | tuple) else [mapped]
    supported = all(getattr(kind, "_supports_flash_attn", False) for kind in classes)
    return {"attn_implementation": "flash_attention_2"} if supported else {}


def refuse_other_weights(model: Any, info: Mapping[str, Any], name: str) -> None:
    """Refuse weights that are missing, of another shape, of further layers, or all zero.

    Args:
        model: the loaded model of transformers, without a head.
        info: transformers' loading report.
        name: the model's name, for the message.

    Raises:
        DamagedError: the weights are not the model's own.
    """
    # A pooler head is not used here.
    missing = [key for key in info["missing_keys"] if "pooler" not in key.split(".")]
    if missing or info.get("mismatched_keys"):
        raise DamagedError(
            f"The checkpoint of {name} lacks weights of its configuration, such as"
            f" {', '.join(sorted(missing)[:3]) or info['mismatched_keys']}; scores would be random."
        )
    if further := _in_layers(model, info["unexpected_keys"]):
        raise DamagedError(
            f"The checkpoint of {name} has weights in its layers that its config.json has no"
            f" place for, such as {', '.join(further[:3])}: it is of a larger or another model, so"
            " scores would not be this model's."
        )
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    if not model.get_input_embeddings().weight.any() or not any(map(torch.any, matrices)):
        raise DamagedError(f"The weights of {name} are all zero. Copy or download the model again.")


def _in_layers(model: Any, names: Iterable[str]) -> list[str]:
    """Return the names of weights that belong into the numbered layers of a transformer.

    Others are of heads that an embedder does not use.
    """
    places = {name for name, _ in model.named_modules()}
    inside = []
    for name in names:
        whole = name if any(name.startswith(f"{place}.") for place in places if place) else ""
        parts = (whole or name.removeprefix(f"{model.base_model_prefix}.")).split(".")
        numbered = [index for index, part in enumerate(parts) if part.isdigit()]
        if parts[-1] not in _NOT_WEIGHTS and any(
            ".".join(parts[:index]) in places for index in numbered
        ):
            inside.append(name)
    return sorted(inside)
