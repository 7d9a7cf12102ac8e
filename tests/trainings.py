"""Short trainings of tiny real models, by the libraries' own trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAIRS = [
    ("what makes bones strong", "Vitamin D strengthens bones."),
    ("memory and sleep", "Sleep loss weakens memory."),
    ("blood", "Aspirin thins the blood."),
    ("insects that dance", "Honey bees dance to point at flowers."),
]


def train_sentence_transformer(
    model: Path, output: Path, *, evaluator: Any = None, callbacks: Any = None, **settings: Any
) -> Any:
    """Train for six steps with sentence-transformers' trainer, and return the trainer."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    student = SentenceTransformer(str(model), device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        logging_steps=1,
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        **settings,
    )
    trainer = SentenceTransformerTrainer(
        model=student,
        args=arguments,
        train_dataset=Dataset.from_dict(
            {"anchor": [a for a, _ in PAIRS], "positive": [b for _, b in PAIRS]}
        ),
        loss=MultipleNegativesRankingLoss(student),
        evaluator=evaluator,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


def losses(trainer: Any) -> list[float]:
    """Return the loss of every step, as the trainer logged it."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train_transformer(model: Path, output: Path, *, callbacks: Any = None, **settings: Any) -> Any:
    """Train for six steps with transformers' own Trainer, with dropout, and return the trainer."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoTokenizer,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = Dataset.from_dict(dict(tokenizer([text for pair in PAIRS for text in pair])))
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        logging_steps=1,
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        **settings,
    )
    trainer = Trainer(
        model=BertForMaskedLM.from_pretrained(model),
        args=arguments,
        train_dataset=texts,
        eval_dataset=texts,
        data_collator=DataCollatorForLanguageModeling(tokenizer),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer
