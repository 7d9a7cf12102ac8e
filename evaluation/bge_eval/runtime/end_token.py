"""The end token that last-token pooling reads.

Repositories of decoder-only embedders set ``add_eos_token`` in ``tokenizer_config.json``, but the
post-processor in ``tokenizer.json`` adds the start token only. transformers 4 followed the
former, transformers 5 follows the latter: pooling would silently read the last word instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.config import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ensure_end_token(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Make a tokenizer end every text with the end token if its configuration asks for it.

    Args:
        tokenizer: changed in place if it omits the token.
        folder: the folder of ``tokenizer_config.json``.
    """
    config = read_object(folder / "tokenizer_config.json")
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    eos = tokenizer.eos_token
    if not config.get("add_eos_token") or eos is None or backend is None:
        return
    ids = tokenizer("a")["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id:
        return
    from tokenizers.processors import TemplateProcessing

    starts = bool(ids) and ids[0] == tokenizer.bos_token_id
    start = f"{tokenizer.bos_token} " if starts or config.get("add_bos_token") else ""
    special = [(eos, tokenizer.eos_token_id)]
    if start:
        special.append((tokenizer.bos_token, tokenizer.bos_token_id))
    backend.post_processor = TemplateProcessing(
        single=f"{start}$A {eos}",
        pair=f"{start}$A {eos} {start.replace(' ', ':1 ')}$B:1 {eos}:1",
        special_tokens=special,
    )
