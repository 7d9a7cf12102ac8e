"""Two models compared where the queries and the prompts are both samples.

A difference that is tested over queries alone holds for the prompts that were tried; with others it
may vanish. Where every prompt is run on every query, the variances of the mean over prompts and of
the mean over queries are added, and the difference is divided by the root of their sum: the min F'
of Clark ("The Language-as-Fixed-Effect Fallacy: A Critique of Language Statistics in Psychological
Research", Journal of Verbal Learning and Verbal Behavior 12, 1973), whose degrees of freedom are
those of Satterthwaite ("An Approximate Distribution of Estimates of Variance Components",
Biometrics Bulletin 2, 1946). What prompt and query do together is counted in both, so that the
interval errs on the wide side. Prompts of queries and of documents that are combined are two
samples, whose variances are added likewise.

The variance over queries is that of `bge_eval.statistics.difference`. The interval is never
narrower than the one of that module, and 0 lies outside it exactly where p is below 0.05.

``benchmarks/prompt_coverage.py`` measures the coverage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bge_eval.statistics.difference import query_variance
from bge_eval.statistics.intervals import CONFIDENCE, Interval
from bge_eval.statistics.paired import Comparison, compare_means
from bge_eval.statistics.samples import RESAMPLES, Values

CROSSED_METHOD = (
    "interval and p: queries and prompts both random, min F' (Clark 1973) with Satterthwaite's"
    " degrees of freedom, and no narrower than over queries alone; Holm 1979 over the pairs"
)
"""The method in one line, as it is printed."""

Prompt = tuple[str, str]
"""A query prompt and a document prompt."""


@dataclass(frozen=True, slots=True)
class PromptValues:
    """One model's values under several prompts, on the same queries."""

    prompts: tuple[Prompt, ...]
    """The prompts, each once."""
    groups: tuple[npt.NDArray[np.float64], ...]
    """For each task (or split, or subset) ``(n_prompts, n_queries)`` float64."""

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: a prompt stands twice, or a group has not one row for each.
        """
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise ValueError("every prompt has one row of values")
        if any(group.ndim != 2 or len(group) != len(self.prompts) for group in self.groups):
            raise ValueError("a group of values has one row for each prompt")

    def averaged(self) -> list[Values]:
        """Return the mean over prompts of every query, one ``(n_queries,)`` array per group."""
        return [group.mean(axis=0) for group in self.groups]

    def scores(self, weights: Sequence[float]) -> Values:
        """Return the score under every prompt, ``(n_prompts,)``."""
        parts = zip(self.groups, weights, strict=True)
        return np.asarray(sum(weight * group.mean(axis=1) for group, weight in parts), np.float64)

    def ordered(self, prompts: Sequence[Prompt]) -> PromptValues:
        """Return the same values with the prompts in another order."""
        places: Mapping[Prompt, int] = {prompt: n for n, prompt in enumerate(self.prompts)}
        rows = [places[prompt] for prompt in prompts]
        return PromptValues(tuple(prompts), tuple(group[rows] for group in self.groups))


@dataclass(frozen=True, slots=True)
class OverPrompts:
    """Two models compared over queries and prompts."""

    over_queries: Comparison
    """Their means over these prompts, compared over queries alone."""
    interval: Interval | None
    """Interval of the difference over queries and prompts; None for a single query."""
    p_value: float
    """Two-sided p-value of the hypothesis that the difference is 0 over queries and prompts."""
    freedom: float
    """Degrees of freedom of the interval."""
    prompt_share: float
    """Share of the difference's variance that comes from the prompts, 0 to 1."""
    same_prompts: bool
    """Whether both models have the same prompts, so that each is compared with itself."""

    @property
    def difference(self) -> float:
        """The second model's mean over prompts minus the first's."""
        return self.over_queries.difference


def compare_over_prompts(
    before: PromptValues,
    after: PromptValues,
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> OverPrompts:
    """Compare two models over queries and prompts.

    Models with the same prompts are compared prompt by prompt; otherwise their prompts are two
    samples. The prompt of a model that has a single one counts as fixed.

    Args:
        before: the first model's values.
        after: the second model's values of the same queries.
        weights: weight of each group's mean; they sum to 1 for a mean over tasks.
        seed: seed of the randomisation test over queries.
        resamples: number of its random sign flips.
        confidence: share of samples in which the interval should contain the true difference.

    Raises:
        ValueError: the models have values of different queries.
    """
    from scipy.special import stdtr, stdtrit

    over_queries = compare_means(
        before.averaged(),
        after.averaged(),
        weights,
        seed=seed,
        resamples=resamples,
        confidence=confidence,
    )
    differences = [b - a for a, b in zip(before.averaged(), after.averaged(), strict=True)]
    same = set(before.prompts) == set(after.prompts)
    if same:
        scores = after.ordered(before.prompts).scores(weights) - before.scores(weights)
        components = prompt_variances(before.prompts, scores)
    else:
        components = [
            component
            for side in (before, after)
            for component in prompt_variances(side.prompts, side.scores(weights))
        ]
    if over_queries.interval is None:
        return OverPrompts(over_queries, None, 1.0, 0.0, 0.0, same)
    of_queries = query_variance(differences, weights)
    variance = of_queries[0] + sum(part for part, _ in components)
    spread = sum(part**2 / freedom for part, freedom in (of_queries, *components))
    freedom = variance**2 / spread if spread > 0 else of_queries[1]
    error, difference = variance**0.5, over_queries.difference
    p_value = 2 * float(stdtr(freedom, -abs(difference) / error)) if error > 0 else 1.0
    reach = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    alone = over_queries.interval
    interval = Interval(min(difference - reach, alone.low), max(difference + reach, alone.high))
    share = 1 - of_queries[0] / variance if variance > 0 else 0.0
    p_value = max(p_value, over_queries.p_value)
    return OverPrompts(over_queries, interval, p_value, freedom, share, same)


def prompt_variances(
    prompts: Sequence[Prompt], scores: Sequence[float] | Values
) -> list[tuple[float, float]]:
    """Return the variances of a mean over prompts, each with its degrees of freedom.

    Args:
        prompts: query prompt and document prompt.
        scores: the score, or a difference of scores, under each, ``(n_prompts,)``.

    Returns:
        One pair for the query prompts and one for the document prompts; one for both where each
        prompt of a kind stands with a single one of the other; none for a single prompt.
    """
    values = np.asarray(scores, np.float64)
    influence = (values - values.mean()) / len(values)
    kinds = [[query for query, _ in prompts], [document for _, document in prompts]]
    if _refines(kinds[0], kinds[1]) and len(set(kinds[1])) > 1:
        kinds = kinds[1:]
    elif _refines(kinds[1], kinds[0]) and len(set(kinds[0])) > 1:
        kinds = kinds[:1]
    components = []
    for labels in kinds:
        names = dict.fromkeys(labels)
        if len(names) < 2:
            continue
        sums = [sum(x for x, own in zip(influence, labels, strict=True) if own == name)
                for name in names]  # fmt: skip
        factor = len(names) / (len(names) - 1)
        components.append((factor * float(np.square(sums).sum()), float(len(names) - 1)))
    return components


def _refines(labels: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether each label stands with a single one of the others."""
    return len(set(zip(labels, others, strict=True))) == len(set(labels))
