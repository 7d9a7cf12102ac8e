"""The end token that last-token pooling reads.

Repositories of decoder-only embedders say ``add_eos_token`` in ``tokenizer_config.json``, while
the post-processor in ``tokenizer.json`` adds only the start. transformers before 5 followed the
former, from 5 on the latter, and the vector would silently be that of the last word.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.config import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def keep_end_token(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Make a tokenizer close every text with the end token where its configuration says so.

    Args:
        tokenizer: changed in place, if need be.
        folder: where ``tokenizer_config.json`` lies.
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
