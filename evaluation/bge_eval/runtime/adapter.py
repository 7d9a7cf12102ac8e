"""PEFT adapters, merged into a transformer's weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError, one_line


def merged(model: Any, adapter: Path) -> Any:
    """Merge a PEFT adapter into a model's weights.

    Raises:
        MissingError: peft is not installed.
        DamagedError: the adapter is of another model.
    """
    try:
        from peft import PeftConfig, get_peft_model
        from peft.utils import load_peft_weights, set_peft_model_state_dict
    except ImportError as error:
        raise MissingError(
            "A PEFT adapter needs a package that is not installed: pip install 'bge-eval[peft]'"
        ) from error
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        config.inference_mode = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers by deprecated names
            whole = get_peft_model(model, config)
        weights = load_peft_weights(str(adapter), device="cpu")
        # One trained on the model with its language head has that model's name one level in.
        inner = "base_model.model.model."
        if all(name.startswith(inner) for name in weights) and not hasattr(model, "model"):
            weights = {
                "base_model.model." + name.removeprefix(inner): tensor
                for name, tensor in weights.items()
            }
        result: Any = set_peft_model_state_dict(whole, weights)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = one_line(error)
        raise DamagedError(f"The adapter {adapter} does not fit the model: {reason}") from error
    lacking = [name for name in result.missing_keys if "lora_" in name]
    if result.unexpected_keys or lacking:
        odd = [*result.unexpected_keys, *lacking][0]
        raise DamagedError(f"The adapter {adapter} is of another model: {odd} has no counterpart.")
    return whole.merge_and_unload()
