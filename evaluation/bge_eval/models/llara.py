"""LLARA: Llama, asked to sum a text up in eight tokens whose mean vector is the text's.

A query and a passage stand between a quotation mark and a question, as in FlagEmbedding's
``research/LLARA`` (README.md, finetune/data.py, finetune/modeling.py)::

    "query", predict the following passage within eight words: <s9>…<s16>
    "passage", summarize the above passage within eight words: <s1>…<s8>

The maximum length limits the text; the words around it come on top.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bge_eval.encode.checkpoints import InputForm, checkpoint
from bge_eval.encode.copies import copy_notes, known_name
from bge_eval.encode.prompts import Role
from bge_eval.errors import UsageError
from bge_eval.models.form import Form
from bge_eval.models.kinds import Kind, ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.runtime.framed import Frame, FramedEncoder

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

    from bge_eval.runtime.text_encoder import TextEncoder

MAX_LENGTH = 512
"""Longest text in tokens, as in its README."""
_BEFORE = '"'
_QUESTIONS = {
    Role.QUERY: '", predict the following passage within eight words: ',
    Role.DOCUMENT: '", summarize the above passage within eight words: ',
}
_ENDS = {
    Role.QUERY: tuple(f"<s{number}>" for number in range(9, 17)),
    Role.DOCUMENT: tuple(f"<s{number}>" for number in range(1, 9)),
}
_FRAMES = {
    role: Frame(_BEFORE, question + "".join(_ENDS[role]), _ENDS[role])
    for role, question in _QUESTIONS.items()
}


class LlaraModel(EncoderModel):
    """A LLARA checkpoint."""

    def __init__(
        self,
        model_name: str,
        options: ModelOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Find the model and read its settings; see `EncoderModel`."""
        super().__init__(model_name, options, progress=progress)
        if self.overrides.max_length is None:
            self.settings = replace(self.settings, max_length=MAX_LENGTH)
            self._meta = self._meta.model_copy(update={"max_tokens": MAX_LENGTH})

    def introduction(self) -> tuple[str, ...]:
        """Return the settings that decide the score."""
        settings = self.settings
        line = (
            f"{self.files.name} at {self.files.revision[:12]}: mean of the last eight tokens,"
            f" {'normalised' if settings.normalize else 'not normalised'}, {settings.max_length}"
            f" tokens beside LLARA's questions, {settings.similarity}, {settings.dtype}"
        )
        return (line, *copy_notes(self._copy, self.prompts, self.overrides))

    def form(self, task: TaskMetadata, role: Role | None) -> Form:
        """Return what stands around a query or a passage.

        Raises:
            UsageError: the texts of the task are neither.
        """
        if role is None:
            raise UsageError(
                f"LLARA embeds queries and passages, and its authors state no form for the texts of"
                f" {task.name} ({task.type}). Evaluate it on retrieval and reranking tasks."
            )
        return Form(_BEFORE, closing=_FRAMES[role].after)

    def _prompts(self, task: TaskMetadata) -> dict[str, str]:
        roles = [Role(name) if name != "text" else None for name in super()._prompts(task)]
        forms = {str(role): self.form(task, role) for role in roles}
        return {role: f"{form.prompt}{{text}}{form.closing}" for role, form in forms.items()}

    def _inputs(self, texts: list[str], form: Form) -> tuple[list[str], str]:
        return texts, ""

    def _encoder_of(self, form: Form) -> TextEncoder:
        frame = next(frame for frame in _FRAMES.values() if frame.after == form.closing)
        return FramedEncoder(self.encoder, frame, self.files.name)

    def _own_facts(self, form: Form) -> dict[str, str]:
        return {"form": f"{form.prompt}{{text}}{form.closing}, mean of the last eight tokens"}


def is_llara(name: str, options: ModelOptions) -> bool:
    """Return whether a model is a LLARA checkpoint, or a copy that is recognised."""
    known = known_name(name, options.overrides.known_as)
    entry = checkpoint(known) if known is not None else None
    return entry is not None and entry.form is InputForm.LLARA


def _open(name: str, options: ModelOptions, progress: Progress | None) -> LlaraModel:
    return LlaraModel(name, options, progress=progress)


KIND = Kind(
    "LLARA",
    recognises=is_llara,
    open=_open,
    supported=frozenset(
        {
            *("revision", "known_as", "dtype", "max_length", "truncate_dim", "normalize"),
            *("similarity", "index"),
        }
    ),
)
