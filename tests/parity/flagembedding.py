"""FlagEmbedding as a live reference, in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np


def assert_close(values: Any, expected: Any, relative: float = 1e-5) -> None:
    """No number differs by more than a fraction of the largest expected one."""
    values, expected = np.asarray(values), np.asarray(expected)
    assert values.shape == expected.shape
    np.testing.assert_allclose(values, expected, rtol=0, atol=relative * np.abs(expected).max())


_CLASSES = {"bert": "BertTokenizer", "xlm-roberta": "XLMRobertaTokenizer"}
"""transformers 4's classes of tokenizers."""


class FlagEmbedding:
    """Asks FlagEmbedding in a process of its environment; see flagembedding_worker.py."""

    def __init__(self, python: Path, copies: Path) -> None:
        self.python = python
        self._copies = copies
        self._log = copies / "log"
        worker = Path(__file__).with_name("flagembedding_worker.py")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), str(worker)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

    def __call__(self, call: str, folder: Path, **arguments: Any) -> Any:
        """Return what a function of the worker gives for a model's folder."""
        return self.ask(call, folder=str(self._readable(folder)), **arguments)

    def ask(self, call: str, **arguments: Any) -> Any:
        """Return what a function of the worker gives."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"call": call, **arguments}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"FlagEmbedding's process ended: {self._log.read_text()[-2000:]}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _readable(self, folder: Path) -> Path:
        """Copy a folder that transformers 5 saved, in the layout that transformers 4 reads."""
        copy = self._copies / f"{len(list(self._copies.iterdir()))}" / folder.name
        shutil.copytree(folder, copy)
        old_layout(copy)
        return copy


def old_layout(folder: Path) -> None:
    """Give a folder that transformers 5 saved the names that transformers 4 reads."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    # There, only a named class puts special tokens around the ids of a pair.
    classifier = config["architectures"][0].endswith("ForSequenceClassification")
    named = _CLASSES.get(config["model_type"]) if classifier else None
    tokenizer["tokenizer_class"] = named or "PreTrainedTokenizerFast"
    if config.get("type_vocab_size", 1) == 1:
        tokenizer["model_input_names"] = ["input_ids", "attention_mask"]
    config["torch_dtype"] = config.pop("dtype", config.get("torch_dtype"))
    if rope := config.pop("rope_parameters", None):
        assert rope["rope_type"] == "default", "transformers 4 names it otherwise"
        config["rope_theta"] = rope["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
