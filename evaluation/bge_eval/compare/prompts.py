"""The prompt's share of a score: models that were run with several prompts.

Rows of saved results that differ in their prompts only are one model. Its score is the mean over
its prompts; the spread over them says how much of a score is the prompt, and two models are
compared over queries and prompts (`bge_eval.statistics.crossed`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

import numpy as np

from bge_eval.compare.outputs import MAIN, Output, output
from bge_eval.compare.pairs import differing_conditions
from bge_eval.compare.sides import Side, distinguish
from bge_eval.errors import UsageError
from bge_eval.results.saved import SavedResult
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.crossed import OverPrompts, Prompt, PromptValues, compare_over_prompts

PROMPT_SETTINGS = ("query_prompt", "document_prompt", "prompts", "instruction_format")
"""Settings of a saved result by which only its prompts differ."""
LEVEL = 0.05
"""A difference with a smaller corrected p-value outlives the prompts."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """One model with all prompts that it was run with."""

    label: str
    """Its name for people, without prompts."""
    sides: tuple[Side, ...]
    """One for each row of saved results."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The scores of one model on one task, or in the mean over several, by prompt."""

    task: str
    """The task's name, or the title of the mean."""
    model: str
    """The model's label."""
    measure: str
    """The measure's name."""
    scores: Mapping[Prompt, float]
    """Query prompt and document prompt → score, 0 to 1."""
    weights: tuple[float, ...] = ()
    """Weight of each group of values in the score."""
    values: PromptValues | None = None
    """The values by query; None if only the scores are known."""

    @property
    def mean(self) -> float:
        """Return the mean over the prompts."""
        return mean(self.scores.values())

    @property
    def deviation(self) -> float | None:
        """Return the sample standard deviation over the prompts; None for a single one."""
        return stdev(self.scores.values()) if len(self.scores) > 1 else None

    @property
    def best(self) -> Prompt:
        """Return the prompt with the highest score."""
        return max(self.scores, key=lambda prompt: self.scores[prompt])

    @property
    def worst(self) -> Prompt:
        """Return the prompt with the lowest score."""
        return min(self.scores, key=lambda prompt: self.scores[prompt])


@dataclass(frozen=True, slots=True)
class PromptDifference:
    """The difference of two models on one task, or in the mean over several."""

    before: Spread
    """The first model's scores."""
    after: Spread
    """The second model's scores."""
    statistics: OverPrompts | None
    """The comparison over queries and prompts; None if only scores are known."""
    corrected: float | None = None
    """p-value after Holm's correction over the pairs of models."""

    @property
    def outlives(self) -> bool | None:
        """Whether the difference outlives the prompts; None if that cannot be tested."""
        return None if self.corrected is None else self.corrected < LEVEL

    @property
    def sentence(self) -> str:
        """Return the conclusion with its evidence."""
        one, two = self.before, self.after
        difference = two.mean - one.mean
        better, worse = (two, one) if difference >= 0 else (one, two)
        head = f"{two.task}: "
        tested = self.statistics
        if tested is None or tested.interval is None:
            return (
                f"{head}{better.model} scores {abs(difference):.5f} more than {worse.model} in the"
                " mean over prompts; without values by query that is not tested."
            )
        low, high = sorted((tested.interval.low, tested.interval.high))
        low, high = (low, high) if difference >= 0 else (-high, -low)
        alone = tested.over_queries.p_value
        evidence = (
            f"difference {abs(difference):.5f}, 95% interval {low:+.5f} to {high:+.5f} over"
            f" queries and prompts, p = {_p(self.corrected)}"
        )
        if self.outlives:
            return f"{head}{better.model} is better than {worse.model} whatever the prompt:" + (
                f" {evidence}."
            )
        if alone < LEVEL:
            return (
                f"{head}{better.model} is better than {worse.model} with these prompts"
                f" (p = {_p(alone)} over queries alone), but the difference does not outlive the"
                f" prompt: {evidence}."
            )
        return f"{head}{better.model} and {worse.model} cannot be told apart: {evidence}."


@dataclass(frozen=True, slots=True)
class PromptReport:
    """Every model's spread and every pair's difference."""

    spreads: tuple[Spread, ...]
    """By task, then by mean."""
    differences: tuple[PromptDifference, ...]
    """By task, then pair by pair; the model with the higher mean is the first."""
    notes: tuple[str, ...]
    """What was left out, and what counts as fixed."""


def models_of(sides: Sequence[Side]) -> list[Prompted]:
    """Join rows that differ in their prompts only, each to one model.

    Args:
        sides: one for each row; their labels do not matter.
    """
    groups: dict[str, list[Side]] = {}
    for side in sides:
        result = next(iter(side.results.values()))
        settings = {k: v for k, v in result.experiment.items() if k not in PROMPT_SETTINGS}
        key = [result.model, side.revision, settings]
        groups.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(side)
    firsts = [replace(group[0], label=_label(group[0])) for group in groups.values()]
    return [
        Prompted(label, tuple(group))
        for label, group in zip(distinguish(firsts), groups.values(), strict=True)
    ]


def report(
    models: Sequence[Prompted],
    tasks: Sequence[str],
    metric: str = MAIN,
    *,
    seed: int = 0,
) -> PromptReport:
    """Return the spread of every model on every task, and the differences of all pairs.

    Args:
        models: the models.
        tasks: the tasks; of several, their mean is added.
        metric: `MAIN` or a measure's name.
        seed: seed of the randomisation tests over queries.

    Raises:
        UsageError: results of one task have other data, splits, judgements or measures.
    """
    notes: list[str] = []
    outputs = {
        (model.label, task): _outputs(model, task, metric, notes)
        for model in models
        for task in tasks
    }
    for task in tasks:
        _refuse_different(task, [o for m in models for o in outputs[m.label, task].values()])
    spreads = [
        _spread(task, model.label, [of_task])
        for task in tasks
        for model in models
        if (of_task := outputs[model.label, task])
    ]
    if len(tasks) > 1:
        for model in models:
            every = [outputs[model.label, task] for task in tasks]
            if common := [each for each in every[0] if all(each in one for one in every)]:
                every = [{prompt: one[prompt] for prompt in common} for one in every]
                spreads.append(_spread(f"mean of {len(tasks)}", model.label, every))
            else:
                notes.append(f"{model.label} has no prompt with all tasks, so it has no mean.")
    notes += [
        f"{each.task}: {each.model} has one prompt, which counts as fixed."
        for each in spreads
        if len(each.scores) == 1 and any(len(one.scores) > 1 for one in spreads)
    ]
    fusions = [model.label for model in models if model.label.startswith("fusion/")]
    if len(fusions) > 1:
        notes.append(
            f"{', '.join(fusions)}: results of fusions do not tell their parts' prompts, so each"
            " is a model of its own."
        )
    differences = _corrected(_pairs(spreads, seed))
    return PromptReport(tuple(spreads), tuple(differences), tuple(dict.fromkeys(notes)))


def _outputs(model: Prompted, task: str, metric: str, notes: list[str]) -> dict[Prompt, Output]:
    """Return prompt → output of a model on a task; of equal prompts the first row counts."""
    outputs: dict[Prompt, Output] = {}
    for side in model.sides:
        if (result := side.results.get(task)) is None:
            continue
        one = output(side, task, metric)
        if one is None:
            notes.append(f"{result.path} has no {metric} and is left out.")
            continue
        prompt = prompt_of(result)
        if prompt in outputs:
            notes.append(
                f"{task}: {result.path.parent} has the same prompts of {model.label} as another"
                " row, and is left out."
            )
            continue
        outputs[prompt] = one
    return outputs


def prompt_of(result: SavedResult) -> Prompt:
    """Return the query and the document prompt that a result was computed with.

    A result that does not record its prompts, as of a library's own model, has its settings in
    their place.
    """
    recorded = result.identity.model.get("prompts") if result.identity else None
    if isinstance(recorded, Mapping) and recorded:
        text = str(recorded.get("text", ""))
        return str(recorded.get("query", text)), str(recorded.get("document", ""))
    stated = {k: v for k, v in result.experiment.items() if k in PROMPT_SETTINGS}
    document = str(stated.pop("document_prompt", ""))
    return ", ".join(f"{name}={stated[name]}" for name in sorted(stated)), document


def _spread(task: str, model: str, every: Sequence[Mapping[Prompt, Output]]) -> Spread:
    """Return a spread on one task, or over several with the same prompts."""
    prompts = tuple(every[0])
    scores = {prompt: mean(one[prompt].score for one in every) for prompt in prompts}
    measures = list(dict.fromkeys(each.measure for one in every for each in one.values()))
    spread = Spread(task, model, measures[0] if len(measures) == 1 else "main score", scores)
    if not all(each.values for one in every for each in one.values()):
        return spread
    groups, weights = [], []
    for one in every:
        first = one[prompts[0]]
        for part, values in first.values.items():
            rows = [[one[prompt].values[part][query] for query in values] for prompt in prompts]
            groups.append(np.array(rows, np.float64))
            weights.append(first.weights[part] / sum(first.weights.values()) / len(every))
    return replace(spread, weights=tuple(weights), values=PromptValues(prompts, tuple(groups)))


def _refuse_different(task: str, outputs: Sequence[Output]) -> None:
    for other in outputs[1:]:
        if reasons := differing_conditions(outputs[0], other):
            raise UsageError(
                f"The results of {task} cannot be compared: {'; '.join(reasons)}. Name results of"
                " the same data and measure, by folder, --models and --metric."
            )


def _pairs(spreads: Sequence[Spread], seed: int) -> list[PromptDifference]:
    by_task: dict[str, list[Spread]] = {}
    for spread in spreads:
        by_task.setdefault(spread.task, []).append(spread)
    differences = []
    for of_task in by_task.values():
        ranked = sorted(of_task, key=lambda each: -each.mean)
        for place, two in enumerate(ranked):
            for one in ranked[place + 1 :]:
                tested = None
                if one.values is not None and two.values is not None:
                    tested = compare_over_prompts(one.values, two.values, two.weights, seed=seed)
                differences.append(PromptDifference(one, two, tested))
    return differences


def _corrected(differences: Sequence[PromptDifference]) -> list[PromptDifference]:
    """Correct the p-values of each task's pairs by Holm's method."""
    corrected: list[PromptDifference] = []
    for task in dict.fromkeys(each.before.task for each in differences):
        own = [each for each in differences if each.before.task == task]
        tested = [each.statistics.p_value for each in own if each.statistics]
        p_values = iter(holm(tested))
        corrected += [replace(e, corrected=next(p_values)) if e.statistics else e for e in own]
    return corrected


def _label(side: Side) -> str:
    """Return a row's name without its prompts."""
    result = next(iter(side.results.values()))
    settings = {k: v for k, v in result.experiment.items() if k not in PROMPT_SETTINGS}
    reranker = settings.pop("reranker", None)
    depth = settings.pop("rerank_top_k", None)
    shown = ", ".join(f"{name}={settings[name]}" for name in sorted(settings))
    label = f"{result.model} [{shown}]" if shown else result.model
    return f"{label} + {str(reranker).partition('@')[0]} (top {depth})" if reranker else label


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"
